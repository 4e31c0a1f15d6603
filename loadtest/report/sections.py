"""The sections of the HTML report below its key figures; each is empty when it has nothing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loadtest.report import charts, details, texts, verdict
from loadtest.report.charts import Bar, Line
from loadtest.report.parts import both, esc, figure, pairs, section, table
from loadtest.report.summary import FAULTS, Finding, Measure, Summary, Timeline
from loadtest.report.texts import Text

WHERE = {
    "client": (Text("买家端", "client"), "c1"),
    "redis": (Text("Redis", "Redis"), "c2"),
    "postgres": (Text("PostgreSQL", "PostgreSQL"), "c4"),
}
PERCENTILES = ("p50", "p90", "p99", "p999", "max")


def series(summary: Summary, name: str) -> list[tuple[float, float]]:
    """One value over the seconds it was measured in; none when it was zero in all of them."""
    points = [(p.t_s, p.values[name]) for p in summary.series if name in p.values]
    return points if any(value for _, value in points) else []


def added_up(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The running total of counts per second."""
    total, made = 0.0, []
    for at, value in points:
        total += value
        made.append((at, total))
    return made


def over_time(summary: Summary, name: Text, unit: Text, lines: Sequence[tuple[Line, Text]]) -> str:
    """One chart of the timeline."""
    shown = [(line, text) for line, text in lines if line.points]
    times = [point.t_s for point in summary.series]
    span = (min(times, default=0.0), max(times, default=0.0))
    drawing = charts.timeline([line for line, _ in shown], span, summary.marks)
    return figure(name, unit, shown, drawing)


PER_SECOND, SECONDS = Text("每秒", "per second"), Text("毫秒", "ms")
CORES = (
    ("cpu_loader", "c6", Text("施压端", "load tester")),
    ("cpu_web", "c1", Text("web", "web")),
    ("cpu_worker", "c4", Text("worker", "worker")),
    ("cpu_valkey", "c2", Text("Valkey", "Valkey")),
    ("cpu_postgres", "c3", Text("PostgreSQL", "PostgreSQL")),
)


def marks_list(summary: Summary) -> str:
    """What the numbers on the charts mean."""
    made = []
    for n, mark in enumerate(summary.marks, 1):
        kind = "fault" if mark.what.split(" ")[0] in FAULTS else "sale"
        told = texts.mark(mark)
        lasted = f" · {mark.for_s:g} s" if mark.for_s else ""
        made.append(f'<li class="{kind}"><b>{n}</b>{mark.t_s:.1f} s {both(told)}{lasted}</li>')
    return f'<ol class="marks">{"".join(made)}</ol>' if made else ""


def stock_against_demand(summary: Summary) -> str:
    """Units left, and how many claims had been meant by then."""
    left = Line(series(summary, "left"), "c2", shape="area")
    demand = Line(added_up(series(summary, "claims_intended")), "c1")
    held = Line(added_up(series(summary, "held")), "c4", dashed=True)
    lines = [
        (left, Text("剩余库存", "units left")),
        (demand, Text("累计想抢", "claims so far")),
        (held, Text("累计抢到", "held so far")),
    ]
    return over_time(
        summary,
        Text("库存与需求", "Stock against demand"),
        Text("件 / 次", "units / claims"),
        lines,
    )


def timeline(summary: Summary) -> str:
    """The run second by second, with what happened marked on every chart."""

    def of(name: str, colour: str, **more: Any) -> Line:
        return Line(series(summary, name), colour, **more)

    claims = [
        (of("claims_intended", "c1"), Text("想抢", "intended")),
        (of("held", "c4"), Text("抢到", "held")),
        (of("refused", "c6", dashed=True), Text("没抢到", "refused")),
        (of("given_up", "c3", dashed=True), Text("放弃", "given up")),
        (of("errors", "c2"), Text("出错", "errors")),
    ]
    late = [
        (of("claim_held_p99", "c1"), texts.measure("claim_held")),
        (of("stale_p99", "c3"), texts.measure("stale")),
    ]
    cores = [(of(name, colour), text) for name, colour, text in CORES]
    viewers = [(of("open", "c1", shape="area"), Text("在线", "open"))]
    frames = [(of("frames", "c5"), Text("帧", "frames"))]
    drawn = "".join((
        stock_against_demand(summary),
        over_time(summary, Text("抢购", "Claims"), PER_SECOND, claims),
        over_time(summary, Text("在线观众", "Viewers connected"), Text("人", "people"), viewers),
        over_time(summary, Text("延迟（99%）", "Latency, p99"), SECONDS, late),
        over_time(summary, Text("送达观众的消息", "Frames received"), PER_SECOND, frames),
        over_time(summary, Text("处理器", "CPU"), Text("核", "cores"), cores),
    ))  # fmt: skip
    if not drawn:
        return ""
    lead = Text(
        "横轴是正式测量开始后的秒数。竖线是事件：绿色是开抢与售罄，红色是故意制造的故障。",
        "Seconds since the measured part began. Green lines are the sale, red ones faults made "
        "on purpose.",
    )
    return section(
        Text("全程", "Timeline"), lead, marks_list(summary), f'<div class="charts">{drawn}</div>'
    )


