"""What happened to orders, kept in the transaction in which it happened, for webhooks to tell.

A row stands for a whole batch: a range of takes, or orders that took the same step. It is written
only for shows that have a webhook endpoint; records/webhooks.py turns rows into messages.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from server.domain.order import OrderStatus
from server.records import sql
from server.records.pool import Connection

SQL: Final = sql.load("outbox")


class TakenRange(NamedTuple):
    """Takes of one pool that this transaction entered into the books, first and last seq."""

    pool: int
    epoch: int
    seq_first: int
    seq_last: int


async def note_taken(conn: Connection, show_id: str, ranges: Iterable[TakenRange]) -> None:
    """Orders confirmed and claims released by this transaction, one row per range.

    What else lies in a range is left out. The caller knows that the show has an endpoint.
    """
    payloads = [json.dumps(taken._asdict()) for taken in ranges]
    await conn.execute(SQL["note_taken"], show_id, payloads)


async def note_moves(
    conn: Connection, show_id: str, status: OrderStatus, order_ids: Sequence[int]
) -> None:
    """Orders that became `status` in this transaction, with their row in order_moves.

    One row, or none when the show has no endpoint.
    """
    payload = json.dumps({"status": status, "orders": list(order_ids)})
    await conn.execute(SQL["note_moves"], show_id, payload)


async def note_released(conn: Connection, show_id: str, give_id: str) -> None:
    """A claim was released by this transaction and its units given back.

    One row, or none when the show has no endpoint.
    """
    await conn.execute(SQL["note_released"], show_id, give_id)
