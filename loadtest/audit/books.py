"""Redis and PostgreSQL of one show once they are at rest, read directly.

At rest: nothing waits in the order stream, everything committed has been told to Redis, and no
pool has changed for REST_SECONDS. Instants are t_us: µs since the run's zero, by an offset to each
server's clock that is measured when the books are opened.
"""

import asyncio
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec
import redis.asyncio as aioredis

from loadtest.audit.seen import ClaimKey
from server.store import keys

REST_SECONDS: Final = 1.0
POLL_SECONDS: Final = 0.1
READS_MAX: Final = 3  # something moves between the servers: read all of it again
CLOCK_SAMPLES: Final = 5
LIVE: Final = frozenset({"confirmed", "paid", "fulfilled"})  # orders that have their units
ID_BYTES: Final = 16

# --- Rows ----------------------------------------------------------------------------------------


class PoolRow(NamedTuple):
    """A pool's counters in PostgreSQL."""

    pool: int
    limit: int
    initial: int
    restocked: int
    lowered: int
    reserved: int
    sold: int
    dead: int
    version: int
    status: str

    @property
    def total(self) -> int:
        return self.initial + self.restocked - self.lowered


class PoolHash(NamedTuple):
    """A pool's counters in Redis: the fields a, q, v, n, s, r, d, rv."""

    left: int
    seq: int
    version: int
    total: int
    sold: int
    reserved: int
    dead: int
    row_version: int


class OrderRow(NamedTuple):
    """One order."""

    order_id: int
    pool: int
    buyer: str
    claim_id: bytes
    quantity: int
    price: int
    price_version: int
    epoch: int
    seq: int
    status: str
    t_us: int

    @property
    def key(self) -> ClaimKey:
        return self.buyer, self.claim_id

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


class Move(NamedTuple):
    """A step of an order. `told_us`: when Redis had been told."""

    order_id: int
    status: str
    reason: str
    told_us: int
    t_us: int


class Give(NamedTuple):
    """Units that came back. `applied_us` 0: not yet."""

    pool: int
    units: int
    buyer: str
    claim_id: bytes
    reason: str
    t_us: int
    applied_us: int


class Released(NamedTuple):
    """A hold that the books could not keep."""

    pool: int
    buyer: str
    claim_id: bytes
    epoch: int
    seq: int
    quantity: int
    reason: str
    t_us: int


class OtherTake(NamedTuple):
    """A place in a pool's sequence that is no order."""

    pool: int
    epoch: int
    seq: int
    kind: str
    units: int
    detail: str
    t_us: int


class BuyerRow(NamedTuple):
    """What counts against a buyer's limit."""

    pool: int
    buyer: str
    units: int
    forfeited: int


class Remembered(NamedTuple):
    """What Redis answers whoever sends an accepted claim again."""

    status: str
    pool: int
    quantity: int
    price: int
    price_version: int
    epoch: int
    seq: int
    order_id: int
    pay_by_ms: int
    t_us: int


@dataclass(frozen=True, slots=True)
class Records:
    """One snapshot of PostgreSQL."""

    epoch: int
    pools: Mapping[int, PoolRow]
    prices: Mapping[tuple[int, int], int]  # (pool, price version)
    orders: Mapping[ClaimKey, OrderRow]
    moves: Mapping[int, list[Move]]  # by order
    gives: Mapping[int, list[Give]]  # by pool
    released: Mapping[ClaimKey, Released]
    other_takes: Mapping[tuple[int, int, int], OtherTake]  # by (pool, epoch, seq)
    buyers: Mapping[tuple[int, str], BuyerRow]

    def changed_us(self, pool: int) -> int:
        """When something last happened to a pool's units."""
        orders = [row for row in self.orders.values() if row.pool == pool]
        instants = [row.t_us for row in orders]
        for row in orders:
            instants += (move.told_us or move.t_us for move in self.moves.get(row.order_id, ()))
        instants += (give.applied_us or give.t_us for give in self.gives.get(pool, ()))
        instants += (take.t_us for take in self.other_takes.values() if take.pool == pool)
        return max(instants, default=0)


