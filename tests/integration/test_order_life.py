"""Steps of orders on real servers: what they change in the books, and what Redis is told."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import pytest

from server import limits
from server.domain.order import EDGES, STATUSES
from server.errors import Refused, StoreUnavailable
from server.records.transaction import transaction
from server.store.gate import close_for_rebuilding
from server.store.keys import meta
from server.store.types import ClaimRequest
from tests.bookshop import SHOW, eventually
from tests.order_stage import OrderStage, all_of, open_order_stage

PAID = ("confirmed", "paid")
EXPIRED = ("confirmed", "expired")
CANCELLED = ("confirmed", "cancelled")
REFUNDED = ("paid", "refunded")
FULFILLED = ("paid", "fulfilled")


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[OrderStage]:
    async with open_order_stage(redis_url, database_url) as opened:
        yield opened


async def test_order_when_paid_then_its_units_are_sold_and_redis_is_told(stage: OrderStage) -> None:
    sale, order, _ = await stage.sold("ann", "bob")
    assert await stage.seen(sale) == (8, 2, 0, 10)
    (moved,) = await stage.move([order], PAID, "payment", actor="demo")
    assert (moved.order_id, moved.status, moved.buyer) == (order, "paid", "ann")
    assert await stage.orders.tell(SHOW) == 1
    assert await stage.seen(sale) == (8, 1, 1, 10)
    (move,) = await stage.moves()
    assert (move["status_from"], move["status_to"]) == PAID
    assert (move["reason"], move["actor"], move["give_id"]) == ("payment", "demo", None)
    assert await stage.gives() == []
    await stage.assert_conserved()


async def test_order_when_expired_then_its_units_come_back_once(stage: OrderStage) -> None:
    sale, order = await stage.sold("ann")
    await stage.move([order], EXPIRED, "deadline")
    counters = await stage.shop.counters(sale)
    assert (counters["reserved"], counters["sold"]) == (0, 0)
    assert await stage.seen(sale) == (9, 1, 0, 10)  # committed, not told
    for _ in range(2):
        await stage.orders.tell(SHOW)
        assert await stage.seen(sale) == (10, 0, 0, 10)
    (give,) = await stage.gives()
    assert (give["give_id"], give["units"], give["buyer"]) == (f"expired:{order}", 1, "ann")
    ledger = await stage.shop.pool.fetch(
        "SELECT reason, units, give_id FROM stock_ledger ORDER BY entry_id"
    )
    assert [tuple(row) for row in ledger] == [
        ("taken", 1, None), ("expired", 1, f"expired:{order}"),
    ]  # fmt: skip
    await stage.assert_conserved()
    await stage.shop.claim(sale, "ann")  # forgiven: the limit is free again


async def test_order_when_refunded_then_sold_falls_and_left_rises_in_one(stage: OrderStage) -> None:
    sale, order = await stage.sold("ann", units=1)
    await stage.move([order], PAID, "payment")
    await stage.orders.tell(SHOW)
    assert await stage.seen(sale) == (0, 0, 1, 1)
    await stage.move([order], REFUNDED)
    await stage.orders.tell(SHOW)
    assert await stage.seen(sale) == (1, 0, 0, 1)
    await stage.assert_conserved()


async def test_order_when_its_sale_has_no_payment_step_then_cancelling_takes_it_out_of_sold(
    stage: OrderStage,
) -> None:
    sale, order = await stage.sold("ann", pay_within_s=0)
    assert await stage.seen(sale) == (9, 0, 1, 10)
    await stage.move([order], CANCELLED)
    await stage.orders.tell(SHOW)
    assert await stage.seen(sale) == (10, 0, 0, 10)
    await stage.assert_conserved()


async def test_order_when_retaken_then_units_count_again(stage: OrderStage) -> None:
    """expired -> paid counts the units again; the take itself is the caller's."""
    sale, order = await stage.sold("ann")
    await stage.move([order], EXPIRED, "deadline")
    assert await stage.buyer(sale, "ann") == (0, 1, 0)
    await stage.move([order], ("expired", "paid"), "retake")
    assert await stage.buyer(sale, "ann") == (1, 1, 0)
    assert (await stage.shop.counters(sale))["sold"] == 1
    assert [move["give_id"] for move in await stage.moves()] == [f"expired:{order}", None]


async def test_step_when_it_is_no_edge_then_it_cannot_be_asked_for(stage: OrderStage) -> None:
    for status, following in itertools.product(STATUSES, STATUSES):
        if following in EDGES[status]:
            assert await stage.move([1], (status, following)) == []  # no such order
        else:
            with pytest.raises(ValueError, match="does not go"):
                await stage.move([1], (status, following))


async def test_step_when_the_order_is_elsewhere_by_now_then_nothing_changes(
    stage: OrderStage,
) -> None:
    sale, paid, other = await stage.sold("ann", "bob")
    await stage.move([paid], PAID, "payment")
    before = await stage.shop.counters(sale)
    assert await stage.move([paid], EXPIRED, "deadline") == []
    assert await stage.shop.counters(sale) == before
    assert [m.order_id for m in await stage.move([other, paid], CANCELLED)] == [other]
    assert await stage.statuses() == ["paid", "cancelled"]


