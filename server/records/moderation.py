"""Mutes and bans in PostgreSQL; statements are in sql/moderation.sql."""

from typing import Literal, NamedTuple

from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import from_ms, to_ms

_SQL = load("moderation")

Kind = Literal["mute", "ban"]


class ModerationRow(NamedTuple):
    """A user's mute or ban, last made at `at`. Times in ms since 1970; `until` 0: without end."""

    user: str
    kind: Kind
    until: int
    at: int


async def put(
    conn: Connection, show_id: str, user: str, kind: Kind, by_user: str, until: int
) -> None:
    """Mute or ban `user` (`until` 0: without end); the newest one counts."""
    await conn.execute(_SQL["upsert"], show_id, user, kind, by_user, from_ms(until))


async def remove(conn: Connection, show_id: str, user: str, kind: Kind) -> None:
    await conn.execute(_SQL["delete"], show_id, user, kind)


async def list_all(conn: Connection, show_id: str) -> list[ModerationRow]:
    """Newest first; mutes that ended less than an hour ago are still there."""
    records = await conn.fetch(_SQL["list"], show_id)
    return [ModerationRow(user, kind, to_ms(until), to_ms(at)) for user, kind, until, at in records]
