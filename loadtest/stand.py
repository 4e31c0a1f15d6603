"""A whole livesale for a test: Valkey, PostgreSQL, web processes and the order worker.

Real processes with the settings of production, except where a benchmark passes its own; all data
in a temporary directory. Everything started here is ended here, by pid.
"""

import asyncio
import http.client
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import jwt

from loadtest import process, wire
from server.embedded import binaries, place
from server.embedded.postgres import PostgresServer
from server.embedded.valkey import CONFIGS, ValkeyServer
from server.protocol.messages import SUBPROTOCOL_MSGPACK
from server.store import keys

HOST = "bench-host"
TOKEN_SECONDS = 3600
SALE_SECONDS = 1200
READY_SECONDS = 30.0
QUIET: Mapping[str, str] = {"LIVESALE_LOG_LEVEL": "warning"}
ROOMY: Mapping[str, str] = {  # one address and one loader stand for a whole audience
    **QUIET,
    "LIVESALE_VIEWERS_PER_ADDRESS_MAX": "20000",
    "LIVESALE_JOINS_PER_SECOND_MAX": "100000",
    "LIVESALE_CLAIMS_PER_SECOND": "100000",
    "LIVESALE_DRAIN_SECONDS": "0",
}


class Books(NamedTuple):
    """A database, and the PostgreSQL it is in."""

    server: PostgresServer
    url: str


