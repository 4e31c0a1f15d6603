"""Rehearsals of sales in PostgreSQL; statements are in sql/rehearsals.sql."""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple
from uuid import UUID

from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import to_ms

_SQL = load("rehearsals")

Status = Literal["preparing", "running", "done", "failed", "stopped"]
Ending = Literal["done", "failed", "stopped"]


class RehearsalRow(NamedTuple):
    """One rehearsal of a sale of `show_id`, in the shadow show. `verdict` is that of its summary,
    empty as long as there is none."""

    rehearsal_id: int
    show_id: str
    sale_id: int
    shadow_id: str
    request_id: UUID
    asked: dict[str, Any]
    status: Status
    progress: dict[str, Any]
    verdict: str
    reason: str
    created_at: int
    ended_at: int


async def insert(
    conn: Connection,
    show_id: str,
    sale_id: int,
    shadow_id: str,
    request_id: UUID,
    asked: Mapping[str, Any],
) -> int | None:
    """Id of a new rehearsal; None when one is under way."""
    row = (show_id, sale_id, shadow_id, request_id, json.dumps(asked))
    made: int | None = await conn.fetchval(_SQL["insert"], *row)
    return made


async def get(conn: Connection, show_id: str, rehearsal_id: int) -> RehearsalRow | None:
    record = await conn.fetchrow(_SQL["by_id"], show_id, rehearsal_id)
    return _row(record) if record else None


async def find_request(conn: Connection, show_id: str, request_id: UUID) -> RehearsalRow | None:
    """The rehearsal that the host asked for by this request."""
    record = await conn.fetchrow(_SQL["by_request"], show_id, request_id)
    return _row(record) if record else None


async def newest(conn: Connection, show_id: str, limit: int) -> list[RehearsalRow]:
    return [_row(record) for record in await conn.fetch(_SQL["newest"], show_id, limit)]


async def summary(conn: Connection, rehearsal_id: int) -> str | None:
    """What the load test found, as JSON; None as long as there is nothing."""
    text: str | None = await conn.fetchval(_SQL["summary"], rehearsal_id)
    return text


async def report(conn: Connection, show_id: str, rehearsal_id: int) -> bytes | None:
    """The report's page, compressed by gzip; None when there is none."""
    page: bytes | None = await conn.fetchval(_SQL["report"], show_id, rehearsal_id)
    return page


async def beat(conn: Connection, rehearsal_id: int, progress: Mapping[str, Any]) -> bool | None:
    """It runs, and stands so. Whether to stop; None when it is over already."""
    stop: bool | None = await conn.fetchval(_SQL["beat"], rehearsal_id, json.dumps(progress))
    return stop


async def ask_to_stop(conn: Connection, rehearsal_id: int) -> None:
    """Whoever runs it sees that at the next beat; nothing happens to one that is over."""
    await conn.execute(_SQL["ask_to_stop"], rehearsal_id)


async def finish(
    conn: Connection,
    rehearsal_id: int,
    status: Ending,
    reason: str,
    summary_json: str | None,
    report_gz: bytes | None,
) -> None:
    """It is over; one that is over already stays as it is."""
    row = (rehearsal_id, status, reason, summary_json, report_gz)
    await conn.execute(_SQL["finish"], *row)


async def forget_old(conn: Connection, rehearsal_id: int, kept: int) -> None:
    """Summaries and reports of the show's rehearsals but for the newest `kept`; rows stay."""
    await conn.execute(_SQL["forget_old"], rehearsal_id, kept)


async def give_up_lost(conn: Connection, silent_s: float) -> bool:
    """Rehearsals that nobody has run for so long have failed. Whether there was one."""
    return bool(await conn.execute(_SQL["give_up_lost"], silent_s) != "UPDATE 0")


async def show_on(conn: Connection, preferred: str) -> str:
    """A real show that is live or paused, `preferred` if it is one of them; '' without any."""
    return await conn.fetchval(_SQL["show_on"], preferred) or ""


async def left_open(conn: Connection) -> list[tuple[str, str]]:
    """Shadow shows that should have been ended, as (show, host)."""
    return [(record[0], record[1]) for record in await conn.fetch(_SQL["left_open"])]


def _row(record: Any) -> RehearsalRow:
    fields = dict(record)
    for name in ("asked", "progress"):
        fields[name] = json.loads(fields[name])
    for name in ("created_at", "ended_at"):
        fields[name] = to_ms(fields[name])
    return RehearsalRow(**fields)
