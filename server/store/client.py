"""Connections to Redis: commands, Pub/Sub and blocking reads never share one.

What redis-py would do by itself and we must not have:

- repeating a command after a lost reply: a script would run twice without anybody knowing.
  Every script here may be repeated, but it is the caller who decides that;
- maintenance notifications: they switch off the pool's check for connections with unread bytes;
- one socket timeout for everything: a blocking read or a silent channel is no fault.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.maint_notifications import MaintNotificationsConfig

from server.errors import Misconfigured, StoreDamaged, StoreUnavailable
from server.store.types import ServerFacts

CONNECTIONS_MAX = 64
COMMAND_SECONDS = 2.0
BLOCKING_SECONDS = 15.0  # blocking reads must ask for less
CONNECT_SECONDS = 2.0
VERSION_MIN = (7, 0, 0)
EVICTS = "maxmemory-policy must be noeviction: evicting a key would sell units twice"

# What Redis says of a key of another type, and of a Lua error, like CORRUPT of our scripts.
_DAMAGE: Final = re.compile(r"WRONGTYPE |(ERR )?user_script:\d+: ")


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
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def command(client: "aioredis.Redis", *words: Any) -> Any:
    """One command; the reply as redis-py parses it. Raises StoreUnavailable (effect unknown)."""
    with redis_errors():
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def commands(client: "aioredis.Redis", *calls: Sequence[Any]) -> list[Any]:
    """Commands on one connection in one round trip; nothing keeps others from running between
    them. Raises StoreUnavailable when one failed (the effect of all is unknown)."""
    pipeline = client.pipeline(transaction=False)
    for words in calls:
        pipeline.execute_command(*words)
    with redis_errors():
        return await pipeline.execute()


class RedisClients:
    """The ways to one server. `commands` is a pool shared by everybody in the process.

    Cluster: every key and channel of a show is in one slot and every script names them all, so
    `commands` can become a RedisCluster; Pub/Sub then needs a reader for each node (bus.py).
    """

    def __init__(self, url: str) -> None:
        self._url = url
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
        pool = aioredis.BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections,
            timeout=COMMAND_SECONDS,
            protocol=2,
            socket_timeout=timeout,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        return aioredis.Redis.from_pool(pool)

    def new_pubsub(self) -> PubSub:
        """A Pub/Sub connection of its own; the caller closes it."""
        return self._pubsub.pubsub()

    def new_blocking(self) -> "aioredis.Redis":
        """A client with one connection of its own for blocking reads; the caller closes it."""
        return self._client(1, BLOCKING_SECONDS)

    async def aclose(self) -> None:
        await self.commands.aclose()
        await self._pubsub.aclose()

    async def check_server(self) -> ServerFacts:
        """Raises Misconfigured when stock is not safe with this server, StoreUnavailable."""
        info = await command(self.commands, "INFO")
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
