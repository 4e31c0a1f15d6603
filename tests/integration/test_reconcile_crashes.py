"""A reconciliation that dies, freezes or has rivals at any step: the next one completes it, and
the stock is sold from once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.acts.projector import Projector
from server.domain.claim import StockIncident
from server.embedded.valkey import ValkeyServer
from server.errors import RecordsUnavailable, StoreUnavailable
from server.orders import reconcile as reconciliation
from server.orders.reconcile import diagnose, reconcile
from server.orders.recovery import Recovery
from server.records import rebuild as books
from server.store import gate
from server.store.rebuild import Rebuild, Superseded
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop

STEPS: list[tuple[Any, str]] = [
    (gate, "close_for_rebuilding"),
    (books, "bump_epoch"),
    (Recovery, "run"),
    (Rebuild, "begin"),
    (Rebuild, "write_claims"),
    (Rebuild, "write_pool"),
    (Projector, "project_show"),
    (books, "finish"),
    (Rebuild, "open"),
]


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no hubs here that would come back."""
    monkeypatch.setattr(reconciliation, "REBUILD_GRACE_MS", 300)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step[1]))
async def test_reconcile_when_it_dies_at_any_step_then_the_next_one_completes_it(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], after: bool
) -> None:
    sale = await shop.add_sale(units=10, limit=2)
    await shop.claim(sale, "ann", 2)
    await shop.store_all()
    await shop.claim_many(sale, ["bob", "cid", "dan"])
    owner, name = step
    real = getattr(owner, name)

    async def dies(*args: Any, **kwargs: Any) -> Any:
        if after:
            await real(*args, **kwargs)
        raise StoreUnavailable("killed")

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        with pytest.raises(StoreUnavailable):
            await reconcile(SHOW, shop.tools(), "test: dies", "a test")
    is_over = name == "open" and after
    closed = (await diagnose(SHOW, shop.tools())).complaint
    assert bool(closed) is not (is_over or (name == "close_for_rebuilding" and not after))
    await shop.rebuilt()
    assert sorted(order["buyer"] for order in await shop.orders()) == ["ann", "bob", "cid", "dan"]
    assert await shop.available(sale) == 5


FREEZES: list[tuple[Any, str]] = [step for step in STEPS if step[1] != "project_show"]


@pytest.mark.parametrize("step", FREEZES, ids=lambda step: str(step[1]))
async def test_reconcile_when_frozen_while_another_finishes_then_it_changes_nothing(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    """Its lock is gone: the server takes it from a process that gives no sign of life."""
    sale = await shop.add_sale(units=10)
    await shop.claim_many(sale, ["ann", "bob"])
    owner, name = step
    real, frozen, thaw = getattr(owner, name), asyncio.Event(), asyncio.Event()

    async def freezes(*args: Any, **kwargs: Any) -> Any:
        if not frozen.is_set():
            frozen.set()
            await thaw.wait()
        return await real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(books, "sole_reconciler", _nobody_is_alone)
        patch.setattr(owner, name, freezes)
        first = asyncio.create_task(reconcile(SHOW, shop.tools("w1"), "test: first", "w1"))
        await frozen.wait()
        await shop.rebuilt()
        await shop.claim(sale, "cid")
        thaw.set()
        with pytest.raises((Superseded, StockIncident)) as caught:
            await first
    assert (await diagnose(SHOW, shop.tools())).complaint == "", caught.value
    assert await shop.gate() == "open"
    await shop.store_all()
    assert sorted(order["buyer"] for order in await shop.orders()) == ["ann", "bob", "cid"]
    assert await shop.available(sale) == 7
    assert (await shop.audit()).problems == []


class _nobody_is_alone:
    def __init__(self, *args: Any) -> None: ...

    async def __aenter__(self) -> bool:
        return True

    async def __aexit__(self, *exc: object) -> None: ...


async def test_reconcile_when_another_has_the_lock_then_busy_and_nothing_is_done(
    shop: Bookshop,
) -> None:
    await shop.add_sale()
    async with books.sole_reconciler(shop.pool, SHOW) as alone:
        assert alone
        report = await reconcile(SHOW, shop.tools(), "test: second", "a test")
    assert (report.outcome, report.epoch) == ("busy", 0)
    assert (await diagnose(SHOW, shop.tools())).complaint == ""


async def test_lock_when_its_holder_gives_no_sign_of_life_then_another_gets_it(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "KEEP_LOCK_S", 3_600)
    monkeypatch.setattr("server.records.pool.IDLE_IN_TRANSACTION_MS", 500)

    async def is_free() -> bool:
        async with books.sole_reconciler(shop.pool, SHOW) as alone:
            return alone

    async def freeze() -> None:
        async with books.sole_reconciler(shop.pool, SHOW) as alone:
            assert alone
            assert not await is_free()
            assert await eventually(is_free, 20)

    async with open_bookshop(redis_url, database_url) as shop:
        with pytest.raises(RecordsUnavailable):
            await freeze()


async def test_reconcile_when_redis_dies_during_it_then_it_is_begun_again(
    durable_valkey: ValkeyServer, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server comes back with all that was written, so only its process tells."""
    async with open_bookshop(durable_valkey.url, database_url) as shop:
        sale = await shop.add_sale(units=5)
        await shop.claim_many(sale, ["ann", "bob"])
        real = Rebuild.write_pool

        async def restarts(self: Rebuild, *args: Any) -> None:
            durable_valkey.kill()
            await durable_valkey.start()
            await shop.clients.commands.connection_pool.disconnect()
            await real(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Rebuild, "write_pool", restarts)
            with pytest.raises((Superseded, StoreUnavailable)):
                await reconcile(SHOW, shop.tools(), "test: restarts", "a test")
        await shop.rebuilt()
        assert await shop.available(sale) == 3


async def test_worker_when_redis_is_flushed_while_selling_then_it_sells_on(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=30)
    shop.start_discovering()
    await shop.claim_many(sale, [f"a{i}" for i in range(5)])
    await shop.settled()
    await shop.clients.commands.flushall()
    await shop.reopened()
    await shop.claim_many(sale, [f"b{i}" for i in range(5)])
    await shop.settled()
    assert len(await shop.orders()) == 10
    assert (await shop.audit()).problems == []


async def test_show_when_it_has_no_running_sale_then_it_is_reconciled_too(shop: Bookshop) -> None:
    await shop.add_sale()
    await shop.pool.execute("UPDATE sales SET status = 'closed'")
    await shop.clients.commands.flushall()
    shop.start_discovering()
    await shop.reopened()