def curve(measure: Measure | None) -> list[tuple[float, float]]:
    """The percentiles of a measure, from its spectrum or else from its few known ones."""
    if measure is None or measure.all.count == 0:
        return []
    if measure.spectrum:
        return measure.spectrum
    stat = measure.all
    return [(0.5, stat.p50), (0.9, stat.p90), (0.99, stat.p99), (0.999, stat.p999)]


def percentiles(summary: Summary, names: Sequence[str]) -> str:
    """A table of the measures that were taken."""
    rows = []
    for name in names:
        measure = summary.measures.get(name)
        if measure is None or measure.all.count == 0:
            continue
        cells = [texts.amount(getattr(measure.all, stat), measure.unit) for stat in PERCENTILES]
        told = [both(cell) for cell in cells]
        told[2] = f'<b class="key">{told[2]}</b>'
        rows.append([both(texts.measure(name)), *told, f"{measure.all.count:,}"])
    head = [both(text) for text in (
        Text("", ""), Text("一半", "p50"), Text("90%", "p90"), Text("99%", "p99"),
        Text("99.9%", "p99.9"), Text("最慢", "max"), Text("次数", "count"),
    )]  # fmt: skip
    return table(head, rows)


def spectra(summary: Summary, name: Text, named: Sequence[tuple[str, str, Text]]) -> str:
    """Curves of percentiles: (measure, colour, what to call it)."""
    lines = [
        (Line(curve(summary.measures.get(key)), colour, dashed="service" in key), text)
        for key, colour, text in named
    ]
    shown = [(line, text) for line, text in lines if line.points]
    drawing = charts.spectrum([line for line, _ in shown])
    unit = Text("毫秒，横轴：百分比", "ms by percentile")
    return figure(name, unit, shown, drawing)


INTENDED = Text("从想抢那一刻算", "since intended")
SENT = Text("从实际发出算", "since sent")


def latency(summary: Summary) -> str:
    """Claims and requests, by both clocks."""
    lead = Text(
        "从用户想点下去的那一刻算起：系统忙不过来时，排队等待也算在内，这才是买家感受到的。"
        "从实际发出算的那条线只作对照，两者差得越多，说明越来不及。",
        "Counted from the moment a person meant to act, so waiting in a busy system counts too: "
        "that is what a buyer feels. The line since sent is for comparison; the further apart "
        "they are, the more was waiting.",
    )
    drawn = "".join((
        spectra(summary, texts.measure("claim_held"),
                [("claim_held", "c1", INTENDED), ("claim_held_service", "c6", SENT)]),
        spectra(summary, texts.measure("claim_confirmed"),
                [("claim_confirmed", "c4", INTENDED), ("claim_confirmed_service", "c6", SENT)]),
    ))  # fmt: skip
    names = (
        "claim_held", "claim_held_service", "claim_confirmed", "claim_confirmed_service",
        "reply", "join", "reconnect",
    )  # fmt: skip
    grid = f'<div class="charts">{drawn}</div>' if drawn else ""
    return section(Text("要等多久", "Latency"), lead, grid, percentiles(summary, names))


def by_room(summary: Summary, name: str) -> str:
    """The p99 of each room (web process), when there are several: a slow one stands out."""
    measure = summary.measures.get(name)
    if measure is None or len(measure.rooms) < 2:
        return ""
    rows = [
        Bar(both(Text(f"进程 web-{n}", f"process web-{n}")), room.p99, texts.duration(room.p99).en)
        for n, room in enumerate(measure.rooms, 1)
    ]
    told = texts.measure(name)
    heading = both(Text(f"{told.zh}（99%），按服务进程", f"{told.en}, p99 by server process"))
    return f"<div><h3>{heading}</h3>{charts.bars(rows)}</div>"


