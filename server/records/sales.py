"""Flash sales in PostgreSQL: terms, units, gives, requests; statements are in sql/sales.sql.

Row locks are taken in the order shows, pools, skus, sales (the order worker does the same).
"""

import uuid
from typing import Any, NamedTuple

from server import limits
from server.domain.sale import SaleStatus, Window
from server.records.pool import Connection
from server.records.sql import load

_SQL = load("sales")


class SaleRow(NamedTuple):
    """A sale with its pool's units, its sku and product. Times in Redis ms, 0: not set.

    `lowering`: units of lowerings that were asked for and not yet decided by Redis.
    """

    sale_id: int
    show_id: str
    status: SaleStatus
    price: int
    price_version: int
    countdown_s: int
    duration_s: int
    pay_within_s: int
    opens_at_ms: int
    closes_at_ms: int
    revision: int
    applied_revision: int
    limit_per_buyer: int
    initial: int
    restocked: int
    lowered: int
    reserved: int
    sold: int
    dead: int
    pool_version: int
    sku_id: int
    sku_title: str
    list_price: int
    currency: str
    product_id: int
    product_title: str
    lowering: int


class RequestRow(NamedTuple):
    """A host's restock or lowering; `status` pending, done or refused."""

    act_id: uuid.UUID
    sale_id: int
    kind: str
    units: int
    status: str


class PendingLowering(NamedTuple):
    """A lowering that Redis has not decided yet."""

    act_id: uuid.UUID
    show_id: str
    sale_id: int
    units: int


class SaleMoney(NamedTuple):
    """Orders that stand for a sale: how many, their units, their amount in minor units."""

    sale_id: int
    orders: int
    units: int
    amount: int


# --- Terms ------------------------------------------------------------------------------------


async def insert_sale(
    conn: Connection,
    show_id: str,
    sku_id: int,
    *,
    price: int,
    units: int,
    limit_per_buyer: int,
    countdown_s: int,
    duration_s: int,
    pay_within_s: int,
) -> int:
    """Id of a new draft of `units`, which the caller has allotted from the sku."""
    row = (show_id, sku_id, limit_per_buyer, units)
    sale_id: int = await conn.fetchval(_SQL["insert_pool"], *row)
    terms = (sale_id, show_id, price, countdown_s, duration_s, pay_within_s)
    await conn.execute(_SQL["insert_sale"], *terms)
    await conn.execute(_SQL["insert_price"], sale_id, 1, price)
    return sale_id


async def get_sale(conn: Connection, sale_id: int) -> SaleRow | None:
    record = await conn.fetchrow(_SQL["sales_by_id"], [sale_id])
    return SaleRow(*record) if record else None


async def lock_sale(conn: Connection, show_id: str, sale_id: int) -> SaleRow | None:
    """The sale, its pool's row held until the transaction ends; everybody who changes the units
    or the status of a sale holds it."""
    if await conn.fetchval(_SQL["lock_pool"], sale_id, show_id) is None:
        return None
    return await get_sale(conn, sale_id)


async def count_sales(conn: Connection, show_id: str) -> int:
    """How many sales the show has, in whatever status."""
    count: int = await conn.fetchval(_SQL["count_sales"], show_id)
    return count


async def list_sales(conn: Connection, show_id: str) -> list[SaleRow]:
    """The sales of a show (at most SALES_PER_SHOW_MAX), newest first."""
    ids = [record[0] for record in await conn.fetch(_SQL["sale_ids"], show_id)]
    return [SaleRow(*record) for record in await conn.fetch(_SQL["sales_by_id"], ids)]


async def start(conn: Connection, sale_id: int, status: SaleStatus, window: Window) -> None:
    await conn.execute(_SQL["start"], sale_id, status, *window)


async def set_price(conn: Connection, sale_id: int, price: int) -> int:
    """The new price version."""
    version: int = await conn.fetchval(_SQL["set_price"], sale_id, price)
    await conn.execute(_SQL["insert_price"], sale_id, version, price)
    return version


async def set_open(conn: Connection, sale_id: int) -> None:
    """A scheduled sale is open now (viewers see it; the window decides)."""
    await conn.execute(_SQL["set_open"], sale_id)


async def set_closing(conn: Connection, sale_id: int) -> None:
    """Stopped: what is left in Redis still has to be taken back."""
    await conn.execute(_SQL["set_closing"], sale_id)


# --- Units ------------------------------------------------------------------------------------


