"""How the takes of a pool become orders: the rules the order worker applies, without I/O.

Redis sequences takes: every take of a pool has the next `seq` of its epoch, without a hole.
PostgreSQL remembers them: while it holds the pool's row it rules on each take in that order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from server import limits
from server.errors import LivesaleError

KIND_CLAIM: Final = 0
KIND_LOWERING: Final = 1  # units the host took back; `buyer` is "", `claim_id` the act's id
KIND_CLOSING: Final = 2  # as a lowering: what was left (0 is possible) when the sale closed
KIND_RETAKE: Final = 3  # units of an order that was paid late; `claim_id` is the payment's id

IncidentKind = Literal["gap", "reuse", "mismatch", "epoch", "lost", "halted"]

_INT4: Final = 2**31
_INT8: Final = 2**63


class Take(NamedTuple):
    """Units that left `available` in Redis: a claim of a buyer, an act of the host, or a re-take.

    `claim_id`: 16 bytes. `price`: minor units per unit as accepted. `at_ms`: Redis time.
    """

    kind: int
    pool: int
    seq: int
    buyer: str
    claim_id: bytes
    quantity: int
    price: int
    price_version: int
    at_ms: int


class StockIncident(LivesaleError):
    """Redis and PostgreSQL contradict each other: the show must stop selling and be reconciled.

    `kind`: gap (a seq is missing), reuse (a seq came twice with different content), mismatch (a
    row differs from its take), epoch (the take is of another epoch), lost (the stream lost
    entries) or halted (an earlier incident waits for its reconciliation). Nothing was written by
    whoever raises it.
    """

    def __init__(self, kind: IncidentKind, detail: str) -> None:
        self.kind = kind
        self.detail = detail
        super().__init__(f"{kind}: {detail}")


def fault_of(take: Take) -> str:
    """Why PostgreSQL cannot hold this take; "" for a sound one. Checks what its columns demand."""
    if len(take.claim_id) != 16:
        return "claim id is not 16 bytes"
    if take.kind in (KIND_LOWERING, KIND_CLOSING):
        return "" if 0 <= take.quantity < _INT4 else "units out of range"
    if not 0 < take.quantity < _INT4:
        return "quantity out of range"
    if take.kind not in (KIND_CLAIM, KIND_RETAKE):
        return "unknown kind"
    if not 1 <= len(take.buyer) <= limits.USER_ID_CHARS_MAX or "\0" in take.buyer:
        return "buyer id not valid"
    if not 0 <= take.price < _INT8:
        return "price out of range"
    if not 0 < take.price_version < _INT4:
        return "price version out of range"
    return ""


def split_known(taken_seq: int, takes: Iterable[Take]) -> tuple[list[Take], list[Take]]:
    """Takes of one pool: those up to the watermark `taken_seq`, and the new ones in seq order.

    The same take twice counts once. Raises StockIncident when a seq is missing, or came twice
    with different content.
    """
    known: list[Take] = []
    new: list[Take] = []
    last = taken_seq
    for take in sorted(takes, key=_seq_of):
        if take.seq == last + 1:
            new.append(take)
            last = take.seq
        elif take.seq <= taken_seq:
            known.append(take)
        elif take.seq > last:
            raise StockIncident("gap", f"pool {take.pool}: seq {last + 1} is missing")
        elif take != new[-1]:
            raise StockIncident("reuse", f"pool {take.pool}: seq {take.seq} came twice")
    return known, new


def _seq_of(take: Take) -> int:
    return take.seq


class PoolCount(NamedTuple):
    """A pool's counters after a transaction; a higher `version` is newer."""

    pool: int
    reserved: int
    sold: int
    dead: int
    version: int


class LatePayment(NamedTuple):
    """A payment that a re-take is for, with its order. `counted`: units that count anew against
    the buyer's limit (0 where they never stopped counting). `waits`: the payment still waits for
    the units, and the order for the payment."""

    order_id: int
    buyer: str
    quantity: int
    counted: int
    waits: bool


