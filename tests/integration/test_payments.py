"""Payments on real databases: begun, told of in any order, paid late, refunded."""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from server import limits
from server.acts.payments import HANDLED_AT_ONCE, PaymentActs
from server.errors import RecordsUnavailable, Refused, StoreUnavailable
from server.orders.batch import Batch
from server.orders.reconcile import reconcile
from server.payments.provider import ProviderRefused, ProviderUnavailable
from server.records.dead_letters import give_back
from server.records.order_life import move_orders
from server.records.orders import commit_takes
from server.records.payments import (
    RETAKE_ATTEMPTS_MAX,
    NewEvent,
    insert_event,
    request_refund,
)
from server.records.pool import open_pool
from server.records.transaction import transaction
from tests.bookshop import SHOW, eventually
from tests.conftest import run_sql, with_database
from tests.till import Till, open_till, refused, viewer

EMPTY = """
DO $$ BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(tablename, ', ') || ' RESTART IDENTITY'
             FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version');
END $$
"""


@pytest.fixture(scope="module")
def books_url(session_database_url: str, template_database: str) -> Iterator[str]:
    """One database for the module: emptying it is much faster than making another."""
    name = f"livesale_payments_{os.getpid()}"
    create = f"CREATE DATABASE {name} TEMPLATE {template_database}"
    asyncio.run(run_sql(session_database_url, create))
    yield with_database(session_database_url, name)
    asyncio.run(run_sql(session_database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def till(redis_url: str, books_url: str) -> AsyncIterator[Till]:
    await run_sql(books_url, EMPTY)
    async with open_till(redis_url, books_url) as opened:
        await opened.open_sale(units=3, limit=2)
        yield opened


# --- beginning --------------------------------------------------------------------------------


async def test_begin_when_repeated_then_the_same_payment_and_link(till: Till) -> None:
    order = await till.order(quantity=2)
    views = await asyncio.gather(*(till.acts.begin(viewer("an"), SHOW, order) for _ in range(8)))
    assert len({view.payment_id for view in views}) == 1
    assert {view.amount for view in views} == {200}
    intent = till.provider.intent_of(views[0].pay_url.split("#")[1])
    assert (str(intent.payment_id), intent.amount) == (views[0].payment_id, 200)


async def test_begin_when_it_is_not_the_buyers_to_pay_then_refused(till: Till) -> None:
    order = await till.order()
    assert await refused(lambda: till.acts.begin(viewer("bo"), SHOW, order)) == "not_found"
    assert await refused(lambda: till.acts.begin(viewer("an"), "othershow", order)) == "forbidden"
    await till.expire(order)
    assert await refused(lambda: till.acts.begin(viewer("an"), SHOW, order)) == "conflict"


async def test_begin_when_there_is_no_payment_step_then_refused(till: Till) -> None:
    await till.open_sale(pay_within_s=0)
    order = await till.order()
    assert await refused(lambda: till.begin(order)) == "conflict"


async def test_begin_when_the_order_costs_nothing_then_it_is_paid(till: Till) -> None:
    await till.open_sale(price=0)
    order = await till.order()
    payment = await till.begin(order)
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")


async def test_begin_when_the_provider_is_away_then_the_next_call_goes_on(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await till.order()

    async def away(_: object) -> None:
        raise ProviderUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(till.provider, "create_intent", away)
        assert await refused(lambda: till.begin(order)) == "unavailable"
    await till.tell(await till.begin(order), "captured")
    assert await till.order_status(order) == "paid"


# --- news of providers ------------------------------------------------------------------------


async def test_capture_when_the_order_waits_then_paid_and_told(till: Till) -> None:
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    assert await till.units() == (1, 2, 0)
    await till.tell(payment, "captured")
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
    assert await till.units() == (1, 0, 2)
    claims = [claim async for claim in till.shop.stock.remembered_claims(SHOW)]
    assert [claim.state.status for claim in claims] == ["paid"]


async def test_capture_when_told_a_thousand_times_at_once_then_once(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    raw, headers = await till.webhook(payment, "captured")
    await asyncio.gather(*(till.acts.receive("demo", raw, headers) for _ in range(1_000)))
    assert await till.order_status(order) == "paid"
    moves = await till.shop.pool.fetchval("SELECT count(*) FROM order_moves")
    assert (await till.units(), moves) == ((2, 0, 1), 1)


async def test_capture_when_told_in_many_events_at_once_then_one_effect(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await asyncio.gather(*(till.tell(payment, "captured") for _ in range(40)))
    outcomes = await till.shop.pool.fetch("SELECT outcome FROM payment_events")
    assert sorted(row["outcome"] for row in outcomes) == ["nothing:captured"] * 39 + ["order_paid"]
    assert await till.units() == (2, 0, 1)


async def test_failure_when_told_after_the_capture_then_nothing(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.tell(payment, "captured")
    await till.tell(payment, "failed")
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")


async def test_capture_when_told_after_a_failure_then_paid(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.tell(payment, "failed")
    assert await till.status(payment) == "failed"
    await till.tell(payment, "captured")
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")


async def test_refund_when_told_before_the_capture_then_never_paid(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.tell(payment, "refunded")
    await till.tell(payment, "captured")
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "confirmed")


async def test_refund_when_made_at_the_provider_then_the_order_is_refunded(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.tell(payment, "captured")
    await till.tell(payment, "refunded")
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "refunded")
    assert await till.units() == (3, 0, 0)
    assert till.provider.refunds == []


async def test_refund_when_it_names_only_the_providers_payment_then_found(till: Till) -> None:
    """Stripe: a session is made, its payment is captured, a refund by hand names the payment."""
    order = await till.order()
    payment = await till.begin(order)
    told: list[tuple[Any, uuid.UUID | None]] = [("captured", payment), ("refunded", None)]
    for number, (kind, ours) in enumerate(told):
        event = NewEvent("demo", f"e{number}", kind, "pi_1", ours, 100, "CNY", 0, b"")
        async with till.shop.pool.acquire() as conn:
            await insert_event(conn, event)
        assert await till.acts.handle("demo", f"e{number}")
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "refunded")


async def test_refund_when_made_at_the_provider_after_delivery_then_the_order_stays(
    till: Till,
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.tell(payment, "captured")
    await till.shop.pool.execute("UPDATE orders SET status = 'fulfilled'")
    await till.tell(payment, "refunded")
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "fulfilled")


@pytest.mark.parametrize("wrong", [{"amount": 99}, {"amount": 101}, {"currency": "USD"}])
async def test_capture_when_the_amount_is_wrong_then_refunded(
    till: Till, wrong: dict[str, object]
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.tell(payment, "captured", **wrong)
    assert await till.status(payment) == "refund_requested"
    await till.round()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "confirmed")
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
    order = await till.order()
    payment = await till.begin(order)
    with monkeypatch.context() as patched:

        async def dies(*_: object, **__: object) -> None:
            raise RecordsUnavailable("gone")

        patched.setattr("server.acts.payments.move_orders", dies)
        await till.tell(payment, "captured")
    assert (await till.status(payment), await till.order_status(order)) == ("created", "confirmed")
    await till.round()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")


async def test_payment_when_it_races_with_the_expiry_then_one_wins_and_nothing_is_lost(
    till: Till,
) -> None:
    for _ in range(5):
        await till.open_sale(units=1)
        order = await till.order()
        payment = await till.begin(order)
        await asyncio.gather(till.expire(order, tell=False), till.tell(payment, "captured"))
        await till.settle()
        assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
        assert await till.units() == (0, 0, 1)


# --- late payments ----------------------------------------------------------------------------


async def test_late_payment_when_units_are_left_then_taken_again_and_paid(till: Till) -> None:
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    await till.expire(order)
    assert (await till.units(), await till.counted("an")) == ((3, 0, 0), (0, 0))
    await till.tell(payment, "captured")
    assert await till.status(payment) == "retake_pending"
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
    assert (await till.units(), await till.counted("an")) == ((1, 0, 2), (2, 2))
    reasons = await till.shop.pool.fetch("SELECT reason FROM order_moves ORDER BY move_id")
    assert [row["reason"] for row in reasons] == ["deadline", "retake"]
    claims = [claim async for claim in till.shop.stock.remembered_claims(SHOW)]
    assert [claim.state.status for claim in claims] == ["paid"]
    assert till.provider.refunds == []


async def test_late_payment_when_others_bought_the_units_then_refunded(till: Till) -> None:
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    await till.expire(order)
    await till.order("bo", 2)
    await till.tell(payment, "captured")
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "expired")
    assert (await till.payment(payment))["reason"] == "out_of_stock"
    assert [refund.payment_id for refund in till.provider.refunds] == [payment]
    assert await till.units() == (1, 2, 0)


async def test_late_payment_when_the_sale_has_closed_then_refunded(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.shop.stock.take(SHOW, till.sale, uuid.uuid4().bytes, None, close=True)
    await till.tell(payment, "captured")
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "expired")
    assert (await till.payment(payment))["reason"] == "sold_out"


async def test_late_payment_when_the_buyer_bought_again_then_the_limit_decides(till: Till) -> None:
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    await till.expire(order)
    await till.order("an", 1)
    await till.tell(payment, "captured")
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "expired")
    assert (await till.payment(payment))["reason"] == "limit_reached"


async def test_late_payment_when_units_are_forfeited_then_they_count_once(till: Till) -> None:
    await till.open_sale(units=3, limit=2)
    for _ in range(3):
        await till.expire(await till.order(quantity=2))
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    await till.expire(order)
    assert (await till.units(), await till.counted("an")) == ((3, 0, 0), (2, 2))
    await till.tell(payment, "captured")
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
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


async def test_late_payment_when_the_stock_is_rebuilt_then_it_waits(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    await till.shop.clients.commands.hset(f"ls:{{{SHOW}}}:meta", "gate", "rebuilding")
    await till.round()
    row = await till.payment(payment)
    assert (row["status"], row["last_error"]) == ("retake_pending", "stock_rebuilding")
    await till.shop.clients.commands.hset(f"ls:{{{SHOW}}}:meta", "gate", "open")
    await till.settle()
    assert await till.status(payment) == "captured"


@pytest.mark.parametrize("was_taken", [False, True])
async def test_late_payment_when_nobody_decides_for_long_then_refunded_and_nothing_is_lost(
    till: Till, was_taken: bool
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    if was_taken:
        await till.round()
    await till.shop.clients.commands.hset(f"ls:{{{SHOW}}}:meta", "gate", "rebuilding")
    for _ in range(3):
        await till.round()
    assert await till.status(payment) == "retake_pending"
    await till.shop.pool.execute("UPDATE payments SET attempts = $1", RETAKE_ATTEMPTS_MAX)
    await till.round()
    await till.round()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "expired")
    await till.shop.clients.commands.hset(f"ls:{{{SHOW}}}:meta", "gate", "open")
    await till.settle()
    assert (await till.status(payment), await till.units()) == ("refunded", (3, 0, 0))


async def test_late_payment_when_refunded_while_its_take_is_on_the_way_then_units_return(
    till: Till,
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    await till.round()
    assert (await till.available(), await till.counted("an")) == (2, (1, 0))
    await till.tell(payment, "refunded")
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "expired")
    assert (await till.units(), await till.counted("an")) == ((3, 0, 0), (0, 0))
    row = await till.shop.pool.fetchrow("SELECT units, reason FROM retakes")
    assert row is not None
    assert tuple(row) == (0, "not_waiting")


async def test_late_payment_when_the_worker_dies_between_any_two_steps_then_it_ends_well(
    till: Till,
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    await till.round()  # the script has run
    await till.round()  # asked again: nothing is taken twice
    assert await till.available() == 2
    await till.entries()  # read by a worker that dies before its commit
    await till.book(confirm=False)  # another one dies after the commit
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
    await till.book()  # and the entry comes again
    assert await till.shop.stream_length() == 0
    await till.settle()
    assert await till.units() == (2, 0, 1)
    assert await till.shop.pool.fetchval("SELECT count(*) FROM retakes") == 1


async def test_late_payment_when_two_payers_ask_at_once_then_one_take(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
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
    late = []
    for buyer in ("an", "bo"):
        order = await till.order(buyer)
        late.append(await till.begin(order))
        await till.expire(order)
    for payment in late:
        await till.tell(payment, "captured")
    await till.settle()
    assert sorted([await till.status(payment) for payment in late]) == ["captured", "refunded"]
    assert await till.units() == (0, 0, 1)


async def test_late_payment_when_the_books_have_no_room_then_refunded_and_nothing_given(
    till: Till,
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    await till.shop.pool.execute("UPDATE pools SET dead = initial")  # Redis has more than there is
    await till.go_on()
    assert (await till.status(payment), await till.order_status(order)) == ("refunded", "expired")
    row = await till.shop.pool.fetchrow("SELECT units, reason FROM retakes")
    assert row is not None
    assert tuple(row) == (0, "no_room")
    reasons = await till.shop.pool.fetch("SELECT reason FROM gives")
    assert [row["reason"] for row in reasons] == ["expired"]  # what is not there cannot go back


async def test_retake_when_no_payment_knows_it_then_a_dead_letter(till: Till) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
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
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
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


# --- refunds ----------------------------------------------------------------------------------


async def test_refund_when_the_provider_is_away_then_tried_again_later(till: Till) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    till.provider.refund_answers = [ProviderUnavailable("away"), "pending", ProviderRefused("no")]
    for attempt, error in enumerate(("away", "pending", "no"), 1):
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
    late = await till.order("bo")
    late_payment = await till.begin(late)
    await till.expire(late)
    await till.tell(late_payment, "captured")
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
        "the provider stripe is not set up",
    )


async def test_begin_when_nobody_takes_payments_then_not_found(till: Till) -> None:
    order = await till.order()
    object.__setattr__(till.acts.providers, "chosen", None)
    with pytest.raises(Refused, match="not_found"):
        await till.begin(order)


# --- late payments while the stock moves -------------------------------------------------------


async def test_late_payment_when_another_order_expires_at_once_then_its_unit_can_be_had(
    till: Till,
) -> None:
    await till.open_sale(units=1)
    order = await till.order("an")
    payment = await till.begin(order)
    await till.expire(order)
    other = await till.order("bo")
    await till.expire(other, tell=False)
    await till.tell(payment, "captured")
    assert await till.available() == 0
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")


async def test_late_payment_when_it_races_with_an_expiry_then_units_and_money_are_exact(
    till: Till,
) -> None:
    for _ in range(4):
        await till.open_sale(units=1)
        order = await till.order("an")
        payment = await till.begin(order)
        await till.expire(order)
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
    order = await till.order(quantity=2)
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    if lost_after != "the event":
        await till.round()
    if lost_after == "the commit":
        await till.book(confirm=False)
    await till.shop.clients.commands.flushall()
    await till.round()  # nobody knows the stock: it waits
    report = await reconcile(SHOW, till.shop.tools(), "lost", "test")
    assert report.epoch == 2
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
    assert (await till.units(), await till.counted("an")) == ((1, 0, 2), (2, 2))


async def test_late_payment_when_the_stock_is_rebuilt_with_its_take_in_the_stream_then_kept(
    till: Till,
) -> None:
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    await till.round()
    await reconcile(SHOW, till.shop.tools(), "asked", "test")
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
    assert await till.shop.pool.fetchval("SELECT count(*) FROM retakes") == 1


# --- who decides, decides alone ----------------------------------------------------------------


async def late_with_take(till: Till) -> tuple[int, uuid.UUID]:
    """A late payment whose take is on its way to the order worker, and that is overdue."""
    order = await till.order()
    payment = await till.begin(order)
    await till.expire(order)
    await till.tell(payment, "captured")
    await till.round()
    await till.shop.pool.execute("UPDATE payments SET attempts = $1", RETAKE_ATTEMPTS_MAX)
    return order, payment


async def test_late_payment_when_the_payer_decides_then_the_worker_waits_for_it(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, payment = await late_with_take(till)
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
    assert await till.order_status(order) == "expired"
    await till.settle()
    assert (await till.status(payment), await till.units()) == ("refunded", (3, 0, 0))


async def test_late_payment_when_the_worker_decides_then_the_payer_leaves_it(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, payment = await late_with_take(till)
    decided: list[bool] = []

    async def asked_meanwhile(*args: Any, **more: Any) -> Any:
        decided.append(await till.acts.retake(SHOW, payment))
        return await move_orders(*args, **more)

    with monkeypatch.context() as patched:
        patched.setattr("server.records.retakes.move_orders", asked_meanwhile)
        await till.book()
    assert decided == [False]
    await till.settle()
    assert (await till.status(payment), await till.order_status(order)) == ("captured", "paid")
