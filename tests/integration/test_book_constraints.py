"""What PostgreSQL itself refuses, whoever asks: the last guard when programs or people err."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.domain.claim import StockIncident, Take
from server.records import order_life, orders
from server.records.pool import acquire
from tests.bookshop import SHOW, Bookshop, open_bookshop, take

ORDER = (
    "INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version, epoch,"
    " seq) VALUES ($1, $2, $3, $4, 1, 100, 1, 1, $5) RETURNING order_id"
)
PAYMENT = (
    "INSERT INTO payments (payment_id, order_id, provider, amount, currency, show_id, buyer,"
    " status) VALUES (gen_random_uuid(), $1, 'demo', 100, 'CNY', $2, 'ann', $3)"
)
EVENT = (
    "INSERT INTO payment_events (provider, event_id, kind, external_id, amount, currency,"
    " occurred_at, payload) VALUES ('demo', 'e1', 'captured', 'x', 100, 'CNY', now(), '')"
)
GIVE = (
    "INSERT INTO gives (give_id, show_id, pool_id, units, reason)"
    " VALUES ('expired:1', $1, $2, 1, 'expired')"
)
LEDGER = (
    "INSERT INTO stock_ledger (pool_id, reason, units, give_id)"
    " VALUES ($1, 'expired', 1, 'expired:1')"
)
ONE, TWO = "0190d7a0-0000-7000-8000-000000000001", "0190d7a0-0000-7000-8000-000000000002"


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


async def refused_by(shop: Bookshop, sql: str, *args: Any) -> str:
    """The constraint that refuses the statement."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
        await shop.pool.execute(sql, *args)
    return str(refusal.value.constraint_name)


async def test_pool_when_more_is_counted_than_it_has_then_refused(shop: Bookshop) -> None:
    await shop.add_sale(units=10)
    for counter in ("reserved", "sold", "dead", "lowered"):
        await shop.pool.execute(f"UPDATE pools SET {counter} = 10")
        named = await refused_by(shop, f"UPDATE pools SET {counter} = 11")
        assert named == "pools_never_oversold"
        await shop.pool.execute(f"UPDATE pools SET {counter} = 0")


async def test_pool_when_a_counter_falls_below_zero_then_refused(shop: Bookshop) -> None:
    await shop.add_sale(units=10)
    for counter in ("reserved", "sold", "dead", "lowered", "restocked"):
        assert counter in await refused_by(shop, f"UPDATE pools SET {counter} = -1")


async def test_sku_when_sales_have_more_than_its_inventory_then_refused(shop: Bookshop) -> None:
    await shop.add_sale(units=10)
    named = await refused_by(shop, "UPDATE skus SET allotted = inventory + 1")
    assert named == "skus_allotted_within_inventory"


async def test_order_when_the_claim_has_one_already_then_refused(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.pool.execute(ORDER, SHOW, sale, "ann", ONE, 1)
    assert await refused_by(shop, ORDER, SHOW, sale, "ann", ONE, 2) == "orders_one_per_claim"


async def test_order_when_its_place_is_taken_then_refused(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.pool.execute(ORDER, SHOW, sale, "ann", ONE, 1)
    assert await refused_by(shop, ORDER, SHOW, sale, "bob", TWO, 1) == "orders_one_per_seq"


@pytest.mark.parametrize("second", ["captured", "retake_pending"])
async def test_order_when_two_payments_pay_it_then_refused(shop: Bookshop, second: str) -> None:
    sale = await shop.add_sale()
    order = await shop.pool.fetchval(ORDER, SHOW, sale, "ann", ONE, 1)
    await shop.pool.execute(PAYMENT, order, SHOW, "captured")
    await shop.pool.execute(PAYMENT, order, SHOW, "refunded")
    assert await refused_by(shop, PAYMENT, order, SHOW, second) == "payments_one_per_order"


async def test_event_when_the_provider_sends_it_again_then_refused(shop: Bookshop) -> None:
    await shop.pool.execute(EVENT)
    assert await refused_by(shop, EVENT) == "payment_events_pkey"


async def test_give_when_its_id_is_used_again_then_refused(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.pool.execute(GIVE, SHOW, sale)
    assert await refused_by(shop, GIVE, SHOW, sale) == "gives_pkey"
    await shop.pool.execute(LEDGER, sale)
    assert await refused_by(shop, LEDGER, sale) == "stock_ledger_give_id_key"


async def test_buyer_when_more_is_forfeited_than_counted_then_refused(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    named = await refused_by(
        shop, "INSERT INTO pool_buyers (pool_id, buyer, units, forfeited) VALUES ($1, 'ann', 1, 2)",
        sale,
    )  # fmt: skip
    assert "forfeited" in named or "check" in named


# --- What the statements refuse ------------------------------------------------------------------


async def test_take_when_the_show_is_halted_then_nothing_is_stored(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await orders.halt(shop.pool, SHOW, "seen", 1)
    async with acquire(shop.pool) as conn:
        with pytest.raises(StockIncident, match="seen") as refusal:
            await orders.commit_takes(conn, SHOW, 1, [Take(*take(sale, 1, "ann"))])
    assert refusal.value.kind == "halted"
    assert await shop.orders() == []


async def test_expiry_when_the_order_is_not_due_then_it_stays(shop: Bookshop) -> None:
    sale = await shop.add_sale(pay_within_s=900)
    order = await shop.pool.fetchval(ORDER, SHOW, sale, "ann", ONE, 1)
    await shop.pool.execute("UPDATE orders SET pay_by = now() + interval '1 minute'")
    assert await order_life.expire(shop.pool, SHOW, [order]) == 0
    assert [row["status"] for row in await shop.orders()] == ["confirmed"]
