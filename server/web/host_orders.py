"""Host API: orders as JSON and as CSV, and what a host does with one."""

import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Final

from starlette.responses import StreamingResponse

from server.acts import messages as m
from server.acts import views as v
from server.domain.money import amount_text, line_total
from server.errors import Refused
from server.records import order_list
from server.records.order_list import OrderRow, Wanted
from server.records.pool import Pool
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW

CSV_COLUMNS: Final = (
    "order_id", "sale", "product", "sku", "buyer", "quantity", "unit_price", "total",
    "currency", "status", "confirmed_at", "claim_id",
)  # fmt: skip
BOM: Final = b"\xef\xbb\xbf"  # without it spreadsheets take Chinese text for another encoding
# First characters that make a spreadsheet run a cell as a formula (OWASP, "CSV Injection").
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


async def list_orders(call: Call) -> v.OrderList:
    await _authorise(call)
    query: m.OrdersQuery = call.query
    if query.after and query.before is not None:
        raise Refused("bad_field", "Either `after` or `before`", field="before")
    rows = await order_list.list_orders(
        call.acts.pool,
        call.show,
        Wanted(query.order, query.sale, query.buyer, query.status),
        after=query.after,
        before=query.before,
        limit=query.limit,
    )
    return v.OrderList([v.order_view(row) for row in rows])


async def get_order(call: Call) -> v.OrderDetail:
    return await call.acts.orders.history(call.identity, call.show, call.ids["order"])


async def cancel_order(call: Call) -> v.OrderView:
    return await call.acts.orders.move(call.identity, call.show, call.ids["order"], "cancel")


async def refund_order(call: Call) -> v.OrderView:
    return await call.acts.orders.move(call.identity, call.show, call.ids["order"], "refund")


async def fulfil_order(call: Call) -> v.OrderView:
    return await call.acts.orders.move(call.identity, call.show, call.ids["order"], "fulfil")


async def export_orders(call: Call) -> StreamingResponse:
    await _authorise(call)
    name = f"orders-{call.show}.csv"
    return StreamingResponse(
        csv_chunks(call.acts.pool, call.show),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        },
    )


async def _authorise(call: Call) -> None:
    """Raises Refused unless the show is this host's."""
    async with call.acts.desk.reading(call.identity, call.show):
        return


async def csv_chunks(pool: Pool, show_id: str) -> AsyncIterator[bytes]:
    """The export in pieces of some hundred rows; an outage midway ends it short of its end."""
    yield BOM + csv_bytes([CSV_COLUMNS])
    async for rows in order_list.export_orders(pool, show_id):
        yield csv_bytes([csv_cells(row) for row in rows])


def csv_bytes(rows: Sequence[Sequence[object]]) -> bytes:
    """Rows as RFC 4180 text in UTF-8."""
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_MINIMAL).writerows(rows)
    return text.getvalue().encode()


def csv_cells(row: OrderRow) -> tuple[object, ...]:
    """One order in the order of CSV_COLUMNS, prices as decimals."""
    at = datetime.fromtimestamp(row.confirmed_at / 1000, UTC).isoformat(timespec="milliseconds")
    total = line_total(row.price, row.quantity)
    return (
        row.order_id,
        row.sale_id,
        safe_cell(row.product),
        safe_cell(row.sku),
        safe_cell(row.buyer),
        row.quantity,
        amount_text(row.price, row.currency),
        amount_text(total, row.currency),
        row.currency,
        row.status,
        at,
        row.claim_id,
    )


def safe_cell(text: str) -> str:
    """Text that no spreadsheet runs as a formula: an apostrophe before a dangerous start."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


ORDER = f"{SHOW}/orders/{{order:int}}"

ENDPOINTS = (
    Endpoint(
        "GET", f"{SHOW}/orders", "list_orders",
        "Orders above the id `after`, oldest first, or below `before`, newest first",
        list_orders, v.OrderList, query=m.OrdersQuery,
    ),
    Endpoint(
        "GET", f"{SHOW}/orders.csv", "export_orders", "All orders as CSV (UTF-8 with BOM)",
        export_orders, "text/csv",
    ),
    Endpoint(
        "GET", ORDER, "get_order", "An order with its steps and payments",
        get_order, v.OrderDetail,
    ),
    Endpoint(
        "POST", f"{ORDER}/cancel", "cancel_order", "Cancel a confirmed order; its units come back",
        cancel_order, v.OrderView,
    ),
    Endpoint(
        "POST", f"{ORDER}/refund", "refund_order",
        "Refund a paid order: the money goes back to the buyer, the units to the sale",
        refund_order, v.OrderView,
    ),
    Endpoint(
        "POST", f"{ORDER}/fulfil", "fulfil_order", "Mark a paid order as fulfilled",
        fulfil_order, v.OrderView,
    ),
)  # fmt: skip