class MissedRetake(NamedTuple):
    """A re-take the books could not keep, and why: no_room (Redis had more units than there are),
    over_limit or not_waiting (the units go back)."""

    take: Take
    why: str
    late: LatePayment


@dataclass(slots=True)
class PoolBooks:
    """What PostgreSQL knows of a pool while it holds the row. Ruling on takes changes it.

    `room`: units not reserved, sold or dead. `bought`: buyer -> units, for the buyers at hand.
    `late`: payment id (16 bytes) -> its state, for the re-takes at hand.
    """

    taken_seq: int
    room: int
    limit_per_buyer: int
    bought: dict[str, int] = field(default_factory=dict)
    late: dict[bytes, LatePayment] = field(default_factory=dict)


@dataclass(slots=True)
class Rulings:
    """What becomes of the new takes of one pool, each list in seq order.

    released: (take, why), `no_room` or `over_limit`: Redis accepted more than there is.
    dead: (take, error, units counted as dead). lowered: (take, units booked). retaken: (take, id of
    the order that is paid now).
    """

    kept: list[Take] = field(default_factory=list)
    released: list[tuple[Take, str]] = field(default_factory=list)
    dead: list[tuple[Take, str, int]] = field(default_factory=list)
    lowered: list[tuple[Take, int]] = field(default_factory=list)
    retaken: list[tuple[Take, int]] = field(default_factory=list)
    missed: list[MissedRetake] = field(default_factory=list)

    @property
    def units_kept(self) -> int:
        return sum(take.quantity for take in self.kept)

    @property
    def units_dead(self) -> int:
        return sum(units for _, _, units in self.dead)

    @property
    def units_lowered(self) -> int:
        return sum(units for _, units in self.lowered)

    @property
    def units_retaken(self) -> int:
        return sum(take.quantity for take, _ in self.retaken)


def rule(books: PoolBooks, new: Iterable[Take], faults: dict[int, str]) -> Rulings:
    """Decide each new take in seq order: kept while it fits the pool and the buyer's limit.

    The outcome depends on the order alone, never on where a batch ends. `faults`: seq -> error
    of takes the database was seen to refuse. A faulty take's units stay counted, as dead.
    """
    rulings = Rulings()
    for take in new:
        if fault := faults.get(take.seq) or fault_of(take):
            _bury(books, take, fault, rulings)
        elif take.kind == KIND_CLAIM:
            _rule_claim(books, take, rulings)
        elif take.kind == KIND_RETAKE:
            _rule_retake(books, take, rulings)
        else:
            units = min(take.quantity, books.room)
            rulings.lowered.append((take, units))
            books.room -= units
        books.taken_seq = take.seq
    return rulings


def _bury(books: PoolBooks, take: Take, fault: str, rulings: Rulings) -> None:
    units = max(0, min(take.quantity, books.room))
    rulings.dead.append((take, fault, units))
    books.room -= units


def _rule_claim(books: PoolBooks, take: Take, rulings: Rulings) -> None:
    units = books.bought.get(take.buyer, 0) + take.quantity
    if take.quantity > books.room:
        rulings.released.append((take, "no_room"))
    elif units > books.limit_per_buyer:
        rulings.released.append((take, "over_limit"))
    else:
        rulings.kept.append(take)
        books.room -= take.quantity
        books.bought[take.buyer] = units


def _rule_retake(books: PoolBooks, take: Take, rulings: Rulings) -> None:
    late = books.late.get(take.claim_id)
    if late is None or (late.buyer, late.quantity) != (take.buyer, take.quantity):
        _bury(books, take, "no such payment", rulings)
        return
    units = books.bought.get(take.buyer, 0) + late.counted
    if take.quantity > books.room:
        rulings.missed.append(MissedRetake(take, "no_room", late))
    elif not late.waits:
        rulings.missed.append(MissedRetake(take, "not_waiting", late))
    elif units > books.limit_per_buyer:
        rulings.missed.append(MissedRetake(take, "over_limit", late))
    else:
        rulings.retaken.append((take, late.order_id))
        books.room -= take.quantity
        books.bought[take.buyer] = units
        books.late[take.claim_id] = late._replace(waits=False)