@dataclass(frozen=True, slots=True)
class Store:
    """Redis. `shown`: the stock as viewers are told, by pool."""

    epoch: int
    pools: Mapping[int, PoolHash]
    buyers: Mapping[tuple[int, str], int]
    claims: Mapping[ClaimKey, Remembered]
    shown: Mapping[int, Mapping[str, int]]
    likes: int


@dataclass(frozen=True, slots=True)
class Books:
    """Both. `is_at_rest`: they came to rest in time, so they can be compared."""

    records: Records
    store: Store
    is_at_rest: bool


# --- Opening -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reader:
    """Connections to both servers, for one show. Offsets: a server's clock minus t_us."""

    redis: "aioredis.Redis"
    postgres: "asyncpg.Connection[Any]"
    show: str
    redis_offset_us: int
    postgres_offset_us: int

    async def books(self, settle_s: float) -> Books:
        """Both books as soon as they are at rest, at the latest after `settle_s` or so."""
        until, is_at_rest = time.monotonic() + settle_s, False
        for _ in range(READS_MAX):
            before = await self._at_rest(until)
            records, store = await self._records(), await self._store()
            is_at_rest = before is not None and before == await self._activity()
            if before is None or is_at_rest:
                break
        return Books(records, store, is_at_rest)

    async def _at_rest(self, until: float) -> tuple[Any, ...] | None:
        """What the show looks like at rest; None when it is not in time."""
        activity, since = await self._activity(), time.monotonic()
        while activity[0] or time.monotonic() - since < REST_SECONDS:
            if time.monotonic() > until:
                return None
            await asyncio.sleep(POLL_SECONDS)
            now = await self._activity()
            if now != activity:
                activity, since = now, time.monotonic()
        return activity

    async def _activity(self) -> tuple[Any, ...]:
        """How much work is waiting, then the versions of all pools."""
        waiting = await self.redis.xlen(keys.orders(self.show))
        waiting += await self.postgres.fetchval(SQL["waiting"], self.show)
        pools = await self._pool_rows()
        versions = [
            (pool, row.version, await self._field(keys.pool(self.show, pool), "v"))
            for pool, row in pools.items()
        ]
        return waiting, *versions

    # --- PostgreSQL ------------------------------------------------------------------------------

    async def _records(self) -> Records:
        async with self.postgres.transaction(isolation="repeatable_read", readonly=True):
            moves, gives = defaultdict(list), defaultdict(list)
            for row in await self._rows("moves"):
                moves[row["order_id"]].append(Move(*row))
            for row in await self._rows("gives"):
                gives[row["pool_id"]].append(Give(*map(_plain, row)))
            orders = [OrderRow(*map(_plain, row)) for row in await self._rows("orders")]
            released = [Released(*map(_plain, row)) for row in await self._rows("released")]
            takes = [OtherTake(*row) for row in await self._rows("other_takes")]
            buyers = [BuyerRow(*row) for row in await self.postgres.fetch(SQL["buyers"], self.show)]
            prices = await self.postgres.fetch(SQL["prices"], self.show)
            return Records(
                epoch=await self.postgres.fetchval(SQL["epoch"], self.show) or 0,
                pools=await self._pool_rows(),
                prices={(sale, version): price for sale, version, price in prices},
                orders={order.key: order for order in orders},
                moves=moves,
                gives=gives,
                released={(each.buyer, each.claim_id): each for each in released},
                other_takes={(take.pool, take.epoch, take.seq): take for take in takes},
                buyers={(row.pool, row.buyer): row for row in buyers},
            )

    async def _rows(self, name: str) -> "list[asyncpg.Record]":
        rows: list[asyncpg.Record] = await self.postgres.fetch(
            SQL[name], self.show, self.postgres_offset_us
        )
        return rows

    async def _pool_rows(self) -> dict[int, PoolRow]:
        rows = await self.postgres.fetch(SQL["pools"], self.show)
        return {row["pool_id"]: PoolRow(*row) for row in rows if row["status"] != "draft"}

    # --- Redis -----------------------------------------------------------------------------------

    async def _store(self) -> Store:
        pools, buyers, shown = {}, {}, {}
        for pool in await self._pool_rows():
            numbers = await self._numbers(keys.pool(self.show, pool))
            if numbers:
                pools[pool] = PoolHash(*(numbers[name] for name in PoolHash._fields))
            for buyer, units in (await self._hash(keys.buyers(self.show, pool))).items():
                buyers[pool, buyer.decode()] = int(units)
            value: Any = await self._field(keys.state(self.show), f"stock:{pool}")
            if value is not None:
                shown[pool] = msgspec.msgpack.decode(value)
        return Store(
            epoch=int(await self._field(keys.meta(self.show), "epoch") or 0),
            pools=pools,
            buyers=buyers,
            claims=await self._claims(),
            shown=shown,
            likes=int(await self._field(keys.room(self.show), "likes") or 0),
        )

    async def _numbers(self, key: str) -> dict[str, int]:
        """A pool's counters by their names in PoolHash; empty when there is no such pool."""
        found = await self._hash(key)
        fields = dict(zip(PoolHash._fields, b"a q v n s r d rv".split(), strict=True))
        return {name: int(found.get(field, 0)) for name, field in fields.items()} if found else {}

    async def _hash(self, key: str) -> dict[bytes, bytes]:
        found: Awaitable[Any] | Any = self.redis.hgetall(key)
        whole: dict[bytes, bytes] = await found
        return whole

    async def _field(self, key: str, field: str) -> bytes | None:
        found: Awaitable[Any] | Any = self.redis.hget(key, field)
        value: bytes | None = await found
        return value

    async def _claims(self) -> dict[ClaimKey, Remembered]:
        """Every accepted claim; refusals, which are rows of three, are no answer to keep."""
        remembered = {}
        async for field, packed in self.redis.hscan_iter(keys.claims(self.show), count=1_000):
            row = msgspec.msgpack.decode(packed)
            if len(row) == len(Remembered._fields):
                user, claim_id = field[: -ID_BYTES - 1].decode(), field[-ID_BYTES:]
                t_us = row[-1] * 1_000 - self.redis_offset_us
                remembered[user, claim_id] = Remembered._make([*row[:-1], t_us])
        return remembered


