"""Payments in PostgreSQL, and the events of their providers; statements are in sql/payments.sql.

Whoever decides about a payment holds its row. With the order, the rows of the epoch and the pool
come first (order_life.hold_pools), so that the order worker and this never wait for each other in
a circle.
"""

import uuid
from dataclasses import dataclass
from typing import Final, NamedTuple

import asyncpg

from server.domain.order import OrderStatus
from server.domain.payment import EventKind, PaymentStatus, Standing
from server.records import sql
from server.records.pool import Connection

SQL: Final = sql.load("payments")
ERROR_CHARS: Final = 300
RETAKE_ATTEMPTS_MAX: Final = 300  # a re-take that was not decided by then ends in a refund
REFUND_FIRST_S: Final = 20.0  # to the second attempt; doubled from one to the next
REFUND_MAX_S: Final = 3_600.0
EVENT_AFTER_S: Final = 1.0  # a younger event is still being handled by whoever received it
EVENT_FIRST_S: Final = 2.0  # from the payer's first attempt to its second; doubled each time
EVENT_MAX_S: Final = 300.0
EVENT_LOCK_MS: Final = 1_000  # that the payer waits for each lock; who holds one is at work


class OrderToPay(NamedTuple):
    """What a buyer would pay for. `in_time`: the order has a time to pay, and it is not over."""

    order_id: int
    status: OrderStatus
    quantity: int
    price: int
    currency: str
    product: str
    sku: str
    in_time: bool


class OpenPayment(NamedTuple):
    """A payment that the buyer can pay, once it has a `pay_url`."""

    payment_id: uuid.UUID
    order_id: int
    provider: str
    status: PaymentStatus
    amount: int
    currency: str
    pay_url: str


class NewEvent(NamedTuple):
    """A verified event as it came. `occurred_at`: ms since 1970, by the provider's clock."""

    provider: str
    event_id: str
    kind: EventKind
    external_id: str
    payment_id: uuid.UUID | None
    amount: int
    currency: str
    occurred_at: int
    payload: bytes


class HeldEvent(NamedTuple):
    """An event that is in hand until the transaction ends."""

    kind: EventKind
    external_id: str
    payment_id: uuid.UUID | None
    amount: int
    currency: str


class PaymentPlace(NamedTuple):
    """Where a payment belongs."""

    payment_id: uuid.UUID
    show_id: str
    order_id: int


class WaitingRetake(NamedTuple):
    """A late payment in hand, with what has to be taken for it again.

    `counted`: units that count anew against the buyer's limit. `given`: Redis has the units that
    came back when the order expired. `overdue`: it was looked at RETAKE_ATTEMPTS_MAX times.
    """

    show_id: str
    pool_id: int
    buyer: str
    quantity: int
    price: int
    price_version: int
    counted: int
    given: bool
    overdue: bool


class DueRefund(NamedTuple):
    """A refund to ask the provider for, now. `attempt`: its number; a later one makes it void."""

    payment_id: uuid.UUID
    provider: str
    external_id: str
    amount: int
    currency: str
    attempt: int


class HeldRefund(NamedTuple):
    """A payment in hand until the transaction ends. `due`: its money has to go back. `in_hand`:
    its provider may be being asked just now; `refused`: it will not do it. `refunded_twice`: by
    hand and by the provider."""

    due: bool
    in_hand: bool
    refused: bool
    refunded_twice: bool


class Unfinished(NamedTuple):
    """How much waits: late payments, refunds, refunds that providers refuse, money that went back
    twice, events not handled."""

    retake_pending: int
    refund_requested: int
    refund_refused: int
    refunded_twice: int
    events: int


@dataclass(frozen=True, slots=True)
class PaymentRow:
    """One payment as operators see it. Times in ms since 1970. `refused`: its provider will not
    refund it, an operator has to settle it; `settled_by_hand`: one did; `refunded_twice`: and the
    provider gave the money back as well."""

    payment_id: uuid.UUID
    show_id: str
    order_id: int
    buyer: str
    provider: str
    external_id: str
    amount: int
    currency: str
    status: PaymentStatus
    reason: str
    attempts: int
    last_error: str
    settled_by_hand: bool
    refunded_twice: bool
    refused: bool
    created_ms: int
    updated_ms: int


class EventRow(NamedTuple):
    """What a provider said of a payment. `handled_ms` 0: not handled yet, `last_error` says why;
    `outcome`: what came of it."""

    event_id: str
    kind: EventKind
    amount: int
    currency: str
    outcome: str
    attempts: int
    last_error: str
    received_ms: int
    handled_ms: int


class PaymentAct(NamedTuple):
    """What an operator did with a payment."""

    action: str
    actor: str
    note: str | None
    at_ms: int


