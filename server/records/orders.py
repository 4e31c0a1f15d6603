"""Orders in PostgreSQL: how accepted takes enter the books, and how people read them.

`commit_takes` is the only writer of orders, buyers' units and the watermarks of pools.
"""

import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import asyncpg
import msgpack

from server.domain.claim import (
    KIND_CLAIM,
    KIND_CLOSING,
    PoolBooks,
    Rulings,
    StockIncident,
    Take,
    rule,
    split_known,
)
from server.domain.order import OrderStatus
from server.records import sql
from server.records.pool import Connection, Pool, acquire

SQL: Final = sql.load("orders")
EXPORT_ROWS: Final = 1_000  # read at once
ERROR_CHARS: Final = 500

# PostgreSQL refuses the data of a take (not: is away, or is wrongly set up).
DATA_ERRORS: Final[tuple[type[Exception], ...]] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)

# Broken only when the books contradict themselves or Redis, whatever a take's data.
BOOK_CONSTRAINTS: Final = frozenset(
    {
        "orders_one_per_seq",
        "incidents_pkey",
        "lowerings_pkey",
        "pools_never_oversold",
        "skus_allotted_within_inventory",
    }
)

Place = tuple[int, int]  # (pool, seq) of a take within an epoch


class Fate(NamedTuple):
    """What the books have for a claim. `pay_by_ms`: wall time of PostgreSQL, 0 without payment."""

    status: OrderStatus | Literal["released_by_incident"]
    order_id: int = 0
    pay_by_ms: int = 0


class PoolCount(NamedTuple):
    """A pool's counters after the transaction; a higher `version` is newer."""

    pool: int
    reserved: int
    sold: int
    dead: int
    version: int


@dataclass(slots=True)
class CommitResult:
    """What a transaction made of its takes. `fates` has every claim except dead ones."""

    fates: dict[Place, Fate] = field(default_factory=dict)
    pools: dict[int, PoolCount] = field(default_factory=dict)
    stored: int = 0  # orders inserted
    released: int = 0
    dead: int = 0
    repeated: int = 0  # takes that were in the books already

    def absorb(self, later: "CommitResult") -> None:
        """Add what a later transaction did."""
        self.fates.update(later.fates)
        self.pools.update(later.pools)
        self.stored += later.stored
        self.released += later.released
        self.dead += later.dead
        self.repeated += later.repeated


async def commit_takes(
    connection: Connection,
    show_id: str,
    epoch: int,
    takes: Collection[Take],
    faults: Mapping[Place, str] | None = None,
) -> CommitResult:
    """Enter `takes` (of one show and epoch, each pool's gapless) into the books and commit.

    Takes already there are compared and answered again, so repeating is harmless; on an outage
    the caller repeats. `faults`: takes to bury as dead letters, with the reason. Raises
    StockIncident (nothing written) and the DATA_ERRORS of a take (nothing written).
    """
    by_pool: dict[int, list[Take]] = defaultdict(list)
    for take in takes:
        by_pool[take.pool].append(take)
    with _contradictions():
        return await _commit(connection, show_id, epoch, by_pool, faults or {})


async def _commit(
    connection: Connection,
    show_id: str,
    epoch: int,
    by_pool: dict[int, list[Take]],
    faults: Mapping[Place, str],
) -> CommitResult:
    async with connection.transaction():
        await _lock_epoch(connection, show_id, epoch)
        rows = await connection.fetch(SQL["lock_pools"], show_id, list(by_pool))
        batch = _Batch(connection, show_id, epoch, faults)
        for row in rows:
            await batch.rule_on_pool(row, by_pool.pop(row["pool_id"]))
        for strays in by_pool.values():
            batch.bury_strays(strays)
        await batch.write()
        await batch.answer_known()
    return batch.result


