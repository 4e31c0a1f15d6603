"""Events that cannot be handled yet: tried again with growing pauses, in nobody's way."""

import asyncio
import uuid
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.acts.payments import PaymentActs
from server.errors import RecordsUnavailable
from server.records import payments
from server.records.payments import EVENT_FIRST_S, EVENT_MAX_S
from tests.till import Till

STUBBORN = "evt_stubborn"


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever receives an event dies before handling it."""

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(PaymentActs, "_try_to_handle", nothing)


async def stubborn_event(till: Till) -> uuid.UUID:
    """The payment of an event that no attempt can handle: the books refuse it."""
    await till.shop.pool.execute(
        "ALTER TABLE payment_events ADD CONSTRAINT fault"
        f" CHECK (event_id <> '{STUBBORN}' OR handled_at IS NULL)"
    )
    payment = await till.begin(await till.order("eve"))
    raw, headers = await till.webhook(payment, "captured", STUBBORN)
    await till.acts.receive("demo", raw, headers)
    return payment


@pytest.fixture(autouse=True)
async def mended(till: Till) -> Any:
    """The database is shared by all tests of payments."""
    yield
    await mend(till)


async def mend(till: Till) -> None:
    await till.shop.pool.execute("ALTER TABLE payment_events DROP CONSTRAINT IF EXISTS fault")


async def waits(till: Till) -> tuple[int, float]:
    """Attempts at the stubborn event, and seconds to the next one."""
    row = await till.shop.pool.fetchrow(
        "SELECT attempts, extract(epoch FROM next_attempt_at - now())::float AS seconds"
        " FROM payment_events WHERE event_id = $1",
        STUBBORN,
    )
    assert row is not None
    return row["attempts"], row["seconds"]


async def test_event_when_it_is_new_then_whoever_received_it_has_time_for_it(
    till: Till, left: None
) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured")
    assert await till.acts.due_events(10) == []
    await till.round()
    assert await till.status(payment) == "captured"


async def test_event_when_it_cannot_be_handled_then_pauses_double_up_to_the_most(
    till: Till, left: None
) -> None:
    await stubborn_event(till)
    for attempt in range(1, 11):
        await till.round()
        pause = min(EVENT_FIRST_S * 2 ** (attempt - 1), EVENT_MAX_S)
        attempts, seconds = await waits(till)
        assert attempts == attempt
        assert pause - 60 < seconds <= pause
        assert await till.acts.due_events(10) == []  # nobody tries meanwhile
    assert pause == EVENT_MAX_S


async def test_event_when_it_cannot_be_handled_then_why_is_kept_until_it_can(
    till: Till, left: None
) -> None:
    payment = await stubborn_event(till)
    await till.round()
    async with till.shop.pool.acquire() as conn:
        (event,) = await payments.events_of_payment(conn, payment)
        assert "CheckViolationError" in event.last_error
        assert (event.handled_ms, event.attempts, event.outcome) == (0, 1, "")
        await mend(till)
        await till.round()
        (event,) = await payments.events_of_payment(conn, payment)
    assert (event.last_error, event.outcome) == ("", "order_paid")
    await till.settle()


@pytest.mark.parametrize("fault", [RecordsUnavailable("deadlock"), ValueError("a fault of ours")])
async def test_event_when_one_cannot_be_handled_then_the_others_of_its_round_are(
    till: Till, left: None, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    await till.open_sale(units=9, limit=9)
    some = [await till.begin(await till.order()) for _ in range(6)]
    for payment in some:
        await till.tell(payment, "captured")
    find = payments.find_payment
    failed: list[Any] = []

    async def fails_once(*args: Any) -> Any:
        if not failed:
            failed.append(args)
            raise fault
        return await find(*args)

    monkeypatch.setattr(payments, "find_payment", fails_once)
    await till.due_now()
    with suppress(RecordsUnavailable):  # is told in the end
        await till.payer.handle_events()
    statuses = [await till.status(payment) for payment in some]
    assert sorted(statuses) == ["captured"] * 5 + ["created"]
    await till.settle()


async def test_event_when_a_row_of_it_is_held_for_long_then_the_others_do_not_wait_for_it(
    till: Till, left: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen process holds the pool of one sale; the events of others go on beside it."""
    monkeypatch.setattr(payments, "EVENT_LOCK_MS", 100)
    held = [await till.begin(await till.order(buyer)) for buyer in ("an", "bo", "cy")]
    first = till.sale
    await till.open_sale()
    free = await till.begin(await till.order())
    for payment in (*held, free):
        await till.tell(payment, "captured")
    async with till.shop.pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT FROM pools WHERE pool_id = $1 FOR UPDATE", first)
        await till.due_now()
        await till.payer.handle_events()
        assert await till.status(free) == "captured"
        assert [await till.status(payment) for payment in held] == ["created"] * 3
    await till.settle()
    assert [await till.status(payment) for payment in held] == ["captured"] * 3


async def test_event_when_hundreds_are_stubborn_then_a_new_one_is_handled_in_its_turn(
    till: Till, left: None
) -> None:
    await stubborn_event(till)
    await till.shop.pool.execute(
        "INSERT INTO payment_events (provider, event_id, kind, external_id, amount, currency,"
        " occurred_at, payload)"
        " SELECT provider, event_id || n, kind, external_id, amount, currency, occurred_at, payload"
        " FROM payment_events, generate_series(1, 200) AS n"
    )
    await mend(till)
    await till.shop.pool.execute(
        "ALTER TABLE payment_events ADD CONSTRAINT fault"
        f" CHECK (event_id NOT LIKE '{STUBBORN}%' OR handled_at IS NULL) NOT VALID"
    )
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured")
    await till.due_now()
    with capture_logs():  # two hundred times why
        for _ in range(3):
            await till.payer.handle_events()
    assert await till.status(payment) == "captured"


async def test_events_when_many_payers_look_at_once_then_each_is_one_payers(
    till: Till, left: None
) -> None:
    await till.open_sale(units=20, limit=20)
    for _ in range(10):
        await till.tell(await till.begin(await till.order()), "captured")
    await till.due_now()
    found = await asyncio.gather(*(till.acts.due_events(4) for _ in range(7)))
    taken = [event for some in found for event in some]
    assert len(taken) == len(set(taken)) == 10
