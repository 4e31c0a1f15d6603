"""The worker cut off at every point of its work, and the servers taken away from under it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.embedded.postgres import PostgresServer
from server.embedded.valkey import ValkeyServer
from server.orders.worker import ShowConsumer
from server.records import orders
from server.store import keys
from server.store.order_stream import OrderStream
from server.store.stock import Stock
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop
from tests.halting import halting_at

pytestmark = pytest.mark.faults


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


async def die_at(shop: Bookshop, owner: Any, name: str, *, after: bool) -> None:
    """A worker works up to this step and dies there."""
    with halting_at(owner, name, after=after) as reached:
        shop.start("w1")
        await asyncio.wait_for(reached.wait(), 10)
        await shop.kill()


POINTS = [
    (OrderStream, "autoclaim"),
    (OrderStream, "read"),
    (orders, "commit_takes"),
    (Stock, "confirm_batch"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), POINTS, ids=[name for _, name in POINTS])
async def test_worker_when_it_dies_at_a_point_then_the_next_one_stores_all_once(
    shop: Bookshop, owner: Any, name: str, after: bool
) -> None:
    sale = await shop.add_sale(units=30)
    await shop.claim_many(sale, [f"a{i}" for i in range(20)])
    await die_at(shop, owner, name, after=after)
    await shop.claim_many(sale, [f"b{i}" for i in range(10)])
    shop.start("w2")
    await shop.assert_all_stored(30)


async def test_worker_when_cut_inside_the_transaction_then_nothing_of_it_stays(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=20)
    await shop.claim_many(sale, [f"a{i}" for i in range(20)])
    await die_at(shop, orders._Batch, "write", after=True)
    assert await shop.orders() == []
    shop.start("w2")
    await shop.assert_all_stored(20)


async def test_worker_when_woken_with_old_entries_then_it_writes_nothing_wrong(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read entries, froze, another worker stored them and more; then it goes on."""
    sale = await shop.add_sale(units=30)
    await shop.claim_many(sale, [f"a{i}" for i in range(10)])
    frozen, thaw = asyncio.Event(), asyncio.Event()
    real = orders.commit_takes

    async def freezing(*args: Any) -> Any:
        if not frozen.is_set():
            frozen.set()
            await thaw.wait()
        return await real(*args)

    monkeypatch.setattr(orders, "commit_takes", freezing)
    shop.start("w1")
    await asyncio.wait_for(frozen.wait(), 10)
    await shop.clients.commands.delete(keys.lease(SHOW))
    shop.start("w2")
    await shop.claim_many(sale, [f"b{i}" for i in range(10)])
    await shop.settled()
    thaw.set()
    await shop.claim_many(sale, [f"c{i}" for i in range(10)])
    await shop.assert_all_stored(30)
    assert await shop.gate() == "open"


async def test_worker_when_another_holds_the_missing_entries_then_it_takes_them_over(
    shop: Bookshop,
) -> None:
    """A worker that woke up without the lease read an entry, then froze again."""
    sale = await shop.add_sale(units=10)
    await shop.claim_many(sale, ["ann", "bob", "cid"], per_call=1)
    stream = shop.stream()
    assert len(await stream.read("woken", 2, 100)) == 2
    entries = await stream.read("w1", 10, 100)
    consumer = ShowConsumer(SHOW, shop.tools("w1"))
    batch, result = await consumer._enter(entries)
    await stream.aclose()
    assert (len(batch.entries), result.stored) == (3, 3)
    shop.start("w2")
    await shop.assert_all_stored(3)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_worker_when_postgres_restarts_then_it_goes_on(
    redis_url: str, postgres_server: PostgresServer, how: str
) -> None:
    async with open_bookshop(redis_url, postgres_server.url()) as shop:
        sale = await shop.add_sale(units=600)
        shop.start()
        await shop.claim_many(sale, [f"a{i}" for i in range(300)])
        if how == "stop":
            await postgres_server.stop()
        else:
            postgres_server.kill()
        await shop.claim_many(sale, [f"b{i}" for i in range(300)])
        await postgres_server.start()
        await eventually(lambda: is_back(shop), 30)
        await shop.assert_all_stored(600)
        assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def is_back(shop: Bookshop) -> bool:
    try:
        return bool(await shop.pool.fetchval("SELECT true"))
    except Exception:
        return False


async def test_worker_when_redis_restarts_then_it_goes_on(
    durable_valkey: ValkeyServer, database_url: str
) -> None:
    async with open_bookshop(durable_valkey.url, database_url) as shop:
        sale = await shop.add_sale(units=60)
        shop.start()
        await shop.claim_many(sale, [f"a{i}" for i in range(30)])
        durable_valkey.kill()
        await durable_valkey.start()
        await shop.reopened()
        await shop.claim_many(sale, [f"b{i}" for i in range(30)])
        await shop.assert_all_stored(60)


async def test_worker_when_the_order_group_is_lost_then_show_is_reconciled(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    shop.start()
    await shop.claim(sale, "ann")
    await shop.settled()
    await shop.clients.commands.xgroup_destroy(keys.orders(SHOW), keys.ORDER_GROUP)
    await shop.reopened()
    await shop.claim(sale, "bob")
    await shop.assert_all_stored(2)
