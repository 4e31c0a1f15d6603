"""The name and the words of everything that can be wrong, and of what has a good reason."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from loadtest.report import details
from loadtest.report.summary import Finding, Timeline

TIMELINES_MAX: Final = 20  # of one finding


class Wording(NamedTuple):
    """The invariant that does not hold, and one sentence in both languages."""

    invariant: str
    zh: str
    en: str


WORDS: Final[Mapping[str, Wording]] = {
    "oversold": Wording("I1", "库存 {total} 件，卖出了 {sold} 件", "{sold} units sold of {total}"),
    "not_quiescent": Wording(
        "I2", "结束后系统没有静下来，还有订单没处理完", "The orders never came to rest"
    ),
    "units_lost": Wording(
        "I2", "{units} 件不见了：既没剩下，也没卖出", "{units} units are neither left nor sold"
    ),
    "units_found": Wording("I2", "凭空多出 {units} 件", "{units} units more than there are"),
    "counters_differ": Wording(
        "I2",
        "库存计数与订单对不上：{what}",
        "A counter of the stock does not fit the orders: {what}",
    ),
    "confirmed_without_order": Wording(
        "I3", "告诉买家下单成功，却没有订单", "Told confirmed, but there is no order"
    ),
    "order_differs": Wording(
        "I3", "订单与抢购的内容不一致：{what}", "The order is not what was claimed: {what}"
    ),
    "held_forgotten": Wording(
        "I3", "告诉买家抢到了，之后没有订单，也没有说法", "Told held, and nothing ever came of it"
    ),
    "never_told": Wording(
        "I3", "订单已生成，却没有通知买家", "The order is stored, but its buyer was never told"
    ),
    "unasked_order": Wording(
        "I4", "有订单，买家却没有抢过", "An order that its buyer never claimed"
    ),
    "foreign_order": Wording(
        "I4", "有订单不属于本次压测的买家", "An order of somebody who is not of this run"
    ),
    "told_others_claim": Wording(
        "I4", "告诉买家一个不是他抢的结果", "A buyer was told of a claim that is not theirs"
    ),
    "over_limit": Wording(
        "I5",
        "有买家买了 {units} 件，超过限购 {limit} 件",
        "{units} units to one buyer, the limit is {limit}",
    ),
    "buyer_miscounted": Wording(
        "I5", "买家的限购计数不对：{what}", "What counts against a buyer's limit is wrong: {what}"
    ),
    "undersold": Wording(
        "I6", "还剩 {left} 件，却告诉买家已抢光", "Buyers were told sold out with {left} units left"
    ),
    "counter_back": Wording(
        "I7", "观众看到的库存倒退回旧值", "A viewer was shown an older stock after a newer one"
    ),
    "stock_rose": Wording(
        "I7",
        "没有退回任何库存，观众看到的剩余却变多了",
        "Stock rose on a screen, though no unit came back",
    ),
    "stock_sum": Wording(
        "I7",
        "观众看到的剩余、占用、售出之和不等于总数",
        "Left, held and sold on a screen are not the total",
    ),
    "stale_at_rest": Wording(
        "I7", "结束后观众看到的库存仍不是最新的", "At rest, viewers were still shown an old stock"
    ),
    "shown_wrong": Wording(
        "I7", "给观众看的库存与实际不符：{what}", "What viewers are shown is not the stock: {what}"
    ),
    "likes_lost": Wording("I8", "少了 {likes} 个赞", "{likes} likes are missing"),
    "likes_made_up": Wording("I8", "多了 {likes} 个赞", "{likes} likes that nobody gave"),
    "silent_gap": Wording(
        "I9", "漏了消息，却没有告诉观众", "Events are missing and the viewer was not told"
    ),
    "unreadable": Wording(
        "I9", "发给观众的消息无法解读", "A viewer was sent bytes that are no message"
    ),
    "seq_hole": Wording(
        "I9", "抢购序号缺了一段：{what}", "Takes are missing in a sale's sequence: {what}"
    ),
    "seq_twice": Wording(
        "I9",
        "同一个序号给了两次抢购：{what}",
        "One place in a sale's sequence was given twice: {what}",
    ),
    "order_changed": Wording(
        "I10", "同一次抢购，先后告知的订单不同", "One claim was told different orders"
    ),
    "two_answers": Wording(
        "I10", "同一次抢购，得到了互相矛盾的答复", "One claim got answers that contradict"
    ),
    "answer_differs": Wording(
        "I10",
        "再问一次，得到的答复会与订单不同：{what}",
        "Asked again, the answer would not be the order: {what}",
    ),
}

REASONS: Final[Mapping[str, Wording]] = {
    "released_by_incident": Wording(
        "I3", "Redis 丢数据后，按规则释放了占用", "Released by the rules after Redis lost data"
    ),
    "dead_letter": Wording(
        "I3", "进入死信，等待人工处理", "Parked as a dead letter, for people to decide"
    ),
    "confirmed_late": Wording(
        "I3", "买家离开之后订单才生成", "Stored only after the buyers had left"
    ),
    "buyer_away": Wording(
        "I3",
        "计划内的故障使买家断线，到结束前来不及通知",
        "A planned fault cut its buyer off, too late to be told by the end",
    ),
    "stock_came_back": Wording(
        "I7", "未付款的件数退回，剩余变多", "Stock rose because unpaid units came back"
    ),
    "likes_of_a_lost_process": Wording(
        "I8",
        "网页进程被杀，最后一拍的赞可能丢失",
        "Likes of the last moment of a web process that died",
    ),
    "seq_lost_with_redis": Wording(
        "I9", "Redis 丢数据时丢掉的序号", "Places in the sequence that Redis lost"
    ),
}

Told = Timeline | Callable[[], Timeline]


class Findings:
    """Findings by name: each counted, the first TIMELINES_MAX with their timelines."""

    def __init__(self, words: Mapping[str, Wording] = WORDS) -> None:
        self._words = words
        self._counts: Counter[str] = Counter()
        self._facts: dict[str, Mapping[str, object]] = {}
        self._timelines: dict[str, list[Timeline]] = {}

    def add(self, name: str, timeline: Told, *, count: int = 1, **facts: Any) -> None:
        """One more, or `count`. `timeline` is called only if there is room for it; `facts` fill
        the words, those of the first one."""
        self._counts[name] += count
        self._facts.setdefault(name, facts)
        known = self._timelines.setdefault(name, [])
        if len(known) < TIMELINES_MAX:
            known.append(timeline if isinstance(timeline, Timeline) else timeline())

    def __len__(self) -> int:
        return len(self._counts)

    def made(self) -> list[Finding]:
        """All of them, by invariant."""
        return [self._finding(name) for name in self._words if name in self._counts]

    def _finding(self, name: str) -> Finding:
        words, facts = self._words[name], self._facts[name]
        return Finding(
            invariant=words.invariant,
            name=name,
            zh=words.zh.format(**{name: details.zh(str(fact)) for name, fact in facts.items()}),
            en=words.en.format(**facts),
            count=self._counts[name],
            claims=self._timelines[name],
        )
