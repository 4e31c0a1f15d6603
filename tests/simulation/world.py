"""The simulated world of one seed: servers, web processes, order workers, and what they run on.

Web processes and workers are the real compositions (server/web/app.py, server/orders/app.py).
Replaced are only: the event loop, the clock and the generators of server/clock.py, redis-py's
connections (network.py), asyncpg's pool (postgres.py), the signals of the operating system.
"""

import asyncio
import random
import sys
import traceback
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final
from unittest.mock import patch

import structlog
from starlette.routing import Route

from server import clock
from server.acts.host_acts import HostActs
from server.acts.payments import PaymentActs
from server.config import Settings
from server.orders import app as orders_app
from server.payments.registry import Providers
from server.store.client import RedisClients
from server.web import app as web_app
from tests.simulation.connections import SimPool
from tests.simulation.loop import CURRENT, Process, SimLoop
from tests.simulation.network import Network, RedisHost, SimPubSub, SimRedis
from tests.simulation.postgres import PostgresHost, Server

SHOW: Final = "simshow"
TRACE_LINES: Final = 4_000
HOUR_MS: Final = 3_600_000

SETTINGS: Final = Settings(
    secret="a secret of the simulation, long enough for HS256",  # type: ignore[arg-type]
    demo=True,
    durability="none",
    tick_ms=1_000,
    claims_per_second=1_000,
)


class WebNode:
    """One web process: its hub and its host acts."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process = Process(name)
        self.web: web_app.WebProcess | None = None
        self.payments: PaymentActs | None = None

    async def main(self) -> None:
        async with web_app.web_process(SETTINGS) as self.web:
            await asyncio.Event().wait()

    @property
    def acts(self) -> HostActs:
        """What its host API does."""
        assert self.web is not None
        acts: HostActs = self.web.app.state.host_acts
        return acts

    @property
    def is_ready(self) -> bool:
        return self.web is not None and not self.process.is_dead


class WorkerNode:
    """One order worker with all its loops."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process = Process(name)

    async def main(self) -> None:
        await orders_app.serve(SETTINGS)


class World:
    """Everything of one seed. Use inside `simulated(...)`."""

    def __init__(self, loop: SimLoop, server: Server) -> None:
        self.loop = loop
        self.rng = loop.rng
        self.network = Network(loop)
        self.redis = RedisHost(self.network)
        self.postgres = PostgresHost(server, self.network)
        self.webs: list[WebNode] = []
        self.workers: list[WorkerNode] = []
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.failures: list[str] = []
        self.open_providers: Callable[[], Providers] = _no_providers
        self._numbers = {"web": 0, "worker": 0}

    # --- Notes --------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """A line of the trace."""
        who = CURRENT.get()
        self.trace.append(f"{self.loop.now - 1_000:9.4f}  {who.name if who else '-':9} {what}")

    def fail(self, what: str) -> None:
        """An invariant is broken."""
        self.note(f"BROKEN {what}")
        self.failures.append(what)

    # --- Processes ----------------------------------------------------------------------------

    def start_web(self) -> WebNode:
        node = WebNode(self, self._name("web"))
        self.webs.append(node)
        self._spawn(node)
        return node

    def start_worker(self) -> WorkerNode:
        node = WorkerNode(self, self._name("worker"))
        self.workers.append(node)
        self._spawn(node)
        return node

    def _name(self, kind: str) -> str:
        self._numbers[kind] += 1
        return f"{kind}{self._numbers[kind]}"

    def _spawn(self, node: "WebNode | WorkerNode") -> None:
        node.process.skew_ms = self.rng.choice([0, 0, 0, HOUR_MS, -HOUR_MS])
        self.note(f"start {node.process.name}, its clock is off by {node.process.skew_ms} ms")
        task = self.loop.spawn(node.process, node.main())
        task.add_done_callback(lambda done: self._ended(node, done))

    def _ended(self, node: "WebNode | WorkerNode", task: "asyncio.Task[None]") -> None:
        """A process whose main ended: a supervisor starts it again."""
        if self.network.is_over or node.process.is_dead or task.cancelled():
            return
        error = task.exception()
        self.note(f"{node.process.name} ended: {error!r}")
        self.kill(node)
        if error is not None:
            again = self.start_web if isinstance(node, WebNode) else self.start_worker
            self.loop.at(1.0, again)

    def kill(self, node: "WebNode | WorkerNode") -> None:
        """SIGKILL: nothing of it runs any more; what it had sent may still arrive."""
        if node.process.is_dead:
            return
        self.note(f"kill {node.process.name}")
        self.loop.kill(node.process)
        self.loop.at(self.network.delay(), self.redis.forget, node.process)
        self.loop.at(self.network.delay(), self.postgres.forget, node.process)
        (self.webs if isinstance(node, WebNode) else self.workers).remove(node)  # type: ignore[arg-type]

    def freeze(self, node: "WebNode | WorkerNode", seconds: float) -> None:
        """SIGSTOP, and SIGCONT after `seconds`."""
        self.note(f"freeze {node.process.name} {seconds:.2f} s")
        self.loop.freeze(node.process)
        self.loop.at(seconds, self._thaw, node)

    def _thaw(self, node: "WebNode | WorkerNode") -> None:
        if not node.process.is_dead:
            self.note(f"thaw {node.process.name}")
            self.loop.thaw(node.process)

    # --- The end ------------------------------------------------------------------------------

    async def end(self) -> None:
        """Take everything down; nothing reaches a server any more."""
        self.network.is_over = True
        for connection in list(self.postgres.open):
            self.postgres.end(connection)
        me = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not me:
                task.cancel()
        self.loop.revive_all()
        others = [task for task in asyncio.all_tasks() if task is not me]
        if others:
            await asyncio.wait(others, timeout=60)


