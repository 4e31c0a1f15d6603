"""Facts from Redis to this hub, over one sharded Pub/Sub connection.

Pub/Sub loses what is published while a connection is down, and redis-py subscribes again without
saying so. Here every confirmation of a subscription, also a repeated one, becomes a Resync: the
room then reads a snapshot. A connection that is deaf without knowing it is found by the heartbeats
the hub sends through the channel; it calls reconnect().

Cluster: a node serves the channels of its slots only, so there this becomes one connection for
each node; nothing outside this module would change.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio.client import PubSub

from server import clock
from server.errors import StoreUnavailable
from server.protocol.facts import Fact, Resync, decode_fact
from server.store import keys
from server.store.client import RedisClients, redis_errors

RETRY_MS_MIN: Final = 50
RETRY_MS_MAX: Final = 500  # below limits.REBUILD_GRACE_MS: hubs are waited for
OPEN_SECONDS: Final = 5.0  # to connect, be greeted and subscribe to all that is wanted

log = structlog.get_logger()


class Bus:
    """Subscriptions of one hub. One consumer iterates facts(); anybody may (un)subscribe."""

    def __init__(self, clients: RedisClients) -> None:
        self._clients = clients
        self._channels: dict[bytes, str] = {}  # wanted channel -> show
        self._of_show: dict[str, tuple[str, str]] = {}  # show -> its channels, the bus last
        self._wanted = asyncio.Event()  # there is a channel to listen to
        self._lock = asyncio.Lock()  # one writer at a time
        self._pubsub: PubSub | None = None  # None: not connected
        self._closed = False

    # --- Subscriptions -----------------------------------------------------------------------

    async def subscribe(self, show_id: str, hub_id: str) -> None:
        """Ask for a show's facts. A Resync comes once they flow; while Redis is away this returns
        too, and the Resync comes when it is back."""
        channels = (keys.hub_channel(show_id, hub_id), keys.bus_channel(show_id))
        async with self._lock:
            self._of_show[show_id] = channels
            self._channels.update((channel.encode(), show_id) for channel in channels)
            self._wanted.set()
            await self._send("ssubscribe", channels)

    async def unsubscribe(self, show_id: str) -> None:
        """No more facts of this show, except those already received."""
        async with self._lock:
            channels = self._of_show.pop(show_id, ())
            for channel in channels:
                self._channels.pop(channel.encode(), None)
            if channels:
                await self._send("sunsubscribe", channels)

    async def _send(self, what: str, channels: tuple[str, ...]) -> None:
        """Failing is no matter: the reader notices too and subscribes to all that is wanted."""
        if self._pubsub is None:
            return
        try:
            with redis_errors():
                await getattr(self._pubsub, what)(*channels)
        except StoreUnavailable as error:
            log.warning("bus_send_failed", what=what, error=str(error))

    async def reconnect(self) -> None:
        """Drop the connection, because its silence shows that it is deaf. Resyncs follow."""
        connection = self._pubsub.connection if self._pubsub else None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def aclose(self) -> None:
        """End facts()."""
        self._closed = True
        self._wanted.set()
        await self.reconnect()

    # --- Reading -----------------------------------------------------------------------------

    async def facts(self) -> AsyncIterator[tuple[str, Fact | Resync]]:
        """(show id, fact) until aclose(), for one consumer. Connects again by itself."""
        retry_ms = RETRY_MS_MIN
        while not self._closed:
            try:
                await self._connect()
                while not self._closed:
                    fact = self._fact_of(await self._next_message())
                    retry_ms = RETRY_MS_MIN
                    if fact is not None:
                        yield fact
            except StoreUnavailable as error:
                if not self._closed:
                    log.warning("bus_lost", error=str(error), retry_ms=retry_ms)
            finally:
                await self._disconnect()
            if not self._closed:
                await asyncio.sleep(clock.jittered(retry_ms) / 1_000)
                retry_ms = min(RETRY_MS_MAX, 2 * retry_ms)

    async def _connect(self) -> None:
        await self._wanted.wait()
        async with self._lock:
            pubsub = self._clients.new_pubsub()
            self._pubsub = pubsub
            with redis_errors():  # a server that accepts and then says nothing must not hold us
                async with asyncio.timeout(OPEN_SECONDS):
                    await pubsub.connect()  # type: ignore[no-untyped-call]
                    for channels in self._of_show.values():  # one slot each: not in one command
                        await pubsub.ssubscribe(*channels)

    async def _disconnect(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def _next_message(self) -> dict[str, Any] | None:
        if self._pubsub is None:
            raise StoreUnavailable("not connected")
        with redis_errors():
            message: dict[str, Any] | None = await self._pubsub.get_message(timeout=None)
        return message

    def _fact_of(self, message: dict[str, Any] | None) -> tuple[str, Fact | Resync] | None:
        """What a message means for a show we still want; None when nothing."""
        show_id = self._channels.get(message["channel"]) if message else None
        if message is None or show_id is None:
            return None
        if message["type"] == "smessage":
            return show_id, _decode(show_id, message["data"])
        if message["type"] == "sunsubscribe":  # a Cluster moved the slot
            raise StoreUnavailable("the server ended a subscription")
        if message["channel"] == keys.bus_channel(show_id).encode():
            return show_id, Resync("subscribed")
        return None


def _decode(show_id: str, payload: bytes) -> Fact | Resync:
    try:
        return decode_fact(payload)
    except msgspec.DecodeError as error:
        log.error("bus_fact_unreadable", show_id=show_id, error=str(error))
        return Resync("unreadable fact")
