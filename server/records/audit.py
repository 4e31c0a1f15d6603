"""A show's books as the audit reads them: one snapshot, in portions. Writes nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import asyncpg

from server import limits
from server.domain.order import EDGES
from server.records import sql
from server.records.pool import Connection, Pool, acquire
from server.records.transaction import one_instant

SQL: Final = sql.load("orders_audit")
FAULTS: Final = sql.load("audit_faults")
ROWS_AT_ONCE: Final = 2_000

_STEPS: Final = [
    "dead>confirmed",  # a dead letter was redriven
    *(f"{a}>{b}" for a, following in EDGES.items() for b in following),
]
_FAULT_ARGS: Final[Mapping[str, Any]] = {
    "order_history": _STEPS,
    "late": float(limits.AUDIT_LATE_S),
}


class PoolBook(NamedTuple):
    """A pool's row and the sums of its ledger."""

    pool: int
    initial: int
    restocked: int
    lowered: int
    reserved: int
    sold: int
    dead: int
    taken_seq: int
    version: int
    ledger_taken: int
    ledger_dead: int


class TakeBook(NamedTuple):
    """A take in the books. `quantity` left Redis, `units` are counted in the pool.

    `status`: of an order (also of the one a re-take is for), of a dead letter, or why a claim was
    released. `claim_id`: 16 bytes, b"" for dead ones; a payment's for a re-take. `told`: Redis has
    been told of every step of the order.
    """

    kind: Literal["order", "retake", "released", "lowering", "dead"]
    pool: int
    epoch: int
    seq: int
    buyer: str
    claim_id: bytes
    quantity: int
    units: int
    status: str
    order_id: int
    to_be_paid: bool
    told: bool


class GiveBook(NamedTuple):
    """Units given back, applied in Redis or not, and the place of the take they return; `seq` 0:
    they return no take (a restock). `forgiven`: they do not count against `buyer` any more."""

    give_id: str
    pool: int
    units: int
    reason: str
    buyer: str
    forgiven: bool
    epoch: int
    seq: int


class BuyerBook(NamedTuple):
    """Units that count against a buyer's limit."""

    pool: int
    buyer: str
    units: int


class Fault(NamedTuple):
    """Rows of the books that contradict each other; `kind` names the rule (sql/audit_faults.sql).

    0 and "" where the fault is no pool's, buyer's or order's.
    """

    kind: str
    pool: int
    buyer: str
    order_id: int
    detail: str


class PoolPromise(NamedTuple):
    """What Redis must have of a pool: its newest take in the books. `version` of its row, with
    nothing `untold` when Redis must have that too."""

    pool: int
    epoch: int
    seq: int
    version: int
    untold: bool


@dataclass(frozen=True, slots=True)
class Promised:
    """What came from Redis, or was seen there, before it was cut: it cannot be behind that.

    `gives`: those that were applied in Redis.
    """

    pools: dict[int, PoolPromise]
    gives: list[str]


@dataclass(frozen=True, slots=True)
class ShowBooks:
    """The show as a whole. `rebuilding`: its epoch's stock is being written into Redis."""

    epoch: int
    halted_by: str
    rebuilding: bool
    pools: dict[int, PoolBook]


async def shows_to_audit(pool: Pool, show_id: str | None) -> list[str]:
    """`show_id` if it exists, or every show that ever started a sale."""
    async with acquire(pool) as connection:
        return [row["show_id"] for row in await connection.fetch(SQL["shows"], show_id)]


async def read_promised(pool: Pool, show_id: str) -> Promised:
    """What Redis must have from now on."""
    async with acquire(pool) as connection:
        pools = await connection.fetch(SQL["projected_pools"], show_id)
        gives = await connection.fetch(SQL["applied_gives"], show_id)
    promises = (PoolPromise(*row) for row in pools)
    return Promised({promise.pool: promise for promise in promises}, [row[0] for row in gives])


async def order_statuses(pool: Pool, order_ids: list[int]) -> dict[int, str]:
    """How these orders stand now."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(SQL["order_statuses"], order_ids)
    return {row["order_id"]: row["status"] for row in rows}


@asynccontextmanager
async def open_books(pool: Pool, show_id: str) -> AsyncIterator["Books"]:
    """One REPEATABLE READ snapshot, taken now and held during the block."""
    async with one_instant(pool) as connection:
        yield Books(connection, show_id)


class Books:
    """The rows of one snapshot, in portions of ROWS_AT_ONCE. Raises RecordsUnavailable."""

    def __init__(self, connection: Connection, show_id: str) -> None:
        self._connection = connection
        self._show_id = show_id

    async def show(self) -> ShowBooks:
        row = await self._connection.fetchrow(SQL["epoch"], self._show_id)
        pools = [
            PoolBook(*each) for each in await self._connection.fetch(SQL["pools"], self._show_id)
        ]
        epoch, halted_by, rebuilding = row or (0, "", False)
        return ShowBooks(epoch, halted_by, rebuilding, {book.pool: book for book in pools})

    async def takes(self) -> AsyncIterator[list[TakeBook]]:
        async for rows in self._portions("takes"):
            yield [_take(row) for row in rows]

    async def gives(self) -> AsyncIterator[list[GiveBook]]:
        async for rows in self._portions("gives"):
            yield [GiveBook(*row) for row in rows]

    async def buyers(self) -> AsyncIterator[list[BuyerBook]]:
        async for rows in self._portions("buyers"):
            yield [BuyerBook(*row) for row in rows]

    async def faults(self) -> AsyncIterator[Fault]:
        """What the rules of sql/audit_faults.sql find."""
        for kind, statement in FAULTS.items():
            more = [_FAULT_ARGS[kind]] if kind in _FAULT_ARGS else []
            for row in await self._connection.fetch(statement, self._show_id, *more):
                yield Fault(kind, *row)

    async def _portions(self, name: str) -> AsyncIterator[list[asyncpg.Record]]:
        cursor = await self._connection.cursor(SQL[name], self._show_id)
        while rows := await cursor.fetch(ROWS_AT_ONCE):
            yield rows


def _take(row: asyncpg.Record) -> TakeBook:
    take = TakeBook(*row)
    return take._replace(claim_id=take.claim_id.bytes if take.claim_id else b"")  # type: ignore[attr-defined]