@contextmanager
def _contradictions() -> Iterator[None]:
    """Rows that are where no row can be are no fault of a take: somebody else wrote them."""
    try:
        yield
    except asyncpg.IntegrityConstraintViolationError as error:
        if error.constraint_name not in BOOK_CONSTRAINTS:
            raise
        raise StockIncident("mismatch", f"{error.constraint_name}: {error.detail}") from error


async def _lock_epoch(connection: Connection, show_id: str, epoch: int) -> None:
    """Hold the show's epoch for the transaction: a worker that was frozen cannot write later."""
    row = await connection.fetchrow(SQL["lock_epoch"], show_id)
    if row is None or row["epoch"] != epoch:
        found = None if row is None else row["epoch"]
        raise StockIncident("epoch", f"the takes are of epoch {epoch}, the books of {found}")
    if row["halted_by"]:
        raise StockIncident("halted", row["halted_by"])


@dataclass(slots=True)
class _Batch:
    """One transaction's work, pool by pool, then written table by table."""

    connection: Connection
    show_id: str
    epoch: int
    faults: Mapping[Place, str]
    result: CommitResult = field(default_factory=CommitResult)
    known: list[Take] = field(default_factory=list)
    rulings: dict[int, Rulings] = field(default_factory=dict)
    strays: list[Take] = field(default_factory=list)
    pay_within: dict[int, int] = field(default_factory=dict)
    now_ms: int = 0
    counts: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    bought: list[tuple[int, str, int]] = field(default_factory=list)

    async def rule_on_pool(self, row: asyncpg.Record, takes: list[Take]) -> None:
        """Split off what is known already and rule on the rest."""
        pool: int = row["pool_id"]
        self.now_ms = row["now_ms"]
        self.result.pools[pool] = PoolCount(
            pool, row["reserved"], row["sold"], row["dead"], row["version"]
        )
        known, new = split_known(row["taken_seq"], takes)
        self.known += known
        self.result.repeated += len(known)
        if new:
            books = PoolBooks(row["taken_seq"], row["room"], row["limit_per_buyer"])
            books.bought = await self._units_bought(pool, new)
            faults = {seq: why for (at, seq), why in self.faults.items() if at == pool}
            rulings = rule(books, new, faults)
            self._note(pool, row["pay_within_s"], new, rulings, books)

    async def _units_bought(self, pool: int, new: list[Take]) -> dict[str, int]:
        buyers = list({take.buyer for take in new if _storable(take.buyer)})
        rows = await self.connection.fetch(SQL["units_bought"], pool, buyers)
        return {row["buyer"]: row["units"] for row in rows}

    def _note(
        self, pool: int, pay_within: int, new: list[Take], rulings: Rulings, books: PoolBooks
    ) -> None:
        """Keep what `write` needs. Units kept are reserved until paid, or sold at once."""
        kept = rulings.units_kept
        reserved, sold = (kept, 0) if pay_within else (0, kept)
        units = (reserved, sold, rulings.units_dead, rulings.units_lowered)
        self.counts.append((pool, *units, new[0].seq, new[-1].seq))
        changed = {take.buyer for take in rulings.kept}
        self.bought += [(pool, buyer, books.bought[buyer]) for buyer in changed]
        self.rulings[pool] = rulings
        self.pay_within[pool] = pay_within
        self.result.stored += len(rulings.kept)
        self.result.released += len(rulings.released)
        self.result.dead += len(rulings.dead)

    def bury_strays(self, takes: list[Take]) -> None:
        """Takes of a pool that PostgreSQL does not have."""
        self.strays += takes
        self.result.dead += len(takes)

    async def write(self) -> None:
        """Every row of the new takes, in few statements."""
        await self._insert_orders()
        await self._insert_incidents()
        await self._insert_lowerings()
        await self._insert_dead_letters()
        if self.counts:
            await self._count()

    async def _insert_orders(self) -> None:
        kept = [take for rulings in self.rulings.values() for take in rulings.kept]
        if not kept:
            return
        _, pools, seqs, buyers, claim_ids, quantities, prices, versions, _ = zip(*kept, strict=True)
        waits = [self.pay_within[pool] for pool in pools]
        rows = await self.connection.fetch(
            SQL["insert_orders"], self.show_id, self.epoch, pools, seqs, buyers,
            _uuids(claim_ids), quantities, prices, versions, waits,
        )  # fmt: skip
        if len(rows) != len(kept):
            raise await self._taken_twice(kept, rows)
        await self.connection.execute(SQL["set_units_bought"], *zip(*self.bought, strict=True))
        pay_by = {
            pool: self.now_ms + wait * 1000 if wait else 0 for pool, wait in self.pay_within.items()
        }
        for pool, seq, order_id in rows:
            self.result.fates[pool, seq] = Fate("confirmed", order_id, pay_by[pool])

    async def _taken_twice(self, kept: list[Take], rows: list[asyncpg.Record]) -> StockIncident:
        """A claim id has an order at another seq: Redis forgot that it had accepted the claim."""
        inserted = {(row["pool_id"], row["seq"]) for row in rows}
        lost = next(take for take in kept if (take.pool, take.seq) not in inserted)
        claim = uuid.UUID(bytes=lost.claim_id)
        return StockIncident(
            "mismatch", f"claim {claim} of pool {lost.pool} was accepted again as seq {lost.seq}"
        )

    async def _insert_incidents(self) -> None:
        rows = [_incident(*pair) for r in self.rulings.values() for pair in r.released]
        rows += [
            _incident(take._replace(quantity=take.quantity - units), "no_room")
            for rulings in self.rulings.values()
            for take, units in rulings.lowered
            if units < take.quantity
        ]
        await self._insert("insert_incidents", rows, self.show_id, self.epoch)
        for rulings in self.rulings.values():
            for take, _ in rulings.released:
                self.result.fates[take.pool, take.seq] = Fate("released_by_incident")

    async def _insert_lowerings(self) -> None:
        rows = [
            (take.pool, take.seq, units, take.kind == KIND_CLOSING, uuid.UUID(bytes=take.claim_id))
            for rulings in self.rulings.values()
            for take, units in rulings.lowered
        ]
        await self._insert("insert_lowerings", rows, self.epoch)

    async def _insert_dead_letters(self) -> None:
        rows = [
            (take.pool, take.seq, "", units, msgpack.packb(take), error[:ERROR_CHARS])
            for rulings in self.rulings.values()
            for take, error, units in rulings.dead
        ]
        rows += [
            (take.pool, take.seq, "", 0, msgpack.packb(take), "unknown pool")
            for take in self.strays
        ]
        await self._insert("insert_dead_letters", rows, self.show_id, self.epoch)

    async def _insert(self, name: str, rows: Sequence[tuple[Any, ...]], *first: Any) -> None:
        """Run statement `name` with `first` and the rows as columns; nothing without rows."""
        if rows:
            await self.connection.execute(SQL[name], *first, *zip(*rows, strict=True))

    async def _count(self) -> None:
        columns = zip(*self.counts, strict=True)
        for row in await self.connection.fetch(SQL["count_takes"], self.epoch, *columns):
            self.result.pools[row["pool_id"]] = PoolCount(*row)

    async def answer_known(self) -> None:
        """Read what is there for takes that came again. Raises StockIncident if it differs."""
        if not self.known:
            return
        places = {(take.pool, take.seq): take for take in self.known}
        pools, seqs = zip(*places, strict=True)
        rows = await self.connection.fetch(SQL["fates"], self.show_id, self.epoch, pools, seqs)
        for row in rows:
            take = places[row["pool"], row["seq"]]
            if fate := _fate(row, take):
                self.result.fates[take.pool, take.seq] = fate


