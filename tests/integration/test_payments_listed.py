"""Looking at payments when there are many: an index finds them, whatever is asked for."""

import json
import uuid
from typing import Any

import pytest

from server.records import payments
from tests.bookshop import SHOW
from tests.till import Till

MANY = 20_000
FILL = """
INSERT INTO payments (payment_id, order_id, provider, amount, currency, show_id, buyer, status)
SELECT ('0190d7a0-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, $1, 'demo', 100, 'CNY',
       CASE WHEN n % 100 = 0 THEN $2 ELSE 'other' || n % 50 END, 'an', 'failed'
FROM generate_series(1, $3::int) AS n
"""
FILL_EVENTS = """
INSERT INTO payment_events (provider, event_id, kind, external_id, payment_id, amount, currency,
                            occurred_at, payload, handled_at)
SELECT provider, 'evt_' || payment_id, 'failed', '', payment_id, 100, 'CNY', now(), '', now()
FROM payments
"""


async def fill(till: Till, many: int = MANY) -> None:
    """Failed payments of one order, a hundredth of them of SHOW, with an event each."""
    order = await till.order()
    await till.shop.pool.execute(FILL, order, SHOW, many)
    await till.shop.pool.execute(FILL_EVENTS)
    await till.shop.pool.execute("ANALYZE payments, payment_events")


async def nodes(till: Till, name: str, *args: Any) -> list[dict[str, Any]]:
    """The nodes of the plan of a statement with these values."""
    query = f"EXPLAIN (ANALYZE, FORMAT JSON) {payments.SQL[name]}"
    (plan,) = json.loads(await till.shop.pool.fetchval(query, *args))

    def below(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [node, *(deeper for part in node.get("Plans", []) for deeper in below(part))]

    return below(plan["Plan"])


LIST = "list_payments"
ONE = uuid.UUID("0190d7a0-0000-7000-8000-000000000007")


@pytest.mark.parametrize(
    ("name", "args", "rows_most"),
    [
        (LIST, (None, False, False, None, 100), 100),
        (LIST, (SHOW, False, False, None, 100), 100),
        (LIST, (None, True, False, None, 100), 0),
        (LIST, (SHOW, True, True, None, 100), 0),
        (LIST, (SHOW, True, False, None, 100), 0),
        (LIST, (None, False, False, ONE, 1), 1),
        ("events_of_payment", (ONE,), 1),
        ("count_unfinished", (), 0),
    ],
)
async def test_payments_when_there_are_many_then_few_rows_are_read(
    till: Till, name: str, args: tuple[Any, ...], rows_most: int
) -> None:
    await fill(till)
    scans = [node for node in await nodes(till, name, *args) if "Scan" in node["Node Type"]]
    of_tables = [node for node in scans if "Relation Name" in node]
    assert of_tables
    for node in of_tables:
        assert node["Node Type"] != "Seq Scan", node
        read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        assert read * node["Actual Loops"] <= rows_most, node


async def test_payments_when_listed_then_newest_first_and_no_more_than_asked_for(
    till: Till,
) -> None:
    await fill(till, 1_000)
    async with till.shop.pool.acquire() as conn:
        found = await payments.list_payments(conn, show_id=SHOW, limit=3)
        everywhere = await payments.list_payments(conn, limit=2_000)
    assert [row.payment_id.int & 0xFFFF for row in found] == [1_000, 900, 800]
    assert len(everywhere) == 1_000
