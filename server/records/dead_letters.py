"""Takes that could not be booked, and the two ways out: into the books, or back to the pool.

While a letter is parked its units count as dead in its pool and the claim stays held. Decisions
are made here in the caller's transaction, under the pool's row as everything that changes its
units; whoever comes second finds it decided. Redis is told afterwards by what is written: an
order's step or a give (acts/order_projector.py), else the letter itself (acts/letter_projector.py).
"""

import uuid
from typing import Any, Final, Literal, NamedTuple

import asyncpg
import msgpack

from server.domain.claim import (
    KIND_CLAIM,
    KIND_CLOSING,
    KIND_LOWERING,
    KIND_RETAKE,
    PoolBooks,
    PoolCount,
    Take,
    rule,
)
from server.errors import Refused
from server.records import orders
from server.records.orders import DATA_ERRORS
from server.records.outbox import note_moves, note_released
from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import to_ms

_SQL: Final = load("dead_letters")
_ACTS: Final = uuid.UUID("5d8c6a0e-3b1f-5c55-8d44-6c1f0d1b7e90")
ERROR_CHARS: Final = 200  # of PostgreSQL's reason, told to whoever asked

KIND_NAMES: Final = {
    KIND_CLAIM: "claim",
    KIND_LOWERING: "lowering",
    KIND_CLOSING: "closing",
    KIND_RETAKE: "retake",
}
LetterStatus = Literal["parked", "redriven", "given_back"]


class Letter(NamedTuple):
    """A dead letter. `units`: counted as dead in its pool; `payload`: the take in msgpack.

    An entry of the order stream that cannot be read at all has pool 0, seq 0 and its `entry_id`.
    """

    dead_letter_id: int
    show_id: str
    pool_id: int
    epoch: int
    seq: int
    entry_id: str
    units: int
    payload: bytes
    error: str
    status: LetterStatus
    at_ms: int

    @property
    def take(self) -> Take | None:
        """The take, None for an entry that cannot be read."""
        return None if self.entry_id else Take(*msgpack.unpackb(self.payload))

    def content(self) -> dict[str, Any]:
        """The payload for people: bytes as text where they are text, else in hex."""
        if take := self.take:
            return _readable_take(take)
        kept = msgpack.unpackb(self.payload, raw=True)
        if isinstance(kept, list):
            return {"takes": [_readable_take(Take(*take)) for take in kept]}
        return {str(_readable(name)): _readable(value) for name, value in kept.items()}


class Decided(NamedTuple):
    """What was decided, now or earlier. `order_id` 0: no order came of it."""

    letter: Letter
    order_id: int = 0
    before: bool = False


async def list_letters(
    conn: Connection, show_id: str, status: LetterStatus | None, before: int | None, limit: int
) -> list[Letter]:
    """A show's letters, newest first, older than letter `before`."""
    rows = await conn.fetch(_SQL["list_letters"], show_id, status, before, limit)
    return [_letter(row) for row in rows]


async def get_letter(conn: Connection, show_id: str, letter_id: int) -> Letter:
    """Raises Refused(not_found)."""
    row = await conn.fetchrow(_SQL["get_letter"], show_id, letter_id)
    if row is None:
        raise Refused("not_found", "No such dead letter")
    return _letter(row)


async def counters(conn: Connection, pool_id: int) -> PoolCount | None:
    """A pool's counters as they are now; None: there is no such pool."""
    row = await conn.fetchrow(_SQL["counters"], pool_id)
    return PoolCount(*row) if row else None


async def untold_letters(conn: Connection, limit: int) -> list[tuple[str, int]]:
    """(show, letter) of decisions that Redis may not have and nothing but the letter tells."""
    return [tuple(row) for row in await conn.fetch(_SQL["untold_letters"], limit)]


async def untold_letter(conn: Connection, show_id: str, letter_id: int) -> Letter | None:
    """The letter, if it is one of `untold_letters`."""
    untold = await conn.fetchval(_SQL["is_untold"], show_id, letter_id)
    return await get_letter(conn, show_id, letter_id) if untold else None


