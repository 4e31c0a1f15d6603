"""PostgreSQL as simulated processes see it: the real server's SQL, in virtual time, with faults.

Statements run on a real PostgreSQL, one at a time, on sessions this module owns; constraints,
locks, snapshots and conflicts are therefore the real ones. What is simulated is everything around
it: `now()` is virtual time, requests and replies take virtual time and get lost (a lost reply to
COMMIT is the acknowledgement that never came), processes and the server die, and a statement that
waits for a lock is left waiting while other processes run.

connections.py has what stands for asyncpg's pool and connections.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Protocol

import asyncpg

from tests.simulation.loop import Process
from tests.simulation.network import Network, settle

_PROBE_S: Final = 0.002  # real seconds until a silent statement is asked what it waits for

Work = Callable[[Any], Awaitable[Any]]  # a statement, to be run on a real connection

# now(), clock_timestamp() and random() of the simulation are found before PostgreSQL's own.
SETUP: Final = """
CREATE SCHEMA sim;
CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE
    AS $$ SELECT current_setting('sim.now')::timestamptz $$;
CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS $$ SELECT current_setting('sim.clock')::timestamptz $$;
CREATE FUNCTION sim.random() RETURNS double precision LANGUAGE sql IMMUTABLE AS $$ SELECT 0.5 $$;
DO $$ DECLARE d record; BEGIN
    FOR d IN SELECT c.oid::regclass AS t, a.attname AS a FROM pg_attrdef f
             JOIN pg_class c ON c.oid = f.adrelid
             JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum
             WHERE pg_get_expr(f.adbin, f.adrelid) = 'now()'
    LOOP
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT sim.now()', d.t, d.a);
    END LOOP;
END $$;
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = sim, pg_catalog, public',
                   current_database());
    EXECUTE format('ALTER DATABASE %I SET sim.now = ''2026-01-01''', current_database());
    EXECUTE format('ALTER DATABASE %I SET sim.clock = ''2026-01-01''', current_database());
