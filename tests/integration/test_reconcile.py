"""Reconciliation against real servers: whatever Redis forgets, nothing confirmed is lost, nothing
is sold twice, and the audit is clean afterwards."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from server.embedded.valkey import ValkeyServer
from server.orders import reconcile as reconciliation
from server.orders.reconcile import diagnose
from server.protocol.messages import ClaimState
from server.records import order_life, sales
from server.records.transaction import transaction
from server.store import keys
from server.store.evidence import Evidence
from server.store.rebuild import Rebuild
from server.store.room import RoomStore
from server.store.types import ACCEPTED, ACCEPTED_BEFORE, ClaimRequest
from tests.bookshop import HUB, SHOW, Bookshop, open_bookshop, take


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no hubs here that would come back."""
    monkeypatch.setattr(reconciliation, "REBUILD_GRACE_MS", 300)


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
    await shop.store_all()
    bob, _ = await shop.claim(sale, "bob")
    report = await shop.rebuilt()
    assert (report.epoch, report.orders, report.claims, report.released) == (2, 1, 2, 0)
    assert await statuses(shop, ("ann", ann), ("bob", bob)) == ["confirmed", "confirmed"]
    assert await shop.available(sale) == 7
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
    await shop.store_all()
    bob, _ = await shop.claim(sale, "bob")
    await shop.clients.commands.flushall()
    assert (await diagnose(SHOW, shop.tools())).complaint.startswith("missing")
    await shop.rebuilt()
    assert await statuses(shop, ("ann", ann), ("bob", bob)) == ["confirmed", None]
    assert await shop.available(sale) == 8
    answers = await shop.claim_all(
        [ClaimRequest("ann", uuid.uuid4().bytes, sale, 1, 1), ClaimRequest("bob", bob, sale, 1, 1)]
    )
    assert [answer.code for answer in answers] == [1307, ACCEPTED]
    await shop.store_all()
    assert (await shop.audit()).problems == []


async def test_reconcile_when_an_older_copy_came_back_then_nothing_is_sold_twice(
    durable_valkey: ValkeyServer, database_url: str
) -> None:
    async with open_bookshop(durable_valkey.url, database_url) as shop:
        sale = await shop.add_sale(units=10)
        await shop.claim_many(sale, ["a1", "a2"])
        copy = copy_of(durable_valkey)
        await shop.claim_many(sale, ["b1", "b2", "b3"])
        await shop.store_all()
        await shop.claim(sale, "lost")
        await restore(durable_valkey, copy)
        (refused,) = await shop.claim_all([ClaimRequest("x", uuid.uuid4().bytes, sale, 1, 1)])
        assert refused.code == 1403  # stock_rebuilding: it is another process
        assert (await diagnose(SHOW, shop.tools())).complaint.startswith("restarted")
        report = await shop.rebuilt()
        assert (report.holds, report.orders) == (2, 0)  # the copy's stream: all in the books
        assert await shop.available(sale) == 5
        await shop.claim_many(sale, [f"c{i}" for i in range(8)])
        await shop.store_all()
        assert len(await shop.orders()) == 10
        assert (await shop.audit()).problems == []


async def test_reconcile_when_gives_were_applied_after_the_copy_then_they_count_once(
    durable_valkey: ValkeyServer, database_url: str
) -> None:
    async with open_bookshop(durable_valkey.url, database_url) as shop:
        sale = await shop.add_sale(units=3)
        copy = copy_of(durable_valkey)
        await restock(shop, sale, 2, applied=True)
        await restock(shop, sale, 1, applied=False)
        await restore(durable_valkey, copy)
        await shop.rebuilt()
        assert await shop.available(sale) == 6
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
    await shop.rebuilt()
    snapshot = await RoomStore(shop.scripts).snapshot(SHOW)
    assert snapshot is not None
    assert {name for name in snapshot.state if name.startswith("stock:")} == {f"stock:{sale}"}