def _incident(take: Take, reason: str) -> tuple[int, int, str, uuid.UUID, int, str]:
    claim_id = uuid.UUID(bytes=take.claim_id)
    return (take.pool, take.seq, take.buyer, claim_id, take.quantity, reason)


def _uuids(claim_ids: Iterable[bytes]) -> list[uuid.UUID]:
    return [asyncpg.pgproto.pgproto.UUID(claim_id) for claim_id in claim_ids]


def _storable(buyer: str) -> bool:
    """Whether PostgreSQL can hold the text at all (a faulty take is ruled dead later)."""
    return "\0" not in buyer


def _fate(row: asyncpg.Record, take: Take) -> Fate | None:
    """The fate of a take the books know; None for dead and host's ones. Raises StockIncident."""
    if row["error"] is not None:
        return None
    if row["claim_id"] is None or row["claim_id"].bytes != take.claim_id:
        raise _mismatch(take, "belongs to another claim" if row["claim_id"] else "has no row")
    if (row["buyer"], row["quantity"]) != (take.buyer, take.quantity):
        raise _mismatch(take, "has another buyer or quantity")
    if take.kind != KIND_CLAIM:
        return None
    if row["reason"] is not None:
        return Fate("released_by_incident")
    if (row["price"], row["price_version"]) != (take.price, take.price_version):
        raise _mismatch(take, "has another price")
    return Fate(row["status"], row["order_id"], row["pay_by_ms"] or 0)


