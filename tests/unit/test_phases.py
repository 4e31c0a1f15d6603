"""Phase groups: who is written to, in which portions, and who stays behind."""

from typing import Any

import pytest

from server import clock
from server.hub import phases
from server.hub.room import Room
from server.protocol.codec import MSGPACK
from tests.hub_world import SHOW, FakeTransport, Screen, World, connect, new_hub


@pytest.fixture
def world() -> World:
    world = World()
    world.set("stock:1", left=9)
    return world


@pytest.fixture
async def room(world: World) -> Any:
    hub, _ = new_hub(world)
    room = await hub.room(SHOW)
    yield room
    hub.ticker.stop()
    hub.wheel.stop()


def seats_of(room: Room, count: int) -> list[FakeTransport]:
    transports = [connect(room)[1] for _ in range(count)]
    for transport in transports:
        transport.take_frames()
    return transports


def test_flush_when_time_is_up_then_the_rest_is_served_next_with_what_is_newest(
    room: Room, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    transports = seats_of(room, 10)
    (group,) = room._groups[MSGPACK]
    monkeypatch.setattr(phases, "CHUNK", 2)
    over = clock.monotonic_ms()
    room.offer(world.set("stock:1", left=8))
    assert group.flush(over) == (4, "now")
    room.offer(world.set("stock:1", left=7))
    turns = [group.flush(over) for _ in range(6)]
    assert turns[-1] == (0, "never")
    # However late it is: a first and a last portion of the current, one of those behind.
    assert max(written for written, _ in turns) <= 3 * phases.CHUNK
    for transport in transports:
        ticks = transport.take_messages()
        assert ticks[-1]["state"]["stock:1"]["left"] == 7
        assert len(ticks) <= 2
    assert len(group.current) == 10


def test_flush_when_nothing_changed_then_nothing_is_written(room: Room) -> None:
    seats_of(room, 3)
    (group,) = room._groups[MSGPACK]
    assert group.flush() == (0, "never")


def test_flush_when_joiners_stand_at_different_positions_then_each_gets_what_it_lacks(
    room: Room, world: World
) -> None:
    screens = []
    for left in range(5):
        _, transport = connect(room)
        screens.append((Screen(), transport))
        room.offer(world.set("stock:1", left=left))
        room.offer(world.happen())
        room._welcomes_tick = -1
    (group,) = room._groups[MSGPACK]
    group.flush()
    for screen, transport in screens:
        screen.show(transport.take_messages())
        assert screen.state == room.state
        assert screen.seq == room.seq
    assert len(group.current) == 5


def test_flush_when_nobody_is_there_then_the_position_still_moves(room: Room, world: World) -> None:
    viewer, _ = connect(room)
    (group,) = room._groups[MSGPACK]
    group.discard(viewer)
    room.offer(world.set("stock:1", left=1))
    assert group.flush() == (0, "never")
    assert group.position == room.position