async def mark_told(conn: Connection, letter_id: int) -> None:
    """Redis has what was decided."""
    await conn.execute(_SQL["mark_told"], letter_id)


def _readable_take(take: Take) -> dict[str, Any]:
    fields = {name: _readable(value) for name, value in take._asdict().items()}
    return {**fields, "kind": KIND_NAMES.get(take.kind, str(take.kind))}


def _readable(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    if len(value) == 16:
        return str(uuid.UUID(bytes=value))
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _letter(row: asyncpg.Record) -> Letter:
    fields = dict(row)
    fields["at_ms"] = to_ms(fields.pop("at"))
    return Letter(**fields)


# --- Deciding ---------------------------------------------------------------------------------


async def redrive(conn: Connection, show_id: str, letter_id: int, actor: str) -> Decided:
    """Book the take at its own place: an order, or units that a host took back.

    Stock and limit are checked again, and time to pay counts from now. Raises Refused, then the
    transaction has to end: stock_rebuilding, not_found, out_of_stock, limit_reached, or conflict
    (given back already; no pool or nothing to book; the fault is still there).
    """
    letter, pool, status = await _hold(conn, show_id, letter_id)
    if status == "redriven":
        return Decided(letter, before=True)
    take = letter.take
    if status != "parked" or take is None or pool is None or take.kind == KIND_RETAKE:
        raise Refused("conflict", _why_not(status, take, pool))
    order_id = 0
    is_claim = take.kind == KIND_CLAIM
    if is_claim:
        await _require_fit(conn, letter, take, pool)
        order_id = await _book_claim(conn, letter, take, pool["pay_within_s"], actor)
    else:
        await _book_lowering(conn, letter, take)
    await conn.execute(_SQL["set_status"], letter_id, "redriven", not is_claim)
    return Decided(letter._replace(status="redriven"), order_id)


async def give_back(conn: Connection, show_id: str, letter_id: int) -> Decided:
    """The claim is released: its units return to the pool, by a give with a place of its own.

    Units that a host took back cannot be given back: they leave the sale by being redriven. Raises
    Refused: stock_rebuilding, not_found, conflict (redriven already; a host's take).
    """
    letter, pool, status = await _hold(conn, show_id, letter_id)
    if status == "given_back":
        return Decided(letter, before=True)
    take = letter.take
    if status != "parked" or (pool is not None and _is_by_host(take)):
        raise Refused("conflict", _why_not(status, take, pool))
    if letter.units and take is not None:
        await _give(conn, letter, take)
    untold = take is not None and not letter.units
    await conn.execute(_SQL["set_status"], letter_id, "given_back", untold)
    return Decided(letter._replace(status="given_back"))


async def _hold(
    conn: Connection, show_id: str, letter_id: int
) -> tuple[Letter, asyncpg.Record | None, LetterStatus]:
    """The letter, its pool and how it stands, all held until the transaction ends."""
    letter = await get_letter(conn, show_id, letter_id)
    epoch = await conn.fetchrow(_SQL["hold_epoch"], show_id)
    if epoch is None or epoch["halted_by"]:
        raise Refused("stock_rebuilding")
    pool = await conn.fetchrow(_SQL["hold_pool"], show_id, letter.pool_id)
    status: LetterStatus = await conn.fetchval(_SQL["hold_letter"], letter_id)
    if pool is not None and (pool["epoch"], pool["taken_seq"]) < (letter.epoch, letter.seq):
        pool = None  # not the pool that this take was of
    return letter, pool, status


def _why_not(status: LetterStatus, take: Take | None, pool: Any) -> str:
    if status != "parked":
        return f"It was {status.replace('_', ' ')} already"
    if pool is None:
        return "There is nothing to book: the books have no pool for it"
    if take is not None and take.kind == KIND_RETAKE:
        return "A late payment whose take died is refunded; give its units back"
    return "A host's take is redriven: its units go back to the inventory"


def _is_by_host(take: Take | None) -> bool:
    return take is not None and take.kind in (KIND_LOWERING, KIND_CLOSING)


# --- Into the books ---------------------------------------------------------------------------


async def _require_fit(conn: Connection, letter: Letter, take: Take, pool: asyncpg.Record) -> None:
    """Raises Refused unless the worker would keep the take now."""
    books = PoolBooks(take.seq - 1, pool["room"] + letter.units, pool["limit_per_buyer"])
    if "\0" not in take.buyer:
        units = await conn.fetchval(_SQL["units_bought"], letter.pool_id, take.buyer)
        books.bought = {take.buyer: units or 0}
    rulings = rule(books, [take], {})
    for _, fault, _ in rulings.dead:
        raise Refused("conflict", f"The fault is still there: {fault}")
    for _, why in rulings.released:
        raise Refused("out_of_stock" if why == "no_room" else "limit_reached")


async def _book_claim(
    conn: Connection, letter: Letter, take: Take, pay_within: int, actor: str
) -> int:
    """Id of the order. Raises Refused(conflict) when PostgreSQL refuses its data, as before."""
    claim = uuid.UUID(bytes=take.claim_id)
    terms = (take.buyer, claim, take.quantity, take.price, take.price_version, pay_within)
    try:
        order_id: int = await conn.fetchval(
            _SQL["insert_order"],
            *(letter.show_id, letter.pool_id, letter.epoch, letter.seq, *terms, actor),
        )
        await conn.execute(_SQL["add_units"], letter.pool_id, take.buyer, take.quantity)
        reserved, sold = (take.quantity, 0) if pay_within else (0, take.quantity)
        await _unbury(conn, letter, reserved=reserved, sold=sold)
    except DATA_ERRORS as error:
        reason = str(error).partition("\n")[0][:ERROR_CHARS]  # without the row's content
        raise Refused("conflict", f"The fault is still there: {reason}") from error
    place = (letter.epoch, letter.seq)
    await conn.execute(_SQL["note_units"], letter.pool_id, "redriven", take.quantity, *place)
    await note_moves(conn, letter.show_id, "confirmed", [order_id])
    return order_id


async def _book_lowering(conn: Connection, letter: Letter, take: Take) -> None:
    """Units that a host took back leave the sale; an act's id that cannot be stored is replaced."""
    act = uuid.uuid5(_ACTS, str(letter.dead_letter_id))
    if len(take.claim_id) == 16:
        act = uuid.UUID(bytes=take.claim_id)
    row = (letter.pool_id, letter.seq, letter.units, take.kind == KIND_CLOSING, act)
    await _unbury(conn, letter, lowered=letter.units)
    columns = ([value] for value in row)
    await conn.execute(orders.SQL["insert_lowerings"], letter.epoch, *columns)


async def _unbury(
    conn: Connection, letter: Letter, *, reserved: int = 0, sold: int = 0, lowered: int = 0
) -> None:
    """The letter's units are not dead any more."""
    row = (letter.pool_id, letter.units, reserved, sold, lowered)
    await conn.execute(_SQL["unbury"], *row)
    if letter.units:
        place = (letter.epoch, letter.seq)
        await conn.execute(_SQL["note_units"], letter.pool_id, "dead", -letter.units, *place)


# --- Back to the pool -------------------------------------------------------------------------


async def _give(conn: Connection, letter: Letter, take: Take) -> None:
    """The buyer and the claim are told where PostgreSQL can hold their names."""
    give_id = f"dead:{letter.pool_id}:{letter.epoch}:{letter.seq}"
    buyer = take.buyer if "\0" not in take.buyer else None
    name = uuid.UUID(bytes=take.claim_id) if len(take.claim_id) == 16 else None
    is_claim = take.kind != KIND_RETAKE
    await _unbury(conn, letter)
    await conn.execute(
        _SQL["give"],
        *(give_id, letter.show_id, letter.pool_id, letter.units, buyer),
        *(name if is_claim else None, None if is_claim else name, letter.epoch),
    )
    if is_claim:
        await note_released(conn, letter.show_id, give_id)