def _mismatch(take: Take, what: str) -> StockIncident:
    return StockIncident("mismatch", f"pool {take.pool}: seq {take.seq} {what}")


async def park_unreadable(
    connection: Connection, show_id: str, entry_id: str, raw: bytes, fault: str
) -> None:
    """Keep an entry of the order stream that nobody can read, as it is; harmless to repeat."""
    await connection.execute(
        SQL["insert_dead_letters"], show_id, 0, [0], [0], [entry_id], [0], [raw], [fault]
    )


async def halt(pool: Pool, show_id: str, reason: str) -> None:
    """Stop storing for a show until its stock is reconciled; the first reason stays."""
    async with acquire(pool) as connection:
        await connection.execute(SQL["halt"], show_id, reason)


async def shows_with_work(pool: Pool, ended_days: int) -> dict[str, bool]:
    """Shows with a running sale (True), and those that had one and may have a backlog (False)."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(SQL["shows_with_work"], ended_days)
    return {row["show_id"]: row["active"] for row in rows}


@dataclass(frozen=True, slots=True)
class OrderRow:
    """One order as hosts and buyers see it. Amounts in minor units, times in ms since 1970."""

    order_id: int
    sale_id: int
    product_id: int
    sku_id: int
    product: str
    sku: str
    buyer: str
    claim_id: str
    quantity: int
    price: int
    currency: str
    status: OrderStatus
    confirmed_at: int
    pay_by: int


async def list_orders(
    pool: Pool,
    show_id: str,
    *,
    buyer: str | None = None,
    status: OrderStatus | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[OrderRow]:
    """Orders of a show by rising id, those above id `after`, at most `limit`."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(SQL["list_orders"], show_id, buyer, status, after, limit)
    return [OrderRow(**{**row, "claim_id": str(row["claim_id"])}) for row in rows]


async def newest_orders(pool: Pool, show_id: str, buyer: str, limit: int) -> list[OrderRow]:
    """A buyer's newest orders in a show, newest first, at most `limit`."""
    async with acquire(pool) as connection:
        after = await connection.fetchval(SQL["before_newest"], show_id, buyer, limit)
    if after is None:
        return []
    rows = await list_orders(pool, show_id, buyer=buyer, after=after, limit=limit)
    return rows[::-1]


async def export_orders(pool: Pool, show_id: str) -> AsyncIterator[list[OrderRow]]:
    """All orders of a show, some at a time, so that no connection is held by a slow reader."""
    after = 0
    while rows := await list_orders(pool, show_id, after=after, limit=EXPORT_ROWS):
        yield rows
        after = rows[-1].order_id
