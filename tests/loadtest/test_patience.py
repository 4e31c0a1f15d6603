"""`--abort-on-fail`: a run ends early when it is lost, for good or in all likelihood."""

from pathlib import Path

import pytest

from loadtest.outcome import ended_early
from loadtest.patience import PATIENCE_S, Patience
from loadtest.report import texts
from loadtest.report.summary import Phase, Second, read

GOLDEN = Path(__file__).with_name("golden")
WANTED = {"stale.p99_ms": "<100", "errors.share": "<0.01"}
MISSED_S = PATIENCE_S["p99_ms"]
BAD, GOOD, NOTHING = (50.0, 100.0), (50.0, 99.0), None


def seconds(
    *stale: tuple[float, float] | None,
    phase: Phase = "measure",
    thresholds: dict[str, str] = WANTED,
) -> str:
    """What is said after these seconds."""
    patience, said = Patience(thresholds), ""
    for figures in stale:
        quick = {"stale": figures} if figures else {}
        said = patience.lost(Second(phase, 1.0, 0.5, quick=quick))
    return said


@pytest.mark.parametrize(
    ("stale", "lost"),
    [
        ([BAD] * (MISSED_S - 1), False),
        ([BAD] * MISSED_S, True),
        ([BAD, NOTHING, BAD, NOTHING, BAD], True),
        ([BAD, GOOD, *[BAD] * 20], False),  # over all it may still be kept
        ([GOOD, *[BAD] * 20], False),
        ([NOTHING] * 20, False),
    ],
)
def test_patience_when_a_limit_is_missed_in_every_second_then_it_is_lost(
    stale: list[tuple[float, float] | None], lost: bool
) -> None:
    assert seconds(*stale) == ("stale.p99_ms" if lost else "")


def test_patience_when_people_are_still_joining_then_figures_do_not_count() -> None:
    assert seconds(*[BAD] * 20, phase="lead_in") == ""


@pytest.mark.parametrize(
    ("name", "wanted", "after"),
    [
        ("stale.p99_ms", "<50", MISSED_S),
        ("stale.max_ms", "<50", 1),
        ("stale.p50_ms", "<50", None),  # the slowest loader's says nothing of all
        ("stale.mean_ms", "<50", None),
        ("stale.max_ms", ">500", None),  # a second's p99 is not above it, the maximum may be
    ],
)
def test_patience_when_a_stat_is_asked_for_then_as_many_seconds_tell_as_it_needs(
    name: str, wanted: str, after: int | None
) -> None:
    lost = [bool(seconds(*[BAD] * n, thresholds={name: wanted})) for n in range(10)]
    assert lost == [after is not None and n >= after for n in range(10)]


def test_patience_when_a_maximum_is_missed_after_good_seconds_then_it_is_lost_at_once() -> None:
    assert seconds(*[GOOD] * 5, BAD, thresholds={"stale.max_ms": "<100"}) == "stale.max_ms"


def test_patience_when_something_was_told_that_must_not_be_then_it_is_lost_at_once() -> None:
    told = {"frames": 5, "offences.counter_back": 1}
    assert Patience({}).lost(Second("join", 0.0, 0.5, totals=told)) == "offences.counter_back"


def test_run_when_given_up_then_it_never_passes() -> None:
    passed = read((GOLDEN / "pass.json").read_bytes())
    judged = ended_early(passed, {})
    assert (judged.verdict, judged.exit, judged.honesty.reasons) == ("invalid", 12, ["ended_early"])
    said = texts.sentence(judged)
    assert said.zh != said.en
    failed = read((GOLDEN / "threshold.json").read_bytes())
    assert ended_early(failed, {}) is failed
