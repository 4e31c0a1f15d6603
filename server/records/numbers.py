"""A show's numbers in PostgreSQL, now and over time; statements are in sql/numbers.sql."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from server import limits
from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import from_ms, to_ms

_SQL = load("numbers")
_EPOCH_MS: Final = 1  # earlier than any sample; 0 would be "not set"


class Units(NamedTuple):
    """Units of a show's started sales by the books. `version` rises with every change."""

    left: int = 0
    held: int = 0
    sold: int = 0
    version: int = 0


class Money(NamedTuple):
    """Orders that stand, and their amounts in minor units by currency."""

    orders: int
    amounts: dict[str, int]


class SampleRow(NamedTuple):
    """A show's totals at an instant. `left`, `held` and `sold` are units."""

    at: int
    online: int
    likes: int
    lines: int
    claims: int
    left: int
    held: int
    sold: int
    orders: int
    amounts: dict[str, int]


class TotalsRow(NamedTuple):
    """Of all samples of a show; zeros without any."""

    peak_online: int
    peak_at: int
    avg_online: int
    likes: int
    lines: int
    claims: int


class PinRow(NamedTuple):
    """One time that a product was pinned. `online`: people on average, None when not known."""

    product_id: int
    title: str
    since: int
    until: int
    online: float | None
    buyers: int
    orders: int
    units: int
    amounts: dict[str, int]


# --- Writing samples --------------------------------------------------------------------------


async def shows_on(conn: Connection, at_ms: int) -> dict[str, bool]:
    """Shows that are live or paused -> whether they have a sample of the instant `at_ms`."""
    records = await conn.fetch(_SQL["shows_on"], from_ms(at_ms))
    return {record["show_id"]: record["is_sampled"] for record in records}


async def units(conn: Connection, show_ids: Collection[str]) -> dict[str, Units]:
    """Of those shows that have started a sale."""
    records = await conn.fetch(_SQL["units"], list(show_ids))
    return {show_id: Units(*counts) for show_id, *counts in records}


async def money(conn: Connection, show_id: str, timeout_s: float) -> Money:
    """Reads all orders of the show: 40 ms for 100,000. Raises TimeoutError."""
    records = await conn.fetch(_SQL["money"], show_id, timeout=timeout_s)
    return Money(sum(r["orders"] for r in records), {r["currency"]: r["amount"] for r in records})


async def insert_samples(conn: Connection, samples: Mapping[str, SampleRow]) -> None:
    """One instant's samples, by show; those that are there already stay as they are.

    In one order, whoever writes: workers at the same instant would deadlock otherwise.
    """
    if not samples:
        return
    (at_ms,) = {sample.at for sample in samples.values()}
    rows = [(show, *row[1:-1], json.dumps(row.amounts)) for show, row in sorted(samples.items())]
    await conn.execute(_SQL["insert_samples"], from_ms(at_ms), *map(list, zip(*rows, strict=True)))


async def forget_samples(conn: Connection, show_ids: Collection[str], before_ms: int) -> None:
    """Delete what these shows were before an instant."""
    await conn.execute(_SQL["forget_samples"], list(show_ids), from_ms(before_ms))


# --- Reading ----------------------------------------------------------------------------------


async def samples_after(
    conn: Connection, show_id: str, after_ms: int, most: int
) -> tuple[int, Sequence[SampleRow]]:
    """The interval in s, and of each the last sample, oldest first; at most about `most`.

    The interval is as short as that allows, a multiple of SAMPLE_S.
    """
    after = from_ms(max(after_ms, _EPOCH_MS))
    span_s: float = await conn.fetchval(_SQL["span"], show_id, after)
    step_s = limits.SAMPLE_S * max(1, math.ceil(span_s / (limits.SAMPLE_S * (most - 1))))
    records = await conn.fetch(_SQL["samples"], show_id, after, timedelta(seconds=step_s))
    return step_s, [_sample(record) for record in records]


def _sample(record: Any) -> SampleRow:
    row = SampleRow(*record)
    return row._replace(at=to_ms(record["at"]), amounts=json.loads(record["amounts"]))


async def totals(conn: Connection, show_id: str) -> TotalsRow:
    """The peak and average of people online, and the greatest totals seen."""
    (record,) = await conn.fetch(_SQL["totals"], show_id)
    row = TotalsRow(*record)
    return row._replace(peak_at=to_ms(record["peak_at"]) if row.peak_online else 0)


async def by_status(conn: Connection, show_id: str) -> dict[str, int]:
    """How many orders are in each status that occurs."""
    return {r["status"]: r["orders"] for r in await conn.fetch(_SQL["by_status"], show_id)}


async def buyers(conn: Connection, show_id: str) -> int:
    """How many people have orders that stand."""
    count: int = await conn.fetchval(_SQL["buyers"], show_id)
    return count


async def lowered(conn: Connection, show_id: str) -> dict[int, int]:
    """Sale -> units that the host took out of it, of sales where that happened. Not those that
    closing took back, nor those of a draft, which was never on offer."""
    return {r["pool_id"]: r["units"] for r in await conn.fetch(_SQL["lowered"], show_id)}


async def sold_out(conn: Connection, show_id: str) -> dict[int, int]:
    """Sale -> ms since 1970 when its last unit was taken for the first time."""
    return {r["pool_id"]: to_ms(r["at"]) for r in await conn.fetch(_SQL["sold_out"], show_id)}


async def pins(conn: Connection, show_id: str, most: int) -> list[PinRow]:
    """The newest pins of products, oldest first. Reads all orders of the show."""
    records = await conn.fetch(_SQL["pins"], show_id, most)
    return [
        PinRow(r["product_id"], r["title"], to_ms(r["since"]), to_ms(r["until"]), r["online"],
               r["buyers"], r["orders"], r["units"], json.loads(r["amounts"]))
        for r in records
    ]  # fmt: skip


async def untold(conn: Connection, show_id: str) -> int:
    """How many things of the show are committed here and not in Redis yet."""
    count: int = await conn.fetchval(_SQL["untold"], show_id)
    return count
