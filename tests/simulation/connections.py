"""asyncpg's pool and connections, as far as server/records uses them, on a PostgresHost."""

import asyncio
from collections.abc import Generator, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final

import asyncpg

from tests.simulation.loop import CURRENT
from tests.simulation.postgres import (
    PostgresHost,
    Session,
    Work,
    connection_lost,
    is_pure,
    may_change,
)

IDLE_IN_TRANSACTION_S: Final = 5.0
COMMAND_S: Final = 15.0


class SimConnection:
    """asyncpg's Connection, as far as server/records uses it."""

    def __init__(self, host: PostgresHost) -> None:
        self.host = host
        self.process = CURRENT.get()
        self.session: Session | None = None  # while it has a statement or a transaction there
        self.is_pinned = False  # it has locks that outlive its transactions
        self.depth = 0  # of transactions and savepoints
        self.used = 0

    # --- Statements ---------------------------------------------------------------------------

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        rows: list[Any] = await self._send(sql, lambda raw: raw.fetch(sql, *args), "all", args)
        return rows

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        return await self._send(sql, lambda raw: raw.fetchrow(sql, *args), "row", args)

    async def fetchval(self, sql: str, *args: Any, column: int = 0) -> Any:
        work = partial(_fetchval, sql=sql, args=args, column=column)
        return await self._send(sql, work, f"value {column}", args)

    async def execute(self, sql: str, *args: Any) -> str:
        status: str = await self._send(sql, lambda raw: raw.execute(sql, *args))
        return status

    async def executemany(self, sql: str, args: Sequence[Sequence[Any]]) -> None:
        await self._send(sql, lambda raw: raw.executemany(sql, args))

    async def cursor(self, sql: str, *args: Any) -> "SimCursor":
        return SimCursor(await self.fetch(sql, *args))

    async def _send(self, sql: str, work: Work, what: str = "", args: Any = ()) -> Any:
        """One round trip, bounded by the pool's command timeout."""
        key = None
        if not self.depth:
            if what and is_pure(sql):
                key = (what, sql, repr(args))
            elif "now()" in sql or may_change(sql):
                work = _at("sim.now", self.host.now(), work)
        if "clock_timestamp" in sql:
            work = _at("sim.clock", self.host.now(), work)
        self.is_pinned = self.is_pinned or "advisory_lock" in sql
        async with asyncio.timeout(COMMAND_S):
            return await self.round_trip(work, key=key, changes=may_change(sql))

    async def round_trip(
        self, work: Work, *, lose: float = 0.0, key: Any = None, changes: bool = True
    ) -> Any:
        """Raises asyncpg's exceptions; after ConnectionDoesNotExistError the effect is unknown.

        `lose`: probability that it takes effect and its reply never comes.
        """
        network = self.host.network
        if self.is_closed() or network.is_over:
            raise connection_lost()
        if network.happens(network.weather.lose_request):
            self.host.end(self)
            raise connection_lost()
        future: asyncio.Future[Any] = self.host.loop.create_future()
        self.used += 1
        self.host.loop.at(network.delay(), self.host.arrive, self, work, future, key, changes)
        try:
            result = await future
        except asyncio.CancelledError:
            self.host.end(self)
            raise
        if network.happens(max(lose, network.weather.lose_reply)):
            self.host.end(self)
            raise connection_lost()
        return result

    # --- Transactions -------------------------------------------------------------------------

    def transaction(
        self, *, isolation: str | None = None, readonly: bool = False
    ) -> "SimTransaction":
        return SimTransaction(self, isolation, readonly)

    def is_in_transaction(self) -> bool:
        return self.depth > 0

    def is_closed(self) -> bool:
        return self not in self.host.open

    def watch_idle(self) -> None:
        """The server ends a session whose process froze inside a transaction."""
        used = self.used
        self.host.loop.at(IDLE_IN_TRANSACTION_S, self._end_if_idle, used)

    def _end_if_idle(self, used: int) -> None:
        if not self.depth or self.is_closed():
            return
        if self.used == used and (self.session is None or self.session.statement is None):
            self.host.end(self)
        else:
            self.watch_idle()

    async def close(self) -> None:
        self.host.end(self)

    def terminate(self) -> None:
        self.host.end(self)


