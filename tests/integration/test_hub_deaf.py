"""A hub whose Pub/Sub connection breaks, or goes silent without breaking, on a real Redis.

The proxy between them stands for the network: for a connection that has subscribed it can stop
passing on what Redis says, with both ends still open.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from server.hub.feed import BEAT_SECONDS, DEAF_SECONDS
from server.hub.hub import Hub
from server.hub.ports import HubSettings, Ports
from server.hub.room import Room
from server.store.bus import Bus
from server.store.client import RedisClients
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from server.store.scripts import Scripts
from tests.hub_world import FakeTransport, connect, until
from tests.shop import SHOW, Shop, open_shop


@dataclass
class Network:
    """A proxy on a unix socket before the Redis at `url`."""

    url: str
    path: Path
    silent: set[asyncio.StreamWriter] = field(default_factory=set)  # nothing is passed on to them
    subscribers: list[asyncio.StreamWriter] = field(default_factory=list)
    _links: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def up(self) -> AsyncIterator[str]:
        server = await asyncio.start_unix_server(self._accept, str(self.path))
        try:
            yield f"unix://{self.path}"
        finally:
            server.close()
            for link in self._links:
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)

    def black_hole(self) -> None:
        """From now on nothing reaches those who have subscribed so far."""
        self.silent.update(self.subscribers)

    def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self._links.add(asyncio.create_task(self._link(reader, client)))

    async def _link(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        answers, server = await self._dial()
        back = asyncio.create_task(self._pump_back(answers, client))
        try:
            while data := await reader.read(65_536):
                if b"SSUBSCRIBE" in data.upper() and client not in self.subscribers:
                    self.subscribers.append(client)
                server.write(data)
        finally:
            back.cancel()
            for end in (server, client):
                end.close()
            await asyncio.gather(back, *(end.wait_closed() for end in (server, client)),
                                 return_exceptions=True)  # fmt: skip

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        there = urlsplit(self.url)
        if there.scheme == "unix":
            return await asyncio.open_unix_connection(there.path)
        return await asyncio.open_connection(there.hostname, there.port)

    async def _pump_back(self, answers: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await answers.read(65_536):
            if client not in self.silent:
                client.write(data)


@asynccontextmanager
async def hub_on(url: str) -> AsyncIterator[Hub]:
    clients = await RedisClients.open(url)
    bus, redis_clock = Bus(clients), RedisClock(clients.commands)
    ports = Ports(RoomStore(Scripts(clients.commands)), bus, redis_clock)
    hub = Hub("hub1", ports, HubSettings(tick_ms=20), lambda viewer, command: None)
    await hub.start()
    try:
        yield hub
    finally:
        await hub.stop()
        await bus.aclose()
        await clients.aclose()


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        yield shop


async def watched(hub: Hub) -> tuple[Room, FakeTransport]:
    """The show's room with one viewer, once the hub has heard itself."""
    room = await hub.room(SHOW)
    assert room is not None
    _, screen = connect(room)
    opened = room.heard_at
    await until(lambda: room.heard_at > opened)
    screen.take_messages()
    return room, screen


def texts(screen: FakeTransport) -> list[str]:
    """Commentary shown since the last call."""
    messages = screen.take_messages()
    return [event["text"] for m in messages for event in m.get("events", [])]


async def test_hub_when_its_subscription_is_killed_then_nothing_is_missed(
    shop: Shop, redis_url: str
) -> None:
    async with hub_on(redis_url) as hub:
        room, screen = await watched(hub)
        await shop.clients.commands.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        for number in range(3):
            text = {"text": str(number)}
            await shop.room.publish_event(SHOW, "commentary", text, f"act-{number}")
        seen: list[str] = []
        await until(lambda: seen.extend(texts(screen)) or len(seen) == 3)  # type: ignore[func-returns-value]
        assert seen == ["0", "1", "2"]
        heard = room.heard_at
        await until(lambda: room.heard_at > heard)


async def test_hub_when_its_subscription_goes_silent_then_it_reconnects_and_nothing_is_missed(
    shop: Shop, redis_url: str, servers_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.feed.HEAL_SECONDS", 1_000)  # healing would hide the deafness
    network = Network(redis_url, servers_directory / "net")
    async with network.up() as url, hub_on(url) as hub:
        room, screen = await watched(hub)
        network.black_hole()
        heard = room.heard_at
        await shop.room.publish_event(SHOW, "commentary", {"text": "lost"}, "act-1")
        seen: list[str] = []
        await until(lambda: seen.extend(texts(screen)) or seen)  # type: ignore[func-returns-value]
        assert seen == ["lost"]
        assert set(network.subscribers) - network.silent, "still the old connection"
        await until(lambda: room.heard_at > heard)
        await shop.room.publish_event(SHOW, "commentary", {"text": "live"}, "act-2")
        await until(lambda: texts(screen) == ["live"])


def test_deafness_when_it_begins_then_it_is_found_within_three_seconds() -> None:
    assert DEAF_SECONDS + BEAT_SECONDS <= 3