END $$;
"""
# Rows go, and with VACUUM the space they took: every run finds tables as they were made. (TRUNCATE
# would make new files, and every prepared statement would be planned again.)
_TABLES: Final = """
SELECT c.oid::regclass::text AS name, (
    SELECT s.oid::regclass::text FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
    WHERE d.refobjid = c.oid AND d.deptype = 'i' AND s.relkind = 'S'
) AS numbers
FROM pg_class c
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
ORDER BY 1
"""
_CHANGING: Final = re.compile(
    r"\b(INSERT|(?<!FOR )(?<!KEY )UPDATE|DELETE|COPY|COMMIT|nextval|setval)\b", re.IGNORECASE
)
_TIMELY: Final = re.compile(
    r"now\(\)|clock_timestamp|FOR (NO KEY |KEY )?(UPDATE|SHARE)|set_config|advisory"
)
_COMMENT: Final = re.compile(r"--.*")
_BLOCKED: Final = "SELECT cardinality(pg_blocking_pids($1)) > 0"


class Server:
    """The real server, driven from outside of the simulated loop. Serves many runs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.inner = asyncio.SelectorEventLoop()
        self.free: list[Session] = []
        self.monitor: Any = self.drive(asyncpg.connect(url))
        self._tables: dict[str, str | None] = {}  # name -> its sequence

    def drive(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run `work` to its end while the simulated world stands still.

        The inner loop is turned by hand: run_until_complete costs more than most statements.
        """
        outer = asyncio._get_running_loop()
        asyncio._set_running_loop(self.inner)
        try:
            task = self.inner.create_task(work)
            while not task.done():
                self.inner._run_once()  # type: ignore[attr-defined]
            return task.result()
        finally:
            asyncio._set_running_loop(outer)

    def set_up(self) -> None:
        """Once per database: virtual time, and settings that suit many short runs."""
        self.drive(self.monitor.execute(SETUP))

    def clear(self) -> None:
        """Empty tables, numbering from 1."""
        if not self._tables:
            rows = self.drive(self.monitor.fetch(_TABLES))
            self._tables = {row["name"]: row["numbers"] for row in rows}
            self.drive(self.monitor.execute("SET session_replication_role = replica"))
        counts = ", ".join(f"EXISTS (SELECT FROM {name})" for name in self._tables)
        row = self.drive(self.monitor.fetchrow(f"SELECT {counts}"))
        used = [name for name, found in zip(self._tables, row, strict=True) if found]
        if used:
            self.drive(self.monitor.execute("; ".join(f"DELETE FROM {name}" for name in used)))
            self.drive(self.monitor.execute(f"VACUUM (ANALYZE false) {', '.join(used)}"))
        numbers = [name for name in self._tables.values() if name]
        resets = ", ".join(f"setval('{name}', 1, false)" for name in numbers)
        self.drive(self.monitor.execute(f"SELECT {resets}"))

    def take_session(self) -> "Session":
        """The one used last, whose statements are prepared."""
        return self.free.pop() if self.free else Session(self)

    def close(self) -> None:
        for session in self.free:
            session.raw.terminate()
        self.monitor.terminate()
        self.drive(asyncio.sleep(0))
        self.inner.close()


@cache
def may_change(sql: str) -> bool:
    """Whether a statement may change what others read."""
    return bool(_CHANGING.search(_COMMENT.sub("", sql)))


@cache
def is_pure(sql: str) -> bool:
    """Whether a statement's result depends on nothing but its arguments and the tables."""
    return not (may_change(sql) or _TIMELY.search(_COMMENT.sub("", sql)))


class Session:
    """One real connection, for one simulated connection at a time."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.raw: Any = server.drive(asyncpg.connect(server.url))
        self.pid: int = self.raw.get_server_pid()
        self.statement: asyncio.Task[Any] | None = None
        self.in_transaction = False

    def begin(self, work: Any) -> None:
        """Start a statement; see `advance`."""
        self.statement = self.server.inner.create_task(work)

    def advance(self, *, alone: bool) -> bool:
        """Run the statement until it is done (True) or waits for another session's lock.

        `alone`: no other session has a transaction, so there is nothing to wait for.
        """
        statement, drive = self.statement, self.server.drive
        assert statement is not None
        if alone:
            drive(_finished(statement))
            return True
        while True:
            drive(asyncio.wait((statement,), timeout=_PROBE_S))
            if statement.done():
                return True
            if drive(self.server.monitor.fetchval(_BLOCKED, self.pid)):
                return False

    def result(self) -> Any:
        """What the finished statement returned, or the exception it raised."""
        statement, self.statement = self.statement, None
        assert statement is not None
        return statement.exception() or statement.result()

    def reset(self) -> None:
        """As if the connection had ended: roll back, give up every lock."""
        if self.statement is not None:
            self.server.drive(self.server.monitor.execute(f"SELECT pg_cancel_backend({self.pid})"))
            self.server.drive(asyncio.wait((self.statement,)))
            self.statement.exception()
            self.statement = None
        if self.in_transaction:
            self.server.drive(self.raw.execute("ROLLBACK"))
            self.in_transaction = False
        self.server.drive(self.raw.execute("SELECT pg_advisory_unlock_all()"))


async def _finished(task: "asyncio.Task[Any]") -> None:
    await asyncio.wait((task,))


class Connection(Protocol):
    """A connection as the server sees it."""

    process: Process | None
    session: Session | None  # while it has a statement or a transaction
    is_pinned: bool  # it has locks that outlive its transactions

    def is_closed(self) -> bool: ...


class PostgresHost:
    """The server behind the network, for one run."""

    def __init__(self, server: Server, network: Network) -> None:
        self.server = server
        self.network = network
        self.loop = network.loop
        self.is_up = True
        self.open: dict[Connection, None] = {}
        self.busy: dict[Connection, None] = {}  # those that have a session now
        self.lose_commit_ack = 0.0
        self.deadlocks = 0
        self.known: dict[Any, Any] = {}  # results of pure statements since the last change
        self._blocked: list[tuple[Connection, asyncio.Future[Any]]] = []

    def now(self) -> str:
        """Virtual time as PostgreSQL writes it."""
        at = datetime.fromtimestamp(self.network.wall_ms() / 1000, UTC)
        return at.isoformat(timespec="milliseconds")

    # --- Statements ---------------------------------------------------------------------------

    def arrive(
        self, connection: "Connection", work: Work,
        future: "asyncio.Future[Any]", key: Any, changes: bool,
    ) -> None:  # fmt: skip
        """A statement reached the server. `key` names a pure one outside of transactions;
        `changes`: what is known from earlier ones may not be true any more."""
        if connection.is_closed() or not self.is_up:
            self.answer(future, connection_lost())
            return
        if key in self.known:
            self.answer(future, self.known[key])
            return
        if connection.session is None:
            connection.session = self.server.take_session()
        self.busy[connection] = None
        connection.session.begin(work(connection.session.raw))
        if changes:
            self.known.clear()
        if self._advance(connection, future, key):
            self._poke()

    def _advance(
        self, connection: "Connection", future: "asyncio.Future[Any]", key: Any = None
    ) -> bool:
        """Run a statement; False when it waits for a lock."""
        session = connection.session
        assert session is not None
        if not session.advance(alone=len(self.busy) == 1):
            if all(other is not connection for other, _ in self._blocked):
                self._blocked.append((connection, future))
            return False
        result = session.result()
        if isinstance(result, asyncpg.DeadlockDetectedError):
            self.deadlocks += 1
        if not (session.in_transaction or connection.is_pinned):
            self._put_back(connection)
        if key is not None and not isinstance(result, Exception):
            self.known[key] = result
        self.answer(future, result)
        return True

    def _put_back(self, connection: "Connection") -> None:
        session, connection.session = connection.session, None
        self.busy.pop(connection, None)
        if session is not None:
            self.server.free.append(session)

    def _poke(self) -> None:
        """Whoever waited for a lock may have it now."""
        moved = True
        while moved and self._blocked:
            moved = False
            for pair in list(self._blocked):
                if pair in self._blocked and self._advance(*pair):
                    self._blocked.remove(pair)
                    moved = True

    def answer(self, future: "asyncio.Future[Any]", result: Any) -> None:
        self.loop.at(self.network.delay(), settle, future, result)

    # --- Connections and faults ---------------------------------------------------------------

    def accept(self, connection: "Connection") -> None:
        """Raises ConnectionRefusedError while it is down."""
        if self.network.is_over or not self.is_up:
            raise ConnectionRefusedError("PostgreSQL is down")
        self.open[connection] = None

    def end(self, connection: "Connection") -> None:
        """The server sees the connection gone: what it had not committed is rolled back."""
        if self.open.pop(connection, connection) is connection:
            return
        self._blocked = [pair for pair in self._blocked if pair[0] is not connection]
        if connection.session is not None:
            connection.session.reset()
            self._put_back(connection)
            self._poke()

    def stop(self) -> None:
        """The server dies: nobody's open transaction survives."""
        self.is_up = False
        waiting = [future for _, future in self._blocked]
        for connection in list(self.open):
            self.end(connection)
        for future in waiting:
            self.answer(future, connection_lost())

    def start(self) -> None:
        self.is_up = True

    def forget(self, process: Process) -> None:
        """A process died: its connections end."""
        for connection in [each for each in self.open if each.process is process]:
            self.end(connection)


def connection_lost() -> Exception:
    return asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
