"""News of providers: signed or refused, kept on disk, in any order, repeated, handled later."""

import asyncio
import uuid
from typing import Any

import pytest

from server.acts.payments import HANDLED_AT_ONCE, PaymentActs
from server.errors import RecordsUnavailable
from server.records.payments import NewEvent, insert_event
from server.records.pool import open_pool
from tests.bookshop import SHOW, eventually
from tests.till import Till, refused, viewer


async def test_capture_when_the_order_waits_then_paid_and_told(till: Till) -> None:
    payment = await till.begin(await till.order(quantity=2))
    assert await till.units() == (1, 2, 0)
    await till.tell(payment, "captured")
    assert await till.statuses(payment) == ("captured", "paid")
    assert await till.units() == (1, 0, 2)
    claims = [claim async for claim in till.shop.stock.remembered_claims(SHOW)]
    assert [claim.state.status for claim in claims] == ["paid"]


async def test_capture_when_told_a_thousand_times_at_once_then_once(till: Till) -> None:
    payment = await till.begin(await till.order())
    raw, headers = await till.webhook(payment, "captured")
    await asyncio.gather(*(till.acts.receive("demo", raw, headers) for _ in range(1_000)))
    assert await till.statuses(payment) == ("captured", "paid")
    moves = await till.shop.pool.fetchval("SELECT count(*) FROM order_moves")
    assert (await till.units(), moves) == ((2, 0, 1), 1)


async def test_capture_when_told_in_many_events_at_once_then_one_effect(till: Till) -> None:
    payment = await till.begin(await till.order())
    await asyncio.gather(*(till.tell(payment, "captured") for _ in range(40)))
    outcomes = await till.shop.pool.fetch("SELECT outcome FROM payment_events")
    assert sorted(row["outcome"] for row in outcomes) == ["nothing:captured"] * 39 + ["order_paid"]
    assert await till.units() == (2, 0, 1)


