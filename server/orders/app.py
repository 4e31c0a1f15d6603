"""The worker process: its parts, its signals, and a stop that nothing can hold up."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import Final

import structlog
import uvloop
from prometheus_client import start_http_server

from server import clock
from server.acts.payments import PaymentActs
from server.acts.projector import Projector
from server.acts.timetable import Timetable
from server.config import Settings
from server.errors import Misconfigured
from server.memory import keep_out_of_collection
from server.orders.closer import Closer
from server.orders.expirer import Expirer
from server.orders.payer import Payer
from server.orders.sampler import Sampler
from server.orders.sender import Sender, open_sender
from server.orders.tools import any_redis
from server.orders.worker import OrderWorker, Tools
from server.payments.registry import Providers, open_providers
from server.records import durability as records_durability
from server.records.pool import open_pool
from server.store.client import RedisClients
from server.store.durability import require_as_set
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock

log = structlog.get_logger()

YOUNG_OBJECTS: Final = 100_000  # before a garbage collection: several per claim of a batch
CONNECTIONS: Final = 8  # to PostgreSQL
STOP_SECONDS: Final = 5.0  # for the batches in hand; what is cut off then comes again
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def run(settings: Settings) -> int:
    """Work until SIGINT or SIGTERM; exit code 0.

    Raises Misconfigured, StoreUnavailable or RecordsUnavailable when it cannot start.
    """
    keep_out_of_collection(YOUNG_OBJECTS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))
    return 0


async def serve(settings: Settings) -> None:
    """`run` inside an event loop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stopping.set)
    private = settings.webhook_allow_private
    async with (
        open_tools(settings) as tools,
        open_sender(tools.pool, allow_private=private) as sender,
        aclosing(open_providers(settings)) as providers,
    ):
        await require_as_set(tools.clients.commands, settings)
        await records_durability.require_durability(
            tools.pool, settings.durability, demo=settings.demo
        )
        with metrics_served(settings.worker_metrics_port):
            log.info("worker_ready", worker=tools.owner)
            await _work(tools, sender, providers, stopping)
    log.info("worker_stopped", worker=tools.owner)


async def _work(
    tools: Tools, sender: Sender, providers: Providers, stopping: asyncio.Event
) -> None:
    """All parts until `stopping`, then STOP_SECONDS to finish. A part that fails ends all."""
    redis_clock = RedisClock(tools.clients.commands)
    room_store = RoomStore(tools.scripts)
    projector = Projector(tools.pool, tools.stock, room_store)
    closer = Closer(projector, Timetable(tools.pool, projector, redis_clock), redis_clock)
    payments = PaymentActs(tools.pool, tools.stock, projector.orders, providers)
    parts = {
        asyncio.create_task(OrderWorker(tools).run(stopping)),
        asyncio.create_task(closer.run(stopping)),
        asyncio.create_task(sender.run(stopping)),
        asyncio.create_task(Expirer(tools.pool, projector.orders).run(stopping)),
        asyncio.create_task(Payer(payments).run(stopping)),
        asyncio.create_task(Sampler(tools.pool, room_store, redis_clock).run(stopping)),
    }
    told = asyncio.create_task(stopping.wait())
    await asyncio.wait({told, *parts}, return_when=asyncio.FIRST_COMPLETED)
    stopping.set()
    _, late = await asyncio.wait(parts, timeout=STOP_SECONDS)
    if late:  # they wait for a server that is silent: end the connections, or cancelling waits too
        tools.pool.terminate()
    for part in late:
        part.cancel()
    results = await asyncio.gather(*parts, told, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


@contextmanager
def metrics_served(port: int) -> Iterator[None]:
    """Serve /metrics on loopback inside the block; not at all on port 0.

    Raises Misconfigured when the port is taken.
    """
    if not port:
        yield
        return
    try:
        server, thread = start_http_server(port, addr="127.0.0.1")
    except OSError as error:
        raise Misconfigured(f"LIVESALE_WORKER_METRICS_PORT {port}: {error.strerror}") from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@asynccontextmanager
async def open_tools(settings: Settings) -> AsyncIterator[Tools]:
    """Connections to both databases, closed at the end."""
    clients = await RedisClients.open(settings.redis_url)
    try:
        await clients.check_server()
        scripts = Scripts(clients.commands)
        await scripts.preload()
        pool = await open_pool(settings.database_url, size=CONNECTIONS, keep_state=True)
        try:
            owner = f"worker-{clock.new_short_id(8)}"
            stock = Stock(scripts)
            strictly = partial(require_as_set, clients.commands, settings)
            fit = any_redis if settings.demo else strictly
            batch_claims = settings.worker_batch_claims
            yield Tools(owner, clients, scripts, stock, pool, batch_claims, fit)
        finally:
            pool.terminate()
    finally:
        await clients.aclose()
