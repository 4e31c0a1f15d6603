"""Orders paid after their time: their units are taken again, or the money goes back."""

import uuid

import pytest

from server import limits
from server.errors import StoreUnavailable
from server.orders.batch import Batch
from server.orders.reconcile import reconcile
from server.records.dead_letters import give_back
from server.records.orders import commit_takes
from server.records.transaction import transaction
from tests.bookshop import SHOW
from tests.till import Till


async def test_late_payment_when_units_are_left_then_taken_again_and_paid(till: Till) -> None:
    payment = await till.lapsed_payment(quantity=2)
    assert (await till.units(), await till.counted("an")) == ((3, 0, 0), (0, 0))
    await till.tell(payment, "captured")
    assert await till.status(payment) == "retake_pending"
    await till.settle()
    assert await till.statuses(payment) == ("captured", "paid")
    assert (await till.units(), await till.counted("an")) == ((1, 0, 2), (2, 2))
    reasons = await till.shop.pool.fetch("SELECT reason FROM order_moves ORDER BY move_id")
    assert [row["reason"] for row in reasons] == ["deadline", "retake"]
    claims = [claim async for claim in till.shop.stock.remembered_claims(SHOW)]
    assert [claim.state.status for claim in claims] == ["paid"]
    assert till.provider.refunds == []


async def test_late_payment_when_others_bought_the_units_then_refunded(till: Till) -> None:
    payment = await till.lapsed_payment(quantity=2)
    await till.order("bo", 2)
    await till.tell(payment, "captured")
    await till.settle()
    assert await till.statuses(payment) == ("refunded", "expired")
    assert (await till.payment(payment))["reason"] == "out_of_stock"
    assert [refund.payment_id for refund in till.provider.refunds] == [payment]
    assert await till.units() == (1, 2, 0)


async def test_late_payment_when_the_sale_has_closed_then_refunded(till: Till) -> None:
    payment = await till.lapsed_payment()
    await till.shop.stock.take(SHOW, till.sale, uuid.uuid4().bytes, None, close=True)
    await till.tell(payment, "captured")
    await till.settle()
    assert await till.statuses(payment) == ("refunded", "expired")
    assert (await till.payment(payment))["reason"] == "sold_out"


async def test_late_payment_when_the_buyer_bought_again_then_the_limit_decides(till: Till) -> None:
    payment = await till.lapsed_payment(quantity=2)
    await till.order("an", 1)
    await till.tell(payment, "captured")
    await till.settle()
    assert await till.statuses(payment) == ("refunded", "expired")
    assert (await till.payment(payment))["reason"] == "limit_reached"


async def test_late_payment_when_units_are_forfeited_then_they_count_once(till: Till) -> None:
    await till.open_sale(units=3, limit=2)
    for _ in range(3):
        await till.expire(await till.order(quantity=2))
    payment = await till.lapsed_payment(quantity=2)
    assert (await till.units(), await till.counted("an")) == ((3, 0, 0), (2, 2))
    await till.tell(payment, "captured")
    await till.settle()
    assert await till.statuses(payment) == ("captured", "paid")
    assert (await till.units(), await till.counted("an")) == ((1, 0, 2), (2, 2))
    forfeited = await till.shop.pool.fetchval("SELECT sum(forfeited) FROM pool_buyers")
    assert forfeited == 0


async def test_late_payment_when_the_units_are_not_given_back_yet_then_it_waits(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order, tell=False)
    await till.tell(payment, "captured")
    with monkeypatch.context() as patched:

        async def cut_off(*_: object) -> int:
            raise StoreUnavailable("cut off")

        patched.setattr(till.projector, "tell", cut_off)
        await till.round()
    row = await till.payment(payment)
    assert (row["status"], row["last_error"]) == ("retake_pending", "not_given_yet")
    assert await till.available() == 2
    await till.settle()
    assert (await till.status(payment), await till.units()) == ("captured", (2, 0, 1))


async def test_late_payment_when_the_books_have_no_room_then_refunded_and_nothing_given(
    till: Till,
) -> None:
    payment = await till.late_payment()
    await till.shop.pool.execute("UPDATE pools SET dead = initial")  # Redis has more than there is
    await till.go_on()
    assert await till.statuses(payment) == ("refunded", "expired")
    row = await till.shop.pool.fetchrow("SELECT units, reason FROM retakes")
    assert row is not None
    assert tuple(row) == (0, "no_room")
    reasons = await till.shop.pool.fetch("SELECT reason FROM gives")
    assert [row["reason"] for row in reasons] == ["expired"]  # what is not there cannot go back


async def test_retake_when_no_payment_knows_it_then_a_dead_letter(till: Till) -> None:
    payment = await till.late_payment()
    await till.round()
    await till.shop.pool.execute("UPDATE orders SET quantity = 2")  # it was for another quantity
    await till.book()
    assert await till.shop.pool.fetchval("SELECT error FROM dead_letters") == "no such payment"
    assert await till.status(payment) == "refund_requested"


@pytest.mark.parametrize("rebuilt", [False, True])
@pytest.mark.parametrize("expiries", [0, limits.FORGIVEN_RETURNS_MAX])
async def test_retake_when_it_died_and_is_given_back_then_the_buyer_counts_as_booked(
    till: Till, expiries: int, rebuilt: bool
) -> None:
    await till.open_sale(units=6, limit=5)
    for _ in range(expiries):
        await till.expire(await till.order())
    await till.order()
    payment = await till.late_payment(quantity=2)
    await till.round()
    (entry,) = await till.entries()
    faults = {(take.pool, take.seq): "told to" for take in entry.takes}
    async with till.shop.pool.acquire() as conn:
        result = await commit_takes(conn, SHOW, entry.epoch, entry.takes, faults)
    await till.shop.stock.confirm_batch(SHOW, Batch([entry]).confirmation(result))
    assert (await till.available(), await till.status(payment)) == (3, "refund_requested")
    if rebuilt:
        await reconcile(SHOW, till.shop.tools(), "asked", "test")
    letter = await till.shop.pool.fetchval("SELECT dead_letter_id FROM dead_letters")
    async with transaction(till.shop.pool) as conn:
        await give_back(conn, SHOW, letter)
    await till.settle()
    in_redis, booked = await till.counted("an")
    assert in_redis == booked == (3 if expiries else 1)
    assert (await till.available(), await till.status(payment)) == (5, "refunded")