@asynccontextmanager
async def open_books(
    redis_url: str, database_url: str, show: str, zero_us: int
) -> AsyncIterator[Reader]:
    """Connect to both. Raises OSError, redis.RedisError or asyncpg's errors when one is away."""
    async with AsyncExitStack() as stack:
        redis = aioredis.Redis.from_url(redis_url)
        stack.push_async_callback(redis.aclose)
        postgres = await asyncpg.connect(database_url)
        stack.push_async_callback(postgres.close)

        async def redis_us() -> int:
            seconds, micros = await redis.time()
            return int(seconds) * 1_000_000 + int(micros)

        async def postgres_us() -> int:
            return int(await postgres.fetchval(SQL["now"]))

        offsets = [await _offset_us(ask, zero_us) for ask in (redis_us, postgres_us)]
        yield Reader(redis, postgres, show, *offsets)


async def _offset_us(ask: Callable[[], Awaitable[int]], zero_us: int) -> int:
    """A server's clock minus t_us, by the quickest of a few questions (Cristian's algorithm)."""
    samples = []
    for _ in range(CLOCK_SAMPLES):
        sent = time.monotonic_ns() // 1_000
        there = await ask()
        received = time.monotonic_ns() // 1_000
        samples.append((received - sent, there - ((sent + received) // 2 - zero_us)))
    return min(samples)[1]


def _plain(value: Any) -> Any:
    """A UUID as its bytes, anything else as it is."""
    return value.bytes if isinstance(value, uuid.UUID) else value


def _statements(text: str) -> dict[str, str]:
    """The statements of a file by the names that stand before them."""
    blocks = (block.partition("\n") for block in text.split("-- name: ")[1:])
    return {name.strip(): statement for name, _, statement in blocks}


SQL: Final = _statements(resources.files("loadtest.audit").joinpath("books.sql").read_text())
