"""How people read orders: hosts those of a show, buyers theirs. See sql/order_list.sql."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from server.domain.order import STATUSES, OrderStatus
from server.records import sql
from server.records.pool import Connection, Pool, acquire
from server.records.transaction import one_instant

SQL: Final = sql.load("order_list")
EXPORT_ROWS: Final = 1_000  # read at once


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


async def get_order(
    conn: Connection, show_id: str, order_id: int, buyer: str | None = None
) -> OrderRow | None:
    """One order of a show; with `buyer` only if it is theirs."""
    found = await _orders_by_id(conn, show_id, [order_id])
    return found[0] if found and buyer in (None, found[0].buyer) else None


class Wanted(NamedTuple):
    """Which orders of a show; None: any."""

    order: int | None = None
    sale: int | None = None
    buyer: str | None = None
    status: OrderStatus | None = None

    def fits(self, row: OrderRow) -> bool:
        found = (row.order_id, row.sale_id, row.buyer, row.status)
        return all(one in (None, its) for one, its in zip(self, found, strict=True))


ALL: Final = Wanted()


async def list_orders(
    pool: Pool,
    show_id: str,
    wanted: Wanted = ALL,
    *,
    after: int = 0,
    before: int | None = None,
    limit: int = 100,
) -> list[OrderRow]:
    """Orders of a show by rising id, those above id `after`, at most `limit`; with `before` those
    below that id, the newest first."""
    start = after if before is None else before
    statement, terms = _listing(show_id, wanted, start, before is not None, limit)
    # An order that moves on meanwhile would leave its page short: short pages are the last ones.
    async with one_instant(pool) as connection:
        ids = await connection.fetch(SQL[statement], *terms)
        rows = await _orders_by_id(connection, show_id, [row["order_id"] for row in ids])
    rows = [row for row in rows if wanted.fits(row)]  # an order by its id may be any
    return rows if before is None else rows[::-1]


def _listing(
    show_id: str, wanted: Wanted, start: int, newest: bool, limit: int
) -> tuple[str, tuple[Any, ...]]:
    """The statement for the ids of a list, and its parameters."""
    order, sale, buyer, status = wanted
    if order is not None:
        return "orders_by_id", (show_id, [order])
    if buyer is not None:
        return "order_ids_of_buyer", (show_id, buyer, sale, status, start, newest, limit)
    statuses = STATUSES if status is None else (status,)
    if sale is not None:
        name = "order_ids_of_sale_before" if newest else "order_ids_of_sale"
        return name, (sale, statuses, start, limit)
    return "order_ids_before" if newest else "order_ids", (show_id, statuses, start, limit)


async def _orders_by_id(conn: Connection, show_id: str, order_ids: list[int]) -> list[OrderRow]:
    """Those of the show's orders that there are, by rising id."""
    rows = await conn.fetch(SQL["orders_by_id"], show_id, order_ids)
    return [OrderRow(**{**row, "claim_id": str(row["claim_id"])}) for row in rows]


async def newest_orders(pool: Pool, show_id: str, buyer: str, limit: int) -> list[OrderRow]:
    """A buyer's newest orders in a show, newest first, at most `limit`."""
    async with acquire(pool) as connection:
        ids = await connection.fetch(SQL["newest_ids_of_buyer"], show_id, buyer, limit)
        rows = await _orders_by_id(connection, show_id, [row["order_id"] for row in ids])
    return rows[::-1]


async def export_orders(pool: Pool, show_id: str) -> AsyncIterator[list[OrderRow]]:
    """All orders of a show, some at a time, so that no connection is held by a slow reader."""
    after = 0
    while rows := await list_orders(pool, show_id, after=after, limit=EXPORT_ROWS):
        yield rows
        after = rows[-1].order_id