# --- Beginning ------------------------------------------------------------------------------------


async def order_to_pay(
    conn: Connection, show_id: str, order_id: int, buyer: str
) -> OrderToPay | None:
    row = await conn.fetchrow(SQL["order_to_pay"], show_id, order_id, buyer)
    return OrderToPay(**row) if row else None


async def open_payment(
    conn: Connection,
    payment_id: uuid.UUID,
    provider: str,
    show_id: str,
    buyer: str,
    order: OrderToPay,
    amount: int,
) -> OpenPayment | None:
    """The open payment of the order at this provider: a new one with this id, or the one there
    is. None: it was open and has moved on meanwhile."""
    values = (payment_id, order.order_id, provider, amount, order.currency, show_id, buyer)
    await conn.execute(SQL["insert_payment"], *values)
    row = await conn.fetchrow(SQL["open_payment"], order.order_id, provider)
    return OpenPayment(**row) if row else None


async def set_intent(
    conn: Connection, payment_id: uuid.UUID, external_id: str, pay_url: str
) -> None:
    await conn.execute(SQL["set_intent"], payment_id, external_id, pay_url)


# --- Events ---------------------------------------------------------------------------------------


async def insert_event(conn: Connection, event: NewEvent) -> bool:
    """Keep an event; True when it is new. Outside a transaction it is durable after this."""
    return await conn.fetchval(SQL["insert_event"], *event, EVENT_AFTER_S) is not None


async def hold_event(conn: Connection, provider: str, event_id: str) -> HeldEvent | None:
    """The event, in hand until the transaction ends; None: handled, or in somebody else's."""
    row = await conn.fetchrow(SQL["hold_event"], provider, event_id)
    return HeldEvent(**row) if row else None


async def finish_event(
    conn: Connection, provider: str, event_id: str, outcome: str, payment_id: uuid.UUID | None
) -> None:
    """The caller holds the event; `payment_id`: the payment it is about, if it was found."""
    await conn.execute(SQL["finish_event"], provider, event_id, outcome, payment_id)


async def take_events(conn: Connection, limit: int) -> list[tuple[str, str]]:
    """(provider, event id) of events that nobody has handled, each for one caller: if that fails
    too it is due again after EVENT_FIRST_S, doubled each time up to EVENT_MAX_S."""
    rows = await conn.fetch(SQL["take_events"], limit, EVENT_FIRST_S, EVENT_MAX_S)
    return [(row["provider"], row["event_id"]) for row in rows]


async def note_event_fault(conn: Connection, provider: str, event_id: str, error: str) -> None:
    """An event could not be handled yet, and why."""
    await conn.execute(SQL["note_event_fault"], provider, event_id, error[:ERROR_CHARS])


async def find_payment(
    conn: Connection, provider: str, payment_id: uuid.UUID | None, external_id: str
) -> PaymentPlace | None:
    """The payment an event is about, by our id if it names it, else by the provider's."""
    row = await conn.fetchrow(SQL["find_payment"], provider, payment_id, external_id)
    return PaymentPlace(**row) if row else None


async def hold_standing(conn: Connection, payment_id: uuid.UUID) -> Standing:
    """The payment and its order, both held. The caller holds the epoch's and the pool's row."""
    row = await conn.fetchrow(SQL["hold_standing"], payment_id)
    assert row is not None  # payments are never deleted
    return Standing(**row)


async def set_status(
    conn: Connection,
    payment_id: uuid.UUID,
    status: PaymentStatus,
    reason: str = "",
    external_id: str = "",
) -> None:
    """The caller holds the payment and has looked up that the step is an edge."""
    await conn.execute(SQL["set_status"], payment_id, status, reason, external_id)


async def request_refund(conn: Connection, order_id: int, reason: str) -> bool:
    """Ask for the order's captured payment to go back; in the transaction that refunds the order,
    after it. False: nothing was captured. The order worker's process does the rest."""
    return await conn.fetchval(SQL["request_refund"], order_id, reason) is not None


# --- Late payments --------------------------------------------------------------------------------


async def due_retakes(conn: Connection, limit: int) -> list[tuple[str, uuid.UUID]]:
    """(show, payment) of late payments to look at now."""
    rows = await conn.fetch(SQL["due_retakes"], limit)
    return [(row["show_id"], row["payment_id"]) for row in rows]


async def hold_retake(conn: Connection, payment_id: uuid.UUID) -> WaitingRetake | None:
    """A late payment, in hand until the transaction ends; None: it does not wait any more, or
    somebody else has it."""
    row = await conn.fetchrow(SQL["hold_retake"], payment_id, RETAKE_ATTEMPTS_MAX)
    return WaitingRetake(**row) if row else None