async def test_failure_when_told_after_the_capture_then_nothing(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured")
    await till.tell(payment, "failed")
    assert await till.statuses(payment) == ("captured", "paid")


async def test_capture_when_told_after_a_failure_then_paid(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "failed")
    assert await till.status(payment) == "failed"
    await till.tell(payment, "captured")
    assert await till.statuses(payment) == ("captured", "paid")


async def test_refund_when_told_before_the_capture_then_never_paid(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "refunded")
    await till.tell(payment, "captured")
    assert await till.statuses(payment) == ("refunded", "confirmed")


async def test_refund_when_made_at_the_provider_then_the_order_is_refunded(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured")
    await till.tell(payment, "refunded")
    assert await till.statuses(payment) == ("refunded", "refunded")
    assert await till.units() == (3, 0, 0)
    assert till.provider.refunds == []


async def test_refund_when_it_names_only_the_providers_payment_then_found(till: Till) -> None:
    """Stripe: a session is made, its payment is captured, a refund by hand names the payment."""
    payment = await till.begin(await till.order())
    told: list[tuple[Any, uuid.UUID | None]] = [("captured", payment), ("refunded", None)]
    for number, (kind, ours) in enumerate(told):
        event = NewEvent("demo", f"e{number}", kind, "pi_1", ours, 100, "CNY", 0, b"")
        async with till.shop.pool.acquire() as conn:
            await insert_event(conn, event)
        assert await till.acts.handle("demo", f"e{number}")
    assert await till.statuses(payment) == ("refunded", "refunded")


async def test_refund_when_made_at_the_provider_after_delivery_then_the_order_stays(
    till: Till,
) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured")
    await till.shop.pool.execute("UPDATE orders SET status = 'fulfilled'")
    await till.tell(payment, "refunded")
    assert await till.statuses(payment) == ("refunded", "fulfilled")


@pytest.mark.parametrize("wrong", [{"amount": 99}, {"amount": 101}, {"currency": "USD"}])
async def test_capture_when_the_amount_is_wrong_then_refunded(
    till: Till, wrong: dict[str, object]
) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", **wrong)
    assert await till.status(payment) == "refund_requested"
    await till.round()
    assert await till.statuses(payment) == ("refunded", "confirmed")
    assert (await till.payment(payment))["reason"] == "wrong_amount"


async def test_capture_when_another_payment_paid_the_order_then_refunded(till: Till) -> None:
    order = await till.order()
    first, second = await till.begin(order), await till.second_payment(order)
    assert first != second
    await asyncio.gather(till.tell(first, "captured"), till.tell(second, "captured"))
    assert sorted([await till.status(first), await till.status(second)]) == [
        "captured",
        "refund_requested",
    ]
    assert await till.units() == (2, 0, 1)


async def test_capture_when_the_payment_is_unknown_then_kept_and_nothing(till: Till) -> None:
    event = await till.tell(uuid.uuid4(), "captured")
    row = await till.shop.pool.fetchrow("SELECT * FROM payment_events WHERE event_id = $1", event)
    assert row is not None
    assert row["outcome"] == "unknown_payment"


async def test_webhook_when_forged_then_refused_and_nothing_kept(till: Till) -> None:
    payment = await till.begin(await till.order())
    raw, headers = await till.webhook(payment, "captured")
    forged = raw.replace(b"100", b"101")
    assert await refused(lambda: till.acts.receive("demo", forged, headers)) == "malformed"
    assert await refused(lambda: till.acts.receive("none", raw, headers)) == "not_found"
    assert await till.shop.pool.fetchval("SELECT count(*) FROM payment_events") == 0


async def test_event_when_stored_then_on_disk_whatever_the_servers_default_is(till: Till) -> None:
    event = NewEvent("demo", "evt_1", "ignored", "x", None, 0, "CNY", 1, b"{}")
    async with till.shop.pool.acquire() as conn, conn.transaction():
        await conn.execute("SET LOCAL synchronous_commit = off")
        assert await insert_event(conn, event)
        assert await conn.fetchval("SHOW synchronous_commit") == "on"
        assert not await insert_event(conn, event)


async def test_event_when_handled_again_then_nothing_follows(till: Till) -> None:
    payment = await till.begin(await till.order())
    event = await till.tell(payment, "captured")
    await till.shop.pool.execute("UPDATE payments SET status = 'created'")
    assert not await till.acts.handle("demo", event)
    assert await till.status(payment) == "created"


async def test_event_when_many_handle_it_at_once_then_one_does(till: Till) -> None:
    payment = await till.begin(await till.order())
    event = await till.tell(payment, "captured")
    await till.shop.pool.execute("UPDATE payment_events SET handled_at = NULL")
    handled = await asyncio.gather(*(till.acts.handle("demo", event) for _ in range(6)))
    assert sum(handled) == 1


async def test_event_when_the_worker_has_the_pool_then_its_payment_is_free_for_it(
    till: Till,
) -> None:
    """The order worker holds a pool and then wants a payment: nobody may do it the other way."""
    payment = await till.begin(await till.order())
    async with till.shop.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT FROM pools FOR NO KEY UPDATE")
        telling = asyncio.create_task(till.tell(payment, "captured"))
        await eventually(lambda: conn.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        await conn.execute("SELECT FROM payments FOR UPDATE NOWAIT")
    await telling
    assert await till.status(payment) == "captured"


async def test_events_when_a_sale_is_busy_then_kept_and_nobody_else_waits(
    till: Till, books_url: str
) -> None:
    """A web process has few connections; what waits for the pool's row must not take them all."""
    orders = [await till.order(buyer) for buyer in ("an", "bo", "cy")]
    payments = [await till.begin(order) for order in orders[:2]]
    webhooks = [await till.webhook(p, "captured") for p in payments for _ in range(4)]
    narrow = await open_pool(books_url, size=HANDLED_AT_ONCE + 1)
    acts = PaymentActs(narrow, till.shop.stock, till.projector, till.acts.providers)
    async with till.shop.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT FROM pools FOR NO KEY UPDATE")
        telling = [asyncio.create_task(acts.receive("demo", *one)) for one in webhooks]
        stored = "SELECT count(*) = 8 FROM payment_events"
        await eventually(lambda: till.shop.pool.fetchval(stored))
        await eventually(lambda: asyncio.sleep(0, sum(task.done() for task in telling) == 6))
        assert (await acts.begin(viewer("cy"), SHOW, orders[2])).status == "created"
    await asyncio.gather(*telling)
    narrow.terminate()
    await till.settle()
    assert [await till.order_status(order) for order in orders] == ["paid", "paid", "confirmed"]


async def test_event_when_handling_fails_then_it_is_safe_and_handled_later(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await till.begin(await till.order())
    with monkeypatch.context() as patched:

        async def dies(*_: object, **__: object) -> None:
            raise RecordsUnavailable("gone")

        patched.setattr("server.acts.payments.move_orders", dies)
        await till.tell(payment, "captured")
    assert await till.statuses(payment) == ("created", "confirmed")
    await till.round()
    assert await till.statuses(payment) == ("captured", "paid")


async def test_payment_when_it_races_with_the_expiry_then_one_wins_and_nothing_is_lost(
    till: Till,
) -> None:
    for _ in range(5):
        await till.open_sale(units=1)
        order = await till.order()
        payment = await till.begin(order)
        await asyncio.gather(till.expire(order, tell=False), till.tell(payment, "captured"))
        await till.settle()
        assert await till.statuses(payment) == ("captured", "paid")
        assert await till.units() == (0, 0, 1)
