"""What PostgreSQL does for a reconciliation: one at a time, a new epoch, what the books know, and
one snapshot of them. server/orders/reconcile.py says in which order and why; statements are in
sql/rebuild.sql.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import asyncpg
import msgpack

from server.domain.claim import KIND_CLAIM, StockIncident, Take
from server.records import sales, sql
from server.records.pool import Connection, Pool, acquire
from server.records.sales import SaleRow
from server.records.transaction import one_instant, transaction

SQL: Final = sql.load("rebuild")
KEEP_LOCK_S: Final = 1.0  # below pool.IDLE_IN_TRANSACTION_MS
ROWS_AT_ONCE: Final = 2_000
KEYS_AT_ONCE: Final = 2_000

ClaimKey = tuple[str, bytes]  # buyer, claim id of 16 bytes


# --- One at a time ----------------------------------------------------------------------------


@asynccontextmanager
async def sole_reconciler(pool: Pool, show_id: str) -> AsyncIterator[bool]:
    """False: somebody else is reconciling the show. True: nobody else does during the block.

    The lock needs a sign of life every few seconds: the server takes it from a frozen process,
    which is not told.
    """
    async with transaction(pool) as conn:
        if not await conn.fetchval(SQL["try_lock"], show_id):
            yield False
            return
        keeper = asyncio.create_task(_keep_lock(conn))
        try:
            yield True
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)


async def _keep_lock(conn: Connection) -> None:
    while True:
        await asyncio.sleep(KEEP_LOCK_S)
        await conn.fetchval(SQL["keep_lock"])


# --- Epochs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expected:
    """What Redis must have of a show: its `epoch`, and of each pool the take `seqs[pool]`; it
    cannot have heard of later versions of the pools' rows than `versions`."""

    epoch: int
    halted_by: str
    seqs: Mapping[int, int]
    versions: Mapping[int, int]


async def read_expected(pool: Pool, show_id: str) -> Expected | None:
    """None for a show that Redis need not have."""
    return (await read_all_expected(pool, [show_id])).get(show_id)


async def read_all_expected(pool: Pool, show_ids: Sequence[str]) -> dict[str, Expected]:
    """By show, those that Redis must have. One statement, however many there are."""
    async with acquire(pool) as conn:
        return {
            row["show_id"]: _expected(row) for row in await conn.fetch(SQL["expected"], show_ids)
        }


def _expected(row: "asyncpg.Record") -> Expected:
    seqs, versions = (
        dict(zip(row["pools"], row[name], strict=True)) for name in ("seqs", "versions")
    )
    return Expected(row["epoch"], row["halted_by"], seqs, versions)


async def projected_shows(pool: Pool) -> list[str]:
    """Every show that Redis must have."""
    async with acquire(pool) as conn:
        return [row["show_id"] for row in await conn.fetch(SQL["projected_shows"])]


class Bump(NamedTuple):
    """A reconciliation and the epoch it opens."""

    reconciliation_id: int
    epoch: int


async def read_epoch(pool: Pool, show_id: str) -> int:
    """The epoch in force."""
    async with acquire(pool) as conn:
        epoch: int = await conn.fetchval(SQL["epoch"], show_id)
    return epoch


async def bump_epoch(
    pool: Pool, show_id: str, *, seen: int, above: int, reason: str, by: str
) -> Bump:
    """A new epoch, higher than `seen`, that of the books, and than `above`, committed.

    From here on nobody can write under an older one. Raises StockIncident when `seen` is not in
    force any more: the caller was frozen meanwhile.
    """
    async with transaction(pool) as conn:
        row = await conn.fetchrow(SQL["bump"], show_id, seen, above, reason, by)
    if row is None:
        raise StockIncident("epoch", f"epoch {seen} is not in force any more")
    return Bump(row["reconciliation_id"], row["epoch"])


async def finish(pool: Pool, bump: Bump, report: Mapping[str, Any]) -> None:
    """Note what came of it. Raises StockIncident when another epoch is in force."""
    async with acquire(pool) as conn:
        number = await conn.fetchval(SQL["finish"], bump.reconciliation_id, json.dumps(report))
    if number is None:
        raise StockIncident("epoch", f"epoch {bump.epoch} is not in force any more")


# --- What the books know ----------------------------------------------------------------------


class PoolRoom(NamedTuple):
    """A pool's watermark, and its units that are not reserved, sold or dead."""

    taken_seq: int
    room: int


class LostLowering(NamedTuple):
    """A host's act that took units in Redis and is not in the books."""

    act_id: uuid.UUID
    pool: int
    units: int


class SaleOver(NamedTuple):
    """A sale that is over and still has `room` units, or is still `closing`."""

    sale: int
    status: str
    room: int


class DeadTake(NamedTuple):
    """A take that was parked. `take` None: it cannot be read."""

    pool: int
    epoch: int
    seq: int
    take: Take | None
    status: str


async def read_pools(conn: Connection, show_id: str) -> dict[int, PoolRoom]:
    """Every pool of the show, also of drafts."""
    rows = await conn.fetch(SQL["pools"], show_id)
    return {row["pool_id"]: PoolRoom(row["taken_seq"], row["room"]) for row in rows}