# --- Races ------------------------------------------------------------------------------------


async def test_steps_when_raced_then_each_order_takes_one(stage: OrderStage) -> None:
    """Payment, expiry and cancellation at the same moment: one conditional UPDATE wins."""
    buyers = [f"b{i}" for i in range(24)]
    _, *orders = await stage.sold(*buyers, units=24)
    await stage.make_due(*orders)
    outcomes = await all_of(
        *(
            stage.move([order], step, reason)
            for order in orders
            for step, reason in ((PAID, "payment"), (EXPIRED, "deadline"), (CANCELLED, "buyer"))
        ),
        stage.expirer().round(),
    )
    moves = await stage.moves()
    assert sorted(move["order_id"] for move in moves) == sorted(orders)
    assert sum(len(moved) for moved in outcomes[:-1]) + outcomes[-1] == len(orders)
    while await stage.orders.tell(SHOW):
        pass
    await stage.assert_conserved()


async def test_move_when_the_epoch_is_being_raised_then_it_waits(stage: OrderStage) -> None:
    _, order = await stage.sold("ann")
    async with transaction(stage.shop.pool) as conn:
        await conn.execute("SELECT FROM stock_epochs FOR UPDATE")
        paying = asyncio.create_task(stage.move([order], PAID, "payment"))
        done, _ = await asyncio.wait([paying], timeout=0.2)
        assert not done
    assert len(await paying) == 1


# --- Telling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["give_batch", "confirm_batch"])
@pytest.mark.parametrize("fault", ["lost", "cut"])
async def test_telling_when_it_is_cut_anywhere_then_the_sweep_finishes_it(
    stage: OrderStage, script: str, fault: str
) -> None:
    sale, paid, expired = await stage.sold("ann", "bob")
    await stage.move([paid], PAID, "payment")
    await stage.move([expired], EXPIRED, "deadline")
    getattr(stage.scripts, fault).add(script)
    with pytest.raises(StoreUnavailable):
        await stage.orders.tell(SHOW)
    getattr(stage.scripts, fault).clear()
    assert await stage.projector.sweep() == 2
    assert await stage.seen(sale) == (9, 0, 1, 10)
    await stage.scripts.deliver()  # what was lost arrives after all
    assert await stage.seen(sale) == (9, 0, 1, 10)
    assert await stage.projector.sweep() == 0
    await stage.assert_conserved()


async def test_telling_when_two_do_it_at_once_then_units_come_back_once(stage: OrderStage) -> None:
    sale, *orders = await stage.sold(*(f"b{i}" for i in range(10)))
    await stage.move(orders, EXPIRED, "deadline")
    other = type(stage.orders)(stage.shop.pool, stage.shop.stock)  # as another process has it
    await all_of(stage.orders.tell(SHOW), other.tell(SHOW), stage.orders.tell(SHOW))
    assert await stage.seen(sale) == (10, 0, 0, 10)
    await stage.assert_conserved()


async def test_telling_when_the_stock_is_being_rebuilt_then_later(stage: OrderStage) -> None:
    sale, paid, expired = await stage.sold("ann", "bob")
    await stage.move([paid], PAID, "payment")
    await stage.move([expired], EXPIRED, "deadline")
    await close_for_rebuilding(stage.scripts, SHOW)
    with pytest.raises(Refused, match="stock_rebuilding"):
        await stage.orders.tell(SHOW)
    assert await stage.projector.sweep() == 0
    assert (await stage.state(paid)).status == "confirmed"
    assert await stage.seen(sale) == (8, 2, 0, 10)
    await stage.shop.clients.commands.hset(meta(SHOW), "gate", "open")  # type: ignore[misc]
    assert await stage.projector.sweep() == 2
    assert await stage.seen(sale) == (9, 0, 1, 10)


async def test_telling_when_steps_come_late_then_a_claim_never_goes_back(stage: OrderStage) -> None:
    """An expiry told after the re-take must not undo `paid`."""
    _, order = await stage.sold("ann")
    await stage.move([order], EXPIRED, "deadline")
    await stage.move([order], ("expired", "paid"), "retake")
    stage.scripts.lost = {"give_batch"}
    with pytest.raises(StoreUnavailable):
        await stage.orders.tell(SHOW)
    stage.scripts.lost = set()
    await stage.orders.tell(SHOW)
    assert (await stage.state(order)).status == "paid"
    await stage.scripts.deliver()
    assert (await stage.state(order)).status == "paid"


async def test_telling_when_the_confirmation_was_never_told_then_the_claim_knows_its_order(
    stage: OrderStage,
) -> None:
    """The worker died between COMMIT and telling; the order expired before it came again."""
    sale, order = await stage.sold("ann")
    claim = (await stage.shop.orders())[0]["claim_id"].bytes
    key, field = f"ls:{{{SHOW}}}:claims", b"ann\0" + claim
    held = b"\x9a\xa4held" + bytes((sale, 1, 100, 1, 1, 1, 0, 0, 1))
    await stage.shop.clients.commands.hset(key, field, held)  # type: ignore[arg-type]
    await stage.move([order], EXPIRED, "deadline")
    await stage.orders.tell(SHOW)
    state = await stage.state(order)
    assert (state.status, state.order_id) == ("expired", order)
    assert state.pay_by > 0


