"""The worker's clock: sales open and close in time, and what crashes left over is finished."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.acts.projector import Projector
from server.acts.timetable import Timetable
from server.orders.closer import Closer
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


@pytest.fixture
def closer(shop: Bookshop) -> Closer:
    redis_clock = RedisClock(shop.clients.commands)
    projector = Projector(shop.pool, shop.stock, RoomStore(shop.scripts))
    return Closer(projector, Timetable(shop.pool, projector, redis_clock), redis_clock)


async def status(shop: Bookshop) -> str:
    found: str = await shop.pool.fetchval("SELECT status FROM sales")
    return found


async def test_round_when_a_window_has_ended_then_the_rest_returns_to_the_sku(
    shop: Bookshop, closer: Closer
) -> None:
    sale = await shop.add_sale(units=10)
    await shop.claim_many(sale, ["ann", "bob"])
    await shop.pool.execute("UPDATE sales SET closes_at_ms = 2")
    await closer.round()
    assert await status(shop) == "closing"
    shop.start()
    await shop.settled()
    assert await status(shop) == "closed"
    assert await shop.pool.fetchval("SELECT allotted FROM skus") == 2


async def test_round_when_repeated_then_nothing_more_happens(
    shop: Bookshop, closer: Closer
) -> None:
    sale = await shop.add_sale(units=10)
    await shop.pool.execute("UPDATE sales SET closes_at_ms = 2")
    for _ in range(3):
        await closer.round()
    shop.start()
    await shop.settled()
    assert (await shop.counters(sale))["lowered"] == 10


async def test_round_when_a_scheduled_time_has_come_then_sale_is_open(
    shop: Bookshop, closer: Closer
) -> None:
    await shop.add_sale()
    await shop.pool.execute("UPDATE sales SET status = 'scheduled', opens_at_ms = 1")
    await closer.round()
    assert await status(shop) == "open"


async def test_round_when_units_were_released_then_they_return_to_redis(
    shop: Bookshop, closer: Closer
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.pool.execute(
        "INSERT INTO gives (give_id, show_id, pool_id, units, reason)"
        " VALUES ('g1', $1, $2, 3, 'restock')",
        *(SHOW, sale),
    )
    await closer.round()
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    assert cut.pools[sale].available == 8


async def test_run_when_told_to_stop_then_it_ends(shop: Bookshop, closer: Closer) -> None:
    stopping = asyncio.Event()
    running = asyncio.create_task(closer.run(stopping))
    await shop.add_sale()
    await shop.pool.execute("UPDATE sales SET closes_at_ms = 2")
    await eventually(lambda: is_closing(shop))
    stopping.set()
    await asyncio.wait_for(running, 5)


async def test_run_when_something_unforeseen_fails_then_it_goes_on(
    shop: Bookshop, closer: Closer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process also stores orders: a fault here must not end it."""
    sweep, faults = Projector.sweep, [ValueError("a fault of ours")]

    async def fails_first(projector: Projector) -> int:
        if faults:
            raise faults.pop()
        return await sweep(projector)

    monkeypatch.setattr(Projector, "sweep", fails_first)
    await shop.add_sale()
    stopping = asyncio.Event()
    running = asyncio.create_task(closer.run(stopping))
    await eventually(lambda: asyncio.sleep(0, not faults))
    await shop.pool.execute("UPDATE sales SET closes_at_ms = 2")
    await eventually(lambda: is_closing(shop))
    stopping.set()
    await running


async def is_closing(shop: Bookshop) -> bool:
    return await status(shop) == "closing"
