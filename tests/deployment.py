"""One installation as real processes that can be killed, frozen and started again.

Web processes keep their ports, as behind a supervisor; Valkey and PostgreSQL keep their data.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from server.embedded.binaries import Binary
from server.embedded.postgres import PostgresServer
from server.embedded.valkey import ValkeyServer
from server.records import migrate
from tests.conftest import LONG, make_postgres, make_valkey
from tests.crowd import Crowd, Shop
from tests.history import Books, read_books, violations
from tests.live import Host, LiveSystem, call, free_port, token_of, until_answer

# The crowd is one address and faster than people; nobody waits for the last viewers to leave.
SETTINGS: Final = {
    "tick_ms": "100",
    "viewers_per_address_max": "20000",
    "claims_per_second": "100",
    "drain_seconds": "0",
}
SUPERVISE_SECONDS: Final = 0.2
LOG_CHARS: Final = 12_000  # of all logs, with a failure

only_long = pytest.mark.skipif(not LONG, reason="long form only (make test-faults)")


@dataclass
class Deployment:
    """`webs`: port -> process. `worker` is the newest one."""

    live: LiveSystem
    valkey: ValkeyServer
    postgres: PostgresServer
    webs: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    worker: "subprocess.Popen[bytes] | None" = None

    # --- Starting ----------------------------------------------------------------------------

    def start(self, webs: int = 2) -> None:
        """Web processes and a worker; they are not ready yet."""
        for _ in range(webs):
            self.start_web(free_port())
        self.start_worker()

    def start_web(self, port: int) -> None:
        self.webs[port] = self.live.start("web", PORT=str(port))

    def start_worker(self) -> None:
        self.worker = self.live.start_worker()

    async def ready(self, port: int) -> None:
        """Wait until the web process answers that it can work."""

        async def is_ready() -> bool:
            try:
                return (await call("GET", f"{self.url(port)}/readyz"))[0] == 200
            except OSError:
                return False

        await until_answer(is_ready, f"web ready on {port}")

    @asynccontextmanager
    async def supervised(self) -> AsyncIterator[None]:
        """Inside the block whatever ends is started again; all is ready at its beginning."""
        supervisor = asyncio.create_task(self._supervise())
        try:
            await asyncio.gather(*map(self.ready, self.webs))
            yield
        except BaseException:
            print(self.live.logs()[-LOG_CHARS:])  # noqa: T201  (pytest shows it)
            raise
        finally:
            supervisor.cancel()

    async def _supervise(self) -> None:
        """Without PostgreSQL nothing can start, so one start may not be enough."""
        while True:
            await asyncio.sleep(SUPERVISE_SECONDS)
            for port, process in list(self.webs.items()):
                if process.poll() is not None:
                    self.start_web(port)
            if self.worker is not None and self.worker.poll() is not None:
                self.start_worker()

    def stop(self) -> None:
        """End every process of ours, frozen ones too."""
        for process in self.live.processes:
            thaw([process.pid] if process.poll() is None else [])
        self.live.stop()

    # --- Breaking ----------------------------------------------------------------------------

    def kill_web(self, port: int) -> None:
        """SIGKILL; a new process on the same port follows."""
        end(self.webs[port])

    def kill_worker(self) -> None:
        assert self.worker is not None
        end(self.worker)

    async def kill_valkey(self) -> None:
        self.valkey.kill()
        await self.valkey.start()

    async def kill_postgres(self, down_s: float = 0.0) -> None:
        self.postgres.kill()
        await asyncio.sleep(down_s)
        await self.postgres.start()

    # --- Selling -----------------------------------------------------------------------------

    def url(self, port: int) -> str:
        return f"http://127.0.0.1:{port}"

    @property
    def ports(self) -> list[int]:
        return list(self.webs)

    @property
    def host(self) -> Host:
        return Host(self.url(self.ports[0]), token_of("host-1", "*", role="host"))

    @asynccontextmanager
    async def sale(self, units: int, **terms: Any) -> AsyncIterator[Crowd]:
        """A live show with one sale that is open; the crowd that may come to it, until the end
        of the block."""
        crowd = Crowd(await self._open_sale(units, terms))
        try:
            yield crowd
        finally:
            await crowd.leave()

    async def _open_sale(self, units: int, terms: dict[str, Any]) -> Shop:
        host = self.host
        show = (await host.ask("POST", "/api/shows", {"title": "验收之夜"}))["show"]
        sku = {"title": "黑色", "price": 12900, "currency": "CNY", "inventory": units}
        body = {"title": "手冲咖啡壶", "skus": [sku]}
        product = await host.ask("POST", f"/api/shows/{show}/products", body)
        await host.ask("POST", f"/api/shows/{show}/start")
        sale = await host.ask(
            "POST", f"/api/shows/{show}/sales",
            {"sku": product["skus"][0]["sku"], "price": 9900, "units": units,
             "limit_per_buyer": 1, "countdown_s": 0, "duration_s": 900, "start": "now", **terms},
        )  # fmt: skip
        return Shop(self.ports, show, sale["sale"])

    # --- Judging -----------------------------------------------------------------------------

    async def audit(self, *args: str) -> tuple[int, list[Any]]:
        """Exit code and problems of `livesale audit`."""
        result = await asyncio.to_thread(self.live.run, "audit", "--json", *args)
        assert result.stdout, result.stderr
        shows = json.loads(result.stdout)["shows"]
        return result.returncode, [problem for show in shows for problem in show["problems"]]

    async def books(self, crowd: Crowd) -> Books:
        return await read_books(self.postgres.url(), crowd.shop.show)

    async def assert_sound(self, crowd: Crowd, **known: bool) -> Books:
        """The books and what every client saw agree, and the audit finds nothing.

        `known`: what may be missing (tests/history.py: lost, unanswered).
        """
        books = await self.books(crowd)
        found = violations(crowd.history, books, **known)
        assert not found, found[:10]
        audited = await self.audit("--show", crowd.shop.show)
        assert audited == (0, []), audited
        return books


def end(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL and wait."""
    process.kill()
    process.wait()