async def _no_page(_: object) -> None:
    """Nobody asks for it."""


def _no_providers() -> Providers:
    return Providers(None, {})


class _Silent:
    """Stands for the sender of webhooks: nobody listens for them here."""

    async def run(self, stopping: asyncio.Event) -> None:
        await stopping.wait()


@asynccontextmanager
async def _no_sender(*_: Any, **__: Any) -> AsyncIterator[_Silent]:
    yield _Silent()


# Loops that only poll, slower than in production: what they do is right at any pace.
PACE: Final = {
    "server.orders.closer.ROUND_MS": 1_000,
    "server.orders.expirer.ROUND_MS": 700,
    "server.orders.payer.ROUND_MS": 700,
    "server.orders.worker.DISCOVER_MS": 800,
}


@contextmanager
def simulated(seed: int, server: Server) -> Iterator[World]:
    """A world inside its loop (not running), with every source of time and chance replaced."""
    loop = SimLoop(seed)
    loop.set_exception_handler(lambda *_: None)
    world = World(loop, server)
    rng = random.Random(f"ids {seed}")
    replaced = {
        "now_ms": lambda: world.network.wall_ms() + _skew(),
        "monotonic_ms": lambda: loop.now * 1000,
        "new_uuid7": lambda: uuid7_of(rng),
        "new_short_id": lambda length=12: "".join(rng.choices("abcdefgh", k=length)),
        "random_bytes": rng.randbytes,
        "sample": lambda population, count: sorted(rng.sample(range(population), count)),
        "jittered": lambda base_ms, spread=0.5: max(
            1, round(base_ms * (1 + spread * (2 * rng.random() - 1)))
        ),
    }

    async def create_pool(*_: Any, max_size: int, **__: Any) -> SimPool:
        await asyncio.sleep(world.network.delay())
        if not world.postgres.is_up:
            raise ConnectionRefusedError("PostgreSQL is down")
        return SimPool(world.postgres, max_size)

    def payment_acts(*args: Any) -> PaymentActs:
        """The acts of the web process that is being composed."""
        acts = PaymentActs(*args)
        for node in world.webs:
            if node.process is CURRENT.get():
                node.payments = acts
        return acts

    with ExitStack() as stack:
        for name, function in replaced.items():
            if hasattr(clock, name):
                stack.enter_context(patch.object(clock, name, function))
        stack.enter_context(patch.object(RedisClients, "_client", lambda *_: SimRedis(world.redis)))
        stack.enter_context(
            patch.object(RedisClients, "new_pubsub", lambda *_: SimPubSub(world.redis))
        )
        stack.enter_context(patch("asyncpg.create_pool", create_pool))
        stack.enter_context(patch.object(orders_app, "open_sender", _no_sender))
        # The OpenAPI document takes as long as a whole run, and nobody reads it here.
        stack.enter_context(patch.object(web_app, "openapi_route", lambda _: Route("/", _no_page)))
        stack.enter_context(patch.object(web_app, "PaymentActs", payment_acts))
        for app in (web_app, orders_app):
            stack.enter_context(
                patch.object(app, "open_providers", lambda _: world.open_providers())
            )
        for name, ms in PACE.items():
            stack.enter_context(patch(name, ms))
        stack.enter_context(logs_to(world))
        try:
            yield world
        finally:
            loop.close()


def uuid7_of(rng: random.Random) -> uuid.UUID:
    """A UUID of version 7 (RFC 9562 section 5.7), its time drawn too."""
    bits = rng.getrandbits(128) & ~(0xF << 76) & ~(0x3 << 62)
    return uuid.UUID(int=bits | 7 << 76 | 2 << 62)


def _skew() -> int:
    process = CURRENT.get()
    return process.skew_ms if process else 0


@contextmanager
def logs_to(world: World) -> Iterator[None]:
    """What the server logs becomes part of the trace."""

    def keep(_: Any, level: str, event: dict[str, Any]) -> Any:
        name = event.pop("event")
        error = event.pop("exc_info", None)
        details = " ".join(f"{key}={value}" for key, value in event.items())
        world.note(f"[{level}] {name} {details}")
        if error:
            world.note("".join(traceback.format_exception(*sys.exc_info())))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    try:
        yield
    finally:
        structlog.configure(**before)