async def test_telling_when_there_is_more_than_a_batch_then_all_is_told(stage: OrderStage) -> None:
    buyers = [f"b{i}" for i in range(limits.GIVE_BATCH_MAX + 20)]
    sale = await stage.shop.add_sale(units=len(buyers), pay_within_s=900)
    await stage.shop.claim_many(sale, buyers, per_call=500)
    await stage.book()
    orders = [order["order_id"] for order in await stage.shop.orders()]
    await stage.move(orders, EXPIRED, "deadline")
    assert await stage.orders.tell(SHOW) == len(buyers)
    assert await stage.seen(sale) == (len(buyers), 0, 0, len(buyers))


# --- After the end ----------------------------------------------------------------------------


async def test_units_when_they_come_back_to_a_closed_sale_then_they_go_to_the_inventory(
    stage: OrderStage,
) -> None:
    sale, order, _ = await stage.sold("ann", "bob")
    await stage.shop.pool.execute("UPDATE sales SET status = 'closing', revision = revision + 1")
    await stage.projector.project_sale(sale)
    await stage.book()
    assert await stage.seen(sale) == (0, 2, 0, 2)
    await stage.move([order], EXPIRED, "deadline")
    await stage.orders.tell(SHOW)
    await stage.book()
    assert await stage.seen(sale) == (0, 1, 0, 1)
    counters = await stage.shop.counters(sale)
    assert (counters["lowered"], counters["reserved"]) == (9, 1)
    assert await stage.shop.pool.fetchval("SELECT allotted FROM skus") == 1
    await stage.assert_conserved()


async def test_units_when_the_show_ended_long_ago_then_they_get_to_the_inventory(
    stage: OrderStage,
) -> None:
    """A refund after weeks: no worker looks at the order stream of such a show by itself."""
    sale, order = await stage.sold("ann")
    await stage.shop.pool.execute("UPDATE sales SET status = 'closing', revision = revision + 1")
    await stage.projector.project_sale(sale)
    await stage.book()
    await stage.shop.pool.execute(
        "UPDATE shows SET status = 'ended', ended_at = now() - interval '30 days'"
    )
    await stage.move([order], PAID, "payment")
    await stage.move([order], REFUNDED)
    await stage.orders.tell(SHOW)
    stage.shop.start_discovering()

    async def returned() -> bool:
        """Committed, and Redis told of it."""
        allotted = await stage.shop.pool.fetchval("SELECT allotted FROM skus")
        return bool(allotted == 0 and await stage.shop.stream_length() == 0)

    await eventually(returned)
    await stage.assert_conserved()


# --- Churn ------------------------------------------------------------------------------------


async def test_churn_when_the_forgiven_returns_are_used_up_then_units_go_to_others_only(
    stage: OrderStage,
) -> None:
    sale = await stage.shop.add_sale(units=2, pay_within_s=900)
    for round_ in range(limits.FORGIVEN_RETURNS_MAX + 1):
        assert await stage.buyer(sale, "ann") == (0, round_, 0)
        (order,) = await stage.buy(sale, "ann")
        step, reason = [(EXPIRED, "deadline"), (CANCELLED, "buyer")][round_ % 2]
        await stage.move([order], step, reason)
        await stage.orders.tell(SHOW)
        assert await stage.seen(sale) == (2, 0, 0, 2)
    assert await stage.buyer(sale, "ann") == (1, limits.FORGIVEN_RETURNS_MAX + 1, 1)
    request = ClaimRequest("ann", b"0123456789abcdef", sale, 1, 1)
    (answer,) = await stage.shop.claim_all([request])
    assert answer.code == 1307  # limit_reached
    await stage.buy(sale, "bob", "cid")
    await stage.assert_conserved()


async def test_churn_when_the_host_cancels_then_it_does_not_count(stage: OrderStage) -> None:
    sale = await stage.shop.add_sale(units=2, pay_within_s=900)
    for _ in range(limits.FORGIVEN_RETURNS_MAX + 2):
        (order,) = await stage.buy(sale, "ann")
        await stage.move([order], CANCELLED, "host")
        await stage.orders.tell(SHOW)
    assert await stage.buyer(sale, "ann") == (0, 0, 0)


async def test_churn_when_forfeited_units_are_retaken_then_they_are_no_longer_forfeited(
    stage: OrderStage,
) -> None:
    sale, order = await stage.sold("ann")
    await stage.shop.pool.execute(
        "UPDATE pool_buyers SET returns = $1", limits.FORGIVEN_RETURNS_MAX
    )
    await stage.move([order], EXPIRED, "deadline")
    assert await stage.buyer(sale, "ann") == (1, limits.FORGIVEN_RETURNS_MAX + 1, 1)
    await stage.move([order], ("expired", "paid"), "retake")
    assert await stage.buyer(sale, "ann") == (1, limits.FORGIVEN_RETURNS_MAX + 1, 0)
