"""The words of the report, each in Chinese and English."""

from collections.abc import Callable
from typing import NamedTuple

from loadtest.report import thresholds, verdict
from loadtest.report.summary import Check, Mark, Summary


class Text(NamedTuple):
    """One text in both languages."""

    zh: str
    en: str


MEASURES = {
    "join": Text("进入直播间", "Joining the room"),
    "claim_held": Text("抢购 → 抢到", "Claim → held"),
    "claim_held_service": Text("抢购 → 抢到（从实际发出算）", "Claim → held, since sent"),
    "claim_confirmed": Text("抢购 → 订单落库", "Claim → confirmed"),
    "claim_confirmed_service": Text(
        "抢购 → 订单落库（从实际发出算）", "Claim → confirmed, since sent"
    ),
    "schedule_lag": Text("施压晚点", "Schedule lag"),
    "stale": Text("库存变化送达观众", "Stock change → viewer"),
    "age": Text("观众所见库存的陈旧度", "Age of the stock on screen"),
    "skew": Text("最先与最后看到的观众相差", "First to last viewer"),
    "sold_out_50": Text("50% 观众得知售罄", "Sold out known by 50 %"),
    "sold_out_99": Text("99% 观众得知售罄", "Sold out known by 99 %"),
    "sold_out_100": Text("全部观众得知售罄", "Sold out known by all"),
    "reconnect": Text("断线到重新连上", "Lost → connected again"),
    "bytes_per_viewer_s": Text("每位观众流量", "Traffic per viewer"),
    "chat_delivered": Text("弹幕送达率", "Chat lines delivered"),
    "reply": Text("请求应答", "Reply to a request"),
}
SPECIAL = {
    "errors.share": Text("出错比例", "Errors"),
    "given_up.share": Text("放弃的抢购比例", "Claims given up"),
    "dropped.share": Text("漏发比例", "Acts not sent"),
    "audit.problems": Text("审计发现的问题", "Problems found by the audit"),
    "fair.inversions": Text("插队比例（50 毫秒内）", "Later claim won (within 50 ms)"),
    "fair.bot_bias": Text("对机器人的偏袒", "Bias towards bots"),
    "fair.rank": Text("先到先得的程度", "First come, first served"),
}
STATS = {
    "p50_ms": Text("一半", "median"),
    "p90_ms": Text("90%", "p90"),
    "p99_ms": Text("99%", "p99"),
    "p999_ms": Text("99.9%", "p99.9"),
    "max_ms": Text("最慢", "slowest"),
    "mean_ms": Text("平均", "mean"),
}
VERDICTS = {
    "pass": Text("通过", "Pass"),
    "threshold": Text("未达标", "Threshold missed"),
    "audit": Text("账目有误", "Audit failed"),
    "invalid": Text("测试无效", "Invalid run"),
    "interrupted": Text("已中断", "Interrupted"),
}
INVARIANTS = {
    "I1": Text("不超卖：卖出不多于库存", "Never oversold"),
    "I2": Text("件数守恒：剩余 + 占用 + 售出 = 总数", "Units add up: left + held + sold = total"),
    "I3": Text("告诉买家抢到的，都有且只有一张订单", "Every win told to a buyer is one order"),
    "I4": Text("每张订单都有人真的抢过", "Every order was claimed by somebody"),
    "I5": Text("没有人超过限购", "Nobody above the limit per buyer"),
    "I6": Text("不少卖：有人要就卖得完", "Never undersold while people wanted more"),
    "I7": Text("观众看到的库存只按规则变化", "Stock on screens only moves by the rules"),
    "I8": Text("点赞一个不少", "No like is lost"),
    "I9": Text("消息不漏不重", "No message missed in silence"),
    "I10": Text("同一次抢购，答案只有一个", "One claim, one answer"),
}
MARKS = {
    "sale_opens": Text("开抢", "Sale opens"),
    "sold_out": Text("售罄", "Sold out"),
    "drop": Text("断开连接", "Connections cut:"),
    "stop": Text("暂停进程", "Process frozen:"),
    "kill": Text("杀死进程", "Process killed:"),
    "restart": Text("重启进程", "Process restarted:"),
}
PERSONAS = {
    "watcher": Text("观众", "Watchers"),
    "liker": Text("点赞的人", "Likers"),
    "commenter": Text("发弹幕的人", "Commenters"),
    "buyer": Text("买家", "Buyers"),
    "hesitant": Text("犹豫的买家", "Hesitant buyers"),
    "bot": Text("抢购机器人", "Bots"),
    "slow_reader": Text("网速慢的观众", "Slow readers"),
    "flapper": Text("反复掉线的观众", "Flappers"),
}
ARRIVALS = {
    "at_once": Text("同时", "all at once"),
    "poisson": Text("随机到达", "at random"),
    "herd": Text("开抢瞬间一拥而上", "all when the sale opens"),
    "ramp": Text("逐渐加压", "rising"),
    "evenly": Text("均匀到达", "evenly"),
    "trace": Text("按录制的时刻", "as recorded"),
}
SCOPES = {
    "full": Text(
        "核对了三本账：买家端日志、Redis、PostgreSQL。",
        "Three books compared: what clients saw, Redis, PostgreSQL.",
    ),
    "clients": Text(
        "只核对了买家端日志：要查全账，请给出 --redis-url 和 --database-url。",
        "Only what clients saw was checked: for the rest give --redis-url and --database-url.",
    ),
    "none": Text(
        "未审计：请给出 --redis-url 和 --database-url。",
        "Not audited: give --redis-url and --database-url.",
    ),
}


