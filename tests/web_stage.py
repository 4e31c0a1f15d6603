"""A whole web process for tests: real servers behind it, uvloop in a thread, real sockets before.

Two stages on the same Redis and PostgreSQL are two hubs, as two processes would be.
"""

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import uvloop

from server.config import Settings
from server.web.app import WebProcess, web_process
from server.web.listeners import listening_socket
from server.web.serve import WebServer
from tests.conftest import run_sql, with_database
from tests.live import SECRET, Client, Host, token_of, until

START_S = 20.0
STOP_S = 20.0
_NUMBERS = itertools.count()


@dataclass
class WebStage:
    """One running web process."""

    url: str
    process: WebProcess
    server: WebServer
    loop: asyncio.AbstractEventLoop

    @property
    def host(self) -> Host:
        return Host(self.url, token_of("ming", "*", "host"))

    async def show(self, **fields: Any) -> str:
        """A live show of the host."""
        made = await self.host.ask("POST", "/api/shows", {"title": "晚八点", **fields})
        await self.host.ask("POST", f"/api/shows/{made['show']}/start")
        return str(made["show"])

    async def sale(self, show: str, **fields: Any) -> dict[str, Any]:
        """A sale that is open; 10 units of a new product, limit 2, unless told otherwise."""
        sku = {"title": "600 ml", "price": 12900, "inventory": 1000}
        product = await self.host.ask(
            "POST", f"/api/shows/{show}/products", {"title": "手冲壶", "skus": [sku]}
        )
        body = {
            "sku": product["skus"][0]["sku"], "price": 9900, "units": 10, "limit_per_buyer": 2,
            "duration_s": 300, "start": "now", **fields,
        }  # fmt: skip
        made: dict[str, Any] = await self.host.ask("POST", f"/api/shows/{show}/sales", body)
        return made

    async def viewer(self, show: str, user: str = "", **more: Any) -> Client:
        """A connected client, signed in when `user` is given."""
        client = await Client.open(self.url, show, **more)
        if user:
            await client.sign_in(user, show)
        return client


async def sees_sale(client: Client, sale: int) -> None:
    """Wait until the client's page would show the sale."""
    await until(lambda: f"sale:{sale}" in client.state, "sale on the page")


class StageThread:
    """The thread in which a stage lives: `start`, then `stop`; both block."""

    def __init__(self, redis_url: str, database_url: str, **settings: Any) -> None:
        unsafe = {"demo": True, "durability": "none"}  # the tests' Redis keeps nothing
        chosen = {**unsafe, "secret": SECRET, "drain_seconds": 0, "tick_ms": 20, **settings}
        self._settings = Settings(redis_url=redis_url, database_url=database_url, **chosen)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._settled = threading.Event()
        self._failures: list[BaseException] = []
        self._stages: list[WebStage] = []

    def start(self) -> WebStage:
        self._thread.start()
        assert self._settled.wait(START_S)
        if self._failures:
            raise self._failures[0]
        return self._stages[0]

    def stop(self) -> None:
        stage = self._stages[0]
        with suppress(RuntimeError):  # the loop is closed: the test stopped it
            stage.loop.call_soon_threadsafe(stage.server.ask_to_stop)
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            tasks = "\n".join(repr(task) for task in asyncio.all_tasks(stage.loop))
            raise AssertionError(f"the web process did not stop within {STOP_S:g} s:\n{tasks}")
        assert not self._failures, self._failures

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._main())
        except BaseException as failure:  # told to whoever started us
            self._failures.append(failure)
        finally:
            self._settled.set()

    async def _main(self) -> None:
        async with web_process(self._settings) as process:
            loop = asyncio.get_running_loop()

            def listening(url: str) -> None:
                self._stages.append(WebStage(url, process, server, loop))
                self._settled.set()

            server = WebServer(process, self._settings, listening)
            await server.serve([listening_socket("127.0.0.1", 0)])


@asynccontextmanager
async def web_stage(redis_url: str, database_url: str, **settings: Any) -> AsyncIterator[WebStage]:
    """A web process on these servers, stopped after the block."""
    thread = StageThread(redis_url, database_url, **settings)
    stage = await asyncio.to_thread(thread.start)
    try:
        yield stage
    finally:
        await asyncio.to_thread(thread.stop)


@contextmanager
def shared_stage(
    redis_url: str, server_url: str, template: str, **settings: Any
) -> Iterator[WebStage]:
    """A web process for a whole module, on a database made from `template` and dropped after it.

    The tests of the module leave no viewer behind and do not ask for a Redis of their own.
    """
    name = f"livesale_stage_{os.getpid()}_{next(_NUMBERS)}"
    asyncio.run(run_sql(server_url, f"CREATE DATABASE {name} TEMPLATE {template}"))
    thread = StageThread(redis_url, with_database(server_url, name), **settings)
    try:
        yield thread.start()
    finally:
        thread.stop()
        asyncio.run(run_sql(server_url, f"DROP DATABASE {name} WITH (FORCE)"))
