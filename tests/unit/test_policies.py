"""Chat policies: read in time, compiled once, kept when Redis is away; hosts of shows."""

import asyncio
from typing import Any, cast

import pytest

from server import clock
from server.domain.identity import Identity
from server.errors import RecordsUnavailable, StoreUnavailable
from server.hub.room import Room
from server.records.pool import Pool
from server.store.types import ChatPolicy
from server.web import crew, policies
from server.web.crew import Crew
from server.web.policies import Policies
from tests.hub_fakes import FakeRoom, FakeViewer


class FakeStore:
    def __init__(self) -> None:
        self.policy = ChatPolicy()
        self.reads = 0
        self.away = False

    async def read_policy(self, show_id: str) -> ChatPolicy:
        self.reads += 1
        if self.away:
            raise StoreUnavailable("away")
        return self.policy


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def a_room() -> tuple[FakeRoom, Room]:
    room = FakeRoom()
    return room, cast(Room, room)


async def test_rules_when_a_room_opens_then_they_are_read_once(store: FakeStore) -> None:
    kept = Policies(store)
    _, room = a_room()
    store.policy = ChatPolicy(version=3, words=("坏",))
    assert not kept.of(room).words.refuses("坏")
    await kept.ensure(room)
    await kept.ensure(room)
    assert store.reads == 1
    assert kept.of(room).words.refuses("坏")


async def test_rules_when_redis_is_away_then_the_old_ones_stay(store: FakeStore) -> None:
    kept = Policies(store)
    _, room = a_room()
    store.away = True
    with pytest.raises(StoreUnavailable):
        await kept.ensure(room)
    store.away = False
    store.policy = ChatPolicy(version=1, slow_mode_s=9)
    await kept.ensure(room)
    store.away = True
    kept.refresh(room)
    await asyncio.sleep(0.01)
    assert kept.of(room).policy.slow_mode_s == 9


async def test_rules_when_only_mutes_change_then_the_words_are_not_compiled_again(
    store: FakeStore,
) -> None:
    kept = Policies(store)
    _, room = a_room()
    store.policy = ChatPolicy(version=1, words=("坏",))
    await kept.ensure(room)
    words = kept.of(room).words
    store.policy = ChatPolicy(version=2, words=("坏",), muted={"u1": 5})
    kept.refresh(room)
    await asyncio.sleep(0.01)
    assert kept.of(room).words is words
    assert kept.of(room).policy.muted == {"u1": 5}


async def test_ban_when_it_is_read_then_the_connections_of_the_user_end(store: FakeStore) -> None:
    kept = Policies(store)
    fake, room = a_room()
    banned, other = FakeViewer(fake, "u1"), FakeViewer(fake, "u2")
    await kept.ensure(room)
    store.policy = ChatPolicy(version=2, bans={"u1": 7})
    kept.refresh(room)
    await asyncio.sleep(0.01)
    assert (banned.closed, other.closed) == ([4403], [])


async def test_rules_when_they_are_read_then_the_room_hears_where_they_were_asked_for(
    store: FakeStore,
) -> None:
    kept = Policies(store)
    fake, room = a_room()
    store.policy = ChatPolicy(version=1, bans={"u1": 7})
    fake.position = 3
    await kept.ensure(room)
    fake.position = 4
    kept.refresh(room)  # the same again counts for what was removed meanwhile
    await asyncio.sleep(0.01)
    assert fake.believed == [(3, {"u1"}), (4, {"u1"})]


async def test_rules_when_a_room_opens_again_then_they_are_read_anew(store: FakeStore) -> None:
    kept = Policies(store)
    await kept.ensure(a_room()[1])
    store.policy = ChatPolicy(version=2, bans={"u1": 7})
    _, room = a_room()
    await kept.ensure(room)
    assert kept.banned_in(room) == {"u1"}


async def test_keep_fresh_when_facts_are_lost_then_the_rules_still_change(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "REFRESH_SECONDS", 0.01)
    kept = Policies(store)
    _, room = a_room()
    await kept.ensure(room)
    rooms = [room]
    task = asyncio.create_task(kept.keep_fresh(lambda: rooms))
    store.policy = ChatPolicy(version=2, slow_mode_s=5)
    async with asyncio.timeout(5):
        while kept.of(room).policy.slow_mode_s != 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        rooms.clear()
        while kept.of(room).policy.slow_mode_s == 5:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    task.cancel()


# --- Hosts ------------------------------------------------------------------------------------


def identity(user: str, role: Any = "host", show: str = "*") -> Identity:
    return Identity(user, user, role, show, 2**50)


class Row:
    host_id = "ming"


async def test_role_when_the_host_of_the_show_comes_then_host_else_viewer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = []

    async def read(pool: object, show_id: str) -> Row:
        reads.append(show_id)
        return Row()

    monkeypatch.setattr(crew, "read_show", read)
    known = Crew(cast(Pool, None))
    assert known.role_in("show1", identity("ming")) == "viewer"  # not read yet
    await known.ensure("show1")
    await known.ensure("show1")
    assert reads == ["show1"]
    assert known.role_in("show1", identity("ming")) == "host"
    assert known.role_in("show1", identity("other")) == "viewer"
    assert known.role_in("show1", identity("mo", "moderator", "show1")) == "moderator"
    assert known.role_in("show1", identity("other", "host", "show1")) == "host"


@pytest.mark.parametrize("failure", [RecordsUnavailable("away"), None])
async def test_role_when_postgresql_is_away_or_slow_then_nobody_waits_long(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | None
) -> None:
    async def read(pool: object, show_id: str) -> Row:
        if failure is not None:
            raise failure
        await asyncio.Event().wait()
        return Row()

    monkeypatch.setattr(crew, "read_show", read)
    monkeypatch.setattr(crew, "READ_SECONDS", 0.01)
    known = Crew(cast(Pool, None))
    await known.ensure("show1")
    assert known.role_in("show1", identity("ming")) == "viewer"


async def test_rush_when_many_enter_a_new_room_then_each_server_is_asked_once(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []

    async def read(pool: object, show_id: str) -> Row:
        reads.append(show_id)
        await asyncio.sleep(0)
        return Row()

    monkeypatch.setattr(crew, "read_show", read)
    known, kept = Crew(cast(Pool, None)), Policies(store)
    _, room = a_room()
    await asyncio.gather(*(known.ensure("show1") for _ in range(50)))
    await asyncio.gather(*(kept.ensure(room) for _ in range(50)))
    assert reads == ["show1"]
    assert store.reads == 1


async def test_role_when_postgresql_was_away_then_it_is_asked_again_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = []

    async def read(pool: object, show_id: str) -> Row:
        reads.append(show_id)
        raise RecordsUnavailable("away")

    now = [1_000.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now[0])
    monkeypatch.setattr(crew, "read_show", read)
    known = Crew(cast(Pool, None))
    await known.ensure("show1")
    await known.ensure("show2")
    now[0] += crew.RETRY_MS
    await known.ensure("show2")
    assert reads == ["show1", "show2"]
