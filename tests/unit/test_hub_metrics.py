"""The hub's counters: each moves when its event happens, and only then."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from server import clock, limits
from server.hub.claims import Mail
from server.hub.hub import Hub
from server.hub.recent import SAMPLES_MAX, Recent
from server.hub.room import Room
from server.hub.tick import Ticker
from server.hub.viewer import Viewer
from server.protocol import frames
from server.protocol.codec import JSON
from server.protocol.messages import Accepted, ChatLine
from tests.hub_world import (
    KEY,
    SHOW,
    FakeTransport,
    SlowLoop,
    World,
    connect,
    flush_all,
    new_hub,
    until,
)
from tests.scrape import Rise

ROOM_WRITES = ("livesale_writes_total", "room")
OWN_WRITES = ("livesale_writes_total", "own")


@pytest.fixture
def world() -> World:
    world = World()
    world.set("stock:1", left=9)
    for _ in range(3):
        world.happen()
    return world


@pytest.fixture
async def hub(world: World) -> AsyncIterator[Hub]:
    hub, _ = new_hub(world, tick_ms=20)
    yield hub
    await hub.stop()


@pytest.fixture
async def room(hub: Hub) -> Room:
    room = await hub.room(SHOW)
    assert room is not None
    return room


def lane(name: str, label: str) -> Rise:
    return Rise(name, lane=label)


def shed(rung: str) -> Rise:
    return Rise("livesale_shed_total", rung=rung)


def closed(reason: str) -> Rise:
    return Rise("livesale_closes_total", reason=reason)


def pass_time(hub: Hub, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    now = hub.loop.time() + seconds
    monkeypatch.setattr(hub.loop, "time", lambda: now)


def ping(viewer: Viewer, transport: FakeTransport) -> bytes:
    """The payload of the ping that is due now."""
    viewer.on_wheel()
    ((opcode, payload),) = transport.take_frames()
    assert opcode == frames.PING
    return payload


def answer(viewer: Viewer, payload: bytes) -> None:
    viewer.data_received(frames.client_frame(frames.PONG, payload, KEY))


# --- Ticks --------------------------------------------------------------------------------------


def test_writes_when_a_tick_leaves_then_each_viewer_and_byte_counts(
    room: Room, world: World
) -> None:
    seats = [connect(room) for _ in range(3)] + [connect(room, codec=JSON)]
    for _, transport in seats:
        transport.take_frames()
    writes, own = lane(*ROOM_WRITES), lane(*OWN_WRITES)
    size = lane("livesale_written_bytes_total", "room")
    room.offer(world.set("stock:1", left=8))
    flush_all(room)
    assert (writes(), own()) == (4, 0)
    assert size() == sum(len(transport.sent) for _, transport in seats)
    flush_all(room)
    assert writes() == 4


def test_writes_when_viewers_stood_at_different_points_then_their_catch_ups_count(
    room: Room, world: World
) -> None:
    seats = []
    for left in range(3):
        seats.append(connect(room))
        room.offer(world.set("stock:1", left=left))
        room._welcomes_tick = -1
    for _, transport in seats:
        transport.take_frames()
    writes, size = lane(*ROOM_WRITES), lane("livesale_written_bytes_total", "room")
    flush_all(room)
    assert (writes(), size()) == (3, sum(len(transport.sent) for _, transport in seats))


def test_writes_when_they_are_a_viewers_own_then_the_room_has_none(room: Room) -> None:
    own, theirs = lane(*OWN_WRITES), lane(*ROOM_WRITES)
    size = lane("livesale_written_bytes_total", "own")
    viewer, transport = connect(room)
    viewer.send(Accepted(ref=1))
    assert (own(), theirs(), size()) == (2, 0, len(transport.sent))


async def test_writes_when_many_are_answered_at_once_then_these_are_their_own(room: Room) -> None:
    mail, seats = Mail(), [connect(room) for _ in range(3)]
    for viewer, transport in seats:
        transport.take_frames()
        mail.add(viewer, Accepted(ref=1))
        mail.add(viewer, Accepted(ref=2))
    own, size = lane(*OWN_WRITES), lane("livesale_written_bytes_total", "own")
    mail.send()
    assert (own(), size()) == (3, sum(len(transport.sent) for _, transport in seats))


class Group:
    """A group that writes to as many as it is told, and wants to go on `more` times."""

    def __init__(
        self, writes: int = 1, more: int = 0, then: Callable[[], None] | None = None
    ) -> None:
        self.phase = 0.5
        self.due = math.inf
        self.since = 0.0
        self._writes = writes
        self._more = more
        self._then = then

    def flush(self, end: float) -> tuple[int, Any]:
        if self._then is not None:
            self._then()
        self._more -= 1
        return self._writes, "never" if self._more < 0 else "now"


def test_ticks_when_the_loop_was_blocked_then_they_are_late() -> None:
    loop: Any = SlowLoop()
    ticker = Ticker(loop, 0.1)
    ticks = Rise("livesale_tick_lateness_seconds_count")
    in_time = Rise("livesale_tick_lateness_seconds_bucket", le="0.05")
    late = Rise("livesale_ticks_late_total")
    waited = Rise("livesale_change_wait_seconds_sum")
    ticker.schedule(Group())  # for 0.05 s from now
    loop.advance(0.1)
    assert (ticks(), in_time(), late()) == (1, 1, 0)
    assert 0.05 <= waited() < 0.06
    ticker.schedule(Group())
    loop.now += 0.3  # nothing could run
    loop.advance(0)
    assert (ticks(), in_time(), late()) == (2, 1, 1)
    assert 0.35 <= waited() < 0.37


def test_ticks_when_the_writing_takes_long_then_they_are_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop: Any = SlowLoop()
    ticker = Ticker(loop, 0.1)
    late = Rise("livesale_ticks_late_total")
    now_ms = 5.0
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now_ms)

    def take_long() -> None:
        nonlocal now_ms
        now_ms += 1_000 * limits.TICK_LATE_SECONDS + 1

    ticker.hurry(Group(then=take_long))
    loop.advance(0)
    assert late() == 1


def test_wait_when_a_group_is_written_to_in_portions_then_the_last_counts_from_the_change() -> None:
    loop: Any = SlowLoop()
    ticker = Ticker(loop, 0.1)
    waited = Rise("livesale_change_wait_seconds_sum")

    def block() -> None:
        loop.now += 0.2

    ticker.hurry(Group(more=1, then=block))  # the first portion at once, the other 0.2 s later
    loop.advance(1)
    assert 0.2 <= waited() < 0.21


def test_ticks_when_nobody_was_written_to_then_none_counts() -> None:
    loop: Any = SlowLoop()
    ticker = Ticker(loop, 0.1)
    ticks = Rise("livesale_tick_lateness_seconds_count")
    ticker.hurry(Group(writes=0))
    loop.advance(0.1)
    assert ticks() == 0


def test_wait_when_an_edge_comes_then_it_is_short_but_counts_from_the_first_change() -> None:
    loop: Any = SlowLoop()
    ticker = Ticker(loop, 1.0)
    waited = Rise("livesale_change_wait_seconds_sum")
    group = Group()
    ticker.schedule(group)
    loop.advance(0.2)
    ticker.hurry(group)
    loop.advance(0)
    assert 0.2 <= waited() < 0.21


# --- The ladder ---------------------------------------------------------------------------------


def test_ladder_when_a_viewer_falls_all_the_way_then_each_rung_counts(
    hub: Hub, room: Room, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    lagging, catch_ups, end = shed("lagging"), shed("catch_up"), closed("too_slow")
    viewer, transport = connect(room)
    transport.take_frames()
    pass_time(hub, monkeypatch, 100)
    payload = ping(viewer, transport)
    pass_time(hub, monkeypatch, limits.LAG_SECONDS_MAX + 0.1)
    answer(viewer, payload)
    assert (lagging(), catch_ups(), hub.behind) == (1, 0, 1)
    for left in range(2):
        pass_time(hub, monkeypatch, 1.1)
        room.offer(world.set("stock:1", left=left))
        flush_all(room)
    assert (lagging(), catch_ups(), end()) == (1, 2, 0)
    pass_time(hub, monkeypatch, limits.SLOW_SECONDS_MAX)
    viewer.on_wheel()
    assert end() == 1


def test_ladder_when_a_viewer_does_not_read_then_paused_counts(room: Room, hub: Hub) -> None:
    paused, end = shed("paused"), closed("too_slow")
    viewer, transport = connect(room)
    transport.stuck = True
    viewer.send(Accepted(ref=1))
    assert (paused(), end(), hub.behind) == (1, 0, 1)
    while viewer.is_open:
        viewer.send(Accepted(ref=1))
    assert (paused(), end(), hub.behind) == (1, 1, 0)


def test_ladder_when_no_pong_comes_then_silent_counts(
    hub: Hub, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = closed("silent")
    viewer, transport = connect(room)
    transport.take_frames()
    pass_time(hub, monkeypatch, 100)
    ping(viewer, transport)
    pass_time(hub, monkeypatch, hub.settings.pong_seconds)
    viewer.on_wheel()
    viewer.close(1012)
    assert (silent(), closed("restart")()) == (1, 0)


# --- Staleness ----------------------------------------------------------------------------------


def test_staleness_when_pongs_come_then_their_lag_is_seconds_and_not_ticks(
    hub: Hub, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    total, count = Rise("livesale_staleness_seconds_sum"), Rise("livesale_staleness_seconds_count")
    viewer, transport = connect(room)
    transport.take_frames()
    for lag in (0.003, 0.021, 0.021):
        pass_time(hub, monkeypatch, 100)
        payload = ping(viewer, transport)
        pass_time(hub, monkeypatch, lag)
        answer(viewer, payload)
        answer(viewer, payload)  # unsolicited by now
    assert count() == 3
    assert total() == pytest.approx(0.045)
    assert hub.recent_staleness(0.5) == pytest.approx(0.021)
    pass_time(hub, monkeypatch, 61)
    assert math.isnan(hub.recent_staleness(0.5))


def test_staleness_when_a_viewer_lags_then_the_extra_pings_do_not_count(
    hub: Hub, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = Rise("livesale_staleness_seconds_count")
    viewer, transport = connect(room)
    transport.take_frames()
    for lag in (3, 3, 0.1):
        pass_time(hub, monkeypatch, 100 if not viewer.is_lagging else 1.1)
        payload = ping(viewer, transport)
        pass_time(hub, monkeypatch, lag)
        answer(viewer, payload)
    assert not viewer.is_lagging
    assert count() == 1


def test_recent_when_asked_then_quantiles_are_those_of_the_window() -> None:
    recent = Recent(60)
    assert math.isnan(recent.quantile(0.5, 0))
    for n in range(1, 101):
        recent.add(float(n), n / 100)
    assert [recent.quantile(share, 100) for share in (0, 0.5, 0.99, 1)] == [0.4, 0.7, 1, 1]
    assert [recent.quantile(share, 150) for share in (0, 0.5)] == [0.9, 0.95]
    for _ in range(2 * SAMPLES_MAX):
        recent.add(200, 5)
    assert len(recent._samples) == SAMPLES_MAX


async def test_feed_echo_when_heartbeats_come_back_then_each_counts(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.feed.BEAT_SECONDS", 0.01)
    echoes = Rise("livesale_feed_echo_seconds_count")
    await hub.start()
    await hub.room(SHOW)
    await until(lambda: echoes() >= 2)


# --- Joins, resumes, danmaku --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resume", "kind"),
    [(None, "new"), ((100, 1), "recovered"), ((100, 99), "snapshot"), ((99, 1), "snapshot")],
)
def test_joins_when_a_viewer_comes_then_counts_by_how_it_could_go_on(
    room: Room, resume: tuple[int, int] | None, kind: str
) -> None:
    kinds = ("new", "recovered", "snapshot")
    joins = {one: Rise("livesale_joins_total", kind=one) for one in kinds}
    _, transport = connect(room, resume=resume)
    (welcome,) = transport.take_messages()
    assert welcome["recovered"] == (kind == "recovered")
    assert {one: joins[one]() for one in kinds} == {one: one == kind for one in kinds}


def test_danmaku_when_there_is_too_much_then_what_viewers_miss_counts(
    room: Room, world: World
) -> None:
    shown, left_out = (Rise("livesale_danmaku_total", fate=fate) for fate in ("shown", "left_out"))
    _, transport = connect(room)
    transport.take_frames()
    room.offer(world.chatter(limits.CHAT_LINES_PER_TICK_MAX + 4, folded=5))
    flush_all(room)
    (tick,) = transport.take_messages()
    assert (shown(), left_out()) == (len(tick["chat"]), tick["folded"])
    assert (shown(), left_out()) == (limits.CHAT_LINES_PER_TICK_MAX, 9)


async def test_danmaku_when_a_hub_has_too_much_then_what_it_folds_counts(room: Room) -> None:
    sent_on, folded = (Rise("livesale_danmaku_total", fate=fate) for fate in ("sent_on", "folded"))
    for n in range(limits.CHAT_PUBLISH_PER_TICK_MAX + 3):
        room.say(ChatLine(f"h1-{n}", "u", "n", "viewer", "hi"))
    await asyncio.wait_for(room.outbox.settled(), 20)
    assert (sent_on(), folded()) == (limits.CHAT_PUBLISH_PER_TICK_MAX, 3)
