"""Late payments among rivals, crashes and rebuilds: one decides, and nothing counts twice."""

import asyncio
import uuid
from typing import Any

import pytest

from server.orders.reconcile import reconcile
from server.records.order_life import move_orders
from server.records.payments import RETAKE_ATTEMPTS_MAX
from tests.bookshop import SHOW, eventually
from tests.till import Till


async def test_late_payment_when_the_stock_is_rebuilt_then_it_waits(till: Till) -> None:
    payment = await till.late_payment()
    await till.shop.set_gate("rebuilding")
    await till.round()
    row = await till.payment(payment)
    assert (row["status"], row["last_error"]) == ("retake_pending", "stock_rebuilding")
    await till.shop.set_gate("open")
    await till.settle()
    assert await till.status(payment) == "captured"


@pytest.mark.parametrize("was_taken", [False, True])
async def test_late_payment_when_nobody_decides_for_long_then_refunded_and_nothing_is_lost(
    till: Till, was_taken: bool
) -> None:
    payment = await till.late_payment()
    if was_taken:
        await till.round()
    await till.shop.set_gate("rebuilding")
    for _ in range(3):
        await till.round()
    assert await till.status(payment) == "retake_pending"
    await till.shop.pool.execute("UPDATE payments SET attempts = $1", RETAKE_ATTEMPTS_MAX)
    await till.round()
    await till.round()
    assert await till.statuses(payment) == ("refunded", "expired")
    await till.shop.set_gate("open")
    await till.settle()
    assert (await till.status(payment), await till.units()) == ("refunded", (3, 0, 0))


async def test_late_payment_when_refunded_while_its_take_is_on_the_way_then_units_return(
    till: Till,
) -> None:
    payment = await till.late_payment()
    await till.round()
    assert (await till.available(), await till.counted("an")) == (2, (1, 0))
    await till.tell(payment, "refunded")
    await till.settle()
    assert await till.statuses(payment) == ("refunded", "expired")
    assert (await till.units(), await till.counted("an")) == ((3, 0, 0), (0, 0))
    row = await till.shop.pool.fetchrow("SELECT units, reason FROM retakes")
    assert row is not None
    assert tuple(row) == (0, "not_waiting")


async def test_late_payment_when_the_worker_dies_between_any_two_steps_then_it_ends_well(
    till: Till,
) -> None:
    payment = await till.late_payment()
    await till.round()  # the script has run
    await till.round()  # asked again: nothing is taken twice
    assert await till.available() == 2
    await till.entries()  # read by a worker that dies before its commit
    await till.book(confirm=False)  # another one dies after the commit
    assert await till.statuses(payment) == ("captured", "paid")
    await till.book()  # and the entry comes again
    assert await till.shop.stream_length() == 0
    await till.settle()
    assert await till.units() == (2, 0, 1)
    assert await till.shop.pool.fetchval("SELECT count(*) FROM retakes") == 1


async def test_late_payment_when_two_payers_ask_at_once_then_one_take(till: Till) -> None:
    payment = await till.late_payment()
    asked = await asyncio.gather(*(till.acts.retake(SHOW, payment) for _ in range(8)))
    assert any(asked)
    assert await till.available() == 2
    await till.settle()
    assert (await till.status(payment), await till.units()) == ("captured", (2, 0, 1))


async def test_late_payments_when_two_of_one_order_then_one_pays_and_one_returns(
    till: Till,
) -> None:
    order = await till.order()
    first, second = await till.begin(order), await till.second_payment(order)
    await till.expire(order)
    await asyncio.gather(till.tell(first, "captured"), till.tell(second, "captured"))
    await till.settle()
    assert sorted([await till.status(first), await till.status(second)]) == ["captured", "refunded"]
    assert (await till.order_status(order), await till.units()) == ("paid", (2, 0, 1))


async def test_late_payments_when_two_buyers_want_the_last_unit_then_one_gets_it(
    till: Till,
) -> None:
    await till.open_sale(units=1)
    late = [await till.lapsed_payment(buyer) for buyer in ("an", "bo")]
    for payment in late:
        await till.tell(payment, "captured")
    await till.settle()
    assert sorted([await till.status(payment) for payment in late]) == ["captured", "refunded"]
    assert await till.units() == (0, 0, 1)


