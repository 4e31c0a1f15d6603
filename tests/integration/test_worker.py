"""The order worker on real servers: what it stores, repeats, releases, parks and refuses."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.errors import RecordsUnavailable, StoreUnavailable
from server.orders import batch, worker
from server.orders.worker import ShowConsumer
from server.records import orders
from server.store import keys
from server.store.order_stream import OrderStream
from server.store.types import Confirmation
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop, take


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


async def test_claims_when_worker_runs_then_become_orders_and_confirmed(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=10)
    claim_id, _ = await shop.claim(sale, "ann")
    await shop.claim_many(sale, ["bob", "cid"])
    shop.start()
    await shop.settled()
    orders = await shop.orders()
    assert [(o["buyer"], o["seq"], o["status"]) for o in orders] == [
        ("ann", 1, "confirmed"), ("bob", 2, "confirmed"), ("cid", 3, "confirmed"),
    ]  # fmt: skip
    (state,) = await shop.stock.lookup(SHOW, [("ann", claim_id)])
    assert state is not None
    assert (state.status, state.order_id) == ("confirmed", orders[0]["order_id"])
    counters = await shop.counters(sale)
    assert (counters["sold"], counters["reserved"], counters["taken_seq"]) == (3, 0, 3)
    cut = await shop.stock.audit_cut(SHOW, [sale])
    assert cut is not None
    assert (cut.pools[sale].available, cut.pools[sale].sold) == (7, 3)


async def test_claim_when_the_buyers_id_is_unusual_then_it_becomes_an_order(
    shop: Bookshop,
) -> None:
    """Ids are other systems' words: whatever a token may hold, the books must take."""
    sale = await shop.add_sale()
    buyer = "a\u200bb\ue000\U0001fae9"
    await shop.claim(sale, buyer)
    shop.start()
    await shop.settled()
    assert [order["buyer"] for order in await shop.orders()] == [buyer]


async def test_claims_when_sale_has_pay_time_then_units_are_reserved(shop: Bookshop) -> None:
    sale = await shop.add_sale(pay_within_s=900)
    claim_id, _ = await shop.claim(sale, "ann")
    shop.start()
    await shop.settled()
    (order,) = await shop.orders()
    (state,) = await shop.stock.lookup(SHOW, [("ann", claim_id)])
    assert state is not None
    assert state.pay_by == pytest.approx(order["pay_by"].timestamp() * 1000, abs=2)
    assert (order["pay_by"] - order["confirmed_at"]).total_seconds() == 900
    counters = await shop.counters(sale)
    assert (counters["sold"], counters["reserved"]) == (0, 1)


async def test_takes_by_the_host_when_stored_then_units_return_to_the_sku(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=10)
    await shop.claim(sale, "ann")
    await shop.stock.take(SHOW, sale, uuid.uuid4().bytes, 4, close=False)
    await shop.stock.take(SHOW, sale, uuid.uuid4().bytes, None, close=True)
    shop.start()
    await shop.settled()
    counters = await shop.counters(sale)
    assert (counters["lowered"], counters["sold"], counters["taken_seq"]) == (9, 1, 3)
    assert await shop.pool.fetchval("SELECT allotted FROM skus") == 1
    assert await shop.pool.fetchval("SELECT status FROM sales") == "closed"
    units = await shop.pool.fetch("SELECT units, closing FROM lowerings ORDER BY seq")
    assert [tuple(row) for row in units] == [(4, False), (5, True)]


async def test_closing_when_nothing_is_left_then_sale_is_closed(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=1)
    await shop.claim(sale, "ann")
    await shop.stock.take(SHOW, sale, uuid.uuid4().bytes, None, close=True)
    shop.start()
    await shop.settled()
    assert await shop.pool.fetchval("SELECT status FROM sales") == "closed"


