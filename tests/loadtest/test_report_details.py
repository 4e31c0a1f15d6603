"""Details of the audit are told in Chinese too, and nothing of them is lost."""

import re

import pytest

from loadtest.report import details


@pytest.mark.parametrize(
    ("en", "zh"),
    [
        ("intended", "想抢"),
        ("sent, room 2", "发出，进程 web-2"),
        ("held: seq 5, 1 unit", "抢到：序号 5, 1 件"),
        ("confirmed: order 17", "下单成功：订单 17"),
        ("refused: sold_out, attempt 3", "被拒：sold_out，第 3 次"),
        ("ended: let go", "占用被收回"),
        ("claims: held, seq 5, order 7", "记录：held, 序号 5, 订单 7"),
        ("orders 7: confirmed, seq 5, 2 units", "订单 7：已生成, 序号 5, 2 件"),
        ("orders 7: paid (paid)", "订单 7：paid（paid）"),
        ("room 1, 40 viewers: sale 7: epoch 1, version 9, 3 left",
         "进程 web-1，40 位观众：秒杀 7：epoch 1, version 9, 剩余 3 件"),
        ("PostgreSQL counts 3, its orders have 4", "PostgreSQL 记 3 件，订单共 4 件"),
        ("reserved, sold, dead (1, 2, 0) in Redis, not (0, 3, 0)",
         "占用、售出、死信在 Redis 里是 (1, 2, 0)，应为 (0, 3, 0)"),
        ("status held in Redis, confirmed in PostgreSQL",
         "status 在 Redis 里是 held，在 PostgreSQL 里是 confirmed"),
        ("lt-r-b1: 3 in PostgreSQL, 2 ordered, 1 forfeited",
         "lt-r-b1: PostgreSQL 里 3 件, 已下单 2 件，已作废 1 件"),
        ("sale 7: seq 3, 4", "秒杀 7：序号 3, 4"),
        ("sale 7: 30 in all, 1 reserved, 2 sold, 3 dead",
         "秒杀 7：总数 30，占用 1，售出 2，死信 3"),
        ("12 to 15 likes", "12 至 15 个赞"),
        ("<b>whatever</b>", "<b>whatever</b>"),
    ],
)  # fmt: skip
def test_detail_when_the_audit_says_it_then_in_chinese_with_all_its_numbers(
    en: str, zh: str
) -> None:
    assert details.zh(en) == zh
    assert sorted(re.findall(r"\d+", zh)) == sorted(re.findall(r"\d+", en))
