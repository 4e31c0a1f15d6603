"""Transactions, and how times look in PostgreSQL and outside of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from server.records.pool import Connection, Pool, acquire


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Connection]:
    """A connection in a transaction: committed when the block ends, rolled back when it raises.

    Raises RecordsUnavailable; whether the transaction committed is then unknown.
    """
    async with acquire(pool) as conn, conn.transaction():
        yield conn


@asynccontextmanager
async def one_instant(pool: Pool) -> AsyncIterator[Connection]:
    """A connection on which every statement sees the same, that of the first; it cannot write.

    What is read in several statements fits together then. Raises RecordsUnavailable.
    """
    async with (
        acquire(pool) as conn,
        conn.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield conn


def to_ms(at: datetime | None) -> int:
    """A timestamp of PostgreSQL in ms since 1970, 0 for null."""
    return round(at.timestamp() * 1000) if at else 0


def from_ms(ms: int) -> datetime | None:
    """The inverse of `to_ms`."""
    return datetime.fromtimestamp(ms / 1000, UTC) if ms else None
