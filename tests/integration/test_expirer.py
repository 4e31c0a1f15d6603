"""The expirer on real servers: what is due goes back, once, whatever else goes wrong."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server import limits
from server.errors import RecordsUnavailable, StoreUnavailable
from server.orders import expirer as expirer_module
from server.orders.expirer import Expirer
from server.records import order_life
from server.records.pool import Pool
from server.records.transaction import transaction
from server.store import keys
from tests.bookshop import SHOW, eventually
from tests.halting import halting_at
from tests.order_stage import OrderStage, all_of, open_order_stage


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[OrderStage]:
    async with open_order_stage(redis_url, database_url) as opened:
        yield opened


async def test_round_when_orders_are_due_then_only_they_expire(stage: OrderStage) -> None:
    sale, *orders = await stage.sold("ann", "bob", "cid")
    endless, _ = await stage.sold("dan", pay_within_s=0)
    await stage.make_due(*orders[:2])
    assert await stage.expirer().round() == 2
    assert await stage.statuses() == ["expired", "expired", "confirmed", "confirmed"]
    assert await stage.seen(sale) == (9, 1, 0, 10)
    assert await stage.seen(endless) == (9, 0, 1, 10)
    assert {(move["reason"], move["actor"]) for move in await stage.moves()} == {("deadline", "")}
    assert await stage.expirer().round() == 0
    await stage.assert_conserved()


async def test_expiry_when_an_order_is_not_due_or_not_unpaid_then_it_stays(
    stage: OrderStage,
) -> None:
    """What was due when it was looked for is looked at again under the lock."""
    _, early, paid = await stage.sold("ann", "bob")
    await stage.make_due(paid)
    await stage.move([paid], ("confirmed", "paid"), "payment")
    assert await order_life.expire(stage.shop.pool, SHOW, [early, paid]) == 0
    assert await stage.statuses() == ["confirmed", "paid"]


async def test_deadline_when_told_then_it_is_the_one_that_counts(stage: OrderStage) -> None:
    """What `confirmed` says is what PostgreSQL goes by, from the moment the rows were held."""
    sale = await stage.shop.add_sale(pay_within_s=900)
    await stage.shop.claim(sale, "ann")
    async with transaction(stage.shop.pool) as conn:
        await conn.execute("SELECT FROM pools FOR UPDATE")
        stage.shop.start()
        await eventually(lambda: is_waiting(stage.shop.pool))
        held_until = await conn.fetchval("SELECT clock_timestamp()")
    await stage.shop.settled()
    (order,) = await stage.shop.orders()
    assert order["confirmed_at"] >= held_until
    assert (order["pay_by"] - order["confirmed_at"]).total_seconds() == 900
    told = (await stage.state(order["order_id"])).pay_by
    assert told == round(order["pay_by"].timestamp() * 1000)


async def is_waiting(pool: Pool) -> bool:
    """Whether somebody waits for a lock."""
    asked = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')"
    return bool(await pool.fetchval(asked))


async def test_expirers_when_two_run_at_once_then_one_give_per_order(stage: OrderStage) -> None:
    """Fault row 15."""
    buyers = [f"b{i}" for i in range(60)]
    sale, *orders = await stage.sold(*buyers, units=60)
    await stage.make_due(*orders)
    other = Expirer(stage.shop.pool, type(stage.orders)(stage.shop.pool, stage.shop.stock))
    done = await all_of(stage.expirer().round(), other.round(), stage.expirer().round())
    assert sum(done) == 60
    assert sorted(give["give_id"] for give in await stage.gives()) == sorted(
        f"expired:{order}" for order in orders
    )
    assert await stage.seen(sale) == (60, 0, 0, 60)
    await stage.assert_conserved()


async def test_expirer_when_killed_after_the_commit_then_the_next_one_tells(
    stage: OrderStage,
) -> None:
    sale, order = await stage.sold("ann")
    await stage.make_due(order)
    with halting_at(stage.orders, "tell", after=False) as reached:
        dying = asyncio.create_task(stage.expirer().round())
        await reached.wait()
        dying.cancel()
        await asyncio.gather(dying, return_exceptions=True)
    assert await stage.statuses() == ["expired"]
    assert await stage.seen(sale) == (9, 1, 0, 10)
    assert await stage.projector.sweep() == 1
    assert await stage.seen(sale) == (10, 0, 0, 10)
    await stage.assert_conserved()


async def test_expirer_when_killed_before_the_commit_then_nothing_happened(
    stage: OrderStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, order = await stage.sold("ann")
    await stage.make_due(order)

    async def die(*_: object) -> None:
        raise RecordsUnavailable("killed")

    with monkeypatch.context() as patch:
        patch.setattr(order_life, "note_moves", die)
        with pytest.raises(RecordsUnavailable):
            await stage.expirer().round()
    assert await stage.statuses() == ["confirmed"]
    assert await stage.gives() == []
    assert await stage.expirer().round() == 1
    await stage.assert_conserved()


async def test_round_when_redis_is_away_then_orders_expire_and_are_told_later(
    stage: OrderStage,
) -> None:
    sale, order = await stage.sold("ann")
    await stage.make_due(order)
    stage.scripts.lost = {"all"}
    with pytest.raises(StoreUnavailable):
        await stage.expirer().round()
    assert await stage.statuses() == ["expired"]
    stage.scripts.lost = set()
    assert await stage.projector.sweep() == 1
    assert await stage.seen(sale) == (10, 0, 0, 10)


async def test_round_when_the_shows_keys_are_damaged_then_it_is_no_outage(
    stage: OrderStage,
) -> None:
    """An outage would slow the rounds down, for all shows."""
    sale, order = await stage.sold("ann")
    await stage.make_due(order)
    pool = keys.pool(SHOW, sale)
    await stage.shop.clients.commands.delete(pool)
    await stage.shop.clients.commands.set(pool, "damaged")
    assert await stage.expirer().round() == 1


async def test_round_when_one_shows_rows_are_held_then_the_others_expire(
    stage: OrderStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its due orders fill whole batches and come first; they still do not keep the others out."""
    monkeypatch.setattr(order_life, "LOCK_WAIT_MS", 50)
    monkeypatch.setattr(limits, "GIVE_BATCH_MAX", 2)
    held, *waiting = await stage.sold(*"abcde")
    _, other = await stage.sold("bob")
    await stage.make_due(*waiting)
    await stage.shop.pool.execute(
        "INSERT INTO shows (show_id, host_id, title) VALUES ('other', 'host', 'x')"
    )
    await stage.shop.pool.execute("INSERT INTO stock_epochs (show_id) VALUES ('other')")
    await stage.shop.pool.execute(
        "UPDATE orders SET show_id = 'other', pay_by = now() WHERE order_id = $1", other
    )
    expirer = stage.expirer()
    async with transaction(stage.shop.pool) as conn:
        await conn.execute("SELECT FROM pools WHERE pool_id = $1 FOR UPDATE", held)
        assert await expirer.round() == 1
        assert await stage.statuses() == [*["confirmed"] * 5, "expired"]
    assert await stage.expirer().round() == 5


async def test_expirer_when_it_runs_then_it_comes_back_after_an_outage(
    stage: OrderStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expirer_module, "ROUND_MS", 10)
    sale, *orders = await stage.sold("ann", "bob")
    stopping = asyncio.Event()
    stage.scripts.lost = {"all"}
    running = asyncio.create_task(stage.expirer().run(stopping))
    await stage.make_due(orders[0])

    async def expired(count: int) -> bool:
        return (await stage.statuses()).count("expired") == count

    await eventually(lambda: expired(1))
    stage.scripts.lost = set()
    await stage.make_due(orders[1])
    await eventually(lambda: expired(2))

    async def told() -> bool:
        return await stage.seen(sale) == (10, 0, 0, 10)

    await eventually(told)
    stopping.set()
    await asyncio.wait_for(running, 5)