async def settled_claims(
    conn: Connection, show_id: str, claims: Collection[ClaimKey]
) -> set[ClaimKey]:
    """Those that have an order or were released. Buyers and ids must be valid."""
    known: set[ClaimKey] = set()
    for some in _portions(sorted(claims)):
        buyers, ids = zip(*some, strict=True)
        uuids = [uuid.UUID(bytes=claim_id) for claim_id in ids]
        for row in await conn.fetch(SQL["settled_claims"], show_id, buyers, uuids):
            known.add((row["buyer"], row["claim"].bytes))
    return known


async def settled_acts(conn: Connection, show_id: str, acts: Iterable[bytes]) -> set[bytes]:
    """Host's acts and payments (16 bytes) whose takes are in the books."""
    ids = [uuid.UUID(bytes=act) for act in acts]
    rows = await conn.fetch(SQL["settled_acts"], show_id, ids) if ids else []
    return {row["act_id"].bytes for row in rows}


async def dead_takes(conn: Connection, show_id: str) -> list[DeadTake]:
    return [
        DeadTake(r["pool_id"], r["epoch"], r["seq"], _take_of(r["payload"]), r["status"])
        for r in await conn.fetch(SQL["dead_letters"], show_id)
    ]


def _take_of(payload: bytes) -> Take | None:
    try:
        kind, pool, seq, buyer, claim_id, *rest = msgpack.unpackb(payload)
        if type(claim_id) is not bytes or type(buyer) is not str:
            return None
        return Take(kind, pool, seq, buyer, claim_id, *rest)
    except (ValueError, TypeError):
        return None


async def lost_lowerings(conn: Connection, show_id: str) -> list[LostLowering]:
    """Oldest first."""
    return [LostLowering(*row) for row in await conn.fetch(SQL["lost_lowerings"], show_id)]


async def sales_over(conn: Connection, show_id: str) -> list[SaleOver]:
    return [SaleOver(*row) for row in await conn.fetch(SQL["sales_over"], show_id)]


def _portions(items: Sequence[ClaimKey]) -> Iterable[Sequence[ClaimKey]]:
    return (items[at : at + KEYS_AT_ONCE] for at in range(0, len(items), KEYS_AT_ONCE))


# --- One snapshot -----------------------------------------------------------------------------


class ClaimRow(NamedTuple):
    """A claim's fate, in the order of a packed state (store/packing.py) behind the id."""

    buyer: str
    claim_id: uuid.UUID
    status: str
    pool: int
    quantity: int
    price: int
    price_version: int
    epoch: int
    seq: int
    order_id: int
    pay_by_ms: int
    at_ms: int


class Snapshot:
    """The books of a show at one instant. What is large comes in portions of ROWS_AT_ONCE."""

    def __init__(self, conn: Connection, show_id: str) -> None:
        self._conn = conn
        self._show_id = show_id

    async def sales(self) -> list[SaleRow]:
        """Sales that were started; a draft that was dropped is none."""
        rows = await sales.list_sales(self._conn, self._show_id)
        return [row for row in rows if row.status != "draft" and row.opens_at_ms]

    async def pools(self) -> dict[int, PoolRoom]:
        return await read_pools(self._conn, self._show_id)

    async def dead_claims(self) -> list[DeadTake]:
        """Claims that are parked, or were given back. Redriven ones are orders; nobody can ask for
        one whose id is none."""
        dead = await dead_takes(self._conn, self._show_id)
        return [
            d
            for d in dead
            if d.status != "redriven"
            and d.take
            and d.take.kind == KIND_CLAIM
            and len(d.take.claim_id) == 16
        ]

    async def claims(self) -> AsyncIterator[list[ClaimRow]]:
        async for rows in self._portions("claims"):
            yield [ClaimRow(*row) for row in rows]

    async def buyers(self) -> AsyncIterator[list[tuple[int, str, int]]]:
        """(pool, buyer, units) by pool."""
        async for rows in self._portions("buyers"):
            yield [tuple(row) for row in rows]

    async def gives(self) -> AsyncIterator[list[str]]:
        async for rows in self._portions("gives"):
            yield [row["give_id"] for row in rows]

    async def acts(self) -> AsyncIterator[list[tuple[uuid.UUID, int, int]]]:
        """(id, units, seq) of takes by the host and for late payments."""
        async for rows in self._portions("acts"):
            yield [tuple(row) for row in rows]

    async def _portions(self, name: str) -> AsyncIterator[list[asyncpg.Record]]:
        cursor = await self._conn.cursor(SQL[name], self._show_id)
        while rows := await cursor.fetch(ROWS_AT_ONCE):
            yield rows


@asynccontextmanager
async def snapshot(pool: Pool, show_id: str, epoch: int) -> AsyncIterator[Snapshot]:
    """One REPEATABLE READ snapshot. Raises StockIncident when `epoch` is not in force."""
    async with one_instant(pool) as conn:
        found = await conn.fetchval(SQL["epoch"], show_id)
        if found != epoch:
            raise StockIncident("epoch", f"the books are at epoch {found}, not {epoch}")
        yield Snapshot(conn, show_id)
