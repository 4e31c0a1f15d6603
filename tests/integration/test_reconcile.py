"""Reconciliation against real servers: whatever Redis forgets, nothing confirmed is lost, nothing
is sold twice, and the audit is clean afterwards."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from server.acts.projector import Projector
from server.audit.audit import audit_show
from server.domain.claim import StockIncident
from server.embedded.valkey import ValkeyServer
from server.errors import RecordsUnavailable, StoreUnavailable
from server.orders import reconcile as reconciliation
from server.orders.reconcile import Report, diagnose, reconcile
from server.orders.recovery import Recovery
from server.protocol.messages import ClaimState
from server.records import order_life, sales
from server.records import rebuild as books
from server.records.transaction import transaction
from server.store import gate, keys
from server.store.evidence import Evidence
from server.store.rebuild import Rebuild, Superseded
from server.store.room import RoomStore
from server.store.types import ACCEPTED, ACCEPTED_BEFORE, ClaimRequest
from tests.bookshop import HUB, SHOW, Bookshop, eventually, open_bookshop, take


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no hubs here that would come back."""
    monkeypatch.setattr(reconciliation, "REBUILD_GRACE_MS", 300)


async def rebuilt(shop: Bookshop) -> Report:
    """The report of a reconciliation, with the audit clean after it."""
    report = await reconcile(SHOW, shop.tools(), "test: asked", "a test")
    shop.epoch = report.epoch
    assert (await diagnose(SHOW, shop.tools())).complaint == ""
    assert [problem.detail for problem in await problems(shop)] == []
    return report


async def problems(shop: Bookshop) -> list[Any]:
    return (await audit_show(shop.clients, shop.pool, SHOW)).problems


async def stored(shop: Bookshop) -> None:
    """Have a worker store what is in the stream."""
    shop.start()
    await shop.settled()
    await shop.stop()


async def available(shop: Bookshop, sale: int) -> int:
    return int(await shop.clients.commands.hget(keys.pool(SHOW, sale), "a") or -1)


async def statuses(shop: Bookshop, *claims: tuple[str, bytes]) -> list[str | None]:
    states = await shop.stock.lookup(SHOW, claims)
    return [state.status if state else None for state in states]


def copy_of(server: ValkeyServer) -> Path:
    """The data as they are on disk now."""
    copy = server.directory.with_name("copy")
    shutil.copytree(server.directory, copy)
    return copy


async def restore(server: ValkeyServer, copy: Path) -> None:
    """End the server as a power cut would, and start it from the copy."""
    server.kill()
    shutil.rmtree(server.directory)
    shutil.copytree(copy, server.directory)
    await server.start()


# --- What was lost ------------------------------------------------------------------------------


async def test_reconcile_when_nothing_was_lost_then_every_claim_has_an_order(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=10, limit=2)
    ann, _ = await shop.claim(sale, "ann", 2)
    await stored(shop)
    bob, _ = await shop.claim(sale, "bob")
    report = await rebuilt(shop)
    assert (report.epoch, report.orders, report.claims, report.released) == (2, 1, 2, 0)
    assert await statuses(shop, ("ann", ann), ("bob", bob)) == ["confirmed", "confirmed"]
    assert await available(shop, sale) == 7
    (again,) = await shop.claim_all([ClaimRequest("bob", bob, sale, 1, 1)])
    assert again.code == ACCEPTED_BEFORE
    _, first = await shop.claim(sale, "cid")
    assert first.state is not None
    assert (first.state.epoch, first.state.seq) == (2, 3)


async def test_reconcile_when_redis_was_flushed_then_only_what_was_confirmed_is_there(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=10, limit=2)
    ann, _ = await shop.claim(sale, "ann", 2)
    await stored(shop)
    bob, _ = await shop.claim(sale, "bob")
    await shop.clients.commands.flushall()
    assert (await diagnose(SHOW, shop.tools())).complaint.startswith("missing")
    await rebuilt(shop)
    assert await statuses(shop, ("ann", ann), ("bob", bob)) == ["confirmed", None]
    assert await available(shop, sale) == 8
    answers = await shop.claim_all(
        [ClaimRequest("ann", uuid.uuid4().bytes, sale, 1, 1), ClaimRequest("bob", bob, sale, 1, 1)]
    )
    assert [answer.code for answer in answers] == [1307, ACCEPTED]
    await stored(shop)
    assert await problems(shop) == []


