"""What the audit says in detail (steps of a claim, values that differ), in Chinese.

The audit writes it once, in English, in the few forms of FORMS; what has none of them (names,
numbers) is told as it is.
"""

import re
from typing import Final

FORMS: Final = tuple((re.compile(pattern), zh) for pattern, zh in (
    # Steps of a claim
    (r"\bintended\b", "想抢"),
    (r"\bsent, room (\d+)", r"发出，进程 web-\1"),
    (r"\bheld: ", "抢到："),
    (r"\bconfirmed: order (\d+)", r"下单成功：订单 \1"),
    (r"\brefused: (\w+), attempt (\d+)", r"被拒：\1，第 \2 次"),
    (r"\bended: let go", "占用被收回"),
    (r"\bclaims: (\w+)", r"记录：\1"),
    (r"\borders (\d+): confirmed", r"订单 \1：已生成"),
    (r"\borders (\d+): (\w+) \((\w+)\)", r"订单 \1：\2（\3）"),
    (r"\breleased: (\w+)", r"已释放：\1"),
    (r"\bdead letter\b", "死信"),
    (r"\broom (\d+)(, (\d+) viewers)?: ", r"进程 web-\1\2："),
    (r", (\d+) viewers(?=：)", r"，\1 位观众"),
    # Values that differ
    (r"\bPostgreSQL counts (\d+), its orders have (-?\d+)", r"PostgreSQL 记 \1 件，订单共 \2 件"),
    (r"\bRedis has no sale (\d+)", r"Redis 里没有秒杀 \1"),
    (r"\bRedis has forgotten the claim", "Redis 忘了这次抢购"),
    (r"\breserved, sold, dead (\(.*?\)) in Redis, not (\(.*?\))",
     r"占用、售出、死信在 Redis 里是 \1，应为 \2"),
    (r"\bprice (\d+) was never that of the sale", r"价格 \1 从来不是这场秒杀的价格"),
    (r"\bof sale (\d+), not (\d+)", r"属于秒杀 \1，应为 \2"),
    (r"\b(\w+) (\S+) in Redis, (\S+) in PostgreSQL", r"\1 在 Redis 里是 \2，在 PostgreSQL 里是 \3"),
    (r"\b(\d+) in (Redis|PostgreSQL)", r"\2 里 \1 件"),
    (r"\b(\d+) ordered, (\d+) forfeited", r"已下单 \1 件，已作废 \2 件"),
    (r"\bsale (\d+): ", r"秒杀 \1："),
    (r"\bsale (\d+)", r"秒杀 \1"),
    (r"\b(\d+) in all, (\d+) reserved, (\d+) sold, (\d+) dead",
     r"总数 \1，占用 \2，售出 \3，死信 \4"),
    (r"\b(-?\d+) left\b", r"剩余 \1 件"),
    (r"\b(\d+) to (\d+) likes", r"\1 至 \2 个赞"),
    (r"\b(\d+) likes", r"\1 个赞"),
    (r"\b(-?\d+) units?\b( in all)?", r"\1 件"),
    (r"\border (\d+)", r"订单 \1"),
    (r"\bseq\b", "序号"),
    (r", not (?=\S)", "，应为 "),
))  # fmt: skip


def zh(detail: str) -> str:
    """A detail in Chinese."""
    for form, told in FORMS:
        detail = form.sub(told, detail)
    return detail