def number(value: float) -> str:
    """A figure people can read: 1,240 · 84 · 3.2 · 0.031 · 0."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}".removesuffix(".0")


def duration(ms: float) -> Text:
    """Milliseconds, from ten seconds on as seconds."""
    if ms >= 10_000:
        return Text(f"{ms / 1000:.1f} 秒", f"{ms / 1000:.1f} s")
    return Text(f"{number(ms)} 毫秒", f"{number(ms)} ms")


def percent(share: float) -> str:
    """A share, small ones with digits enough to tell them from none."""
    return "0 %" if share == 0 else f"{100 * share:.3g} %"


def size(value: float) -> Text:
    """Bytes per second."""
    text = f"{value / 1000:.1f} kB/s" if value >= 1000 else f"{value:.0f} B/s"
    return Text(text, text)


def amount(value: float, unit: str) -> Text:
    """A figure of a measure with its unit (ms, share, bytes/s or anything else)."""
    if unit == "ms":
        return duration(value)
    if unit.startswith("bytes"):
        return size(value)
    return plain(percent(value) if unit == "share" else number(value))


def plain(text: str) -> Text:
    """The same in both languages."""
    return Text(text, text)


def measure(name: str) -> Text:
    """A measure's name."""
    return MEASURES.get(name, Text(name, name))


def check_name(name: str) -> Text:
    """A threshold's name."""
    if name in SPECIAL:
        return SPECIAL[name]
    head, _, stat = name.partition(".")
    told, of = measure(head), STATS.get(stat)
    return Text(f"{told.zh}（{of.zh}）", f"{told.en}, {of.en}") if of else told


def in_unit(check: Check, value: float) -> Text:
    """A value in the unit of the check."""
    if check.name.endswith(("_ms", ".ms")):
        return duration(value)
    share = check.name.endswith(".share") or check.name == "fair.inversions"
    return plain(percent(value) if share else number(value))


def got(check: Check) -> Text:
    """What a check found."""
    if check.got is None:
        return Text("没有测到", "not measured")
    return in_unit(check, check.got)


SIGNS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}


def wanted(check: Check) -> Text:
    """What a check asks for: "< 300 ms"."""
    sign, limit = thresholds.parsed(check.wanted)
    told = in_unit(check, limit)
    return Text(f"{SIGNS[sign]} {told.zh}", f"{SIGNS[sign]} {told.en}")


def mark(of: Mark) -> Text:
    """A mark of the timeline; what follows the first word is told as it is."""
    head, _, rest = of.what.partition(" ")
    told = MARKS.get(head)
    if told is None:
        return Text(of.what, of.what)
    return Text(f"{told.zh} {rest}".strip(), f"{told.en} {rest}".strip())


def of_schedule_lag(s: Summary) -> Text:
    lag, limit = number(s.honesty.schedule_lag.p99), number(verdict.lag_limit_ms(s))
    return Text(
        f"施压端自己晚了：99% 的动作晚点达 {lag} 毫秒，上限 {limit} 毫秒",
        f"the load tester acted late: {lag} ms behind schedule (p99), at most {limit} allowed",
    )


def of_loop_lag(s: Summary) -> Text:
    lag = number(s.honesty.loop_lag.p99)
    return Text(
        f"施压端读消息太慢：事件循环延迟 99% 达 {lag} 毫秒，上限 50 毫秒",
        f"the load tester read late: its loop lagged {lag} ms (p99), at most 50 allowed",
    )


def of_loop_stalled(s: Summary) -> Text:
    lag = number(max(loader.loop_lag_max_ms for loader in s.honesty.loaders))
    return Text(f"施压端卡住过 {lag} 毫秒", f"the load tester stood still for {lag} ms")


def of_loader_busy(s: Summary) -> Text:
    busy = max(s.honesty.loaders, key=lambda loader: loader.busy_seconds / max(1, loader.seconds))
    return Text(
        f"施压进程 {busy.loader} 有 {busy.busy_seconds}/{busy.seconds} 秒占满了一个核",
        f"loader {busy.loader} filled its core in {busy.busy_seconds} of {busy.seconds} seconds",
    )


def of_loader_died(s: Summary) -> Text:
    died = next(loader for loader in s.honesty.loaders if loader.died)
    return Text(
        f"施压进程 {died.loader} 中途退出：{died.died}", f"loader {died.loader} died: {died.died}"
    )


def of_dropped(s: Summary) -> Text:
    acts, lost = number(s.honesty.acts), number(s.honesty.dropped)
    return Text(
        f"计划的 {acts} 次动作有 {lost} 次没能发出",
        f"{lost} of {acts} intended acts were never sent",
    )


