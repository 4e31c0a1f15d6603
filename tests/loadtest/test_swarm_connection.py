"""The lean client reads frames however they are cut, and comes back as a browser's does."""

import asyncio
import errno
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import wire
from loadtest.swarm import entrance
from loadtest.swarm.connection import Connection
from loadtest.swarm.entrance import Door, Swarm, Target, Who
from server.protocol import messages as m
from tests.loadtest.swarm_kit import SALE, UPGRADED, Wire, arrive, frame, new_swarm, welcome

WATCHER = Who("w", 0, "", 0)


def level(version: int) -> dict[str, Any]:
    value = {"epoch": 1, "version": version, "sale": SALE, "left": 50 - version, "held": version}
    return {f"stock:{SALE}": value | {"sold": 0, "total": 50}}


TICKS = [frame(m.Tick(version, 0, level(version))) for version in range(1, 9)]
PING = wire.server_frame(b"12", wire.PING)


@given(st.lists(st.sampled_from([*TICKS, PING]), max_size=12), st.data())
async def test_stream_when_cut_anywhere_then_it_is_read_as_if_frame_by_frame(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    edges = [0, *sorted(cuts), len(stream)]
    whole, cut = new_swarm(), new_swarm()
    for swarm, chunks in (
        (whole, frames),
        (cut, [stream[a:b] for a, b in itertools.pairwise(edges) if a < b]),
    ):
        viewer = Connection(swarm, WATCHER)
        transport = arrive(viewer)
        for chunk in chunks:
            viewer.data_received(chunk)
        assert viewer.size == len(frame(welcome())) + len(stream)
        assert transport.commands() == [b"12"] * frames.count(PING)
        newest = max((TICKS.index(each) + 1 for each in frames if each != PING), default=0)
        levels = viewer.view.levels
        assert (levels[SALE].version if levels else 0) == newest
    assert whole.counts == cut.counts
    shown = [sum(facts.viewers for facts in each.sights[0].fold().facts) for each in (whole, cut)]
    assert shown == [1 + len(frames) - frames.count(PING)] * 2


async def test_ticks_when_two_viewers_get_them_then_the_second_one_reads_nothing_anew() -> None:
    swarm = new_swarm()
    viewers = [Connection(swarm, WATCHER) for _ in range(2)]
    for viewer in viewers:
        arrive(viewer)
        viewer.data_received(TICKS[0])
    assert viewers[0].view is viewers[1].view
    assert len(swarm.sights[0].known) == 1


async def test_trace_when_kept_then_it_has_every_level_that_was_shown() -> None:
    swarm = new_swarm()
    viewer = Connection(swarm, WATCHER)
    viewer.keep_trace()
    arrive(viewer)
    for each in (TICKS[0], TICKS[2], TICKS[2], TICKS[4]):
        viewer.data_received(each)
    assert [(sale, shown.version) for sale, _, shown in viewer.trace or ()] == [
        (SALE, 1),
        (SALE, 3),
        (SALE, 5),
    ]


async def test_bytes_when_they_are_no_message_then_it_is_an_offence_and_the_socket_goes() -> None:
    swarm = new_swarm()
    viewer = Connection(swarm, WATCHER)
    transport = arrive(viewer)
    viewer.data_received(frame({"t": "tick", "n": "?"}))
    assert transport.cut
    assert [offence.kind for offence in swarm.offences] == ["unreadable"]


def pauses(swarm: Swarm) -> list[float]:
    """From now on what is to happen later is only noted."""
    noted: list[float] = []
    swarm.loop = _Later(noted)  # type: ignore[assignment]
    return noted


class _Later:
    def __init__(self, noted: list[float]) -> None:
        self._noted = noted

    def call_later(self, seconds: float, *_: object) -> "_Later":
        self._noted.append(seconds)
        return self

    def cancel(self) -> None:
        """Nothing is to happen anyway."""


async def test_bye_when_it_gives_a_time_then_it_is_kept_and_spread() -> None:
    swarm = new_swarm()
    viewer = Connection(swarm, WATCHER)
    transport = arrive(viewer)
    viewer.data_received(frame(m.Bye(1012, "restart", True, 2_000)))
    noted = pauses(swarm)
    transport.abort()
    assert 2 <= noted[-1] <= 3


async def test_connection_when_lost_again_and_again_then_pauses_grow_to_eight_seconds() -> None:
    swarm = new_swarm()
    noted = pauses(swarm)
    viewer = Connection(swarm, WATCHER)
    for _ in range(12):
        viewer.failed()
    for place, pause in enumerate(noted):
        step = min(8.0, 0.5 * 2**place)
        assert step / 10 <= pause <= step


@pytest.mark.parametrize(
    "told",
    [
        frame(m.Bye(4403, "removed", False)),
        wire.server_frame((4403).to_bytes(2, "big"), wire.CLOSE),
    ],
)
async def test_viewer_when_told_to_stay_away_then_it_does(told: bytes) -> None:
    swarm = new_swarm()
    viewer = Connection(swarm, WATCHER)
    noted = pauses(swarm)
    transport = arrive(viewer)
    noted.clear()
    viewer.data_received(told)
    transport.abort()
    assert viewer.over
    assert not noted
    assert swarm.counts["errors"] == 1


async def test_full_house_when_it_says_when_then_the_viewer_comes_back_then() -> None:
    swarm = new_swarm()
    viewer = Connection(swarm, WATCHER)
    noted = pauses(swarm)
    viewer.connection_made(Wire(viewer))  # type: ignore[arg-type]
    viewer.data_received(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 4\r\n\r\nbusy")
    assert not viewer.over
    assert 4 <= noted[-1] <= 6
    assert swarm.counts["join_refused.503"] == 1


async def test_viewer_when_it_comes_back_then_it_asks_for_what_it_missed() -> None:
    swarm = new_swarm()
    viewer = Connection(swarm, WATCHER)
    arrive(viewer).abort()
    transport = Wire(viewer)
    viewer.connection_made(transport)  # type: ignore[arg-type]
    assert transport.written.startswith(b"GET /ws/demo?resume=9.0 HTTP/1.1\r\n")
    viewer.data_received(UPGRADED + frame(welcome()))
    assert (swarm.counts["joins"], swarm.counts["reconnects"], swarm.counts["open"]) == (1, 1, 1)


async def test_target_when_it_has_a_path_or_query_then_they_are_kept() -> None:
    plain = await Target.of("http://127.0.0.1:81", "demo")
    shadow = await Target.of("ws://127.0.0.1:81/ws/other?rehearsal=x", "demo")
    assert (plain.path, plain.host, plain.base) == ("/ws/demo", "127.0.0.1:81", plain.base)
    assert (shadow.path, shadow.query) == ("/ws/other", "rehearsal=x")
    assert (await Target.of("wss://127.0.0.1", "demo")).address[1] == 443


async def test_door_when_no_sockets_are_left_then_nobody_stays_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(entrance, "_socket", none_left)
    swarm = new_swarm()
    swarm.door = Door(swarm)
    people = entrance.CONNECTING_MAX + 6
    for _ in range(people):
        swarm.door.enter(Connection(swarm, WATCHER))
    while swarm.door._tasks:
        await asyncio.wait(swarm.door._tasks)
    swarm.ended = True  # nobody comes back
    assert swarm.counts["connect_failed"] == people
    assert not swarm.door._inside