async def test_late_payment_when_another_order_expires_at_once_then_its_unit_can_be_had(
    till: Till,
) -> None:
    await till.open_sale(units=1)
    payment = await till.lapsed_payment("an")
    other = await till.order("bo")
    await till.expire(other, tell=False)
    await till.tell(payment, "captured")
    assert await till.available() == 0
    await till.settle()
    assert await till.statuses(payment) == ("captured", "paid")


async def test_late_payment_when_it_races_with_an_expiry_then_units_and_money_are_exact(
    till: Till,
) -> None:
    for _ in range(4):
        await till.open_sale(units=1)
        payment = await till.lapsed_payment("an")
        other = await till.order("bo")
        await till.tell(payment, "captured")
        await asyncio.gather(till.expire(other), till.acts.retake(SHOW, payment))
        await till.settle()
        status = await till.status(payment)
        assert (status, await till.units()) in [
            ("captured", (0, 0, 1)),
            ("refunded", (1, 0, 0)),
        ]


@pytest.mark.parametrize("lost_after", ["the event", "the script", "the commit"])
async def test_late_payment_when_redis_loses_everything_then_it_ends_well(
    till: Till, lost_after: str
) -> None:
    payment = await till.late_payment(quantity=2)
    if lost_after != "the event":
        await till.round()
    if lost_after == "the commit":
        await till.book(confirm=False)
    await till.shop.clients.commands.flushall()
    await till.round()  # nobody knows the stock: it waits
    report = await reconcile(SHOW, till.shop.tools(), "lost", "test")
    assert report.epoch == 2
    await till.settle()
    assert await till.statuses(payment) == ("captured", "paid")
    assert (await till.units(), await till.counted("an")) == ((1, 0, 2), (2, 2))


async def test_late_payment_when_the_stock_is_rebuilt_with_its_take_in_the_stream_then_kept(
    till: Till,
) -> None:
    payment = await till.late_payment()
    await till.round()
    await reconcile(SHOW, till.shop.tools(), "asked", "test")
    await till.settle()
    assert await till.statuses(payment) == ("captured", "paid")
    assert await till.shop.pool.fetchval("SELECT count(*) FROM retakes") == 1


async def late_with_take(till: Till) -> uuid.UUID:
    """A late payment whose take is on its way to the order worker, and that is overdue."""
    payment = await till.late_payment()
    await till.round()
    await till.shop.pool.execute("UPDATE payments SET attempts = $1", RETAKE_ATTEMPTS_MAX)
    return payment


async def test_late_payment_when_the_payer_decides_then_the_worker_waits_for_it(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await late_with_take(till)
    booking: list[asyncio.Task[None]] = []

    async def booked_meanwhile(*_: object) -> None:
        booking.append(asyncio.create_task(till.book()))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"

        async def waits_or_done() -> bool:
            return booking[0].done() or bool(await till.shop.pool.fetchval(waiting))

        await eventually(waits_or_done)

    with monkeypatch.context() as patched:
        patched.setattr(till.shop.stock, "retake", booked_meanwhile)
        assert await till.acts.retake(SHOW, payment)
    await booking[0]
    assert (await till.statuses(payment))[1] == "expired"
    await till.settle()
    assert (await till.status(payment), await till.units()) == ("refunded", (3, 0, 0))


async def test_late_payment_when_the_worker_decides_then_the_payer_leaves_it(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await late_with_take(till)
    decided: list[bool] = []

    async def asked_meanwhile(*args: Any, **more: Any) -> Any:
        decided.append(await till.acts.retake(SHOW, payment))
        return await move_orders(*args, **more)

    with monkeypatch.context() as patched:
        patched.setattr("server.records.retakes.move_orders", asked_meanwhile)
        await till.book()
    assert decided == [False]
    await till.settle()
    assert await till.statuses(payment) == ("captured", "paid")
