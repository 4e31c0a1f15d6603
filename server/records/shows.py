"""Shows in PostgreSQL. Callers hold the show's row (`lock_show`) while they change anything.

Times are ms since 1970, 0: not set. Every function may raise RecordsUnavailable through the
pool (server/records/pool.py); statements are in sql/shows.sql.
"""

from typing import Any, NamedTuple

from server.domain.show import ShowStatus
from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import from_ms, to_ms

_SQL = load("shows")


class ShowRow(NamedTuple):
    """One show. `revision` > `applied_revision` means Redis does not have it all yet."""

    show_id: str
    host_id: str
    title: str
    cover_url: str
    playback_url: str
    starts_at: int
    status: ShowStatus
    pinned_product: int
    slow_mode_s: int
    refused_words: list[str]
    revision: int
    applied_revision: int
    created_at: int
    started_at: int
    ended_at: int


async def insert_show(
    conn: Connection,
    show_id: str,
    host_id: str,
    title: str,
    *,
    cover_url: str = "",
    playback_url: str = "",
    starts_at: int = 0,
) -> bool:
    """A new scheduled show with stock epoch 1. False when the id is taken."""
    row = (show_id, host_id, title, cover_url, playback_url, from_ms(starts_at))
    return bool((await conn.execute(_SQL["insert_show"], *row)) == "INSERT 0 1")


async def get_show(conn: Connection, show_id: str) -> ShowRow | None:
    return _row(await conn.fetchrow(_SQL["get_show"], show_id))


async def lock_show(conn: Connection, show_id: str) -> ShowRow | None:
    """The show, its row held until the transaction ends."""
    return _row(await conn.fetchrow(_SQL["lock_show"], show_id))


async def list_shows(conn: Connection, host_id: str, limit: int) -> list[ShowRow]:
    """The newest shows of a host."""
    return [_show(record) for record in await conn.fetch(_SQL["list_shows"], host_id, limit)]


async def update_show(
    conn: Connection, show_id: str, title: str, cover_url: str, playback_url: str, starts_at: int
) -> None:
    row = (show_id, title, cover_url, playback_url, from_ms(starts_at))
    await conn.execute(_SQL["update_show"], *row)


async def set_status(conn: Connection, show_id: str, status: ShowStatus) -> None:
    await conn.execute(_SQL["set_status"], show_id, status)


async def set_pin(conn: Connection, show_id: str, product_id: int) -> None:
    """`product_id` 0 unpins."""
    await conn.execute(_SQL["set_pin"], show_id, product_id)


async def set_chat_rules(
    conn: Connection, show_id: str, slow_mode_s: int, words: list[str]
) -> None:
    await conn.execute(_SQL["set_chat_rules"], show_id, slow_mode_s, words)


async def raise_revision(conn: Connection, show_id: str) -> None:
    """Something that belongs to the show's projection changed in another table."""
    await conn.execute(_SQL["raise_revision"], show_id)


async def set_applied(conn: Connection, show_id: str, revision: int) -> None:
    await conn.execute(_SQL["set_applied"], show_id, revision)


async def shows_to_project(conn: Connection, limit: int) -> list[str]:
    return [record[0] for record in await conn.fetch(_SQL["shows_to_project"], limit)]


async def stock_epoch(conn: Connection, show_id: str) -> int:
    epoch: int = await conn.fetchval(_SQL["stock_epoch"], show_id)
    return epoch


def _row(record: Any) -> ShowRow | None:
    return _show(record) if record else None


def _show(record: Any) -> ShowRow:
    fields = dict(record)
    for name in ("starts_at", "created_at", "started_at", "ended_at"):
        fields[name] = to_ms(fields[name])
    fields["pinned_product"] = fields["pinned_product"] or 0
    return ShowRow(**fields)
