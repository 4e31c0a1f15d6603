"""Connections to Redis: commands, Pub/Sub and blocking reads never share one.

What redis-py would do by itself and we must not have:

- repeating a command after a lost reply: a script would run twice without anybody knowing.
  Every script here may be repeated, but it is the caller who decides that;
- maintenance notifications: they switch off the pool's check for connections with unread bytes;
- one socket timeout for everything: a blocking read or a silent channel is no fault.

One server, a primary behind Sentinels and a Cluster look alike from here on (address.py tells them
apart); what a Cluster needs is in cluster.py.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from server.errors import Misconfigured, StoreDamaged, StoreUnavailable
from server.store.address import Place, parse_address
from server.store.cluster import ClusterRedis, SlotMap
from server.store.sentinel import PrimaryPool
from server.store.types import ServerFacts

CONNECTIONS_MAX = 64
COMMAND_SECONDS = 2.0
BLOCKING_SECONDS = 15.0  # blocking reads must ask for less
CONNECT_SECONDS = 2.0
MAP_SECONDS = 1.0  # for a server of a Cluster to tell who has which slot
VERSION_MIN = (7, 0, 0)
EVICTS = "maxmemory-policy must be noeviction: evicting a key would sell units twice"

# What Redis says of a key of another type, and of a Lua error, like CORRUPT of our scripts.
_DAMAGE: Final = re.compile(r"WRONGTYPE |(ERR )?user_script:\d+: ")

# How the RuntimeError begins that uvloop raises for a write to a connection which was reset just
# before; asyncio's own loop lets the next read say it, with an OSError.
_CLOSED: Final = "unable to perform operation on "


@contextmanager
def redis_errors() -> Iterator[None]:
    """Whatever goes wrong with Redis inside becomes StoreUnavailable: the effect is unknown; or
    StoreDamaged.

    Before Python 3.12 a cancellation gets lost in asyncio.wait_for, which redis-py uses, when it
    comes at the moment of success; here it is raised again.
    """
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        damaged = isinstance(error, ResponseError) and _DAMAGE.match(str(error))
        unavailable = StoreDamaged if damaged else StoreUnavailable
        raise unavailable(f"{type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if not str(error).startswith(_CLOSED):
            raise
        raise StoreUnavailable(f"the connection is closed: {error}") from error
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def command(client: "aioredis.Redis", *words: Any) -> Any:
    """One command; the reply as redis-py parses it. Raises StoreUnavailable (effect unknown)."""
    with redis_errors():
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def commands(client: "aioredis.Redis", *calls: Sequence[Any]) -> list[Any]:
    """Commands in one round trip, those of one show on one connection; nothing keeps others from
    running between them. Raises StoreUnavailable when one failed (the effect of all is unknown)."""
    if isinstance(client, ClusterRedis):
        with redis_errors():
            return await client.together(calls)
    pipeline = client.pipeline(transaction=False)
    for words in calls:
        pipeline.execute_command(*words)
    with redis_errors():
        return await pipeline.execute()


def server_of(client: "aioredis.Redis", key: str) -> "aioredis.Redis":
    """A client of the very server that has this key: for commands without a key."""
    return client.server_of(key) if isinstance(client, ClusterRedis) else client


async def primaries(client: "aioredis.Redis") -> "list[aioredis.Redis]":
    """Clients of every server that has keys. Raises StoreUnavailable."""
    if not isinstance(client, ClusterRedis):
        return [client]
    with redis_errors():
        return await client.primaries()


class RedisClients:
    """The ways to Redis. `commands` is shared by everybody in the process.

    In a Cluster every key and channel of a show is in one slot, so on one server, and has a place;
    elsewhere there is only one place: None.
    """

    def __init__(self, url: str) -> None:
        self._address = parse_address(url)
        self._slots: SlotMap | None = None
        if self._address.kind == "cluster":
            self._slots = SlotMap(
                self._address.places, lambda place: self._server(place, 1, MAP_SECONDS)
            )
        self.commands = self._client(CONNECTIONS_MAX, COMMAND_SECONDS)
        self._pubsub = self._client(CONNECTIONS_MAX, None)

    @classmethod
    async def open(cls, url: str) -> "RedisClients":
        """Connect and PING. Raises Misconfigured for a bad URL, StoreUnavailable otherwise."""
        try:
            clients = cls(url)
        except ValueError as error:
            raise Misconfigured(f"REDIS_URL: {error}") from None
        try:
            await command(clients.commands, "PING")
        except StoreUnavailable:
            await clients.aclose()
            raise
        return clients

    def _client(self, connections: int, timeout: float | None) -> "aioredis.Redis":
        if self._slots is None:
            return self._server(None, connections, timeout)
        return ClusterRedis(self._slots, lambda place: self._server(place, connections, timeout))

    def _server(
        self, place: Place | None, connections: int, timeout: float | None
    ) -> "aioredis.Redis":
        """A client of the server at `place`, or of the only one."""
        options: dict[str, Any] = {
            "max_connections": connections,
            "timeout": COMMAND_SECONDS,
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": CONNECT_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            **self._address.options,
        }
        if self._address.kind == "sentinel":
            return aioredis.Redis.from_pool(PrimaryPool(self._address, **options))
        if place is not None:
            options |= {"host": place[0], "port": place[1]}
        return aioredis.Redis.from_pool(aioredis.BlockingConnectionPool(**options))

    def place_of(self, channel: str) -> Place | None:
        """Where the channel is heard, as far as is known."""
        return None if self._slots is None else self._slots.place_of(channel)

    async def look_again(self, failure: StoreUnavailable) -> None:
        """Find out where everything is now, after a subscription failed so."""
        cause = failure.__cause__
        if self._slots is None:
            return
        if isinstance(cause, MovedError) and cause.host:
            self._slots.learn(cause.slot_id, (cause.host, cause.port))
        else:
            with suppress(StoreUnavailable), redis_errors():
                await self._slots.refresh()

    async def places_changed(self) -> None:
        """Wait until place_of() may say something else. For one waiter."""
        if self._slots is None:
            await asyncio.Event().wait()
        else:
            await self._slots.changed.wait()
            self._slots.changed.clear()

    def new_pubsub(self, place: Place | None = None) -> PubSub:
        """A Pub/Sub connection of its own, in a Cluster to the server at `place`; the caller
        closes it."""
        client = self._pubsub
        if place is not None and isinstance(client, ClusterRedis):
            client = client.server(place)
        return client.pubsub()

    def new_blocking(self) -> "aioredis.Redis":
        """A client with one connection of its own for blocking reads; the caller closes it."""
        return self._client(1, BLOCKING_SECONDS)

    async def aclose(self) -> None:
        if self._slots is not None:
            await self._slots.aclose()
        await self.commands.aclose()
        await self._pubsub.aclose()

    async def check_server(self) -> ServerFacts:
        """The facts of the oldest server. Raises Misconfigured when stock is not safe with one of
        them, StoreUnavailable."""
        facts = [await _checked(server) for server in await primaries(self.commands)]
        return min(facts, key=lambda one: one.version)


async def _checked(server: "aioredis.Redis") -> ServerFacts:
    info = await command(server, "INFO")
    facts = server_facts(info)
    if facts.version < VERSION_MIN:
        found = ".".join(map(str, facts.version))
        raise Misconfigured(f"Redis >= 7.0 or Valkey >= 7.2 is needed, this is {found}")
    if may_evict(info):
        raise Misconfigured(EVICTS)
    return facts


def may_evict(info: dict[str, object]) -> bool:
    """Whether the server of an INFO reply drops keys when its memory is full."""
    return info.get("maxmemory_policy") != "noeviction"


def server_facts(info: dict[str, object]) -> ServerFacts:
    """The facts in an INFO reply."""
    major, minor, patch, *_ = [*str(info["redis_version"]).split("."), "0", "0"]
    return ServerFacts(
        software=str(info.get("server_name", "redis")),
        version=(int(major), int(minor), int(patch)),
        cluster=bool(info.get("cluster_enabled")),
    )