def sold_out(summary: Summary) -> str:
    """How long until half, 99 % and all of the viewers knew."""
    rows = []
    for name in ("sold_out_50", "sold_out_99", "sold_out_100"):
        measure = summary.measures.get(name)
        if measure and measure.all.count:
            value = measure.all.p50
            rows.append(Bar(both(texts.measure(name)), value, texts.duration(value).en, "c2"))
    if not rows:
        return ""
    heading = both(Text("售罄之后多久，观众才知道", "From sold out until viewers knew"))
    return f"<div><h3>{heading}</h3>{charts.bars(rows)}</div>"


def freshness(summary: Summary) -> str:
    """How old what viewers see is."""
    lead = Text(
        "库存变化从发布到出现在观众屏幕上要多久，以及屏幕上的数字平均有多旧。",
        "How long a change of the stock takes to a viewer's screen, and how old the number there "
        "is at any moment.",
    )
    if summary.target.get("staleness") == "first_seen":
        lead = Text(
            "没有给出 Redis 地址：从第一位观众看到算起，而不是从发布算起。",
            "No Redis was given: counted since the first viewer saw a change, not since it was "
            "published.",
        )
    drawn = spectra(summary, Text("新鲜度", "Freshness"), [
        ("stale", "c3", texts.measure("stale")), ("age", "c5", texts.measure("age")),
        ("skew", "c4", texts.measure("skew")),
    ])  # fmt: skip
    side = sold_out(summary) + by_room(summary, "stale")
    grid = f'<div class="charts">{drawn}<div>{side}</div></div>' if drawn or side else ""
    names = ("stale", "age", "skew", "chat_delivered", "bytes_per_viewer_s")
    return section(
        Text("观众看到的有多新", "What viewers see"), lead, grid, percentiles(summary, names)
    )


def bias_told(bias: float | None) -> Text:
    """The bias in words."""
    if bias is None:
        return Text("样本太少，不下结论", "too few pairs to say")
    if bias < 1.5:
        return Text(f"{bias:.2f} 倍：没有偏袒", f"{bias:.2f}×: none")
    return Text(f"{bias:.2f} 倍：机器人更容易插队", f"{bias:.2f}×: bots pass people")


def fairness(summary: Summary) -> str:
    """Who won, beside who was first and how many they are."""
    fair = summary.fairness
    if fair is None:
        return ""
    shares = (
        (Text("占人数", "of the people"), fair.bot_people, "c6"),
        (Text("占抢购次数", "of the claims"), fair.bot_claims, "c1"),
        (Text("占抢到的件数", "of the units won"), fair.bot_wins, "c2"),
    )
    rows = [Bar(both(name), share, texts.percent(share), colour) for name, share, colour in shares]
    bots = ""
    if fair.bot_people:
        bots = f"<div><h3>{both(Text('机器人', 'Bots'))}</h3>{charts.bars(rows)}</div>"
    order = Text("先后与结果的相关（1 为严格先到先得）", "Rank correlation (1: the first won)")
    passed = Text("50 毫秒内后来者先得", "Later claim won, within 50 ms")
    figures = table((), [
        [both(order), texts.number(fair.rank_correlation)],
        [both(passed), f"{texts.percent(fair.inversions)} / {fair.pairs:,}"],
        [both(texts.check_name("fair.bot_bias")), both(bias_told(fair.bot_bias))],
    ])  # fmt: skip
    lead = Text(
        "机器人点得早，自然抢到的多，这本身不算偏袒；只有同样早却更容易成功，才算。",
        "Bots win more because they are early: that is no bias. Winning more when equally early "
        "is.",
    )
    grid = f'<div class="halves"><div>{figures}</div>{bots}</div>'
    return section(Text("公平", "Fairness"), lead, grid)


def steps(timeline: Timeline) -> str:
    """One claim, step by step."""
    made = []
    for at, where, what in timeline.steps:
        name, colour = WHERE.get(where, (texts.plain(where), "c6"))
        place = f'<span class="where {colour}">{both(name)}</span>'
        told = both(Text(details.zh(what), what))
        made.append(f'<tr><td class="when">{at:.3f} s</td><td>{place}</td><td>{told}</td></tr>')
    head = f"<code>{esc(timeline.claim_id)}</code> {esc(timeline.user)}"
    body = f'<table class="steps"><tbody>{"".join(made)}</tbody></table>'
    return f"<details><summary>{head}</summary>{body}</details>"