async def test_reconcile_when_an_older_copy_came_back_then_nothing_is_sold_twice(
    valkey_factory: Any, database_url: str
) -> None:
    server = await valkey_factory(appendonly="yes", appendfsync="always")
    async with open_bookshop(server.url, database_url) as shop:
        sale = await shop.add_sale(units=10)
        await shop.claim_many(sale, ["a1", "a2"])
        copy = copy_of(server)
        await shop.claim_many(sale, ["b1", "b2", "b3"])
        await stored(shop)
        await shop.claim(sale, "lost")
        await restore(server, copy)
        (refused,) = await shop.claim_all([ClaimRequest("x", uuid.uuid4().bytes, sale, 1, 1)])
        assert refused.code == 1403  # stock_rebuilding: it is another process
        assert (await diagnose(SHOW, shop.tools())).complaint.startswith("restarted")
        report = await rebuilt(shop)
        assert (report.holds, report.orders) == (2, 0)  # the copy's stream: all in the books
        assert await available(shop, sale) == 5
        await shop.claim_many(sale, [f"c{i}" for i in range(8)])
        await stored(shop)
        assert len(await shop.orders()) == 10
        assert await problems(shop) == []


async def test_reconcile_when_gives_were_applied_after_the_copy_then_they_count_once(
    valkey_factory: Any, database_url: str
) -> None:
    server = await valkey_factory(appendonly="yes", appendfsync="always")
    async with open_bookshop(server.url, database_url) as shop:
        sale = await shop.add_sale(units=3)
        copy = copy_of(server)
        await restock(shop, sale, 2, applied=True)
        await restock(shop, sale, 1, applied=False)
        await restore(server, copy)
        await rebuilt(shop)
        assert await available(shop, sale) == 6
        gives = await shop.pool.fetch("SELECT give_id FROM gives")
        remembered = await shop.clients.commands.hkeys(keys.applied(SHOW))
        assert {row["give_id"].encode() for row in gives} == set(remembered)


async def restock(shop: Bookshop, sale: int, units: int, *, applied: bool) -> None:
    act = uuid.uuid4()
    async with transaction(shop.pool) as conn:
        await conn.execute(
            "UPDATE skus SET inventory = inventory + $2, allotted = allotted + $2"
            " WHERE sku_id = (SELECT sku_id FROM pools WHERE pool_id = $1)",
            *(sale, units),
        )
        assert await sales.restock(conn, SHOW, sale, units, act)
        if applied:
            await order_life.mark_told(conn, [str(act)], [])


