"""`livesale up`: the whole product on one machine, from an empty directory.

Order of start: lock, secret, PostgreSQL, Valkey, tables, demo show, worker, web. Order of stop:
web, worker, Valkey, PostgreSQL, so that nobody loses what it still needs. A part that crashes is
started again; a part that cannot start at all ends everything with one error.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from redis.exceptions import AuthenticationError

from server import config
from server.acts import demo
from server.embedded import binaries, network, place
from server.embedded.data import DataDirectory, Running
from server.embedded.postgres import PostgresServer, answers_select
from server.embedded.report import Report
from server.embedded.valkey import CONFIGS, ValkeyServer
from server.errors import LivesaleError, Misconfigured, StoreUnavailable
from server.orders.reconcile_command import reconcile_shows
from server.records import migrate
from server.store.client import RedisClients
from server.store.durability import Profile
from server.supervision.child import becomes_ready
from server.supervision.parts import Command, Part, Runnable
from server.supervision.signals import STOPS, Signals, cancelled
from server.telemetry import logs
from server.web import auth

DEMO_TOKEN_S = 7 * 24 * 3600
DEMO_DRAIN_SECONDS = 1.0  # a stop at the terminal should not wait for viewers to be spread out
GIVEN_SERVER_SECONDS = 3.0
WEB_STOP_SECONDS = 10.0  # for the parent of the web processes to end them, beside their drain
EXIT_CLEAN, EXIT_FAILED, EXIT_MISCONFIGURED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Options:
    """What `livesale up` was asked for. `port` None: 8000 or the next free one; `processes` 0:
    all cores but one."""

    data: Path
    host: str
    port: int | None
    processes: int
    redis_url: str  # given servers; empty: start our own
    database_url: str
    secret: str  # empty: the data directory's
    durability: Profile = "fast"
    set_drain: bool = True  # false when the environment sets it


class Supervisor:
    """One run of `livesale up`; `run` returns the exit code."""

    def __init__(self, options: Options, report: Report) -> None:
        self._options = options
        self._report = report
        self._data = DataDirectory(options.data)
        self._parts: list[Part] = []  # in order of start
        self._redis_url = options.redis_url
        self._database_url = options.database_url

    async def run(self) -> int:
        """Start everything, keep it running until a signal, stop everything."""
        signals = Signals((*STOPS, signal.SIGHUP))
        signals.install()
        try:
            with contextlib.ExitStack() as held:
                held.enter_context(self._data.locked())
                log = held.enter_context((self._data.logs / "up.log").open("a"))
                logs.configure("info", json=False, stream=log)  # stdout is for the report
                account = None if self._options.database_url else place.account_for_postgres()
                home = held.enter_context(self._data.home_locked(account))
                sockets = held.enter_context(_sockets())
                port = network.hold_port(self._options.host, self._options.port)
                held.callback(port.close)
                return await self._run_locked(signals, home, sockets, port.port)
        except Misconfigured as error:
            self._report.error(str(error))
            return EXIT_MISCONFIGURED
        except OSError as error:  # a file of the data directory belongs to somebody else
            self._report.error(str(error))
            return EXIT_FAILED

    async def _run_locked(self, signals: Signals, home: Path, sockets: Path, port: int) -> int:
        work = asyncio.create_task(self._boot_and_keep(home, sockets, port))
        asked = asyncio.create_task(signals.stop.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            return self._outcome(work)
        finally:
            await cancelled(work)
            await cancelled(asked)
            await self._stop(signals)

    def _outcome(self, work: "asyncio.Task[None]") -> int:
        """Exit code once the work ended (only ever by an error) or a stop was asked for."""
        if not work.done():
            return EXIT_CLEAN
        error = work.exception()
        if not isinstance(error, LivesaleError | OSError):
            work.result()  # a defect: let it be seen
        self._report.error(str(error))
        return EXIT_MISCONFIGURED if isinstance(error, Misconfigured) else EXIT_FAILED

    async def _boot_and_keep(self, home: Path, sockets: Path, port: int) -> None:
        self._write_running(sockets, http="")
        await self._start_servers(home, sockets)
        settings = self._settings(port)
        show = await self._prepare(settings)
        await self._start_processes(settings, sockets)
        self._write_running(sockets, http=network.http_url(settings))
        self._tell_ready(settings, show)
        await asyncio.gather(*(part.keep() for part in self._parts))

    # --- starting ---------------------------------------------------------------------------

    async def _start_servers(self, home: Path, sockets: Path) -> None:
        if self._database_url:
            await self._require("postgres", answers_select, self._database_url, "DATABASE_URL")
        else:
            server = self._postgres(home, sockets)
            await self._start("postgres", server, server.binary.label)
            self._database_url = server.url()
        if self._redis_url:
            await self._require("valkey", answers_redis, self._redis_url, "REDIS_URL")
        else:
            valkey = self._valkey(home, sockets)
            await self._start("valkey", valkey, valkey.binary.label)
            self._redis_url = valkey.url

    def _postgres(self, home: Path, sockets: Path) -> PostgresServer:
        directory = home / "postgres"
        account = place.account_for_postgres(directory)
        recorded = self._data.recorded("postgres", directory)
        binary = binaries.choose_postgres(os.get_exec_path(), recorded)
        binary = place.reachable_binary(binary, account)
        self._data.record("postgres", binary)
        if home != self._data.path:
            self._report.note(f"data are in {home}: {place.UNPRIVILEGED}, as whom PostgreSQL "
                              f"runs, cannot reach {self._data.path}")  # fmt: skip
        log = self._data.logs / "postgres.log"
        return PostgresServer(binary, directory, sockets / "postgres", log=log, account=account)

    def _valkey(self, home: Path, sockets: Path) -> ValkeyServer:
        directory = home / "valkey"
        recorded = self._data.recorded("valkey", directory)
        binary = binaries.choose_valkey(os.get_exec_path(), recorded)
        self._data.record("valkey", binary)
        config = CONFIGS[self._options.durability]
        log = self._data.logs / "valkey.log"
        return ValkeyServer(binary, directory, sockets, log=log, config=config)

    async def _start(self, name: str, runs: Runnable, detail: str) -> None:
        """Start one part; it is known to `_stop` before it runs."""
        self._parts.append(Part(name, runs, self._report.part))
        await runs.start()
        self._report.part(name, "ready", detail)

    async def _require(
        self, name: str, answers: Callable[[str], Awaitable[bool]], url: str, variable: str
    ) -> None:
        """Wait for a server we were given. Raises Misconfigured."""
        if not await becomes_ready(lambda: answers(url), lambda: True, GIVEN_SERVER_SECONDS):
            raise Misconfigured(f"the server given by {variable} does not answer")
        self._report.part(name, "ready", f"given by {variable}")

    def _settings(self, port: int) -> config.Settings:
        return config.load(
            redis_url=self._redis_url,
            database_url=self._database_url,
            secret=self._options.secret or self._data.secret(),
            host=self._options.host,
            port=port,
            demo=True,
        )

    async def _prepare(self, settings: config.Settings) -> demo.DemoShow:
        """Tables, sound stocks, demo show."""
        await migrate.upgrade_async(settings.database_url)
        self._report.part("tables", "ready")
        if reconciled := await reconcile_shows(settings):  # Redis has been started since
            self._report.part("stock", "ready", f"{len(reconciled)} rebuilt")
        show = await demo.seed(settings)
        self._report.part("demo show", "ready", show.show_id)
        return show

    async def _start_processes(self, settings: config.Settings, sockets: Path) -> None:
        environment = self._environment(settings.port)
        logs_of = self._data.logs
        worker = Command("worker", "worker", environment=environment, log=logs_of / "worker.log")
        web = Command(
            *("web", "web", "--processes", str(self._options.processes)),
            environment=environment,
            log=logs_of / "web.log",
            notices=sockets / "web.notices",
            stop_seconds=settings.drain_seconds + WEB_STOP_SECONDS,
        )
        await self._start("worker", worker, "")
        await self._start("web", web, network.http_url(settings))
        self._check_alive()

    def _check_alive(self) -> None:
        """A worker that ended while web started will not get better by being started again."""
        for part in self._parts:
            if not part.runs.child.alive:
                words = part.runs.child.last_words()
                raise Misconfigured(f"{part.name} did not stay up:\n{words}")

    def _environment(self, port: int) -> dict[str, str]:
        """Settings of the web and worker processes, above what our own environment says."""
        environment = {
            "LIVESALE_REDIS_URL": self._redis_url,
            "LIVESALE_DATABASE_URL": self._database_url,
            "LIVESALE_SECRET": self._options.secret or self._data.secret(),
            "LIVESALE_HOST": self._options.host,
            "LIVESALE_PORT": str(port),
            "LIVESALE_DURABILITY": self._options.durability,
            "LIVESALE_DEMO": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if self._options.set_drain:
            environment["LIVESALE_DRAIN_SECONDS"] = str(DEMO_DRAIN_SECONDS)
        return environment

    # --- telling ----------------------------------------------------------------------------

    def _write_running(self, sockets: Path, http: str) -> None:
        self._data.write_running(
            Running(
                os.getpid(),
                http,
                "" if self._options.redis_url else self._redis_url,
                "" if self._options.database_url else self._database_url,
                str(sockets),
            )
        )

    def _tell_ready(self, settings: config.Settings, show: demo.DemoShow) -> None:
        http = network.http_url(settings)
        host, viewer = _demo_tokens(settings, show)
        show_id = show.show_id
        fields: dict[str, object] = {
            "http": http,
            "show_id": show_id,
            "host_token": host,
            "viewer_token": viewer,
            "pid": os.getpid(),
            "data": str(self._data.path),
            "redis_url": "" if self._options.redis_url else self._redis_url,
            "database_url": "" if self._options.database_url else self._database_url,
            "parts": {part.name: part.runs.child.pid for part in self._parts},
        }
        lines = [
            f"  Host     {http}/host/{show_id}#token={host}",
            f"  Viewer   {http}/watch/{show_id}#token={viewer}",
            f"  Others   {http}/watch/{show_id}",
        ]
        lan = network.lan_url(settings)
        lines.append(f"  Phone    {lan}/watch/{show_id}" if lan else "  Phone    --host 0.0.0.0")
        self._report.ready(fields, [*lines, "", "  Ctrl-C stops everything; the data are kept."])

    # --- stopping ---------------------------------------------------------------------------

    async def _stop(self, signals: Signals) -> None:
        """Stop the parts in reverse order of start; kill them all when a second signal comes."""
        await signals.unless_forced(self._stop_in_order(), self._kill)

    def _kill(self) -> None:
        for part in reversed(self._parts):
            part.runs.kill()

    async def _stop_in_order(self) -> None:
        self._report.stopping()
        for part in reversed(self._parts):
            await part.runs.stop()
            self._report.part(part.name, "stopped")


def _demo_tokens(settings: config.Settings, show: demo.DemoShow) -> tuple[str, str]:
    secret = settings.require_secret()
    host = auth.issue(
        secret, user=show.host_id, role="host", show="*", name="主播", ttl_s=DEMO_TOKEN_S
    )
    viewer = auth.issue(
        secret,
        user="demo-viewer",
        role="viewer",
        show=show.show_id,
        name="小明",
        ttl_s=DEMO_TOKEN_S,
    )
    return host, viewer


async def answers_redis(url: str) -> bool:
    """Whether the Redis behind `url` answers PING. Raises Misconfigured when it never will."""
    try:
        clients = await RedisClients.open(url)
    except StoreUnavailable as outage:
        if isinstance(outage.__cause__, AuthenticationError):
            raise Misconfigured(f"REDIS_URL: {outage}") from None
        return False
    await clients.aclose()
    return True


@contextlib.contextmanager
def _sockets() -> Iterator[Path]:
    folder = place.new_socket_directory()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
