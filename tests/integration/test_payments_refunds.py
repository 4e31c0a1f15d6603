"""Refunds that are asked of the provider: repeated until it answers, and given once."""

import asyncio
from typing import Any

import pytest

from server.payments.provider import ProviderUnavailable
from server.records.order_life import move_orders
from server.records.payments import request_refund
from server.records.transaction import transaction
from tests.bookshop import SHOW, eventually
from tests.till import Till


async def test_refund_when_the_provider_is_away_then_tried_again_later(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    away, busy = ProviderUnavailable("away"), ProviderUnavailable("busy")
    till.provider.refund_answers = [away, "pending", busy]
    for attempt, error in enumerate(("away", "pending", "busy"), 1):
        await till.round()
        row = await till.payment(payment)
        assert (row["status"], row["attempts"]) == ("refund_requested", attempt)
        assert error in row["last_error"]
        await till.payer.round()  # not due yet: nobody asks
    assert len(till.provider.refunds) == 3
    await till.round()
    assert await till.status(payment) == "refunded"


async def test_refund_when_the_order_cost_nothing_then_no_provider_is_asked(till: Till) -> None:
    await till.open_sale(price=0)
    order = await till.order()
    payment = await till.begin(order)
    async with transaction(till.shop.pool) as conn:
        steps: Any = {"status_from": "paid", "status_to": "refunded", "reason": "host"}
        await move_orders(conn, SHOW, [order], **steps)
        assert await request_refund(conn, order, "by_host")
    await till.round()
    assert await till.status(payment) == "refunded"
    assert till.provider.refunds == []


async def test_refund_when_the_provider_tells_of_it_first_then_refunded_for_our_reason(
    till: Till,
) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    await till.tell(payment, "refunded")
    await till.round()
    row = await till.payment(payment)
    assert (row["status"], row["reason"]) == ("refunded", "wrong_amount")
    assert till.provider.refunds == []


async def test_refund_when_late_payments_wait_for_a_silent_redis_then_given_meanwhile(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    await till.late_payment("bo")
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    stopping, silent = asyncio.Event(), asyncio.Event()

    async def retake(*_: object) -> bool:
        return await silent.wait()

    monkeypatch.setattr(till.acts, "retake", retake)
    running = asyncio.create_task(till.payer.run(stopping))
    refunded = "SELECT status = 'refunded' FROM payments WHERE payment_id = $1"
    await eventually(lambda: till.shop.pool.fetchval(refunded, payment))
    stopping.set()
    silent.set()
    await running


async def test_refund_when_many_payers_run_then_asked_once(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    await asyncio.gather(*(till.payer.round() for _ in range(6)))
    assert len(till.provider.refunds) == 1
    assert await till.status(payment) == "refunded"


async def test_refunds_when_many_payers_look_at_once_then_each_is_one_payers(till: Till) -> None:
    await till.open_sale(units=20, limit=20)
    for _ in range(10):
        await till.tell(await till.begin(await till.order()), "captured", amount=1)
    found = await asyncio.gather(*(till.acts.due_refunds(8) for _ in range(7)))
    refunds = [due.payment_id for some in found for due in some]
    assert len(refunds) == len(set(refunds)) == 10


async def test_refund_when_the_payer_died_after_asking_then_asked_again(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    assert [due.payment_id for due in await till.acts.due_refunds(8)] == [payment]
    assert await till.acts.due_refunds(8) == []
    await till.round()
    assert await till.status(payment) == "refunded"


async def test_refund_when_its_provider_is_not_set_up_any_more_then_it_is_seen(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    await till.shop.pool.execute("UPDATE payments SET provider = 'stripe'")
    await till.round()
    row = await till.payment(payment)
    assert (row["status"], row["last_error"]) == (
        "refund_requested",
        "ProviderRefused: the provider stripe is not set up",
    )
    assert row["next_attempt_at"] is None