async def test_reconcile_when_pools_have_nothing_in_the_books_then_their_keys_go(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    await shop.clients.commands.hset(keys.state(SHOW), "stock:999", b"\x80")
    await rebuilt(shop)
    snapshot = await RoomStore(shop.scripts).snapshot(SHOW)
    assert snapshot is not None
    assert {name for name in snapshot.state if name.startswith("stock:")} == {f"stock:{sale}"}


# --- What survived ------------------------------------------------------------------------------


async def present(shop: Bookshop, *claims: tuple[str, ClaimState]) -> bool:
    """Hand in claims as soon as a rebuild gathers."""

    async def rebuild_id() -> Any:
        found: list[Any] = await shop.clients.commands.hmget(keys.meta(SHOW), "gate", "rebuild")
        return found[1] if found[0] == b"rebuilding" else None

    rebuild: bytes = await eventually(rebuild_id)
    evidence = Evidence(shop.scripts)
    return await evidence.present(SHOW, rebuild.decode(), list(claims), HUB)


def held(sale: int, seq: int, claim_id: bytes, **changes: Any) -> ClaimState:
    fields = {"quantity": 1, "price": 100, "price_version": 1, "epoch": 1, **changes}
    return ClaimState(
        claim_id=str(uuid.UUID(bytes=claim_id)), status="held", sale=sale, seq=seq, **fields
    )


async def test_reconcile_when_hubs_know_the_holds_then_they_are_kept_in_their_old_order(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=3)
    await shop.claim(sale, "ann")
    await stored(shop)
    ids = [uuid.uuid4().bytes for _ in range(4)]
    await shop.clients.commands.flushall()
    known = [(f"b{seq}", held(sale, seq, ids[seq - 2])) for seq in (5, 3, 2, 4)]
    report, in_time = await asyncio.gather(rebuilt(shop), present(shop, *known))
    assert in_time
    assert (report.hubs, report.holds, report.orders, report.released) == (1, 4, 2, 2)
    assert [order["buyer"] for order in await shop.orders()] == ["ann", "b2", "b3"]
    fates = await statuses(shop, *((f"b{n + 2}", ids[n]) for n in range(4)))
    assert fates == ["confirmed", "confirmed", "released_by_incident", "released_by_incident"]
    assert await available(shop, sale) == 0
    (again,) = await shop.claim_all([ClaimRequest("b5", ids[3], sale, 1, 1)])
    assert again.state is not None
    assert (again.code, again.state.status) == (ACCEPTED_BEFORE, "released_by_incident")


async def test_present_when_the_gate_is_open_then_it_is_too_late(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    report = await rebuilt(shop)
    (rebuild_id,) = cast(Any, await shop.clients.commands.hmget(keys.meta(SHOW), "rebuild"))
    claims = [("ann", held(sale, 1, uuid.uuid4().bytes))]
    evidence = Evidence(shop.scripts)
    assert not await evidence.present(SHOW, rebuild_id.decode(), claims, HUB)
    assert not await shop.clients.commands.exists(keys.evidence(SHOW))
    assert report.orders == 0


async def test_present_when_the_rebuild_has_begun_to_write_then_it_is_too_late(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would wait for the next rebuild, and revive a claim that has ended by then."""
    sale = await shop.add_sale()
    in_time = []
    begin = Rebuild.begin

    async def late(rebuild: Rebuild, *args: Any) -> None:
        await begin(rebuild, *args)
        in_time.append(await present(shop, ("ann", held(sale, 1, uuid.uuid4().bytes))))

    monkeypatch.setattr(Rebuild, "begin", late)
    await rebuilt(shop)
    assert in_time == [False]
    assert (await rebuilt(shop)).holds == 0


async def test_reconcile_when_a_hold_was_lost_before_then_it_pushes_out_none_in_force(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=1)
    await rebuilt(shop)
    ann, bob = uuid.uuid4().bytes, (await shop.claim(sale, "bob"))[0]
    known = ("ann", held(sale, 1, ann, epoch=1)), ("bob", held(sale, 1, bob, epoch=2))
    await shop.clients.commands.flushall()
    await asyncio.gather(rebuilt(shop), present(shop, *known))
    fates = await statuses(shop, ("ann", ann), ("bob", bob))
    assert fates == ["released_by_incident", "confirmed"]


async def test_reconcile_when_an_entry_fits_no_column_then_it_is_parked_and_the_show_opens(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.claim(sale, "ann")
    await shop.put(take(sale, 2**63 + 5, "bob"))
    report = await rebuilt(shop)
    assert (report.orders, report.unreadable) == (1, 1)
    assert (await rebuilt(shop)).unreadable == 0


async def test_reconcile_when_the_host_took_units_then_his_acts_stay_done(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=10)
    acts = [uuid.uuid4() for _ in range(3)]
    for act in acts:
        await shop.pool.execute(
            "INSERT INTO stock_requests (act_id, show_id, sale_id, kind, units, status)"
            " VALUES ($1, $2, $3, 'lower', 2, 'done')",
            *(act, SHOW, sale),
        )
    await shop.stock.take(SHOW, sale, acts[0].bytes, 2, close=False)
    await stored(shop)  # this one is in the books, the next in the stream, the last nowhere
    await shop.stock.take(SHOW, sale, acts[1].bytes, 2, close=False)
    report = await rebuilt(shop)
    assert report.lowered == 2
    assert (await shop.counters(sale))["lowered"] == 6
    for act in acts:
        assert (await shop.stock.take(SHOW, sale, act.bytes, 2, close=False)).before
    assert await available(shop, sale) == 4
    assert (await rebuilt(shop)).lowered == 0


@pytest.mark.parametrize("status", ["closing", "closed"])
async def test_reconcile_when_a_sale_is_over_then_its_units_return_to_the_inventory(
    shop: Bookshop, status: str
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.claim(sale, "ann")
    await stored(shop)
    await shop.pool.execute("UPDATE sales SET status = $1", status)
    await shop.clients.commands.flushall()
    report = await rebuilt(shop)
    assert report.closed == 1
    assert await shop.pool.fetchval("SELECT status FROM sales") == "closed"
    assert await shop.pool.fetchval("SELECT allotted FROM skus") == 1
    assert await available(shop, sale) == 0
    assert (await rebuilt(shop)).closed == 0


async def test_reconcile_when_takes_were_parked_then_they_stay_parked_and_held(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    claim_id = uuid.uuid4().bytes
    await shop.put(
        take(sale, 1, "ann", claim_id=claim_id, price=-1), take(sale, 2, "bob\0", price=-1)
    )
    await shop.put(raw=b"\x05")
    first = await rebuilt(shop)
    second = await rebuilt(shop)
    assert (first.dead, first.unreadable, second.dead, second.unreadable) == (2, 1, 0, 0)
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 3
    assert await statuses(shop, ("ann", claim_id)) == ["held"]
    assert await available(shop, sale) == 8


# --- Crashes and rivals ---------------------------------------------------------------------------

Patch = Callable[[], Any]
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


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step[1]))
async def test_reconcile_when_it_dies_at_any_step_then_the_next_one_completes_it(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str], after: bool
) -> None:
    sale = await shop.add_sale(units=10, limit=2)
    await shop.claim(sale, "ann", 2)
    await stored(shop)
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
    await rebuilt(shop)
    assert sorted(order["buyer"] for order in await shop.orders()) == ["ann", "bob", "cid", "dan"]
    assert await available(shop, sale) == 5


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
        await rebuilt(shop)
        await shop.claim(sale, "cid")
        thaw.set()
        with pytest.raises((Superseded, StockIncident)) as caught:
            await first
    assert (await diagnose(SHOW, shop.tools())).complaint == "", caught.value
    assert await shop.gate() == "open"
    await stored(shop)
    assert sorted(order["buyer"] for order in await shop.orders()) == ["ann", "bob", "cid"]
    assert await available(shop, sale) == 7
    assert await problems(shop) == []


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
    valkey_factory: Any, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server comes back with all that was written, so only its process tells."""
    server = await valkey_factory(appendonly="yes", appendfsync="always")
    async with open_bookshop(server.url, database_url) as shop:
        sale = await shop.add_sale(units=5)
        await shop.claim_many(sale, ["ann", "bob"])
        real = Rebuild.write_pool

        async def restarts(self: Rebuild, *args: Any) -> None:
            server.kill()
            await server.start()
            await shop.clients.commands.connection_pool.disconnect()
            await real(self, *args)

        with monkeypatch.context() as patch:
            patch.setattr(Rebuild, "write_pool", restarts)
            with pytest.raises((Superseded, StoreUnavailable)):
                await reconcile(SHOW, shop.tools(), "test: restarts", "a test")
        await rebuilt(shop)
        assert await available(shop, sale) == 3


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
    assert await problems(shop) == []


async def test_show_when_it_has_no_running_sale_then_it_is_reconciled_too(shop: Bookshop) -> None:
    await shop.add_sale()
    await shop.pool.execute("UPDATE sales SET status = 'closed'")
    await shop.clients.commands.flushall()
    shop.start_discovering()
    await shop.reopened()
