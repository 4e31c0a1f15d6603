"""What the front page needs from PostgreSQL; statements are in sql/front.sql."""

from typing import NamedTuple

from server.records.pool import Pool, acquire
from server.records.sql import load

_SQL = load("front")


class LiveShow(NamedTuple):
    """A show that is on now."""

    show_id: str
    title: str


async def live_shows(pool: Pool, limit: int) -> list[LiveShow]:
    """Shows that are live or paused, newest first. Raises RecordsUnavailable."""
    async with acquire(pool) as connection:
        rows = await connection.fetch(_SQL["live_shows"], limit)
    return [LiveShow(row["show_id"], row["title"]) for row in rows]


async def answers(pool: Pool) -> None:
    """Ask PostgreSQL for nothing. Raises RecordsUnavailable when it does not answer."""
    async with acquire(pool) as connection:
        await connection.fetchval("SELECT 1")
