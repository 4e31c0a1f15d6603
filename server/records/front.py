"""What visitors need from PostgreSQL before they are viewers; statements are in sql/front.sql."""

from collections.abc import Collection
from typing import NamedTuple

from server.records.pool import Pool, acquire
from server.records.sql import load

_SQL = load("front")


class LiveShow(NamedTuple):
    """A show that is on now."""

    show_id: str
    title: str
    cover_url: str = ""


async def live_shows(pool: Pool, limit: int) -> list[LiveShow]:
    """Shows that are live or paused, newest first. Raises RecordsUnavailable."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(_SQL["live_shows"], limit)
    return [LiveShow(*row) for row in rows]


async def known_shows(pool: Pool, show_ids: Collection[str], days: int) -> dict[str, bool]:
    """Of these shows those that there are, and whether they ended over `days` ago.

    Raises RecordsUnavailable.
    """
    async with acquire(pool) as connection:
        rows = await connection.fetch(_SQL["known_shows"], list(show_ids), days)
    return {row["show_id"]: row["is_over"] for row in rows}


async def answers(pool: Pool) -> None:
    """Ask PostgreSQL for nothing. Raises RecordsUnavailable when it does not answer."""
    async with acquire(pool) as connection:
        await connection.fetchval("SELECT 1")
