"""People on several hubs, told to a real Redis by the hubs' own code: no sockets, a clock by hand.

A `Floor` is the room of one hub as server/hub/presence.py sees it, with a line to Redis on which
calls and answers can be lost; `Building` has the floors, the clock and what is true.
"""

import hashlib
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from server.domain.presence import PresenceAnswer, PresenceReport
from server.errors import StoreUnavailable
from server.hub.presence import Presence
from server.store import keys, scripts
from tests.shop import SHOW, Shop, open_shop

START_MS = 1_790_000_000_000
BEAT_MS = 2_000
LOAD = scripts.load


@cache
def timeless(name: str) -> scripts.Script:
    """The script, its time from a key."""
    source = LOAD.__wrapped__(name).source  # with the limits of now
    source = source.replace("redis.call('TIME')", "redis.call('HMGET','clock','s','u')")
    return scripts.Script(source, hashlib.sha1(source.encode()).hexdigest())


class Floor:
    """Stands for a Room and its hub's store. `faults` of the next calls: lost, unheard or ''."""

    def __init__(self, building: "Building", hub_id: str) -> None:
        self.show_id = SHOW
        self.users: dict[str, None] = {}
        self.anonymous = 0
        self.faults: list[str] = []
        self.calls: list[tuple[str, str, PresenceReport, int]] = []
        self._store = building.shop.room
        self.hub: Any = SimpleNamespace(
            hub_id=hub_id,
            numbers=itertools.count(1),
            loop=SimpleNamespace(time=lambda: building.now_ms / 1_000),
            ports=SimpleNamespace(store=self),
        )
        self.presence = Presence(self)  # type: ignore[arg-type]

    def come(self, *users: str) -> None:
        for user in users:
            self.users[user] = None
            self.presence.changed(user)

    def go(self, *users: str) -> None:
        for user in users:
            del self.users[user]
            self.presence.changed(user)

    async def report_presence(self, *call: Any) -> PresenceAnswer:
        self.calls.append(call)  # type: ignore[arg-type]
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "lost":
            raise StoreUnavailable("lost")
        answer = await self._store.report_presence(*call)
        if fault == "unheard":
            raise StoreUnavailable("unheard")
        return answer


class Building:
    """Made by `open_building`. `floors` are the hubs alive, `past` all calls of dead ones."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.now_ms = START_MS
        self.floors: list[Floor] = []
        self.past: list[Any] = []
        self._ids = (f"hub{n}" for n in itertools.count(1))

    def add_hub(self) -> Floor:
        floor = Floor(self, next(self._ids))
        self.floors.append(floor)
        return floor

    def kill(self, floor: Floor) -> None:
        self.floors.remove(floor)
        self.past += floor.calls

    async def wait(self, ms: int) -> None:
        self.now_ms += ms
        clock = {"s": self.now_ms // 1_000, "u": self.now_ms % 1_000 * 1_000}
        await self.shop.clients.commands.hset("clock", mapping=clock)

    async def beat(self, floors: Sequence[Floor] | None = None) -> None:
        for floor in self.floors if floors is None else floors:
            with suppress(StoreUnavailable):
                await floor.presence.tell()

    async def live(self, ms: int) -> None:
        """Let `ms` pass, with the beats of the hubs."""
        for _ in range(ms // BEAT_MS):
            await self.wait(BEAT_MS)
            await self.beat()

    @property
    def people(self) -> int:
        """What is true."""
        users = {user for floor in self.floors for user in floor.users}
        return len(users) + sum(floor.anonymous for floor in self.floors)

    async def shown(self) -> int:
        """What viewers are told."""
        snapshot = await self.shop.room.snapshot(SHOW)
        assert snapshot is not None
        people: int = snapshot.state["online"]["people"]
        return people

    async def listed(self) -> dict[str, set[str]]:
        """User -> hubs, as Redis has them."""
        found = await self.shop.clients.commands.hgetall(keys.people(SHOW))
        return {user.decode(): set(hubs.decode().split()) for user, hubs in found.items()}


@asynccontextmanager
async def open_building(redis_url: str, hubs: int) -> AsyncIterator[Building]:
    with patch.object(scripts, "load", timeless):
        async with open_shop(redis_url) as shop:
            building = Building(shop)
            await building.wait(0)
            await shop.open_show()
            for _ in range(hubs):
                building.add_hub()
            yield building