# --- What survived ------------------------------------------------------------------------------


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
    await shop.store_all()
    ids = [uuid.uuid4().bytes for _ in range(4)]
    await shop.clients.commands.flushall()
    known = [(f"b{seq}", held(sale, seq, ids[seq - 2])) for seq in (5, 3, 2, 4)]
    report, in_time = await asyncio.gather(shop.rebuilt(), shop.present(*known))
    assert in_time
    assert (report.hubs, report.holds, report.orders, report.released) == (1, 4, 2, 2)
    assert [order["buyer"] for order in await shop.orders()] == ["ann", "b2", "b3"]
    fates = await statuses(shop, *((f"b{n + 2}", ids[n]) for n in range(4)))
    assert fates == ["confirmed", "confirmed", "released_by_incident", "released_by_incident"]
    assert await shop.available(sale) == 0
    (again,) = await shop.claim_all([ClaimRequest("b5", ids[3], sale, 1, 1)])
    assert again.state is not None
    assert (again.code, again.state.status) == (ACCEPTED_BEFORE, "released_by_incident")


async def test_present_when_the_gate_is_open_then_it_is_too_late(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    report = await shop.rebuilt()
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
        in_time.append(await shop.present(("ann", held(sale, 1, uuid.uuid4().bytes))))

    monkeypatch.setattr(Rebuild, "begin", late)
    await shop.rebuilt()
    assert in_time == [False]
    assert (await shop.rebuilt()).holds == 0


async def test_reconcile_when_a_hold_was_lost_before_then_it_pushes_out_none_in_force(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=1)
    await shop.rebuilt()
    ann, bob = uuid.uuid4().bytes, (await shop.claim(sale, "bob"))[0]
    known = ("ann", held(sale, 1, ann, epoch=1)), ("bob", held(sale, 1, bob, epoch=2))
    await shop.clients.commands.flushall()
    await asyncio.gather(shop.rebuilt(), shop.present(*known))
    fates = await statuses(shop, ("ann", ann), ("bob", bob))
    assert fates == ["released_by_incident", "confirmed"]


async def test_reconcile_when_an_entry_fits_no_column_then_it_is_parked_and_the_show_opens(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.claim(sale, "ann")
    await shop.put(take(sale, 2**63 + 5, "bob"))
    report = await shop.rebuilt()
    assert (report.orders, report.unreadable) == (1, 1)
    assert (await shop.rebuilt()).unreadable == 0


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
    await shop.store_all()  # this one is in the books, the next in the stream, the last nowhere
    await shop.stock.take(SHOW, sale, acts[1].bytes, 2, close=False)
    report = await shop.rebuilt()
    assert report.lowered == 2
    assert (await shop.counters(sale))["lowered"] == 6
    for act in acts:
        assert (await shop.stock.take(SHOW, sale, act.bytes, 2, close=False)).before
    assert await shop.available(sale) == 4
    assert (await shop.rebuilt()).lowered == 0


@pytest.mark.parametrize("status", ["closing", "closed"])
async def test_reconcile_when_a_sale_is_over_then_its_units_return_to_the_inventory(
    shop: Bookshop, status: str
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.claim(sale, "ann")
    await shop.store_all()
    await shop.pool.execute("UPDATE sales SET status = $1", status)
    await shop.clients.commands.flushall()
    report = await shop.rebuilt()
    assert report.closed == 1
    assert await shop.pool.fetchval("SELECT status FROM sales") == "closed"
    assert await shop.pool.fetchval("SELECT allotted FROM skus") == 1
    assert await shop.available(sale) == 0
    assert (await shop.rebuilt()).closed == 0


async def test_reconcile_when_takes_were_parked_then_they_stay_parked_and_held(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    claim_id = uuid.uuid4().bytes
    await shop.put(
        take(sale, 1, "ann", claim_id=claim_id, price=-1), take(sale, 2, "bob\0", price=-1)
    )
    await shop.put(raw=b"\x05")
    first = await shop.rebuilt()
    second = await shop.rebuilt()
    assert (first.dead, first.unreadable, second.dead, second.unreadable) == (2, 1, 0, 0)
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 3
    assert await statuses(shop, ("ann", claim_id)) == ["held"]
    assert await shop.available(sale) == 8
