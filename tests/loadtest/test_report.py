"""The report of a load test, from hand-made summaries (golden/*.json)."""

import json
import random
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.report import charts, html, junit, summary, texts, thresholds
from loadtest.report.charts import Line
from loadtest.report.summary import Check, Mark, Point, Summary
from loadtest.report.texts import Text

GOLDEN = Path(__file__).with_name("golden")
NAMES = ("pass", "threshold", "audit", "invalid", "empty", "rehearsal")
VOID = {"meta", "input"}
LANGS = ("zh", "en")


def golden(name: str) -> Summary:
    return summary.read((GOLDEN / f"{name}.json").read_bytes())


class Page(HTMLParser):
    """Checks that every element is closed in order, and keeps tags, attributes and texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: dict[str, list[str]] = {"zh": [], "en": []}
        self._langs: list[str | None] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
            self._langs.append(dict(attrs).get("lang") if tag == "span" else None)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._langs.pop()

    def handle_data(self, data: str) -> None:
        if self._langs and (lang := self._langs[-1]):
            self.texts[lang].append(data)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lang", LANGS)
def test_page_when_parsed_then_whole_without_script_network_or_size(name: str, lang: str) -> None:
    source = html.page(golden(name), lang)
    page = Page(source)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object", "b>x"} & set(page.tags)
    assert not [key for key, _ in page.attributes if key.startswith("on") or key in ("src", "href")]
    assert "http" not in source
    assert "url(" not in source
    assert "@import" not in source
    assert len(source.encode()) <= 400_000


@pytest.mark.parametrize("name", NAMES)
def test_page_when_shown_then_every_text_is_there_in_both_languages(name: str) -> None:
    page = Page(html.page(golden(name)))
    assert len(page.texts["zh"]) == len(page.texts["en"]) > 5
    assert not [text for text in page.texts["en"] if re.search("[\u4e00-\u9fff]", text)]
    assert all(text.strip() for lang in LANGS for text in page.texts[lang])


def test_page_when_names_are_hostile_then_they_are_texts() -> None:
    source = html.page(golden("audit"))
    page = Page(source)
    assert "&lt;script&gt;alert(&#x27;双十一&#x27;)&lt;/script&gt;" in source
    assert "lt-k3v9x2-b417&lt;script&gt;" in source
    assert "<img" not in source
    assert page.tags.count("title") >= 1


@pytest.mark.parametrize("lang", LANGS)
def test_page_when_opened_in_a_language_then_that_one_is_chosen(lang: str) -> None:
    source = html.page(golden("pass"), lang)
    chosen = re.findall(r'id="(zh|en)" aria-label="\S+" checked', source)
    assert chosen == [lang]


def test_page_when_the_audit_found_something_then_claims_have_their_timeline() -> None:
    source = html.page(golden("audit"))
    assert "oversold" in source
    assert "held: seq 501, 1 unit" in source
    assert "0193a7c2-1f00-7c21-b4c1-00000000002b" in source


def test_page_when_a_run_is_long_then_still_small_and_no_peak_is_lost() -> None:
    run = golden("pass")
    names = sorted({name for point in run.series for name in point.values})
    rng = random.Random(1)
    points = [Point(float(n), {name: rng.random() * 900 for name in names}) for n in range(7_200)]
    points[5_001] = Point(5_001.0, {"stale_p99": 987_654.0})
    source = html.page(msgspec.structs.replace(run, series=points))
    assert len(source.encode()) <= 400_000
    assert "988k" in source


@pytest.mark.parametrize("name", NAMES)
def test_schema_when_a_golden_is_checked_then_it_fits(name: str) -> None:
    schema = json.loads(summary.SCHEMA_FILE.read_text())
    data = json.loads((GOLDEN / f"{name}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(data)


def test_schema_when_a_summary_is_wrong_then_it_does_not_fit() -> None:
    schema = json.loads(summary.SCHEMA_FILE.read_text())
    data = json.loads((GOLDEN / "pass.json").read_text()) | {"verdict": "fine"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema).validate(data)


def test_schema_when_structs_change_then_the_file_is_made_anew() -> None:
    assert summary.SCHEMA_FILE.read_text() == summary.schema()


@pytest.mark.parametrize("name", NAMES)
def test_summary_when_written_then_read_the_same(name: str) -> None:
    assert summary.read(summary.written(golden(name))) == golden(name)


def test_junit_when_read_back_then_counts_and_failures_are_those_of_the_run() -> None:
    suite = ET.fromstring(junit.document(golden("audit"))).find("testsuite")
    assert suite is not None
    cases = suite.findall("testcase")
    assert suite.get("tests") == str(len(cases)) == str(6 + 10 + 1)
    failed = [case.get("name", "") for case in cases if case.find("failure") is not None]
    assert [name.split(" ")[0] for name in failed] == ["audit.problems", "I1", "I3"]
    assert suite.get("failures") == "3"
    text = suite.findtext("testcase[@name='I1 Never oversold']/failure") or ""
    assert "0193a7c2-1f00-7c21-b4c1-0000000001f4" in text


def test_junit_when_the_run_is_invalid_then_thresholds_are_skipped_and_the_reason_is_an_error() -> (
    None
):
    suite = ET.fromstring(junit.document(golden("invalid"))).find("testsuite")
    assert suite is not None
    assert suite.get("errors") == "1"
    assert suite.get("failures") == "0"
    assert suite.get("skipped") == "6"


def test_junit_when_a_name_holds_control_characters_then_still_xml() -> None:
    run = msgspec.structs.replace(golden("pass"), name="a\x00\x1b<b>")
    assert ET.fromstring(junit.document(run)).tag == "testsuites"


@pytest.mark.parametrize(
    ("name", "wanted", "told"),
    [
        ("claim_held.p99_ms", "<300", ""),
        ("claim_hold.p99_ms", "<300", "claim_held.p99_ms"),
        ("stale.p99_ms", "300", "is no threshold"),
        ("errors.share", "<= 0.001", ""),
        ("stale.p98_ms", "<300", "no such threshold"),
    ],
)
def test_threshold_when_written_wrongly_then_says_what_is_meant(
    name: str, wanted: str, told: str
) -> None:
    found = thresholds.problem(name, wanted)
    assert (told in found) if told else found == ""


@pytest.mark.parametrize(
    ("name", "wanted", "ok"),
    [
        ("stale.p99_ms", "<500", True),
        ("stale.p99_ms", "<10", False),
        ("sold_out_99.ms", "<=193", True),
        ("sold_out_99.ms", "<193", False),
        ("errors.share", "==0", True),
        ("given_up.share", "==0", True),
        ("fair.bot_bias", "<1.5", True),
        ("fair.rank", ">0.9", False),
        ("chat_delivered.share", ">0.99", True),
        ("bytes_per_viewer_s.p99", "<100", False),
        ("dropped.share", "<0.01", True),
    ],
)
def test_threshold_when_checked_then_by_its_measure(name: str, wanted: str, ok: bool) -> None:
    first = thresholds.checked({name: wanted}, golden("pass"))[0]
    assert (first.name, first.ok) == (name, ok)
    assert first.got is not None


def test_threshold_when_buyers_gave_up_then_their_share_of_the_claims_counts() -> None:
    run = golden("pass")
    counts = run.counts | {"given_up": run.counts["claims"] // 4}
    given_up = msgspec.structs.replace(run, counts=counts)
    (check, *_) = thresholds.checked({"given_up.share": "<0.2"}, given_up)
    assert (check.got, check.ok) == (0.25, False)
    card = texts.SPECIAL["given_up.share"].en
    assert card in html.page(given_up)
    assert card not in html.page(run)


def test_threshold_when_nothing_was_measured_then_missed() -> None:
    checks = thresholds.checked({"claim_held.p99_ms": "<300"}, golden("empty"))
    assert [(check.got, check.ok) for check in checks] == [(None, False)]


def test_texts_when_a_name_is_in_use_then_it_has_words() -> None:
    assert set(thresholds.LATENCIES) | set(thresholds.OTHERS) == set(texts.MEASURES)
    assert set(thresholds.SHARES) | set(thresholds.IMPLIED) == set(texts.SPECIAL)
    tables = (texts.MEASURES, texts.SPECIAL, texts.VERDICTS, texts.INVARIANTS, texts.MARKS)
    for table in tables:
        for name, told in table.items():
            assert isinstance(told, Text)
            assert told.zh, name
            assert not re.search("[\u4e00-\u9fff]", told.en), name


@pytest.mark.parametrize(
    ("name", "wanted", "zh", "en"),
    [
        ("stale.p99_ms", "<=500", "≤ 500 毫秒", "≤ 500 ms"),
        ("sold_out_99.ms", "<20000", "< 20.0 秒", "< 20.0 s"),
        ("errors.share", "<0.001", "< 0.1 %", "< 0.1 %"),
        ("audit.problems", "==0", "= 0", "= 0"),
        ("fair.bot_bias", "<1.5", "< 1.5", "< 1.5"),
    ],
)
def test_texts_when_a_threshold_is_told_then_in_its_unit(
    name: str, wanted: str, zh: str, en: str
) -> None:
    assert texts.wanted(Check(name, wanted, 0.0, True)) == Text(zh, en)


@given(st.floats(0, 1e9), st.floats(1e-3, 1e9))
def test_ticks_when_made_then_round_few_and_around_the_data(low: float, span: float) -> None:
    ticks = charts.nice(low, low + span)
    step = ticks[1] - ticks[0]
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + 1e-6 * (low + step)
    assert ticks[-1] >= (low + span) - 1e-6 * (low + span + step)


def test_chart_when_marks_are_close_then_their_numbers_share_a_place() -> None:
    marks = [Mark(1.0, "sale_opens"), Mark(1.1, "sold_out"), Mark(20.0, "kill web-1", 2.0)]
    line = Line([(0.0, 1.0), (30.0, 2.0)], "c1")
    drawn = charts.timeline([line], (0.0, 30.0), marks)
    assert re.findall(r'class="number"[^>]*>([^<]+)', drawn) == ["1–2", "3"]
    assert drawn.count('class="band fault"') == 1
    assert drawn.count('class="mark sale"') == 2


def test_chart_when_there_is_nothing_then_no_picture() -> None:
    assert charts.timeline([], (0.0, 10.0), []) == ""
    assert charts.spectrum([Line([], "c1")]) == ""
    assert charts.bars([]) == ""
