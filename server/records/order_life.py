"""What happens to orders after their confirmation, in PostgreSQL: `move_orders` is the only writer
of an order's status. Statements are in sql/order_life.sql.

Units that come back are written as gives in the same transaction; Redis is told afterwards
(acts/order_projector.py), and what it has not been told yet is read here.
"""

import uuid
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Final, Literal, NamedTuple

import asyncpg

from server.domain.claim import PoolCount
from server.domain.order import (
    COUNTED_AS,
    BuyerUnits,
    MoveReason,
    OrderStatus,
    counter_of,
    may_become,
)
from server.domain.payment import PaymentStatus
from server.records import sql
from server.records.outbox import note_moves
from server.records.pool import Connection, Pool, acquire
from server.records.transaction import transaction

SQL: Final = sql.load("order_life")
LOCK_WAIT_MS: Final = 1_000  # of `expire`, for each lock

BuyerKey = tuple[int, str]  # pool, buyer


class MovedOrder(NamedTuple):
    """An order after its move. `to_be_paid`: it had a time to pay."""

    order_id: int
    pool_id: int
    buyer: str
    claim_id: uuid.UUID
    quantity: int
    status: OrderStatus
    to_be_paid: bool


# --- Moving -----------------------------------------------------------------------------------


async def wait_at_most(conn: Connection, ms: int) -> None:
    """For each lock in this transaction; then it fails with asyncpg.LockNotAvailableError."""
    await conn.execute(SQL["wait_at_most"], str(ms))


async def hold_pools(conn: Connection, show_id: str, order_ids: Sequence[int]) -> None:
    """Hold the epoch's row and those of the orders' pools: nobody else moves these orders then."""
    await conn.execute(SQL["hold_epoch"], show_id)
    await conn.execute(SQL["hold_pools"], show_id, order_ids)