def finding(found: Finding, kind: str = "") -> str:
    """A finding with its claims; the first is open."""
    claims = [steps(claim) for claim in found.claims]
    if claims:
        claims[0] = claims[0].replace("<details>", "<details open>", 1)
    told = both(Text(found.zh, found.en))
    named = f"{esc(found.invariant)} {esc(found.name)} × {found.count:,}"
    head = f'<b>{told}</b> <span class="note">{named}</span>'
    return f'<div class="finding {kind}">{head}{"".join(claims)}</div>'


def invariant_row(summary: Summary, name: str) -> list[str]:
    """An invariant, on how many it was checked, and whether it held."""
    wrong = sum(f.count for f in summary.audit.findings if f.invariant == name)
    on = summary.audit.checked.get(name)
    if wrong:
        found = Text(f"✗ {wrong:,} 处问题", f"✗ {wrong:,} wrong")
        told = f'<span class="not">{both(found)}</span>'
    elif on is None:
        told = f'<span class="unknown">{both(Text("– 未检查", "– not checked"))}</span>'
    else:
        told = f'<span class="yes">{both(Text("✓ 成立", "✓ holds"))}</span>'
    return [name, both(texts.INVARIANTS[name]), f"{on:,}" if on is not None else "", told]


def audit(summary: Summary) -> str:
    """Every invariant, then what was found, claim by claim."""
    lead = texts.SCOPES[summary.audit.scope]
    if summary.audit.scope == "none":
        return section(Text("账目审计", "Audit"), lead, " ")
    rows = [invariant_row(summary, name) for name in texts.INVARIANTS]
    head = ["", both(Text("必须成立", "What must hold")), both(Text("核对数", "checked")),
            both(Text("结果", "result"))]  # fmt: skip
    found = "".join(finding(one) for one in summary.audit.findings)
    known = "".join(finding(one, "known") for one in summary.audit.explained)
    if known:
        known = f"<h3>{both(Text('有原因的偏差', 'Explained'))}</h3>{known}"
    return section(Text("账目审计", "Audit"), lead, table(head, rows, 2), found, known)


def kept(name: Text, got: str, limit: str, *, ok: bool) -> list[str]:
    """One row about the load tester."""
    told = ("yes", Text("✓ 正常", "✓ fine")) if ok else ("not", Text("✗ 超限", "✗ too much"))
    return [both(name), got, limit, f'<span class="{told[0]}">{both(told[1])}</span>']


def honesty(summary: Summary) -> str:
    """Whether the load tester kept up."""
    own, wrong = summary.honesty, set(summary.honesty.reasons)
    busiest = max((loader.cpu_share for loader in own.loaders), default=0.0)
    stalled = max((loader.loop_lag_max_ms for loader in own.loaders), default=0.0)
    ms = {name: both(texts.duration(value)) for name, value in (
        ("schedule", own.schedule_lag.p99), ("loop", own.loop_lag.p99), ("stalled", stalled),
        ("limit", verdict.lag_limit_ms(summary)), ("loop_limit", verdict.LAG_MS),
        ("stall_limit", verdict.STALL_MS),
    )}  # fmt: skip
    rows = [
        kept(Text("动作晚点（99%）", "Acts behind schedule, p99"), ms["schedule"], ms["limit"],
             ok="schedule_lag" not in wrong),
        kept(Text("读消息的延迟（99%）", "Loop lag, p99"), ms["loop"], ms["loop_limit"],
             ok="loop_lag" not in wrong),
        kept(Text("最长一次卡顿", "Longest stall"), ms["stalled"], ms["stall_limit"],
             ok="loop_stalled" not in wrong),
        kept(Text("没能发出的动作", "Acts never sent"), f"{own.dropped:,} / {own.acts:,}", "1 %",
             ok="dropped" not in wrong),
        kept(Text("最忙的施压进程（平均）", "Busiest loader, mean"), f"{busiest:.2f}",
             both(Text("1 核", "1 core")),
             ok=not wrong & {"loader_busy", "loader_died"}),
    ]  # fmt: skip
    reasons = "".join(f"<li>{both(texts.reason(name, summary))}</li>" for name in own.reasons)
    listed = f'<ul class="reasons">{reasons}</ul>' if reasons else ""
    head = ["", both(Text("测得", "found")), both(Text("上限", "limit")), ""]
    lead = Text(
        "压测工具自己跟不上时，数字就不能信：超过上限，结论一律是“测试无效”，绝不会是“通过”。",
        "A load tester that cannot keep up measures only itself. Beyond these limits the verdict "
        "is INVALID, never PASS.",
    )
    note = Text(
        "到达时刻是施压进程读到消息的时刻：比网卡收到最多晚一个“读消息的延迟”，延迟数字只会偏大。",
        "A message counts as arrived when the loader reads it, at most one loop lag after the "
        "kernel had it: latencies err on the high side.",
    )
    return section(Text("施压端自检", "The load tester itself"), lead, listed, table(head, rows),
                   f'<p class="note">{both(note)}</p>')  # fmt: skip


