"""One HTML file per run: no script, no network, two languages, for a browser, a phone, paper."""

from collections.abc import Iterator
from pathlib import Path

from loadtest.report import sections, texts
from loadtest.report.parts import both, card, esc
from loadtest.report.summary import Summary
from loadtest.report.texts import Text

STYLE = Path(__file__).with_name("report.css")
TITLE = Text("压测报告", "Load test report")
SIGNS = {
    "pass": "M5 16l7 7L26 8",
    "threshold": "M16 5v14M16 25v1",
    "audit": "M7 7l18 18M25 7L7 25",
    "invalid": "M10 11a6 6 0 1 1 8 6c-2 1-2 2-2 4M16 26v1",
    "interrupted": "M11 7v18M21 7v18",
}


def title_of(summary: Summary) -> Text:
    """The scenario's title; its name when it has none."""
    title = summary.scenario.get("title") or {}
    return Text(title.get("zh") or summary.name, title.get("en") or summary.name)


def banner(summary: Summary) -> str:
    """The verdict, and why."""
    sign = f'<svg viewBox="0 0 32 32" aria-hidden="true"><path d="{SIGNS[summary.verdict]}" '
    sign += 'fill="none" stroke="#fff" stroke-width="4" stroke-linecap="round"/></svg>'
    told = both(texts.VERDICTS[summary.verdict])
    why = both(texts.sentence(summary))
    return f'<section class="banner {summary.verdict}"><b>{sign}{told}</b><p>{why}</p></section>'


def of_check(summary: Summary, name: str) -> tuple[str, str]:
    """CSS class and small print of a figure with a threshold."""
    for check in summary.checks:
        if check.name == name:
            kind = "ok" if check.ok else "no"
            limit = texts.wanted(check)
            told = both(Text(f"要求 {limit.zh}", f"wanted {limit.en}"))
            return ("" if summary.verdict == "invalid" else kind), told
    return "", ""


def latency_card(summary: Summary, name: str) -> str:
    """The p99 of a measure beside its median or threshold; empty when it was not measured."""
    measure = summary.measures.get(name)
    if measure is None or measure.all.count == 0:
        return ""
    kind, small = of_check(summary, f"{name}.p99_ms")
    median = texts.duration(measure.all.p50)
    small = small or both(Text(f"一半在 {median.zh} 内", f"half within {median.en}"))
    named = texts.check_name(f"{name}.p99_ms")
    return card(named, texts.duration(measure.all.p99), small, kind)


def sold_out_card(summary: Summary) -> str:
    """How long until 99 % of viewers knew."""
    measure = summary.measures.get("sold_out_99")
    if measure is None or measure.all.count == 0:
        return ""
    kind, small = of_check(summary, "sold_out_99.ms")
    return card(texts.measure("sold_out_99"), texts.duration(measure.all.p50), small, kind)


def audit_card(summary: Summary) -> str:
    """The audit in one word."""
    audit, name = summary.audit, Text("账目审计", "Audit")
    on = sum(held in audit.checked for held in texts.INVARIANTS)
    told = both(Text(f"查了 {on} 项规则", f"{on} rules checked"))
    if audit.scope == "none":
        return card(name, Text("未审计", "not audited"))
    wrong = sum(found.count for found in audit.findings)
    if audit.ok:
        part = Text("买家端一致", "Clients agree")
        full = Text("无误", "Books right")
        return card(name, full if audit.scope == "full" else part, told, "ok")
    return card(name, Text(f"{wrong:,} 处问题", f"{wrong:,} wrong"), told, "no")


def given_up_card(summary: Summary, claims: int) -> str:
    """Claims that were refused for now until their buyers stopped; "" when there are none."""
    given_up = summary.counts.get("given_up", 0)
    if not given_up:
        return ""
    kind, small = of_check(summary, "given_up.share")
    small = small or both(Text(f"{claims:,} 次中 {given_up:,} 次", f"{given_up:,} of {claims:,}"))
    name = texts.check_name("given_up.share")
    return card(name, texts.plain(texts.percent(given_up / claims)), small, kind)


def key_figures(summary: Summary) -> Iterator[str]:
    """What people ask first."""
    counts = summary.counts
    people, joined = counts.get("people", 0), counts.get("joined", 0)
    in_room = both(Text(f"{joined:,} 人进入直播间", f"{joined:,} joined the room"))
    yield card(Text("模拟人数", "Synthetic people"), texts.plain(f"{people:,}"), in_room)
    if claims := counts.get("claims", 0):
        peak = max((p.values.get("claims_intended", 0) for p in summary.series), default=0)
        told = (
            both(Text(f"峰值每秒 {peak:,.0f} 次", f"peak {peak:,.0f} per second")) if peak else ""
        )
        yield card(Text("抢购次数", "Claims"), texts.plain(f"{claims:,}"), told)
        yield given_up_card(summary, claims)
    for name in ("claim_held", "claim_confirmed", "stale"):
        yield latency_card(summary, name)
    yield sold_out_card(summary)
    if acts := counts.get("acts", 0):
        kind, small = of_check(summary, "errors.share")
        wrong = counts.get("errors", 0)
        small = small or both(Text(f"{acts:,} 次中 {wrong:,} 次", f"{wrong:,} of {acts:,}"))
        share = texts.plain(texts.percent(wrong / acts))
        yield card(texts.check_name("errors.share"), share, small, kind)
    yield audit_card(summary)


def head(summary: Summary) -> str:
    """Title, when and against what, and the switch of languages."""
    when = summary.started_at.replace("T", " ").removesuffix("Z")
    where = summary.target.get("host") or summary.target.get("url") or ""
    parts = [summary.name, when, str(where), f"livesale {summary.livesale}", summary.run]
    meta = " · ".join(esc(part) for part in parts if part)
    return (
        f"<header><div><h1>{both(title_of(summary))}</h1>"
        f'<p class="meta">{both(TITLE)} · {meta}</p></div>'
        '<div class="switch"><label for="zh">中文</label><label for="en">English</label></div>'
        "</header>"
    )


def page(summary: Summary, lang: str = "zh") -> str:
    """The report as one HTML document that opens in `lang` (zh or en)."""
    zh, en = ("", " checked") if lang == "en" else (" checked", "")
    title = title_of(summary)
    heading = f"{title.en} · {TITLE.en}" if lang == "en" else f"{title.zh} · {TITLE.zh}"
    return "".join((
        f'<!doctype html><html lang="{"en" if lang == "en" else "zh-CN"}"><head>',
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{esc(heading)}</title><style>{STYLE.read_text('utf-8')}</style></head><body>",
        f'<input class="choice" type="radio" name="lang" id="zh" aria-label="中文"{zh}>',
        f'<input class="choice" type="radio" name="lang" id="en" aria-label="English"{en}>',
        f'<main class="page">{head(summary)}{banner(summary)}',
        f'<dl class="cards">{"".join(key_figures(summary))}</dl>',
        *sections.every(summary),
        f'<footer class="note">{esc(summary.schema)}</footer></main></body></html>\n',
    ))  # fmt: skip
