"""`livesale payments list` and `show`: what operators see of payments, and above all of those that
still move."""

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from server.domain.money import amount_text
from server.errors import Refused
from server.records import payments
from server.records.order_life import MoveRow, moves_of_order
from server.records.payments import EventRow, PaymentAct, PaymentRow
from server.records.pool import Connection, acquire, open_pool

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PaymentHistory:
    """A payment with what its provider said, how its order moved and what operators did."""

    payment: PaymentRow
    events: list[EventRow]
    moves: list[MoveRow]
    acts: list[PaymentAct]


def run_list(database_url: str, *, as_json: bool, **which: Any) -> None:
    """Print payments, newest first; `which`: as for payments.list_payments. Raises
    RecordsUnavailable, Misconfigured."""
    rows = asyncio.run(_read(database_url, lambda conn: payments.list_payments(conn, **which)))
    _print(json_lines(rows) if as_json else text_lines(rows))


def run_show(database_url: str, payment_id: uuid.UUID, *, as_json: bool) -> None:
    """Print one payment's history, oldest first. Raises Refused(not_found), RecordsUnavailable,
    Misconfigured."""
    found = asyncio.run(_read(database_url, lambda conn: history(conn, payment_id)))
    _print(json_lines([found]) if as_json else history_lines(found))


async def history(conn: Connection, payment_id: uuid.UUID) -> PaymentHistory:
    """Raises Refused(not_found)."""
    row = await payments.get_payment(conn, payment_id)
    if row is None:
        raise Refused("not_found", "No such payment")
    return PaymentHistory(
        row,
        await payments.events_of_payment(conn, payment_id),
        await moves_of_order(conn, row.order_id),
        await payments.acts_on_payment(conn, row.show_id, payment_id),
    )


async def _read(database_url: str, read: Callable[[Connection], Awaitable[T]]) -> T:
    pool = await open_pool(database_url, size=1)
    try:
        async with acquire(pool) as conn:
            return await read(conn)
    finally:
        pool.terminate()


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


# --- Lines ----------------------------------------------------------------------------------------


def json_lines(rows: Iterable[PaymentRow | PaymentHistory]) -> Iterator[str]:
    """One object a line."""
    for row in rows:
        yield json.dumps(_fields(row), ensure_ascii=False)


def text_lines(rows: Iterable[PaymentRow]) -> Iterator[str]:
    """One payment a line: when, what, how it stands and why."""
    for row in rows:
        yield (
            f"{_at(row.updated_ms)}  {row.payment_id}  show {row.show_id}  order {row.order_id}  "
            f"{_money(row.amount, row.currency)}  {row.provider}  {_standing(row)}"
        )


def history_lines(found: PaymentHistory) -> Iterator[str]:
    """The payment's line, then what happened to it and to its order, oldest first."""
    yield from text_lines([found.payment])
    happened = [(found.payment.created_ms, "begun")]
    happened += [(event.received_ms, _event_text(event)) for event in found.events]
    happened += [(move.at_ms, _move_text(move)) for move in found.moves]
    happened += [(act.at_ms, _act_text(act)) for act in found.acts]
    for at_ms, text in sorted(happened, key=lambda each: each[0]):
        yield f"  {_at(at_ms)}  {text}"


def _standing(row: PaymentRow) -> str:
    status = row.status + (" by hand" if row.settled_by_hand else "")
    waits = "waits for an operator" if row.refused else ""
    waits = "went back twice" if row.refunded_twice else waits
    error = f"({row.last_error})" if row.last_error else ""
    return "  ".join(filter(None, (status, waits, " ".join(filter(None, (row.reason, error))))))


def _event_text(event: EventRow) -> str:
    came = event.outcome or f"not handled in {event.attempts} attempts {event.last_error}".rstrip()
    money = _money(event.amount, event.currency)
    return f"event {event.event_id}  {event.kind}  {money}  {came}"


def _move_text(move: MoveRow) -> str:
    by = f"  by {move.actor}" if move.actor else ""
    return f"order {move.status_from} -> {move.status_to}  {move.reason}{by}"


def _act_text(act: PaymentAct) -> str:
    note = f"  {act.note}" if act.note else ""
    return f"{act.action}  by {act.actor}{note}"


def _money(minor: int, currency: str) -> str:
    return f"{amount_text(minor, currency)} {currency}"


def _at(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")


def _fields(found: PaymentRow | PaymentHistory) -> dict[str, Any]:
    if isinstance(found, PaymentRow):
        fields: dict[str, Any] = msgspec.to_builtins(found)
        return fields
    return {
        "payment": _fields(found.payment),
        "events": [event._asdict() for event in found.events],
        "moves": [move._asdict() for move in found.moves],
        "acts": [act._asdict() for act in found.acts],
    }
