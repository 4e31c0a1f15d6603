"""One snapshot of a show's books, for the audit to compare with Redis. Writes nothing."""

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import asyncpg

from server.records import sql
from server.records.pool import Pool, acquire

SQL: Final = sql.load("orders_audit")


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
    pay_within_s: int
    ledger_taken: int
    ledger_dead: int


class TakeBook(NamedTuple):
    """A take in the books. `quantity` left Redis, `units` are counted in the pool.

    `status`: of an order, or why a claim was released. `claim_id`: 16 bytes, b"" for dead ones.
    """

    kind: Literal["order", "released", "lowering", "dead"]
    pool: int
    epoch: int
    seq: int
    buyer: str
    claim_id: bytes
    quantity: int
    units: int
    status: str
    order_id: int
    price: int


class GiveBook(NamedTuple):
    """Units given back, applied in Redis or not. `seq` 0: they return no take (a restock)."""

    give_id: str
    pool: int
    units: int
    reason: str
    epoch: int
    seq: int


class BuyerBook(NamedTuple):
    """A buyer's units as counted and as ordered, where these differ or exceed the limit."""

    pool: int
    buyer: str
    counted: int
    ordered: int
    limit: int


class SkuBook(NamedTuple):
    """A sku whose allotted units are not the `units` of its sales."""

    sku: int
    allotted: int
    units: int


@dataclass(frozen=True, slots=True)
class Promised:
    """What came from Redis, or was seen there, before it was cut: it cannot be behind that.

    `pools`: pool -> (epoch, seq) of its newest take in the books. `gives`: applied in Redis.
    """

    pools: dict[int, tuple[int, int]]
    gives: list[str]


@dataclass(frozen=True, slots=True)
class ShowBooks:
    """Everything the books say about a show's stock at one instant."""

    epoch: int
    halted_by: str
    pools: dict[int, PoolBook]
    takes: list[TakeBook]
    gives: list[GiveBook]
    wrong_buyers: list[BuyerBook]
    wrong_skus: list[SkuBook]


async def shows_to_audit(pool: Pool, show_id: str | None) -> list[str]:
    """`show_id` if it exists, or every show that ever started a sale."""
    async with acquire(pool) as connection:
        return [row["show_id"] for row in await connection.fetch(SQL["shows"], show_id)]


async def read_promised(pool: Pool, show_id: str) -> Promised:
    """What Redis must have from now on."""
    async with acquire(pool) as connection:
        pools = await connection.fetch(SQL["projected_pools"], show_id)
        gives = await connection.fetch(SQL["applied_gives"], show_id)
    return Promised(
        pools={row["sale_id"]: (row["epoch"], row["taken_seq"]) for row in pools},
        gives=[row["give_id"] for row in gives],
    )


async def read_books(pool: Pool, show_id: str) -> ShowBooks:
    """One REPEATABLE READ snapshot, taken now."""
    async with (
        acquire(pool) as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        epoch = await connection.fetchrow(SQL["epoch"], show_id)
        pools = [PoolBook(*row) for row in await connection.fetch(SQL["pools"], show_id)]
        takes = await connection.fetch(SQL["takes"], show_id)
        gives = await connection.fetch(SQL["gives"], show_id)
        buyers = await connection.fetch(SQL["wrong_buyers"], show_id)
        skus = await connection.fetch(SQL["wrong_skus"], show_id)
    return ShowBooks(
        epoch=epoch["epoch"] if epoch else 0,
        halted_by=epoch["halted_by"] if epoch else "",
        pools={book.pool: book for book in pools},
        takes=[_take(row) for row in takes],
        gives=[GiveBook(*row) for row in gives],
        wrong_buyers=[BuyerBook(*row) for row in buyers],
        wrong_skus=[SkuBook(*row) for row in skus],
    )


def _take(row: asyncpg.Record) -> TakeBook:
    values = dict(row)
    claim_id = values.pop("claim_id")
    values["pool"] = values.pop("pool_id")
    return TakeBook(claim_id=claim_id.bytes if claim_id else b"", **values)