async def postpone(
    conn: Connection, payment_id: uuid.UUID, seconds: float, error: str = ""
) -> None:
    """Look at a late payment again after `seconds`, and count that it was looked at."""
    await conn.execute(SQL["postpone"], payment_id, seconds, error[:ERROR_CHARS])


# --- Refunds --------------------------------------------------------------------------------------


async def take_refunds(conn: Connection, limit: int) -> list[DueRefund]:
    """Refunds that are due, each for one caller: it has REFUND_FIRST_S to ask the provider."""
    rows = await conn.fetch(SQL["take_refunds"], limit, REFUND_FIRST_S, REFUND_MAX_S)
    return [DueRefund(**row) for row in rows]


async def start_attempt(conn: Connection, due: DueRefund) -> bool:
    """Whether the provider is still to be asked by this attempt; it has REFUND_FIRST_S from now."""
    args = (due.payment_id, due.attempt, REFUND_FIRST_S)
    return await conn.fetchval(SQL["start_attempt"], *args) is not None


async def note_attempt(conn: Connection, due: DueRefund, error: str) -> None:
    """The provider did not refund yet, and why. Nothing after a later attempt."""
    await conn.execute(SQL["note_attempt"], due.payment_id, due.attempt, error[:ERROR_CHARS])


async def stop_refund(conn: Connection, due: DueRefund, error: str) -> None:
    """The provider will not refund, and why: the payment waits for an operator. Nothing after a
    later attempt."""
    await conn.execute(SQL["stop_refund"], due.payment_id, due.attempt, error[:ERROR_CHARS])


async def fail_refund(conn: Connection, payment_id: uuid.UUID, error: str) -> None:
    """What the provider had taken on failed: the payment waits for an operator. The caller holds
    it."""
    await conn.execute(SQL["fail_refund"], payment_id, error)


async def set_refunded(conn: Connection, payment_id: uuid.UUID) -> bool:
    """The provider gave the money back. True: an operator had done so too, meanwhile."""
    return bool(await conn.fetchval(SQL["set_refunded"], payment_id))


async def set_refunded_twice(conn: Connection, payment_id: uuid.UUID) -> None:
    """The provider gave back what an operator had given back. The caller holds the payment."""
    await conn.execute(SQL["set_refunded_twice"], payment_id)


async def hold_refund(conn: Connection, payment_id: uuid.UUID) -> HeldRefund:
    """A payment that there is, in hand until the transaction ends."""
    row = await conn.fetchrow(SQL["hold_refund"], payment_id, REFUND_FIRST_S)
    assert row is not None  # payments are never deleted
    return HeldRefund(**row)


async def refund_again(conn: Connection, payment_id: uuid.UUID) -> None:
    """The provider is asked again now. The caller holds the payment, which is to be refunded."""
    await conn.execute(SQL["refund_again"], payment_id)


async def settle_by_hand(conn: Connection, payment_id: uuid.UUID) -> None:
    """The money went back without the provider's help, or what went back twice is seen to. The
    caller holds the payment, which waits for that."""
    await conn.execute(SQL["settle_by_hand"], payment_id)


# --- Looking --------------------------------------------------------------------------------------


async def list_payments(
    conn: Connection,
    *,
    show_id: str | None = None,
    unfinished: bool = False,
    refused: bool = False,
    limit: int = 100,
) -> list[PaymentRow]:
    """Payments of a show or of all, newest first; `unfinished`: those that still have to move;
    `refused`: those that wait for an operator."""
    rows = await conn.fetch(SQL["list_payments"], show_id, unfinished, refused, None, limit)
    return [PaymentRow(**row) for row in rows]


async def get_payment(conn: Connection, payment_id: uuid.UUID) -> PaymentRow | None:
    row = await conn.fetchrow(SQL["list_payments"], None, False, False, payment_id, 1)
    return PaymentRow(**row) if row else None


async def events_of_payment(conn: Connection, payment_id: uuid.UUID) -> list[EventRow]:
    """What its provider said of a payment, oldest first."""
    return [EventRow(*row) for row in await conn.fetch(SQL["events_of_payment"], payment_id)]


async def acts_on_payment(
    conn: Connection, show_id: str, payment_id: uuid.UUID
) -> list[PaymentAct]:
    """What operators did with a payment, oldest first."""
    rows = await conn.fetch(SQL["acts_on_payment"], show_id, str(payment_id))
    return [PaymentAct(*row) for row in rows]


async def count_unfinished(conn: Connection) -> Unfinished:
    row: asyncpg.Record | None = await conn.fetchrow(SQL["count_unfinished"])
    assert row is not None
    return Unfinished(**row)
