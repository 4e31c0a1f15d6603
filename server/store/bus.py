"""Facts from Redis to this hub by sharded Pub/Sub, over one connection for each server that has
shows we want: in a Cluster only the server of a show's slot tells of it.

Pub/Sub loses what is published while a connection is down, and redis-py subscribes again without
saying so. Here every confirmation of a subscription, also a repeated one, becomes a Resync: the
room then reads a snapshot. A connection that is deaf without knowing it is found by the heartbeats
the hub sends through the channel; it calls reconnect().

A server that gives a slot away says sunsubscribe, one that does not have it MOVED, and one that is
gone breaks the connection: each time we look where the shows are now, and subscribe there.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import suppress
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio.client import PubSub

from server import clock
from server.errors import StoreUnavailable
from server.protocol.facts import Fact, Resync, decode_fact
from server.store import keys
from server.store.address import Place
from server.store.client import RedisClients, redis_errors

RETRY_MS_MIN: Final = 50
RETRY_MS_MAX: Final = 500  # below limits.REBUILD_GRACE_MS: hubs are waited for
OPEN_SECONDS: Final = 5.0  # to connect, be greeted and subscribe to all that is wanted
FACTS_WAITING_MAX: Final = 256  # read and not yet taken; then the sockets wait

log = structlog.get_logger()

Told = tuple[str, Fact | Resync]


class _Ear:
    """One Pub/Sub connection, and the shows that are heard there, with their channels."""

    def __init__(self, clients: RedisClients, place: Place | None) -> None:
        self._clients = clients
        self._pubsub: PubSub | None = None  # None: not connected
        self.place = place
        self.shows: dict[str, tuple[str, ...]] = {}
        self.task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Connect and subscribe to all shows. Raises StoreUnavailable."""
        pubsub = self._clients.new_pubsub(self.place)
        try:
            with redis_errors():  # a server that accepts and then says nothing must not hold us
                async with asyncio.timeout(OPEN_SECONDS):
                    await pubsub.connect()  # type: ignore[no-untyped-call]
                    await self._subscribe(pubsub)
        except BaseException:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
            raise
        self._pubsub = pubsub

    async def _subscribe(self, pubsub: PubSub) -> None:
        """Shows may come and go meanwhile. One slot each: not in one command."""
        heard: dict[str, tuple[str, ...]] = {}
        while heard != self.shows:
            wanted = dict(self.shows)
            for show_id in [show_id for show_id in heard if show_id not in wanted]:
                await pubsub.sunsubscribe(*heard[show_id])
            for show_id in [show_id for show_id in wanted if show_id not in heard]:
                await pubsub.ssubscribe(*wanted[show_id])
            heard = wanted

    async def disconnect(self) -> None:
        pubsub, self._pubsub = self._pubsub, None
        if pubsub is not None:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def drop(self) -> None:
        """Let the reader fail, and with it begin anew."""
        connection = self._pubsub.connection if self._pubsub else None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def join(self, show_id: str, channels: tuple[str, ...]) -> None:
        self.shows[show_id] = channels
        await self._send("ssubscribe", channels)

    async def leave(self, show_id: str) -> None:
        if channels := self.shows.pop(show_id, None):
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

    async def next_message(self) -> dict[str, Any] | None:
        if self._pubsub is None:
            raise StoreUnavailable("not connected")
        with redis_errors():
            message: dict[str, Any] | None = await self._pubsub.get_message(timeout=None)
        return message