class SimCursor:
    """A cursor whose rows were all read when it was opened."""

    def __init__(self, rows: list[Any]) -> None:
        self._rows = rows

    async def fetch(self, count: int) -> list[Any]:
        found, self._rows = self._rows[:count], self._rows[count:]
        return found


async def _fetchval(raw: Any, sql: str, args: Any, column: int) -> Any:
    return await raw.fetchval(sql, *args, column=column)


def _at(name: str, now: str, work: Work) -> Work:
    """`work` with one of the clocks set."""

    async def run(raw: Any) -> Any:
        await raw.execute(f"SET {name} = '{now}'")
        return await work(raw)

    return run


class SimTransaction:
    """A transaction, or a savepoint inside one."""

    def __init__(self, connection: SimConnection, isolation: str | None, readonly: bool) -> None:
        self._connection = connection
        level = f" ISOLATION LEVEL {isolation.replace('_', ' ')}" if isolation else ""
        self._begin = f"BEGIN{level}{' READ ONLY' if readonly else ''}"
        self._name = ""

    async def start(self) -> None:
        connection = self._connection
        if connection.depth:
            self._name = f"s{connection.depth}"
            await connection.execute(f"SAVEPOINT {self._name}")
        else:
            now = connection.host.now()
            await connection.round_trip(
                lambda raw: self._open(raw, f"{self._begin}; SET LOCAL sim.now = '{now}'"),
                changes=False,
            )
            connection.watch_idle()
        connection.depth += 1

    async def commit(self) -> None:
        await self._finish("COMMIT", f"RELEASE SAVEPOINT {self._name}")

    async def rollback(self) -> None:
        await self._finish("ROLLBACK", f"ROLLBACK TO SAVEPOINT {self._name}")

    async def _finish(self, whole: str, part: str) -> None:
        connection = self._connection
        connection.depth -= 1
        if connection.depth:
            await connection.execute(part)
            return
        lose = connection.host.lose_commit_ack if whole == "COMMIT" else 0.0
        await connection.round_trip(lambda raw: self._end(raw, whole), lose=lose)

    async def _open(self, raw: Any, sql: str) -> None:
        session = self._connection.session
        assert session is not None
        await raw.execute(sql)
        session.in_transaction = True

    async def _end(self, raw: Any, sql: str) -> None:
        session = self._connection.session
        assert session is not None
        await raw.execute(sql)
        session.in_transaction = False

    async def __aenter__(self) -> "SimTransaction":
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.commit()
        elif self._connection.is_closed():
            self._connection.depth -= 1
        else:
            await self.rollback()


class SimPool:
    """asyncpg's Pool for one process."""

    def __init__(self, host: PostgresHost, size: int) -> None:
        self._host = host
        self._places = asyncio.Semaphore(size)
        self._idle: list[SimConnection] = []
        self._is_closed = False

    def acquire(self) -> "Acquiring":
        return Acquiring(self)

    async def take(self) -> SimConnection:
        if self._is_closed:
            raise asyncpg.InterfaceError("pool is closed")
        await self._places.acquire()
        try:
            return await self._connection()
        except BaseException:
            self._places.release()
            raise

    async def release(self, connection: SimConnection) -> None:
        self._places.release()
        if connection.depth:  # its transaction could not even be rolled back
            self._host.end(connection)
        elif not connection.is_closed():
            self._idle.append(connection)

    async def _connection(self) -> SimConnection:
        self._idle = [each for each in self._idle if not each.is_closed()]
        if self._idle:
            return self._idle.pop()
        await asyncio.sleep(self._host.network.delay())
        connection = SimConnection(self._host)
        self._host.accept(connection)
        return connection

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        async with self.acquire() as connection:
            return await connection.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        async with self.acquire() as connection:
            return await connection.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        async with self.acquire() as connection:
            return await connection.execute(sql, *args)

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        self._is_closed = True
        for connection in self._idle:
            self._host.end(connection)
        self._idle.clear()


class Acquiring:
    """`await pool.acquire()`, or `async with pool.acquire() as connection`."""

    def __init__(self, pool: SimPool) -> None:
        self._pool = pool
        self._connection: SimConnection | None = None

    def __await__(self) -> Generator[Any, None, SimConnection]:
        return self._pool.take().__await__()

    async def __aenter__(self) -> SimConnection:
        self._connection = await self
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        assert self._connection is not None
        await self._pool.release(self._connection)