GAP = Text("消息间隔（99%）", "Gap between ticks, p99")
REPLY = Text("应答（99%）", "Reply, p99")


def live_room(summary: Summary) -> str:
    """What the real show beside a rehearsal felt."""
    room = summary.live_room
    if room is None:
        return ""
    rows = [
        [both(name), both(texts.duration(before)), both(texts.duration(during))]
        for name, before, during in (
            (GAP, room.tick_gap_before, room.tick_gap_during),
            (REPLY, room.reply_before, room.reply_during),
        )
    ]
    lead = Text("彩排时，一位真实直播间的观众感受到的。", "What a viewer of the real show felt.")
    if room.stopped:
        lead = Text("真实直播间受到影响，彩排已自动停止。",
                    "The real show felt it, so the rehearsal stopped itself.")  # fmt: skip
    elif room.blind:
        lead = Text("机器太忙，看不清真实直播间是否受影响，彩排已自动停止。",
                    "The machine was too busy to see whether the real show felt it, so the "
                    "rehearsal stopped itself.")  # fmt: skip
    head = ["", both(Text("之前", "before")), both(Text("期间", "during"))]
    return section(Text("真实直播间", "The real show"), lead, table(head, rows))


def crowd_row(crowd: Mapping[str, Any]) -> list[str]:
    """One group of people of the scenario."""
    persona = texts.PERSONAS.get(str(crowd.get("persona")), texts.plain(str(crowd.get("persona"))))
    acts = crowd.get("acts") or {}
    told = texts.ARRIVALS.get(str(acts.get("kind")), texts.plain("")) if acts else texts.plain("")
    if rate := acts.get("per_s"):
        told = Text(f"{told.zh}，每秒 {rate:g} 次", f"{told.en}, {rate:g} per second")
    return [both(persona), f"{crowd.get('count', 0):,}", both(told)]


def scenario(summary: Summary) -> str:
    """What was asked of which machine, so that somebody else can do it again."""
    asked = summary.scenario
    crowds = [crowd_row(crowd) for crowd in asked.get("crowd") or []]
    head = [
        both(Text("谁", "Who")),
        both(Text("人数", "count")),
        both(Text("做什么", "when they act")),
    ]
    checks = [
        [both(texts.check_name(c.name)), both(texts.wanted(c)), both(texts.got(c)),
         '<span class="yes">✓</span>' if c.ok else '<span class="not">✗</span>']
        for c in summary.checks
    ]  # fmt: skip
    wanted = [both(Text("指标", "Threshold")), both(Text("要求", "wanted")),
              both(Text("实测", "found")), ""]  # fmt: skip
    limits = table(wanted, checks)
    if summary.verdict == "invalid":
        limits = ""
    plain: dict[str, Any] = {
        name: asked.get(name) for name in ("seconds", "warmup_s", "rooms", "seed")
    }
    plain |= {f"sale.{name}": value for name, value in (asked.get("sale") or {}).items()}
    lead = Text("同样的场景、同样的种子，可以原样再测一遍。",
                "The same scenario with the same seed can be run again.")  # fmt: skip
    left = table(head, crowds) + pairs(plain)
    right = pairs({**summary.target, **summary.honesty.machine})
    full = left or limits or right
    grid = f'<div class="halves"><div>{left}</div><div>{limits}{right}</div></div>' if full else ""
    return section(Text("场景与机器", "Scenario and machine"), lead, grid)


def every(summary: Summary) -> Iterator[str]:
    """All sections in their order."""
    for made in (timeline, latency, freshness, fairness, audit, live_room, honesty, scenario):
        yield made(summary)
