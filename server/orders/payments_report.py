"""`livesale payments`: what operators see of payments, and above all of those that still move."""

import asyncio
import json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from server.domain.money import amount_text
from server.records.payments import PaymentRow, list_payments
from server.records.pool import open_pool


def run(database_url: str, show: str | None, unfinished: bool, limit: int, as_json: bool) -> None:
    """Print payments, newest first. Raises RecordsUnavailable, Misconfigured."""
    rows = asyncio.run(_read(database_url, show, unfinished, limit))
    for line in json_lines(rows) if as_json else text_lines(rows):
        sys.stdout.write(f"{line}\n")


async def _read(
    database_url: str, show: str | None, unfinished: bool, limit: int
) -> list[PaymentRow]:
    pool = await open_pool(database_url, size=1)
    try:
        return await list_payments(pool, show_id=show, unfinished=unfinished, limit=limit)
    finally:
        pool.terminate()


def json_lines(rows: Iterable[PaymentRow]) -> Iterable[str]:
    """One object a line."""
    for row in rows:
        fields: dict[str, Any] = msgspec.to_builtins(row)
        yield json.dumps(fields, ensure_ascii=False)


def text_lines(rows: Iterable[PaymentRow]) -> Iterable[str]:
    """One payment a line: when, what, how it stands and why."""
    for row in rows:
        at = datetime.fromtimestamp(row.updated_ms / 1000, UTC).isoformat(timespec="seconds")
        amount = f"{amount_text(row.amount, row.currency)} {row.currency}"
        why = " ".join(filter(None, (row.reason, row.last_error and f"({row.last_error})")))
        yield (
            f"{at}  {row.payment_id}  show {row.show_id}  order {row.order_id}  {amount}  "
            f"{row.provider}  {row.status}  {why}"
        ).rstrip()