async def test_entry_when_it_comes_twice_then_one_order(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    same = take(sale, 1, "ann")
    await shop.put(same)
    await shop.put(same)
    shop.start()
    await shop.settled()
    await shop.put(same)
    await shop.settled()
    assert len(await shop.orders()) == 1
    assert (await shop.counters(sale))["sold"] == 1
    assert await shop.gate() == "open"


@pytest.mark.parametrize("change", ["buyer", "quantity", "claim", "price"])
async def test_seq_when_used_again_with_other_content_then_show_halts_and_is_reconciled(
    shop: Bookshop, change: str
) -> None:
    sale = await shop.add_sale(limit=5)
    claim_id = uuid.uuid4().bytes
    other: dict[str, Any] = {
        "buyer": {"claim_id": claim_id},
        "quantity": {"claim_id": claim_id, "quantity": 2},
        "claim": {},
        "price": {"claim_id": claim_id, "price": 99},
    }[change]
    await shop.put(take(sale, 1, "ann", claim_id=claim_id))
    shop.start()
    await shop.settled()
    await shop.put(take(sale, 1, "bob" if change == "buyer" else "ann", **other))
    await eventually(shop.halted)
    await shop.reopened()
    known = change in ("quantity", "price")  # a claim of this buyer that has an order already
    assert [order["seq"] for order in await shop.orders()] == ([1] if known else [1, 2])
    assert await shop.stream_length() == 0


async def test_seq_when_missing_then_show_halts_and_what_is_there_is_kept(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    await shop.put(take(sale, 1, "ann"))
    await shop.put(take(sale, 3, "cid"))
    shop.start(batch_claims=1)
    assert await eventually(shop.halted) == f"gap: pool {sale}: seq 2 is missing"
    await shop.reopened()
    assert [(row["buyer"], row["seq"]) for row in await shop.orders()] == [("ann", 1), ("cid", 2)]
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_claim_when_accepted_again_under_another_seq_then_it_has_one_order(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(limit=5)
    claim_id = uuid.uuid4().bytes
    await shop.put(take(sale, 1, "ann", claim_id=claim_id))
    await shop.put(take(sale, 2, "ann", claim_id=claim_id))
    shop.start()
    assert "orders_one_per_claim" in await eventually(shop.halted)
    await shop.reopened()
    assert len(await shop.orders()) == 1


async def test_seq_when_somebody_planted_an_order_there_then_show_halts(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.pool.execute(
        "INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version,"
        " epoch, seq) VALUES ($1, $2, 'eve', gen_random_uuid(), 1, 100, 1, 1, 1)",
        *(SHOW, sale),
    )
    await shop.claim(sale, "ann")
    shop.start()
    assert "orders_one_per_seq" in await eventually(shop.halted)
    await shop.reopened()
    assert [order["buyer"] for order in await shop.orders()] == ["eve", "ann"]
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_entry_when_of_another_epoch_then_show_is_reconciled(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.put(take(sale, 1, "ann"), epoch=2)
    shop.start()
    assert (await eventually(shop.halted)).startswith("epoch")
    await shop.reopened()
    assert [(order["buyer"], order["epoch"]) for order in await shop.orders()] == [("ann", 2)]


async def lose_entry(shop: Bookshop) -> None:
    """A worker reads the one entry, then somebody deletes it from the stream."""
    stream = shop.stream()
    (entry,) = await stream.read("dead", 10, 100)
    await stream.aclose()
    await shop.clients.commands.xdel(keys.orders(SHOW), entry.entry_id)


async def test_pending_entry_when_deleted_by_force_then_show_halts(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    await lose_entry(shop)
    shop.start()
    assert "lost" in await eventually(shop.halted)
    await shop.reopened()


async def test_halt_when_postgres_is_away_at_that_moment_then_it_is_done_later(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis tells of a lost entry once; nobody may forget it."""
    monkeypatch.setattr(worker, "HALTED_RETRY_MS", 10)
    halt, outages = orders.halt, [RecordsUnavailable("away")]

    async def fails_first(*args: Any) -> None:
        if outages:
            raise outages.pop()
        await halt(*args)

    monkeypatch.setattr(orders, "halt", fails_first)
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    await lose_entry(shop)
    shop.start()
    assert "lost" in await eventually(shop.halted)


async def test_claims_when_redis_has_too_many_units_then_the_rest_is_released(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=3)
    await shop.clients.commands.hset(keys.pool(SHOW, sale), "a", 5)
    await shop.claim_many(sale, ["a", "b", "c", "d"])
    last, _ = await shop.claim(sale, "e")
    shop.start()
    await shop.settled()
    assert [order["buyer"] for order in await shop.orders()] == ["a", "b", "c"]
    (state,) = await shop.stock.lookup(SHOW, [("e", last)])
    assert state is not None
    assert state.status == "released_by_incident"
    rows = await shop.pool.fetch("SELECT buyer, reason FROM incidents ORDER BY seq")
    assert [tuple(row) for row in rows] == [("d", "no_room"), ("e", "no_room")]
    counters = await shop.counters(sale)
    assert (counters["sold"], counters["taken_seq"]) == (3, 5)
    assert await shop.pool.fetchval("SELECT count(*) FROM gives") == 0


async def test_claims_when_redis_forgot_the_buyer_then_the_excess_is_given_back(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5, limit=2)
    await shop.claim(sale, "ann", 2)
    await shop.clients.commands.delete(keys.buyers(SHOW, sale))
    second, _ = await shop.claim(sale, "ann", 1)
    shop.start()
    await shop.settled()
    assert [order["quantity"] for order in await shop.orders()] == [2]
    (give,) = await shop.pool.fetch("SELECT * FROM gives")
    assert (give["units"], give["buyer"], give["claim_id"].bytes) == (1, "ann", second)
    assert give["reason"] == "released_by_incident"
    assert await shop.pool.fetchval("SELECT units FROM pool_buyers") == 2


async def test_lowering_when_redis_has_too_many_units_then_only_what_is_there_is_booked(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=3)
    await shop.clients.commands.hset(keys.pool(SHOW, sale), "a", 5)
    act = uuid.uuid4().bytes
    await shop.stock.take(SHOW, sale, act, 5, close=False)
    shop.start()
    await shop.settled()
    assert (await shop.counters(sale))["lowered"] == 3
    assert await shop.pool.fetchval("SELECT quantity FROM incidents") == 2


async def test_take_when_its_data_is_faulty_then_it_is_parked_others_flow(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    await shop.put(
        take(sale, 1, "ann"), take(sale, 2, "nul\0"), take(sale, 3, "cid", quantity=0),
        take(sale, 4, "dan", price=-1), take(sale, 5, "eve"),
    )  # fmt: skip
    shop.start()
    await shop.settled()
    assert [order["buyer"] for order in await shop.orders()] == ["ann", "eve"]
    counters = await shop.counters(sale)
    assert (counters["sold"], counters["dead"], counters["taken_seq"]) == (2, 2, 5)
    rows = await shop.pool.fetch("SELECT seq, error FROM dead_letters ORDER BY seq")
    assert [row["seq"] for row in rows] == [2, 3, 4]
    assert await shop.gate() == "open"


async def test_take_when_postgres_refuses_it_then_halving_finds_it(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=40)
    await shop.pool.execute(
        "ALTER TABLE orders ADD CONSTRAINT test_poison CHECK (buyer <> 'poison')"
    )
    names = [f"b{i}" for i in range(20)]
    await shop.claim_many(sale, [*names[:7], "poison", *names[7:]])
    shop.start()
    await shop.settled()
    assert sorted(order["buyer"] for order in await shop.orders()) == sorted(names)
    counters = await shop.counters(sale)
    assert (counters["sold"], counters["dead"], counters["taken_seq"]) == (20, 1, 21)
    assert "test_poison" in await shop.pool.fetchval("SELECT error FROM dead_letters")


async def test_take_when_pool_is_unknown_then_it_is_parked(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.put(take(sale, 1, "ann"), take(999, 1, "ann"))
    shop.start()
    await shop.settled()
    assert len(await shop.orders()) == 1
    assert await shop.pool.fetchval("SELECT pool_id FROM dead_letters") == 999


@pytest.mark.parametrize("raw", [b"\xc1", b"\x93\x01\x02\x03", b"", b"\x91\x91\x01"])
async def test_entry_when_it_is_unreadable_then_it_is_parked_once(
    shop: Bookshop, raw: bytes
) -> None:
    sale = await shop.add_sale()
    entry_id = await shop.put(raw=raw)
    await shop.put(take(sale, 1, "ann"))
    shop.start()
    await shop.settled()
    (letter,) = await shop.pool.fetch("SELECT * FROM dead_letters")
    assert (letter["pool_id"], letter["seq"], letter["entry_id"]) == (0, 0, entry_id)
    assert len(await shop.orders()) == 1


async def test_worker_when_redis_was_never_told_of_the_show_then_that_is_no_incident(
    shop: Bookshop,
) -> None:
    await shop.pool.execute("UPDATE shows SET applied_revision = 0")
    await shop.clients.commands.flushall()
    consumer = ShowConsumer(SHOW, shop.tools())
    await consumer._turn(asyncio.Event())
    assert consumer._halted_by == ""


async def test_worker_when_show_is_new_then_it_finds_it(shop: Bookshop) -> None:
    shop.start_discovering()
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    await eventually(shop.orders)
    await shop.settled()


async def test_worker_when_show_has_ended_with_a_backlog_then_it_is_settled(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    await shop.pool.execute("UPDATE sales SET status = 'closed'")
    await shop.pool.execute("UPDATE shows SET status = 'ended', ended_at = now()")
    shop.start_discovering()
    await shop.settled()
    assert len(await shop.orders()) == 1


async def test_worker_when_no_sale_is_running_then_it_lets_the_show_go(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A show that nobody ends must not keep a connection, yet a late take is found."""
    monkeypatch.setattr("server.orders.worker.QUIET_EVERY_MS", 100)
    sale = await shop.add_sale()
    shop.start_discovering()
    await shop.claim(sale, "ann")
    await shop.settled()
    await shop.pool.execute("UPDATE sales SET status = 'closed'")

    async def is_free() -> bool:
        return await shop.clients.commands.get(keys.lease(SHOW)) is None

    await eventually(is_free)
    await shop.claim(sale, "bob")
    await shop.settled()
    assert len(await shop.orders()) == 2


async def test_consumer_when_show_is_over_then_it_ends(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    consumer = ShowConsumer(SHOW, shop.tools())
    consumer.leaving = True
    await asyncio.wait_for(consumer.run(asyncio.Event()), 10)
    assert len(await shop.orders()) == 1


async def test_worker_when_told_to_stop_then_the_lease_is_free(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    shop.start()
    await shop.claim(sale, "ann")
    await shop.settled()
    await shop.stop()
    assert await shop.clients.commands.get(keys.lease(SHOW)) is None


async def test_two_workers_when_first_stops_then_second_goes_on(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=200)
    first, task = shop.start("w1")
    shop.start("w2")
    await shop.claim_many(sale, [f"a{i}" for i in range(50)])
    first.set()
    await task
    await shop.claim_many(sale, [f"b{i}" for i in range(50)])
    await shop.settled()
    assert len(await shop.orders()) == 100


async def test_commit_when_confirmation_fails_then_entries_come_again(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")

    class Failing:
        calls = 0

        async def confirm_batch(self, show_id: str, confirmation: Confirmation) -> None:
            self.calls += 1
            if self.calls < 3:
                raise StoreUnavailable("reply lost")
            await shop.stock.confirm_batch(show_id, confirmation)

    shop.start(stock=Failing())
    await shop.settled()
    assert len(await shop.orders()) == 1
    assert (await shop.counters(sale))["sold"] == 1


async def test_consumer_when_reading_meets_silence_then_it_goes_on(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a network that swallows packets: the read neither fails nor ends."""
    sale = await shop.add_sale()
    real = OrderStream.read
    silent = asyncio.Event()

    async def read(self: OrderStream, *args: Any) -> Any:
        if not silent.is_set():
            silent.set()
            await asyncio.Event().wait()
        return await real(self, *args)

    monkeypatch.setattr(OrderStream, "read", read)
    monkeypatch.setattr(batch, "SILENT_SECONDS", 0.1)
    shop.start()
    await asyncio.wait_for(silent.wait(), 10)
    await shop.claim(sale, "ann")
    await shop.settled()
    assert len(await shop.orders()) == 1


async def test_consumer_when_something_unforeseen_fails_then_it_tries_again(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    await shop.pool.execute("ALTER TABLE pool_buyers RENAME TO pool_buyers_gone")
    failures: list[object] = []
    real = orders.commit_takes

    async def commit(*args: Any) -> Any:
        try:
            return await real(*args)
        except Exception as error:
            failures.append(error)
            raise

    monkeypatch.setattr(orders, "commit_takes", commit)
    monkeypatch.setattr(worker, "FAILED_RETRY_MS", 10)
    shop.start()
    await eventually(lambda: asyncio.sleep(0, failures))
    await shop.pool.execute("ALTER TABLE pool_buyers_gone RENAME TO pool_buyers")
    await shop.settled()
    assert await shop.pool.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_commit_when_the_server_does_not_sync_by_default_then_orders_do(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    await shop.claim(sale, "ann")
    await shop.pool.execute(
        "CREATE TABLE seen AS SELECT ''::text AS setting;"
        " CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE seen SET setting = current_setting('synchronous_commit');"
        " RETURN NEW; END $$;"
        " CREATE TRIGGER look BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION look();"
        " DO $$ BEGIN EXECUTE format("
        " 'ALTER DATABASE %I SET synchronous_commit = off', current_database()); END $$"
    )
    await shop.pool.expire_connections()
    shop.start()
    await shop.settled()
    assert await shop.pool.fetchval("SELECT setting FROM seen") == "on"
    assert await shop.pool.fetchval("SHOW synchronous_commit") == "off"
