"""Orders in PostgreSQL: how accepted takes enter the books.

`commit_takes` is the only writer of new orders and of the watermarks of pools; what happens to
orders afterwards is in records/order_life.py, how people read them in records/order_list.py.
"""

import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

import asyncpg
import msgpack
from asyncpg.pgproto.pgproto import UUID

from server.domain.claim import (
    KIND_CLAIM,
    KIND_CLOSING,
    KIND_RETAKE,
    PoolBooks,
    PoolCount,
    Rulings,
    StockIncident,
    Take,
    rule,
    split_known,
)
from server.domain.order import OrderStatus
from server.records import retakes, sql
from server.records.outbox import TakenRange, note_taken
from server.records.pool import Connection, Pool, acquire

SQL: Final = sql.load("orders")
ERROR_CHARS: Final = 500

# PostgreSQL refuses the data of a take (not: is away, or is wrongly set up).
DATA_ERRORS: Final[tuple[type[Exception], ...]] = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
)

# Broken only when the books contradict themselves or Redis, whatever a take's data.
BOOK_CONSTRAINTS: Final = frozenset(
    {
        "orders_one_per_claim",  # Redis forgot that it had accepted the claim
        "orders_one_per_seq",
        "pool_buyers_pkey",  # somebody wrote it without the pool's row
        "incidents_pkey",
        "lowerings_pkey",
        "retakes_pkey",
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
    has_webhook: bool = False
    counts: list[tuple[int, int, int, int, int, int, int, int]] = field(default_factory=list)
    # (pool, buyer, units now, whether the buyer had none before)
    bought: list[tuple[int, str, int, bool]] = field(default_factory=list)

    async def rule_on_pool(self, row: asyncpg.Record, takes: list[Take]) -> None:
        """Split off what is known already and rule on the rest."""
        pool: int = row["pool_id"]
        self.has_webhook = row["has_webhook"]
        self.result.pools[pool] = PoolCount(
            pool, row["reserved"], row["sold"], row["dead"], row["version"]
        )
        known, new = split_known(row["taken_seq"], takes)
        self.known += known
        self.result.repeated += len(known)
        if new:
            books = PoolBooks(row["taken_seq"], row["room"], row["limit_per_buyer"])
            books.bought = await self._units_bought(pool, new)
            if any(take.kind == KIND_RETAKE for take in new):
                books.late = await retakes.late_payments(self.connection, pool, new)
            known_buyers = set(books.bought)
            faults = {seq: why for (at, seq), why in self.faults.items() if at == pool}
            rulings = rule(books, new, faults)
            self._note(pool, row["pay_within_s"], new, rulings, books, known_buyers)

    async def _units_bought(self, pool: int, new: list[Take]) -> dict[str, int]:
        buyers = list({take.buyer for take in new if _storable(take.buyer)})
        rows = await self.connection.fetch(SQL["units_bought"], pool, buyers)
        return {row["buyer"]: row["units"] for row in rows}

    def _note(
        self,
        pool: int,
        pay_within: int,
        new: list[Take],
        rulings: Rulings,
        books: PoolBooks,
        known_buyers: set[str],
    ) -> None:
        """Keep what `write` needs. Units kept are reserved until paid, or sold at once."""
        kept = rulings.units_kept
        reserved, sold = (kept, 0) if pay_within else (0, kept)
        units = (reserved, sold, rulings.units_retaken, rulings.units_dead, rulings.units_lowered)
        self.counts.append((pool, *units, new[0].seq, new[-1].seq))
        changed = {take.buyer for take in rulings.kept}
        self.bought += [
            (pool, buyer, books.bought[buyer], buyer not in known_buyers) for buyer in changed
        ]
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
        await retakes.enter(self.connection, self.show_id, self.epoch, self.rulings.values())
        await self._insert_orders()
        await self._write_buyers()
        await self._insert_incidents()
        await self._insert_lowerings()
        await self._insert_dead_letters()
        if self.counts:
            await self._count()
        if self.has_webhook and self.counts:
            taken = [TakenRange(row[0], self.epoch, row[-2], row[-1]) for row in self.counts]
            await note_taken(self.connection, self.show_id, taken)

    async def _insert_orders(self) -> None:
        """Not by COPY, a third cheaper: a worker frozen in the middle of one would hold its locks
        for ever, as no timeout of PostgreSQL ends a COPY that waits for its client. One statement
        per pool and price: every column more costs the driver 0.3 µs per order."""
        kept = [take for rulings in self.rulings.values() for take in rulings.kept]
        if not kept:
            return
        moment = await self.connection.fetchrow(SQL["new_orders"], len(kept))
        assert moment is not None
        ids, at = moment["ids"], moment["at"]
        pay_by = {
            pool: at + timedelta(seconds=wait) if wait else None
            for pool, wait in self.pay_within.items()
        }
        rows: dict[tuple[int, int, int], list[tuple[Any, ...]]] = defaultdict(list)
        for order_id, take in zip(ids, kept, strict=True):
            _, pool, seq, buyer, claim_id, quantity, price, version, _ = take
            rows[pool, price, version].append((order_id, seq, buyer, UUID(claim_id), quantity))
        for terms, columns in rows.items():
            first = (self.show_id, self.epoch, at, *terms, pay_by[terms[0]])
            await self._insert("insert_orders", columns, *first)
        pay_by_ms = {pool: _in_ms(by) if by else 0 for pool, by in pay_by.items()}
        self.result.fates.update(
            ((take.pool, take.seq), Fate("confirmed", order_id, pay_by_ms[take.pool]))
            for order_id, take in zip(ids, kept, strict=True)
        )

    async def _write_buyers(self) -> None:
        await self._insert("insert_buyers", [row[:3] for row in self.bought if row[3]])
        await self._insert("set_units_bought", [row[:3] for row in self.bought if not row[3]])

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


def _incident(take: Take, reason: str) -> tuple[int, int, str, uuid.UUID, int, int, int, str]:
    claim_id = uuid.UUID(bytes=take.claim_id)
    terms = (take.quantity, take.price, take.price_version)
    return (take.pool, take.seq, take.buyer, claim_id, *terms, reason)


def _in_ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)


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


async def halt(pool: Pool, show_id: str, reason: str, epoch: int) -> None:
    """Stop storing for a show until its stock is reconciled; the first reason stays.

    `epoch`: what was seen concerns this one; nothing is done when another is in force by now.
    """
    async with acquire(pool) as connection:
        await connection.execute(SQL["halt"], show_id, reason, epoch)


async def shows_with_work(pool: Pool, ended_days: int) -> dict[str, bool]:
    """Shows with a running sale (True), and those that had one and may have a backlog (False)."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(SQL["shows_with_work"], ended_days)
    return {row["show_id"]: row["active"] for row in rows}


async def shows_waiting(pool: Pool) -> set[str]:
    """Shows with work that waits for a sound stock in Redis, whether they sell or not."""
    async with acquire(pool) as connection:
        return {row["show_id"] for row in await connection.fetch(SQL["shows_waiting"])}


async def shows_returning(pool: Pool) -> set[str]:
    """Shows, however old, with units on their way from a sale that is over to the inventory."""
    async with acquire(pool) as connection:
        return {row["show_id"] for row in await connection.fetch(SQL["shows_returning"])}