async def move_orders(
    conn: Connection,
    show_id: str,
    order_ids: Sequence[int],
    *,
    status_from: OrderStatus,
    status_to: OrderStatus,
    reason: MoveReason,
    actor: str = "",
    due_only: bool = False,
) -> list[MovedOrder]:
    """Take a step with those of the orders that are in `status_from`, in the caller's transaction;
    which they were, by rising id. The others stay as they are: of two racing steps one wins.

    The pools' counters and the buyers' units follow; units that come back get one give each, with
    the id `status_to:order_id`. expired -> paid only counts the units again: the caller has booked
    the take itself. `due_only`: only orders whose time to pay is over.

    Locks the epoch's row, then the pools'; the caller holds none of a later kind (shows come
    before, orders after). Raises ValueError for a step that is no edge (domain/order.py).
    """
    if not may_become(status_from, status_to):
        raise ValueError(f"an order does not go from {status_from} to {status_to}")
    await hold_pools(conn, show_id, order_ids)
    asked = (show_id, order_ids, status_from, status_to, due_only)
    rows = sorted(await conn.fetch(SQL["move"], *asked), key=itemgetter("order_id"))
    if not rows:
        return []
    moved = [MovedOrder(*row[:-1]) for row in rows]
    step = _Step(conn, show_id, status_from, status_to, reason, moved)
    await step.count()
    give_ids = await step.settle_buyers()
    await step.note(give_ids, actor, rows[0]["at"])
    return moved


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of several orders: what follows from it in the books."""

    conn: Connection
    show_id: str
    status_from: OrderStatus
    status_to: OrderStatus
    reason: MoveReason
    orders: Sequence[MovedOrder]

    async def count(self) -> None:
        """Units go from one counter of their pool to another, out of both, or into one."""
        changes: dict[int, Counter[str]] = defaultdict(Counter)
        for order in self.orders:
            before = counter_of(self.status_from, to_be_paid=order.to_be_paid)
            after = counter_of(self.status_to, to_be_paid=order.to_be_paid)
            changes[order.pool_id][before] -= order.quantity
            changes[order.pool_id][after] += order.quantity
        rows = [
            (pool, change["reserved"], change["sold"])
            for pool, change in changes.items()
            if change["reserved"] or change["sold"]
        ]
        if rows:
            await self.conn.execute(SQL["count_moves"], *zip(*rows, strict=True))

    async def settle_buyers(self) -> dict[int, str]:
        """What counts for the buyers, and the gives of units that came back: order -> give id."""
        if not COUNTED_AS[self.status_to]:
            return await self._give_back()
        if not COUNTED_AS[self.status_from]:
            await self._take_again()
        return {}

    async def _give_back(self) -> dict[int, str]:
        buyers = await self._buyers()
        give_ids = {order.order_id: f"{self.status_to}:{order.order_id}" for order in self.orders}
        rows = []
        for order in self.orders:
            buyer = buyers[order.pool_id, order.buyer]
            forgiven = buyer.give_back(order.quantity, self.reason)
            units = (order.pool_id, order.quantity, order.buyer, order.claim_id, forgiven)
            rows.append((give_ids[order.order_id], *units))
        await self._set_buyers(buyers)
        gives = zip(*rows, strict=True)
        await self.conn.execute(SQL["insert_gives"], self.show_id, self.status_to, *gives)
        return give_ids

    async def _take_again(self) -> None:
        buyers = await self._buyers()
        gives = {f"{self.status_from}:{order.order_id}": order for order in self.orders}
        rows = await self.conn.fetch(SQL["forgiven_gives"], list(gives))
        forgiven = {row["give_id"] for row in rows}
        for give_id, order in gives.items():
            buyer = buyers[order.pool_id, order.buyer]
            buyer.take_again(order.quantity, forgiven=give_id in forgiven)
        await self._set_buyers(buyers)

    async def _buyers(self) -> dict[BuyerKey, BuyerUnits]:
        keys = {(order.pool_id, order.buyer) for order in self.orders}
        rows = await self.conn.fetch(SQL["buyers"], *zip(*keys, strict=True))
        return {
            (row["pool_id"], row["buyer"]): BuyerUnits(
                row["units"], row["returns"], row["forfeited"]
            )
            for row in rows
        }

    async def _set_buyers(self, buyers: Mapping[BuyerKey, BuyerUnits]) -> None:
        rows = [(*key, b.units, b.returns, b.forfeited) for key, b in buyers.items()]
        await self.conn.execute(SQL["set_buyers"], *zip(*rows, strict=True))

    async def note(self, give_ids: Mapping[int, str], actor: str, at: datetime) -> None:
        """The append-only record of the step, and the outbox."""
        step = (self.show_id, self.status_from, self.status_to, self.reason, actor, at)
        rows = [(o.order_id, o.pool_id, give_ids.get(o.order_id)) for o in self.orders]
        await self.conn.execute(SQL["insert_moves"], *step, *zip(*rows, strict=True))
        await note_moves(self.conn, self.show_id, self.status_to, [row[0] for row in rows])


# --- Time to pay ------------------------------------------------------------------------------


async def due_orders(pool: Pool, without: Sequence[str], limit: int) -> dict[str, list[int]]:
    """Unpaid orders whose time is over, by show; those due for longest first, at most `limit`.

    `without`: shows to leave out. PostgreSQL's clock decides.
    """
    async with acquire(pool) as conn:
        rows = await conn.fetch(SQL["due_orders"], list(without), limit)
    by_show: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_show[row["show_id"]].append(row["order_id"])
    return by_show


async def expire(pool: Pool, show_id: str, order_ids: Sequence[int]) -> int | None:
    """Expire those of the orders that are unpaid and due; how many. None: somebody has held the
    rows for LOCK_WAIT_MS, nothing was changed."""
    try:
        async with transaction(pool) as conn:
            await wait_at_most(conn, LOCK_WAIT_MS)
            moved = await move_orders(
                conn, show_id, order_ids, status_from="confirmed", status_to="expired",
                reason="deadline", due_only=True,
            )  # fmt: skip
    except asyncpg.LockNotAvailableError:
        return None
    return len(moved)


# --- What Redis has to be told ----------------------------------------------------------------


class GiveRow(NamedTuple):
    """Units on their way back to a pool in Redis. `closed`: its sale is over or closing.

    `order_id` 0: they are no order's (a restock, a released claim). `forgiven`: they do not count
    against `buyer` any more.
    """

    give_id: str
    pool_id: int
    units: int
    reason: str
    buyer: str
    claim_id: uuid.UUID | None
    forgiven: bool
    closed: bool
    order_id: int
    pay_by_ms: int


class UntoldMove(NamedTuple):
    """A move without units, with its order as it is now."""

    move_id: int
    order_id: int
    pool_id: int
    buyer: str
    claim_id: uuid.UUID
    quantity: int
    price: int
    price_version: int
    epoch: int
    seq: int
    status: OrderStatus
    pay_by_ms: int
    confirmed_ms: int


@dataclass(frozen=True, slots=True)
class Untold:
    """Gives and moves that Redis may not have, and the counters of their pools, which are as new
    as these or newer."""

    gives: list[GiveRow]
    moves: list[UntoldMove]
    pools: list[PoolCount]


async def read_untold(conn: Connection, show_id: str, sale_id: int | None, limit: int) -> Untold:
    """Of a show, or of one sale of it: at most `limit` gives and as many moves, oldest first."""
    gives = [GiveRow(*r) for r in await conn.fetch(SQL["untold_gives"], show_id, sale_id, limit)]
    moves = [UntoldMove(*r) for r in await conn.fetch(SQL["untold_moves"], show_id, sale_id, limit)]
    pools = list({row.pool_id for row in gives} | {row.pool_id for row in moves})
    counters = [PoolCount(*r) for r in await conn.fetch(SQL["counters"], show_id, pools)]
    return Untold(gives, moves, counters)


async def mark_told(conn: Connection, give_ids: Sequence[str], move_ids: Sequence[int]) -> None:
    """Redis has these gives, with the moves they belong to, and these moves."""
    await conn.execute(SQL["mark_told"], give_ids, move_ids)


async def shows_to_tell(conn: Connection, limit: int) -> list[str]:
    """Shows with gives or moves that Redis may not have."""
    return [record[0] for record in await conn.fetch(SQL["shows_to_tell"], limit)]


# --- History ----------------------------------------------------------------------------------


class MoveRow(NamedTuple):
    """One step of an order. `actor`: the user, or the payment's provider; may be empty."""

    status_from: OrderStatus | Literal["dead"]
    status_to: OrderStatus
    reason: MoveReason
    actor: str
    at_ms: int


class OrderPayment(NamedTuple):
    """A payment of an order; amounts in minor units. `reason`: why a refund was asked for."""

    payment_id: uuid.UUID
    provider: str
    status: PaymentStatus
    amount: int
    currency: str
    reason: str
    created_ms: int


async def moves_of_order(conn: Connection, order_id: int) -> list[MoveRow]:
    """Every step after the confirmation, oldest first."""
    return [MoveRow(*record) for record in await conn.fetch(SQL["moves_of_order"], order_id)]


async def payments_of_order(conn: Connection, order_id: int) -> list[OrderPayment]:
    """Every payment that was begun for an order, oldest first."""
    return [
        OrderPayment(*record) for record in await conn.fetch(SQL["payments_of_order"], order_id)
    ]