async def resize_draft(conn: Connection, sale_id: int, units: int, act_id: uuid.UUID) -> bool:
    """Change a draft's units by `units` (negative: fewer). False, and nothing changed, when it
    would have fewer than 0 or more than UNITS_MAX."""
    if await conn.fetchval(_SQL["resize_draft"], sale_id, units, limits.UNITS_MAX) is None:
        return False
    await note_units(conn, sale_id, "allotted", units, str(act_id))
    return True


async def close_draft(conn: Connection, sale_id: int) -> None:
    """Close a sale that never was in Redis; the caller has given its units back to the sku."""
    await conn.execute(_SQL["close_draft"], sale_id)


async def restock(
    conn: Connection, show_id: str, sale_id: int, units: int, act_id: uuid.UUID
) -> bool:
    """Add units (already allotted from the sku) and the give that brings them to Redis.

    False, and nothing changed, when the pool would exceed UNITS_MAX.
    """
    if await conn.fetchval(_SQL["restock"], sale_id, units, limits.UNITS_MAX) is None:
        return False
    await note_units(conn, sale_id, "restocked", units, str(act_id))
    await conn.execute(_SQL["insert_give"], str(act_id), show_id, sale_id, units)
    return True


async def note_units(
    conn: Connection, sale_id: int, reason: str, units: int, give_id: str | None = None
) -> None:
    """One row of the append-only ledger."""
    await conn.execute(_SQL["insert_ledger"], sale_id, reason, units, give_id)


# --- Requests of hosts ------------------------------------------------------------------------


async def get_request(conn: Connection, act_id: uuid.UUID) -> RequestRow | None:
    record = await conn.fetchrow(_SQL["get_request"], act_id)
    return RequestRow(*record) if record else None


async def insert_request(
    conn: Connection, act_id: uuid.UUID, show_id: str, sale_id: int, kind: str, units: int,
    status: str,
) -> None:  # fmt: skip
    await conn.execute(_SQL["insert_request"], act_id, show_id, sale_id, kind, units, status)


async def lock_request(conn: Connection, act_id: uuid.UUID) -> str:
    """The request's status, its row held until the transaction ends."""
    status: str = await conn.fetchval(_SQL["lock_request"], act_id)
    return status


async def settle_request(conn: Connection, act_id: uuid.UUID, status: str) -> None:
    """Redis has decided a pending lowering: done or refused."""
    await conn.execute(_SQL["settle_request"], act_id, status)


async def pending_lowerings(conn: Connection, older_s: float, limit: int) -> list[PendingLowering]:
    """Lowerings that have been pending for `older_s` seconds."""
    records = await conn.fetch(_SQL["pending_requests"], older_s, limit)
    return [PendingLowering(*record) for record in records]


# --- Work that is due -------------------------------------------------------------------------


async def unfinished_of_show(conn: Connection, show_id: str) -> list[tuple[int, SaleStatus]]:
    """Sales that are draft, scheduled or open, as (sale, status)."""
    return [tuple(r) for r in await conn.fetch(_SQL["unfinished_of_show"], show_id)]


async def sales_to_project(conn: Connection, limit: int) -> list[int]:
    return [record[0] for record in await conn.fetch(_SQL["sales_to_project"], limit)]


async def set_applied(conn: Connection, sale_id: int, revision: int) -> None:
    await conn.execute(_SQL["set_applied"], sale_id, revision)


async def sales_opening(conn: Connection, now_ms: int, limit: int) -> list[tuple[int, str]]:
    """Scheduled sales whose time has come, as (sale, show)."""
    return _pairs(await conn.fetch(_SQL["sales_opening"], now_ms, limit))


async def sales_overdue(conn: Connection, now_ms: int, limit: int) -> list[tuple[int, str]]:
    """Sales whose window has ended, as (sale, show)."""
    return _pairs(await conn.fetch(_SQL["sales_overdue"], now_ms, limit))


async def touch_sales_of_sku(conn: Connection, sku_id: int) -> list[int]:
    """Have the running sales of a sku projected again; their ids."""
    return [record[0] for record in await conn.fetch(_SQL["touch_sales_of_sku"], sku_id)]


async def stats(conn: Connection, show_id: str) -> dict[int, SaleMoney]:
    """What was ordered, by sale."""
    return {r["sale_id"]: SaleMoney(*r) for r in await conn.fetch(_SQL["stats"], show_id)}


def _pairs(records: list[Any]) -> list[tuple[int, str]]:
    return [(record[0], record[1]) for record in records]
