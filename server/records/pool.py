"""The pool of PostgreSQL connections, and which errors mean that PostgreSQL is away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import asyncpg

from server.errors import Misconfigured, RecordsUnavailable

CONNECT_SECONDS = 5.0
ACQUIRE_SECONDS = 5.0
COMMAND_SECONDS = 15.0  # a stalled server must not hold connections for ever

# A process that froze in a transaction must not keep its locks from the one that takes over.
IDLE_IN_TRANSACTION_MS = 5_000

# What a crash, a restart, a stall or a fail-over of PostgreSQL looks like from here. OSError
# comes unwrapped from the connection attempt; TimeoutError from the bounds above.
OUTAGES: tuple[type[BaseException], ...] = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, statement cancelled
    asyncpg.InsufficientResourcesError,  # too many connections, disk full, out of memory
    asyncpg.ReadOnlySQLTransactionError,  # a standby after a fail-over
    asyncpg.IdleInTransactionSessionTimeoutError,  # this process was frozen
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.InternalClientError,
)

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
Connection: TypeAlias = (
    "asyncpg.pool.PoolConnectionProxy[asyncpg.Record] | asyncpg.Connection[asyncpg.Record]"
)


async def open_pool(url: str, *, size: int, keep_state: bool = False) -> Pool:
    """A pool of up to `size` connections, one of them already open.

    `keep_state` saves the reset query after each use (180 µs); for users that leave nothing
    behind on a connection. Raises RecordsUnavailable, or Misconfigured for a wrong URL, password
    or database.
    """
    try:
        return await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            reset=_keep if keep_state else None,
            server_settings={
                "application_name": "livesale",
                "timezone": "UTC",
                "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
            },
        )
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError) as bad:
        raise Misconfigured(f"PostgreSQL refuses the connection: {bad}") from bad
    except OUTAGES as error:
        raise RecordsUnavailable(f"PostgreSQL does not answer: {error}") from error


@asynccontextmanager
async def acquire(pool: Pool) -> AsyncIterator[Connection]:
    """A connection for the block, errors of an outage as RecordsUnavailable.

    When that is raised from inside the block, whether a transaction committed is unknown.
    """
    with outages():
        # Not asyncpg's own timeout: a cancellation of the caller could get lost in it.
        async with asyncio.timeout(ACQUIRE_SECONDS):
            connection = await pool.acquire()
        try:
            yield connection
        finally:
            await pool.release(connection)


@contextmanager
def outages() -> Iterator[None]:
    """Turn what an outage of PostgreSQL raises in the block into RecordsUnavailable."""
    try:
        yield
    except OUTAGES as error:
        if isinstance(error, ValueError):  # asyncpg's own DataError: a wrong argument, no outage
            raise
        raise RecordsUnavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error


async def _keep(connection: Connection) -> None:
    """Leave a connection as it is when it goes back to the pool."""