def of_witness_lost(s: Summary) -> Text:
    lost = number(s.counts.get("witness_lost", 0))
    return Text(
        f"有 {lost} 次库存变化不知道发布时刻，陈旧度不可信",
        f"{lost} stock changes have no known moment of publishing: staleness cannot be trusted",
    )


def of_not_joined(s: Summary) -> Text:
    joined, people = (number(s.counts.get(name, 0)) for name in ("joined", "people"))
    return Text(
        f"开抢前只有 {joined}/{people} 人进入直播间",
        f"only {joined} of {people} people had joined before the sale",
    )


def of_fault_failed(_: Summary) -> Text:
    return Text(
        "计划的故障没有做成，或出故障的部分没有恢复",
        "a fault of the scenario did not take place, or its part did not come back",
    )


def of_not_measured(_: Summary) -> Text:
    return Text(
        "故障及其余波占满了整个测量时段，无法判断施压端是否跟得上",
        "faults and their aftermath fill the measured part: nobody can tell whether the load "
        "tester kept up",
    )


def of_ended_early(_: Summary) -> Text:
    return Text(
        "提前结束了，测到的部分虽然达标，不能代表整场",
        "it ended early: the part that was measured does not stand for the whole",
    )


REASONS: dict[str, Callable[[Summary], Text]] = {
    "schedule_lag": of_schedule_lag, "loop_lag": of_loop_lag, "loop_stalled": of_loop_stalled,
    "loader_busy": of_loader_busy, "loader_died": of_loader_died, "dropped": of_dropped,
    "witness_lost": of_witness_lost, "not_joined": of_not_joined,
    "fault_failed": of_fault_failed, "not_measured": of_not_measured,
    "ended_early": of_ended_early,
}  # fmt: skip


def reason(name: str, summary: Summary) -> Text:
    """Why a run is invalid; prose is told as it is."""
    told = REASONS.get(name)
    return told(summary) if told else Text(name, name)


def missed(summary: Summary) -> Text:
    """The thresholds that were not kept, the first of them in full."""
    wrong = [check for check in summary.checks if not check.ok]
    name, found, limit = check_name(wrong[0].name), got(wrong[0]), wanted(wrong[0])
    zh = f"{name.zh}：{found.zh}，要求 {limit.zh}"
    en = f"{name.en}: {found.en}, wanted {limit.en}"
    if more := len(wrong) - 1:
        zh, en = f"{zh}；另有 {more} 项未达标", f"{en}; and {more} more"
    return Text(f"{zh}。", f"{en}.")


def found_by_audit(summary: Summary) -> Text:
    """The gravest finding (I1 comes first), and how many more there are."""
    order = list(INVARIANTS)
    findings = sorted(
        summary.audit.findings,
        key=lambda found: order.index(found.invariant) if found.invariant in order else len(order),
    )
    if not findings:
        return Text("审计没能完成。", "The audit could not finish.")
    first, more = findings[0], len(findings) - 1
    zh, en = f"{first.zh}（{first.count} 处）", f"{first.en} ({first.count}×)"
    if more:
        zh, en = f"{zh}；另有 {more} 类问题", f"{en}; other findings: {more}"
    return Text(f"{zh}。", f"{en}.")


def passed(summary: Summary) -> Text:
    """All was well, said with what it was checked on."""
    limits = sum(check.name != "audit.problems" for check in summary.checks)
    zh = f"{limits} 项指标全部达标" if limits else "没有设定指标"
    en = f"All {limits} thresholds were met" if limits else "No thresholds were set"
    if summary.audit.scope == "none":
        return Text(f"{zh}；未审计账目。", f"{en}; the books were not audited.")
    orders = number(summary.audit.checked.get("I3", 0))
    if summary.audit.scope == "clients":
        return Text(f"{zh}；只核对了买家端所见。", f"{en}; only what clients saw was checked.")
    return Text(
        f"{zh}；逐笔核对 {orders} 笔抢购，账目无误。",
        f"{en}; {orders} claims were audited one by one and the books are right.",
    )


def why_invalid(summary: Summary) -> Text:
    """The first reason, and what to do."""
    name = summary.honesty.reasons[0]
    told = reason(name, summary)
    zh = f"{told.zh}。数字不可信"
    en = f"{told.en[:1].upper()}{told.en[1:]}. The figures cannot be trusted"
    if name not in verdict.RULES:
        return Text(f"{zh}。", f"{en}.")
    return Text(
        f"{zh}：请换一台机器施压，或调整 --loaders。",
        f"{en}: load from another machine, or change --loaders.",
    )


def sentence(summary: Summary) -> Text:
    """Why the verdict is what it is, in one sentence."""
    match summary.verdict:
        case "pass":
            return passed(summary)
        case "threshold":
            return missed(summary)
        case "audit":
            return found_by_audit(summary)
        case "invalid":
            return why_invalid(summary)
    return Text(
        "测试被提前停止，以下是停止前的结果。",
        "The run was stopped early; this is what was found until then.",
    )
