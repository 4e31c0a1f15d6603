"""Launcher of one PostgreSQL server on a unix socket, as a child of this process.

PostgreSQL refuses to run as root: then `account` names the unprivileged user it runs as; that
user owns the data and socket directories and must be able to reach the binaries (place.py).
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Awaitable, Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg

from server.embedded.binaries import Binary
from server.embedded.remains import stop_remains
from server.errors import Misconfigured
from server.supervision.child import Account, Child, becomes_ready

START_SECONDS = 120.0  # crash recovery
STOP_SECONDS = 30.0
INITDB_SECONDS = 120.0
USER = "livesale"
PORT = 5432  # only names the socket file

SETTINGS: Mapping[str, str] = {
    "max_connections": "400",  # up to 4 from each of 64 web processes, and the worker's
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",  # short statements only
}


class PostgresServer:
    """One server: `directory` holds its data, `sockets` (a short path) its socket."""

    def __init__(
        self,
        binary: Binary,
        directory: Path,
        sockets: Path,
        *,
        log: Path,
        account: Account | None = None,
        settings: Mapping[str, str] = SETTINGS,
    ) -> None:
        self.binary = binary
        self.directory = directory
        self.sockets = sockets
        self.log = log
        self.account = account
        self.settings = dict(settings)
        self._child: Child | None = None

    def url(self, database: str = USER) -> str:
        """postgresql:// URL of one database on this server (trust on a private socket)."""
        return f"postgresql://{USER}@/{database}?host={quote(str(self.sockets))}&port={PORT}"

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child

    async def start(self) -> None:
        """Make the data directory when missing, start, wait until SELECT 1 works.

        Raises Misconfigured with the log's last lines.
        """
        self._give(self.sockets)
        if not (self.directory / "PG_VERSION").exists():
            self._initialise()
        await stop_remains(self.directory / "postmaster.pid", "postgres", signal.SIGINT)
        self._child = Child.spawn(
            "postgres",
            self._command(),
            log=self.log,
            account=self.account,
            death_signal=signal.SIGINT,  # fast shutdown
            cwd=self.directory,
        )
        if not await becomes_ready(self._answers, lambda: self.child.alive, START_SECONDS):
            await self.stop()
            raise Misconfigured(f"{self.binary.label} did not start:\n{self.child.last_words()}")
        await self.create_database(USER)

    async def stop(self) -> None:
        """Fast shutdown: sessions are ended, a checkpoint is written."""
        if self._child is not None:
            await self._child.stop(signal.SIGINT, STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL to the whole server, as a power cut would (less the kernel's page cache)."""
        if self._child is not None:
            self._child.kill()

    async def create_database(self, name: str, template: str = "template0") -> None:
        """Create the database `name`; nothing happens when it exists."""
        connection = await asyncpg.connect(self.url("postgres"))
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()

    def _initialise(self) -> None:
        """initdb beside the final place, then rename: a broken attempt is never taken for data."""
        fresh = self.directory.with_name(self.directory.name + ".new")
        shutil.rmtree(fresh, ignore_errors=True)
        self._give(fresh)
        initdb = [str(self.binary.path.with_name("initdb")), "-D", str(fresh), "-U", USER]
        initdb += ["--auth=trust", "--encoding=UTF8", "--no-locale"]
        if self.settings.get("fsync") == "off":
            initdb.append("--no-sync")
        self._run(initdb, fresh)
        fresh.rename(self.directory)

    def _run(self, command: list[str], directory: Path) -> None:
        account = self.account
        done = subprocess.run(  # noqa: S603  (our own command line)
            command,
            capture_output=True,
            text=True,
            timeout=INITDB_SECONDS,
            cwd=directory,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
        if done.returncode != 0:
            lines = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise Misconfigured(f"initdb of {self.binary.label} failed:\n{lines}")

    def _give(self, directory: Path) -> None:
        """Make a private directory that belongs to the account the server runs as."""
        directory.mkdir(parents=True, exist_ok=True)
        if self.account is not None:
            os.chown(directory, self.account.uid, self.account.gid)
        directory.chmod(0o700)

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "port": str(PORT),
            "logging_collector": "off",
            **self.settings,
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.binary.path), "-D", str(self.directory), *flags]

    def _answers(self) -> Awaitable[bool]:
        return answers_select(self.url("postgres"))


async def answers_select(url: str) -> bool:
    """Whether the server behind `url` answers SELECT 1 (not while it starts or recovers).

    Raises Misconfigured when it never will: a bad URL, a refused password, no such database.
    """
    try:
        connection = await asyncpg.connect(url, timeout=5)
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError):
        return False
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Misconfigured(f"PostgreSQL refuses: {error}") from None
    try:
        return bool(await connection.fetchval("SELECT 1") == 1)
    finally:
        await connection.close()