def freeze(pids: Sequence[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def thaw(pids: Sequence[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def deploy(
    valkey: ValkeyServer, postgres: PostgresServer, log_dir: Path, *, webs: int = 2, **settings: str
) -> AsyncIterator[Deployment]:
    """A running installation on the two servers, ended after the block."""
    deployment = make_deployment(valkey, postgres, log_dir, **settings)
    try:
        deployment.start(webs)
        async with deployment.supervised():
            yield deployment
    finally:
        deployment.stop()


def make_deployment(
    valkey: ValkeyServer, postgres: PostgresServer, log_dir: Path, **settings: str
) -> Deployment:
    live = LiveSystem(valkey.url, postgres.url(), log_dir, {**SETTINGS, **settings})
    return Deployment(live, valkey, postgres)


@contextmanager
def standing(
    folder: Path, valkey_binary: Binary, postgres_binary: Binary, **settings: str
) -> Iterator[Deployment]:
    """A deployment with servers of its own in `folder`, for a whole module of tests."""
    for part in ("p", "logs"):
        (folder / part).mkdir(parents=True)
    port = {"port": str(free_port()), "bind": "127.0.0.1"}
    durable = {"appendonly": "yes", "appendfsync": "everysec", "repl_diskless_sync_delay": "0"}
    valkey = make_valkey(valkey_binary, folder / "v", **durable, **port)
    postgres = make_postgres(postgres_binary, folder / "p")
    deployment = make_deployment(valkey, postgres, folder / "logs", **settings)
    try:
        asyncio.run(valkey.start())
        asyncio.run(postgres.start())
        migrate.upgrade(postgres.url())
        deployment.start()
        yield deployment
    finally:
        deployment.stop()
        valkey.kill()
        postgres.kill()
        shutil.rmtree(folder)