class Bus:
    """Subscriptions of one hub. One consumer iterates facts(); anybody may (un)subscribe."""

    def __init__(self, clients: RedisClients) -> None:
        self._clients = clients
        self._channels: dict[bytes, str] = {}  # wanted channel -> show
        self._of_show: dict[str, tuple[str, str]] = {}  # show -> its channels, the bus last
        self._ears: dict[Place | None, _Ear] = {}
        self._lock = asyncio.Lock()  # one writer at a time
        self._told: asyncio.Queue[Told | None] | None = None  # None: nobody iterates facts()
        self._failure: BaseException | None = None
        self._closed = False

    # --- Subscriptions -----------------------------------------------------------------------

    async def subscribe(self, show_id: str, hub_id: str) -> None:
        """Ask for a show's facts. A Resync comes once they flow; while Redis is away this returns
        too, and the Resync comes when it is back."""
        channels = (keys.hub_channel(show_id, hub_id), keys.bus_channel(show_id))
        async with self._lock:
            self._of_show[show_id] = channels
            self._channels.update((channel.encode(), show_id) for channel in channels)
            await self._settle(show_id)

    async def unsubscribe(self, show_id: str) -> None:
        """No more facts of this show, except those already received."""
        async with self._lock:
            for channel in self._of_show.pop(show_id, ()):
                self._channels.pop(channel.encode(), None)
            for ear in list(self._ears.values()):
                await ear.leave(show_id)

    async def reconnect(self, shows: Collection[str]) -> None:
        """Drop the connections of these shows, because their silence shows that they are deaf.
        Resyncs follow."""
        for ear in list(self._ears.values()):
            if not ear.shows.keys().isdisjoint(shows):
                await ear.drop()

    async def aclose(self) -> None:
        """End facts()."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        """Let the consumer look up; while facts are waiting for it, it will anyhow."""
        if self._told is not None:
            with suppress(asyncio.QueueFull):
                self._told.put_nowait(None)

    async def _arrange(self) -> None:
        """Hear every wanted show where it is now. The lock is held."""
        for show_id in list(self._of_show):
            await self._settle(show_id)

    async def _settle(self, show_id: str) -> None:
        """Hear one show where it is now, and nowhere else. The lock is held."""
        if self._told is None:
            return
        channels = self._of_show[show_id]
        place = self._clients.place_of(channels[-1])
        here = self._ears.get(place) or self._listen_at(place)
        for ear in list(self._ears.values()):
            if ear is not here:
                await ear.leave(show_id)
        if show_id not in here.shows:
            await here.join(show_id, channels)

    def _listen_at(self, place: Place | None) -> _Ear:
        ear = self._ears[place] = _Ear(self._clients, place)
        ear.task = self._start(self._listen(ear))
        return ear

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_end)
        return task

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (failure := task.exception()):
            self._failure = failure
            self._wake()

    # --- Reading -----------------------------------------------------------------------------

    async def facts(self) -> AsyncIterator[Told]:
        """(show id, fact) until aclose(), for one consumer. Connects again by itself. Raises what
        it did not expect; it may then be called again."""
        self._told, self._failure = asyncio.Queue(FACTS_WAITING_MAX), None
        following = self._start(self._follow())
        try:
            async with self._lock:
                await self._arrange()
            while not self._closed:
                told = await self._told.get()
                if self._failure is not None:
                    raise self._failure
                if told is not None:
                    yield told
        finally:
            self._told = None
            tasks = [following, *(ear.task for ear in self._ears.values() if ear.task)]
            self._ears.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        """In a Cluster: go where the shows go, also when nothing broke."""
        while True:
            await self._clients.places_changed()
            async with self._lock:
                await self._arrange()

    async def _listen(self, ear: _Ear) -> None:
        """Read one connection, and make it anew whenever it fails, while it has shows."""
        retry_ms = RETRY_MS_MIN
        while True:
            try:
                await ear.connect()
                while True:
                    if told := self._fact_of(ear, await ear.next_message()):
                        await self._tell(told)
                    retry_ms = RETRY_MS_MIN
            except StoreUnavailable as error:
                failure = error
                log.warning("bus_lost", error=str(error), retry_ms=retry_ms)
            finally:
                await ear.disconnect()
            await asyncio.sleep(clock.jittered(retry_ms) / 1_000)
            retry_ms = min(RETRY_MS_MAX, 2 * retry_ms)
            if not await self._is_needed(ear, failure):
                return

    async def _is_needed(self, ear: _Ear, failure: StoreUnavailable) -> bool:
        """False when the shows of a connection that failed are elsewhere now: it is forgotten."""
        await self._clients.look_again(failure)
        async with self._lock:
            await self._arrange()
            if ear.shows:
                return True
            self._ears.pop(ear.place, None)
            return False

    async def _tell(self, told: Told) -> None:
        if self._told is not None:
            await self._told.put(told)

    def _fact_of(self, ear: _Ear, message: dict[str, Any] | None) -> Told | None:
        """What a message means for a show we still want there; None when nothing."""
        show_id = self._channels.get(message["channel"]) if message else None
        if message is None or show_id is None or show_id not in ear.shows:
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
