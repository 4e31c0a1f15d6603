"""The web process, put together: what exists, who is given what, what runs, how it ends.

    settings -> Redis, PostgreSQL -> stores -> desks (claims, holds, order status, commands)
             -> hub -> routes -> app

Nothing here decides anything. server/web/serve.py serves the result.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute, WebSocketRoute

from server import clock, limits
from server.acts.host_acts import HostActs
from server.acts.order_projector import OrderProjector
from server.acts.payments import PaymentActs
from server.audit.child import audit_in_child
from server.config import Settings
from server.errors import RecordsUnavailable, StoreUnavailable
from server.hub.claims import ClaimDesk
from server.hub.holds import HoldTracker
from server.hub.hub import Hub
from server.hub.order_status import OrderStatusDesk
from server.hub.ports import HubSettings, Ports
from server.hub.receipts import Receipts
from server.hub.redo import Redo
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.payments.demo_webhooks import DemoWebhooks
from server.payments.registry import open_providers
from server.records import durability as records_durability
from server.records import front
from server.records.pool import Pool, open_pool
from server.store.bus import Bus
from server.store.client import RedisClients, command
from server.store.durability import Replicas, require_as_set
from server.store.evidence import Evidence
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.telemetry import metrics
from server.web import host_api, viewer_api
from server.web.admission import Admission
from server.web.commands import Commands
from server.web.content_policy import SecurityHeaders
from server.web.crew import Crew
from server.web.door import Usher
from server.web.endpoint import Endpoint
from server.web.health import Health, NotReady
from server.web.host_audit import AuditDesk
from server.web.host_numbers import NumbersDesk
from server.web.host_rehearsals import RehearsalDesk
from server.web.known_shows import KnownShows
from server.web.late_releases import LateReleases
from server.web.openapi import openapi_route
from server.web.pages import LISTED_MAX, Pages
from server.web.payments_api import PaymentsApi
from server.web.policies import Policies
from server.web.shared import Shared
from server.web.video import VideoOrigins
from server.web.watch import Watch

log = structlog.get_logger()

RECORDS_CONNECTIONS: Final = 4  # HTTP API, payments and health; sockets never touch PostgreSQL
CLAIMS_SETTLE_SECONDS: Final = 1.0  # at a stop, for claims that are on their way to Redis
DRAIN_SPREAD: Final = 0.8  # of the time of a drain, for telling the viewers one after the other
HUB_STOP_SECONDS: Final = 1.0  # for likes and lines that are on their way to Redis
CLOSE_SECONDS: Final = 0.3  # for one pool of connections to close
FEED_SILENT_SECONDS: Final = 6.0  # a room that heard nothing for so long is not served well
PACES_SWEEP_SECONDS: Final = 60.0
QUANTILES: Final = (0.5, 0.99)
SHARED_SECONDS: Final = 1.0  # anybody may ask for the front page and /readyz, as often as they like


@dataclass(frozen=True, slots=True)
class Stores:
    """Redis and PostgreSQL, as this process uses them."""

    clients: RedisClients
    stock: Stock
    evidence: Evidence
    rooms: RoomStore
    bus: Bus
    clock: RedisClock
    pool: Pool


@dataclass(frozen=True, slots=True)
class Desks:
    """What viewers' commands and the hub's news are handed to."""

    claims: ClaimDesk
    holds: HoldTracker
    redo: Redo
    policies: Policies
    crew: Crew
    commands: Commands
    late: LateReleases

    def is_prepared(self, room: Room) -> bool:
        """Would `prepare` have nothing to do?"""
        return self.policies.knows(room) and self.crew.knows(room.show_id)

    async def prepare(self, room: Room) -> None:
        """What must be known before a viewer enters `room`. Raises StoreUnavailable."""
        await self.policies.ensure(room)
        await self.crew.ensure(room.show_id)


@dataclass(frozen=True, slots=True)
class WebProcess:
    """A running web process: the ASGI apps of its two listeners, who may come in, and how to stop
    well."""

    app: Starlette
    internal: Starlette
    usher: Usher
    admission: Admission
    hub: Hub
    claims: ClaimDesk

    async def drain(self, seconds: float) -> None:
        """Let nobody in, answer the claims under way, ask all viewers to come back elsewhere.

        The viewers are told spread over most of `seconds`; the rest is for their goodbyes. A
        claim whose answer is overtaken by the close is safe: its id gets the answer elsewhere.
        """
        began = clock.monotonic_ms()
        self.admission.draining = True
        try:
            async with asyncio.timeout(min(CLAIMS_SETTLE_SECONDS, seconds)):
                await self.claims.settled()
        except TimeoutError:
            log.warning("claims_not_settled", waiting=self.claims.waiting)
        left = seconds - (clock.monotonic_ms() - began) / 1_000
        await self.hub.drain(max(0.0, left) * DRAIN_SPREAD)


@asynccontextmanager
async def web_process(
    settings: Settings, *, has_internal: bool = False
) -> AsyncIterator[WebProcess]:
    """Everything open and running inside the block, closed and stopped after it.

    `has_internal`: there is an internal listener too, and what only it serves.
    Raises Misconfigured, StoreUnavailable or RecordsUnavailable when it cannot start. When one of
    its tasks fails for good, the block is cancelled and an ExceptionGroup tells why.
    """
    settings.require_secret()
    async with AsyncExitStack() as stack:
        stores = await open_stores(settings, stack)
        hub_id = clock.new_short_id(8)
        admission = Admission(settings)
        desks = make_desks(settings, hub_id, stores)
        hub = make_hub(settings, hub_id, stores, desks, admission)
        await hub.start()
        stack.push_async_callback(close_within, CLOSE_SECONDS, desks.late.flush)
        stack.push_async_callback(close_within, HUB_STOP_SECONDS, hub.stop)  # ends before that
        watch_gauges(hub, desks)
        payments = open_payments(settings, stores, stack)
        audits = AuditDesk(lambda show_id: audit_in_child(settings, show_id))
        stack.push_async_callback(close_within, CLOSE_SECONDS, audits.aclose)
        rehearsals = RehearsalDesk(settings, lambda: hub.viewers)
        stack.push_async_callback(close_within, CLOSE_SECONDS, rehearsals.aclose)
        watch = make_watch(settings, stores, desks, hub, admission)
        health = make_health(settings, stores, hub, admission)
        told = health.public_routes(has_internal=has_internal)
        desks_of_hosts = (audits, NumbersDesk(), rehearsals, payments)
        others = [endpoint for desk in desks_of_hosts for endpoint in desk.endpoints()]
        app = make_app(settings, stores, watch, payments, others, told)
        internal = Starlette(routes=health.internal_routes())
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(desks.holds.run()),
                tasks.create_task(desks.late.run()),
                tasks.create_task(desks.policies.keep_fresh(hub.rooms.values)),
                tasks.create_task(sweep_paces(desks.commands)),
            ]
            try:
                yield WebProcess(app, internal, watch.usher, admission, hub, desks.claims)
            finally:
                for task in background:
                    task.cancel()


async def open_stores(settings: Settings, stack: AsyncExitStack) -> Stores:
    """Connect to both servers; `stack` closes what was opened."""
    clients = await RedisClients.open(settings.redis_url)
    stack.push_async_callback(close_within, CLOSE_SECONDS, clients.aclose)
    await clients.check_server()
    await require_as_set(clients.commands, settings)
    pool = await open_pool(settings.database_url, size=RECORDS_CONNECTIONS)
    stack.push_async_callback(close_within, CLOSE_SECONDS, pool.close)
    await records_durability.require_durability(pool, settings.durability, demo=settings.demo)
    scripts = Scripts(clients.commands)
    await scripts.preload()
    bus = Bus(clients)
    stack.push_async_callback(close_within, CLOSE_SECONDS, bus.aclose)
    redis_clock = RedisClock(clients.commands)
    await redis_clock.refresh()
    replicas = Replicas(scripts) if settings.durability == "strict" else None
    stock = Stock(scripts, replicas)
    rooms, evidence = RoomStore(scripts), Evidence(scripts)
    return Stores(clients, stock, evidence, rooms, bus, redis_clock, pool)


async def close_within(seconds: float, close: Callable[[], Awaitable[object]]) -> None:
    """Close one thing; what takes longer than `seconds`, or needs a server that is away, is left to
    the end of the process."""
    what = getattr(close, "__qualname__", "")
    try:
        async with asyncio.timeout(seconds):
            await close()
    except TimeoutError:
        log.warning("close_took_too_long", what=what)
    except (StoreUnavailable, RecordsUnavailable) as outage:
        log.warning("close_failed", what=what, reason=str(outage))


def make_desks(settings: Settings, hub_id: str, stores: Stores) -> Desks:
    """The desks, joined: news of a claim goes from the holds' look-up to its room's batcher."""
    receipts = Receipts(settings.require_secret())
    holds = HoldTracker(stores.stock, lambda room, *moved: claims.on_orders(room, (moved,)))
    late = LateReleases(stores.pool)
    redo = Redo(hub_id, stores.evidence, late.note)
    claims = ClaimDesk(hub_id, stores.stock, receipts, holds.of, redo)
    policies = Policies(stores.rooms)
    crew = Crew(stores.pool)
    commands = Commands(
        settings=settings,
        clock_port=stores.clock,
        claims=claims,
        statuses=OrderStatusDesk(stores.stock, receipts),
        policies=policies,
        crew=crew,
    )
    return Desks(claims, holds, redo, policies, crew, commands, late)


def make_hub(
    settings: Settings, hub_id: str, stores: Stores, desks: Desks, admission: Admission
) -> Hub:
    """The hub with everybody it has to tell something."""

    def on_gone(viewer: Viewer) -> None:
        admission.release(viewer.address)

    return Hub(
        hub_id,
        Ports(stores.rooms, stores.bus, stores.clock),
        HubSettings(
            settings.tick_ms,
            settings.viewers_per_user_max,
            settings.ping_seconds,
            settings.pong_seconds,
        ),
        desks.commands.dispatch,
        on_orders=desks.claims.on_orders,
        on_policy=desks.policies.refresh,
        banned_in=desks.policies.banned_in,
        on_rebuild=desks.redo.on_rebuild,
        on_gone=on_gone,
    )


def open_payments(settings: Settings, stores: Stores, stack: AsyncExitStack) -> PaymentsApi:
    """The providers behind their routes; `stack` ends what they have under way."""
    providers = open_providers(settings)
    stack.push_async_callback(close_within, CLOSE_SECONDS, providers.aclose)
    demo = DemoWebhooks(providers.demo) if providers.demo else None
    if demo:
        stack.push_async_callback(close_within, CLOSE_SECONDS, demo.aclose)
    projector = OrderProjector(stores.pool, stores.stock)
    return PaymentsApi(PaymentActs(stores.pool, stores.stock, projector, providers), demo)


def make_watch(
    settings: Settings, stores: Stores, desks: Desks, hub: Hub, admission: Admission
) -> Watch:
    """The way in for viewers."""
    known = KnownShows(lambda shows: front.known_shows(stores.pool, shows, limits.SHOW_KEPT_DAYS))
    origins = settings.allowed_origins
    return Watch(
        *(hub, admission, origins, desks.prepare, desks.is_prepared, known),
        secret=settings.require_secret(),
        deflates=settings.compression,
    )


def make_app(
    settings: Settings,
    stores: Stores,
    watch: Watch,
    payments: PaymentsApi,
    others: Sequence[Endpoint],
    health: Sequence[BaseRoute],
) -> Starlette:
    """All routes of the public port. `others`: endpoints of the API that have something running
    behind them."""
    viewers = viewer_api.endpoints(demo=settings.demo)
    endpoints = (*host_api.ENDPOINTS, *viewers, *others)
    routes: list[BaseRoute] = [
        WebSocketRoute("/ws/{show_id}", watch.enter),
        WebSocketRoute("/{path:path}", watch.nowhere),
        *(endpoint.route() for endpoint in endpoints),
        openapi_route(endpoints),
        payments.route(),
        *health,
        *make_pages(settings, stores).routes(),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders)],
        max_body_size=limits.BODY_BYTES_MAX,
    )
    app.state.secret = settings.require_secret()
    app.state.host_acts = HostActs(
        *(stores.pool, stores.stock, stores.rooms, stores.clock),
        webhook_allow_private=settings.webhook_allow_private,
    )
    return app


def make_pages(settings: Settings, stores: Stores) -> Pages:
    live = Shared(lambda: front.live_shows(stores.pool, LISTED_MAX), SHARED_SECONDS)
    video = VideoOrigins(stores.rooms.playback_url, settings.media_origins)
    return Pages(live, video=video)


def make_health(settings: Settings, stores: Stores, hub: Hub, admission: Admission) -> Health:
    """What must work for this process to be ready."""

    async def lets_viewers_in() -> None:
        if admission.draining:
            raise NotReady("the process is stopping")
        if admission.is_full:
            raise NotReady("the process has as many viewers as it may have")

    async def feed_is_heard() -> None:
        now = hub.loop.time()
        if any(now - room.heard_at > FEED_SILENT_SECONDS for room in hub.rooms.values()):
            raise NotReady("a room hears nothing from Redis")

    async def redis_works() -> None:
        await command(stores.clients.commands, "PING")
        if not settings.demo:  # it may have been restarted with other settings
            await require_as_set(stores.clients.commands, settings)

    return Health(
        {
            "redis": Shared(redis_works, SHARED_SECONDS),
            "postgresql": Shared(lambda: front.answers(stores.pool), SHARED_SECONDS),
            "feed": feed_is_heard,
            "door": lets_viewers_in,
        },
        settings.metrics_token.get_secret_value(),
    )


def watch_gauges(hub: Hub, desks: Desks) -> None:
    """Gauges that are read when somebody scrapes."""
    metrics.watch_gauge(metrics.viewers, lambda: hub.viewers)
    metrics.watch_gauge(metrics.viewers_behind, lambda: hub.behind)
    for share in QUANTILES:
        gauge = metrics.staleness_recent.labels(share)
        metrics.watch_gauge(gauge, partial(hub.recent_staleness, share))
    metrics.watch_gauge(metrics.rooms, lambda: len(hub.rooms))
    metrics.watch_gauge(metrics.tasks, lambda: len(asyncio.all_tasks(hub.loop)))
    metrics.watch_gauge(metrics.claims_waiting, lambda: desks.claims.waiting)
    metrics.watch_gauge(metrics.holds_open, lambda: desks.holds.open)


async def sweep_paces(commands: Commands) -> None:
    """Forget the paces of users long gone, for ever."""
    while True:
        await asyncio.sleep(PACES_SWEEP_SECONDS)
        commands.forget_idle_paces(clock.monotonic_ms())