class Stand:
    """Handles on what runs. `web` and `worker` are None until started; `webs` are all of them."""

    def __init__(
        self, folder: Path, valkey: ValkeyServer, books: Books, durability: str,
        *, settings: Mapping[str, str] = ROOMY, root: Path | None = None, nice: int = 0,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.durability = durability
        self._settings = settings
        self._root = root
        self._nice = nice
        self._again: dict[str, Callable[[], process.Process]] = {}  # part -> starts it anew
        self._ports: dict[str, int] = {}
        self.valkey = valkey
        self.postgres, self.database_url = books
        self.web: process.Process | None = None
        self.webs: list[process.Process] = []
        self.worker: process.Process | None = None
        self.port = process.free_port()
        self.secret = os.urandom(24).hex()
        self.show_id = ""

    @property
    def bus_channel(self) -> str:
        """The show's sharded Pub/Sub channel."""
        return keys.bus_channel(self.show_id)

    @property
    def order_stream(self) -> str:
        """Key of the show's order stream."""
        return keys.orders(self.show_id)

    def token(self, role: str, user: str) -> str:
        """A signed token as `livesale token` makes it."""
        now = int(time.time())
        claims = {"sub": user, "name": user[:24], "role": role, "show": self.show_id or "*"}
        claims |= {"aud": "livesale", "iat": now, "exp": now + TOKEN_SECONDS}  # type: ignore[dict-item]
        return jwt.encode(claims, self.secret, "HS256")

    def upgrade_request(self) -> bytes:
        """The handshake of a viewer of the show, who speaks msgpack."""
        host = f"127.0.0.1:{self.port}"
        return wire.upgrade_request(host, f"/ws/{self.show_id}", SUBPROTOCOL_MSGPACK)

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """What web and worker are started with."""
        return {
            **os.environ,
            **self._settings,
            **({} if self._root is None else {"PYTHONPATH": str(self._root)}),
            "REDIS_URL": self.valkey.url,
            "DATABASE_URL": self.database_url,
            "LIVESALE_SECRET": self.secret,
            "LIVESALE_DURABILITY": self.durability,
            "PORT": str(self.port),
            **settings,
        }

    async def start_web(
        self, *, core: int | None = None, processes: int = 1, **settings: str
    ) -> process.Process:
        """Start the web process (it makes the tables) and wait until it is ready.

        Settings are LIVESALE_ names. More than one of `processes` share the port; what is handed
        back is the one that looks after them.
        """
        log = self.folder / "web.log"
        many = () if processes == 1 else ("--processes", str(processes))
        self.web = self._add_web(self.port, log, core, settings, *many)
        await process.listening(self.web, self.port, sockets=processes)
        return self.web

    async def start_another_web(
        self, *, core: int | None = None, **settings: str
    ) -> tuple[process.Process, int]:
        """One more web process for the same shows, and its port."""
        port, name = process.free_port(), f"web-{len(self.webs)}.log"
        settings = {"PORT": str(port), **settings}
        another = self._add_web(port, self.folder / name, core, settings)
        await process.listening(another, port)
        return another, port

    def _add_web(
        self, port: int, log: Path, core: int | None, settings: Mapping[str, str], *options: str
    ) -> process.Process:
        part = f"web-{len(self.webs) + 1}"
        self._ports[part] = port
        self._again[part] = partial(self._start, "web", log, core, settings, *options)
        self.webs.append(self._again[part]())
        return self.webs[-1]

    def start_worker(self, *, core: int | None = None, **settings: str) -> process.Process:
        """Start the order worker; it takes up shows by itself."""
        log = self.folder / "worker.log"
        self._again["worker"] = partial(self._start, "worker", log, core, settings)
        self.worker = self._again["worker"]()
        return self.worker

    def _start(
        self, name: str, log: Path, core: int | None, settings: Mapping[str, str], *options: str
    ) -> process.Process:
        child = process.start(
            name,
            [sys.executable, "-m", "server.cli", name, *options],
            log=log,
            core=core,
            cwd=self._root,
            environment=self.environment(settings),
        )
        if self._nice:
            process.give_way(child.pid, self._nice)
        return child

    # --- Parts, and what may happen to them ---------------------------------------------------

    def parts(self) -> list[str]:
        """web-1, ..., worker, valkey, postgres: those that were started."""
        return [*self._again, "valkey", "postgres"]

    def part(self, name: str) -> list[int]:
        """Pids of a part. Raises KeyError: there is none of that name."""
        return process.family(self._child(name).pid)

    def _child(self, name: str) -> process.Process:
        if name in ("valkey", "postgres"):
            return (self.valkey if name == "valkey" else self.postgres).child
        if name == "worker" and self.worker is not None:
            return self.worker
        if name not in self._ports:
            raise KeyError(name)
        return self.webs[int(name.removeprefix("web-")) - 1]

    async def stop_for(self, name: str, seconds: float) -> None:
        """SIGSTOP to all processes of a part, SIGCONT after so long, or when cancelled.

        Raises RuntimeError: nothing of it runs.
        """
        pids = self.part(name) if self._child(name).alive else []
        if not pids:
            raise RuntimeError(f"{name} does not run")
        try:
            process.send_all(pids, signal.SIGSTOP)
            await asyncio.sleep(seconds)
        finally:
            process.send_all(pids, signal.SIGCONT)

    async def kill_and_start(self, name: str, seconds: float) -> None:
        """SIGKILL to a part, and after so long, or when cancelled, start it again; returns when it
        is ready."""
        self._child(name).kill()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._start_again(name)

    async def restart(self, name: str) -> None:
        """Stop a part as its operator does, and start it again; returns when it is ready."""
        number = signal.SIGINT if name == "postgres" else signal.SIGTERM
        try:
            await self._child(name).stop(number, process.STOP_SECONDS)
        finally:
            await self._start_again(name)

    async def _start_again(self, name: str) -> None:
        self._child(name).kill()  # if we were cancelled before it was gone
        if name in ("valkey", "postgres"):
            await (self.valkey if name == "valkey" else self.postgres).start()
        elif name == "worker":
            self.worker = self._again[name]()
        else:
            child = self.webs[int(name.removeprefix("web-")) - 1] = self._again[name]()
            if name == "web-1":
                self.web = child
            await process.listening(child, self._ports[name])

    # --- As the host, and as a scraper --------------------------------------------------------

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One host API call. Raises RuntimeError on any status but 2xx."""
        return await asyncio.to_thread(self._call, method, path, body)

    def _call(self, method: str, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            head = {"Authorization": f"Bearer {self.token('host', HOST)}"}
            head["Content-Type"] = "application/json"
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, head)
            answer = connection.getresponse()
            text = answer.read()
            if not 200 <= answer.status < 300:
                raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()[:300]}")
            return json.loads(text) if text else None
        finally:
            connection.close()

    async def metric(self, name: str) -> float:
        """One metric without labels of the web process, from its /metrics."""
        return await asyncio.to_thread(self._metric, name)

    def _metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
        finally:
            connection.close()
        return next(float(line.split()[1]) for line in lines if line.split()[0] == name)

    async def open_show(self) -> str:
        """Create a show and start it; its id. From then on it is the one that all here is about."""
        self.show_id = ""  # whoever makes a show needs a token for all of them
        show = await self.call("POST", "/api/shows", {"title": "bench"})
        self.show_id = show["show"]
        await self.call("POST", f"/api/shows/{self.show_id}/start")
        return self.show_id

    async def open_sale(self, units: int, limit: int, *, starts_at: int = 0) -> int:
        """A product with one sku and a flash sale of `units` of it; the sale's id.

        It is open now, or scheduled for `starts_at` (ms of Redis time).
        """
        api = f"/api/shows/{self.show_id}"
        sku = {"title": "bench", "price": 9900, "currency": "CNY", "inventory": units}
        product = await self.call("POST", f"{api}/products", {"title": "bench", "skus": [sku]})
        terms = {"sku": product["skus"][0]["sku"], "price": 990, "units": units}
        terms |= {"limit_per_buyer": limit, "duration_s": SALE_SECONDS}
        terms |= {"start": "at", "starts_at": starts_at} if starts_at else {"start": "now"}
        return int((await self.call("POST", f"{api}/sales", terms))["sale"])


@asynccontextmanager
async def valkey_alone(durability: str = "fast") -> AsyncIterator[ValkeyServer]:
    """A Valkey with its append-only file and nothing else; stopped and removed at the end."""
    folder = place.new_socket_directory()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        binary = binaries.choose_valkey(os.get_exec_path())
        valkey = ValkeyServer(binary, folder / "valkey", folder, config=CONFIGS[durability])
        await valkey.start()
        stack.push_async_callback(valkey.stop)
        yield valkey


@asynccontextmanager
async def stand(
    durability: str = "fast",
    *,
    roomy: bool = True,
    settings: Mapping[str, str] | None = None,
    root: Path | None = None,
    nice: int = 0,
) -> AsyncIterator[Stand]:
    """Valkey and an empty PostgreSQL running; stopped and removed at the end, whatever ran.

    `roomy` False: the limits of production. `settings`: LIVESALE_ names for all that is started.
    `root`: another tree whose server is started. `nice`: of web processes and worker.
    """
    settings = {**(ROOMY if roomy else QUIET), **(settings or {})}
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(valkey_alone(durability))
        folder = valkey.socket.parent
        shared = _SHARED.get()
        books = await (shared.database() if shared else stack.enter_async_context(_books(folder)))
        running = Stand(folder, valkey, books, durability, settings=settings, root=root, nice=nice)
        stack.push_async_callback(_stop_ours, running)
        yield running


@asynccontextmanager
async def live_show(
    *, worker: bool = False, processes: int = 1, **settings: str
) -> AsyncIterator[Stand]:
    """A show that runs: its web process alone on the server's core, all else, and we, on the other.

    Settings (LIVESALE_ names) are the web process's.
    """
    process.pin(0, process.LOADER_CORE)
    async with stand() as running:
        for child in (running.valkey.child, running.postgres.child):
            process.pin(child.pid, process.LOADER_CORE)
        await running.start_web(core=process.SERVER_CORE, processes=processes, **settings)
        if worker:
            running.start_worker(core=process.LOADER_CORE)
        await running.open_show()
        yield running


@asynccontextmanager
async def _books(folder: Path) -> AsyncIterator[Books]:
    """A PostgreSQL with an empty database."""
    account = place.account_for_postgres()
    binary = place.reachable_binary(binaries.choose_postgres(os.get_exec_path()), account)
    postgres = PostgresServer(
        binary,
        folder / "postgres-data",
        folder / "postgres",
        log=folder / "postgres.log",
        account=account,
    )
    await postgres.start()
    try:
        yield Books(postgres, postgres.url())
    finally:
        await postgres.stop()


class SharedBooks:
    """One PostgreSQL for several stands, each with a database of its own."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._numbers = count()

    async def database(self) -> Books:
        """One more, with all tables."""
        name, server = f"stand_{next(self._numbers)}", self._books.server
        connection = await asyncpg.connect(server.url("postgres"))
        try:
            await connection.execute(f"CREATE DATABASE {name} TEMPLATE {_name_of(self._books.url)}")
        finally:
            await connection.close()
        return Books(server, server.url(name))


def _name_of(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


_SHARED: Final[ContextVar[SharedBooks | None]] = ContextVar("shared", default=None)


@asynccontextmanager
async def sharing_books() -> AsyncIterator[None]:
    """Stands that start in this block share one PostgreSQL, which costs less than one for each.
    Nothing that depends on it can be measured."""
    folder = place.new_socket_directory()
    async with AsyncExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        books = await stack.enter_async_context(_books(folder))
        environment = {**os.environ, "DATABASE_URL": books.url}
        command = [sys.executable, "-m", "server.cli", "migrate"]
        making = process.start("migrate", command, log=folder / "log", environment=environment)
        await process.wait_for(lambda: making.status is not None, READY_SECONDS, "all tables")
        if making.status:
            raise RuntimeError(f"no tables were made:\n{making.last_words()}")
        token = _SHARED.set(SharedBooks(books))
        try:
            yield
        finally:
            _SHARED.reset(token)


async def _stop_ours(running: Stand) -> None:
    workers = [] if running.worker is None else [running.worker]
    for child in (*running.webs, *workers):
        await process.stop(child)
