"""People over all hubs, whatever happens to hubs, calls, answers and Redis: always exact again."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server import limits
from server.hub.presence import TTL_MS
from server.store import keys
from tests.shop import SHOW
from tests.watching import BEAT_MS, Building, Floor, open_building, timeless

HUBS = st.integers(0, 2)
USERS = st.lists(st.sampled_from([f"u{n}" for n in range(24)] + ["张三"]), min_size=1, max_size=12)
KEYS = (keys.presence, keys.people, keys.room)
LISTPACK = "hash-max-listpack-entries"

plans = st.lists(
    st.one_of(
        st.tuples(st.just("come"), HUBS, USERS),
        st.tuples(st.just("come"), HUBS, USERS),
        st.tuples(st.just("go"), HUBS, USERS),
        st.tuples(st.just("strangers"), HUBS, st.integers(0, 3)),
        st.tuples(st.just("round")),
        st.tuples(st.just("quiet")),
        st.tuples(st.just("beat"), HUBS,
                  st.lists(st.sampled_from(["", "lost", "unheard"]), max_size=4)),
        st.tuples(st.just("late"), st.integers(0, 1_000)),
        st.tuples(st.just("wait"), st.sampled_from([1, 2_000, 7_000, 700_000])),
        st.tuples(st.just("kill"), HUBS),
        st.tuples(st.just("lose"), st.sets(st.sampled_from(range(len(KEYS))), min_size=1)),
        st.tuples(st.just("copy")),
        st.tuples(st.just("restore")),
    ),
    max_size=40,
)  # fmt: skip


class Run:
    """Carries out a plan. `has_ghosts`: maybe a dead hub is still counted, as it may for a TTL."""

    def __init__(self, building: Building) -> None:
        self.building = building
        self.commands = building.shop.clients.commands
        self.copied: dict[str, bytes | None] | None = None
        self.has_ghosts = False

    def floor(self, number: int) -> Floor:
        return self.building.floors[number]

    async def step(self, name: str, *args: Any) -> None:
        await getattr(self, name)(*args)

    async def come(self, number: int, users: list[str]) -> None:
        floor = self.floor(number)
        floor.come(*(user for user in dict.fromkeys(users) if user not in floor.users))

    async def go(self, number: int, users: list[str]) -> None:
        floor = self.floor(number)
        floor.go(*(user for user in dict.fromkeys(users) if user in floor.users))

    async def strangers(self, number: int, count: int) -> None:
        self.floor(number).anonymous = count

    async def beat(self, number: int, faults: list[str]) -> None:
        floor = self.floor(number)
        floor.faults = list(faults)
        await self.building.beat([floor])
        floor.faults = []

    async def round(self) -> None:
        """One beat of each hub that is heard and answered."""
        await self.building.wait(BEAT_MS)
        await self.building.beat()
        if not self.has_ghosts:
            await self.assert_exact()

    async def quiet(self) -> None:
        """Nothing but beats for a TTL."""
        await self.building.live(TTL_MS + BEAT_MS)
        self.has_ghosts = False
        await self.assert_exact()

    async def late(self, which: int) -> None:
        """A call arrives that was given up long ago, or twice."""
        calls = [*self.building.past, *(call for f in self.building.floors for call in f.calls)]
        if calls:
            call = calls[which % len(calls)]
            self.has_ghosts |= call in self.building.past
            await self.building.shop.room.report_presence(*call)

    async def wait(self, ms: int) -> None:
        await self.building.wait(ms)

    async def kill(self, number: int) -> None:
        self.building.kill(self.floor(number))
        self.building.add_hub()
        self.has_ghosts = True

    async def lose(self, which: set[int]) -> None:
        await self.commands.delete(*(KEYS[n](SHOW) for n in which))

    async def copy(self) -> None:
        self.copied = {key(SHOW): await self.commands.dump(key(SHOW)) for key in KEYS}

    async def restore(self) -> None:
        """As after a fail-over that lost the last writes, or from a backup."""
        for name, value in (self.copied or {}).items():
            await self.commands.delete(name)
            if value is not None:
                await self.commands.restore(name, 0, value)
        self.has_ghosts |= bool(self.building.past)

    async def assert_exact(self) -> None:
        building = self.building
        listed = {user for floor in building.floors for user in floor.users}
        assert await building.listed() == {
            user: {f.hub.hub_id for f in building.floors if user in f.users} for user in listed
        }
        assert await building.shown() == building.people


@pytest.fixture(autouse=True)
def small_portions(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Reports of 3 users; passes over people that have parts even where these are few."""
    monkeypatch.setattr(limits, "PRESENCE_PORTION_MAX", 3)
    timeless.cache_clear()
    with redis.Redis.from_url(redis_url) as client:
        before = client.config_get(LISTPACK)[LISTPACK]
        client.config_set(LISTPACK, 0)
        yield
        client.config_set(LISTPACK, before)
    timeless.cache_clear()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plan=plans)
def test_presence_when_anything_happens_then_it_is_exact_after_a_beat_and_a_ttl(
    redis_url: str, plan: list[tuple[Any, ...]]
) -> None:
    asyncio.run(_follow(redis_url, plan))


async def _follow(redis_url: str, plan: list[tuple[Any, ...]]) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    async with open_building(redis_url, hubs=3) as building:
        run = Run(building)
        for step in plan:
            await run.step(*step)
        await run.quiet()
