"""What a hub tells Redis of the people in a room: changes only, repeatable, anew when asked."""

import pytest

from server import limits
from server.domain.presence import PresenceAnswer, PresenceReport
from server.errors import StoreUnavailable
from server.hub import presence as presence_module
from server.hub.room import Room
from server.hub.viewer import Viewer
from tests.hub_world import COUNTS, SHOW, World, connect, new_hub

UNKNOWN = PresenceAnswer(counts=False, people=0, is_unswept=True)
UNSWEPT = PresenceAnswer(counts=True, people=0, is_unswept=True)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
async def room(world: World) -> Room:
    """Of a hub without a beat: nothing is told unless a test does it."""
    hub, _ = new_hub(world)
    room = await hub.room(SHOW)
    assert room is not None
    return room


def enter(room: Room, user: str) -> Viewer:
    viewer, _ = connect(room)
    room.sign_in(viewer, user, "n", "viewer", 0)
    return viewer


def told(world: World) -> list[PresenceReport]:
    """All reports since this was asked last."""
    reports = [call[1] for call in world.calls if call[0] == "report_presence"]
    world.calls.clear()
    return reports


async def test_tell_when_people_come_and_go_then_only_of_them(room: Room, world: World) -> None:
    ann, _ = enter(room, "ann"), enter(room, "bob")
    connect(room)
    await room.presence.tell()
    (first,) = told(world)
    assert (first.after, first.came, first.left, first.anonymous) == (0, ["ann", "bob"], [], 1)
    enter(room, "cid").connection_lost(None)
    enter(room, "ann").connection_lost(None)  # one tab of two
    await room.presence.tell()
    (second,) = told(world)
    assert (second.after, second.came, second.left) == (first.number, [], ["cid"])
    ann.connection_lost(None)
    await room.presence.tell()
    await room.presence.tell()
    third, fourth = told(world)
    assert (third.after, third.came, third.left) == (second.number, [], ["ann"])
    assert (fourth.after, fourth.came, fourth.left) == (third.number, [], [])


async def test_tell_when_many_come_then_in_portions_and_the_last_one_says_so(
    room: Room, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PRESENCE_PORTION_MAX", 3)
    for n in range(7):
        enter(room, f"u{n}")
    await room.presence.tell()
    reports = told(world)
    assert [(len(r.came), r.more_follow) for r in reports] == [(3, True), (3, True), (1, False)]
    assert [r.after for r in reports] == [0, *(r.number for r in reports[:2])]


async def test_tell_when_the_answer_was_lost_then_the_same_again_and_then_the_rest(
    room: Room, world: World
) -> None:
    ann = enter(room, "ann")
    world.available = False
    with pytest.raises(StoreUnavailable):
        await room.presence.tell()
    ann.connection_lost(None)
    connect(room)
    world.available = True
    await room.presence.tell()
    lost, again, rest = told(world)
    assert (again.number, again.after, again.came) == (lost.number, 0, ["ann"])
    assert (again.anonymous, again.more_follow) == (1, True)
    assert (rest.after, rest.left, rest.more_follow) == (again.number, ["ann"], False)


async def test_tell_when_redis_knows_otherwise_then_of_everybody_and_until_it_counts(
    room: Room, world: World
) -> None:
    enter(room, "ann")
    gone = enter(room, "bob")
    await room.presence.tell()
    gone.connection_lost(None)
    told(world)
    world.presence_answers = [UNKNOWN, UNKNOWN, COUNTS]
    await room.presence.tell()
    change, anew, again = told(world)
    assert (change.left, anew.after, anew.came, anew.left) == (["bob"], 0, ["ann"], [])
    assert anew.number > change.number
    assert again == anew


async def test_tell_when_dead_hubs_are_still_counted_then_reports_until_they_are_not(
    room: Room, world: World
) -> None:
    world.presence_answers = [UNSWEPT, UNSWEPT, COUNTS]
    await room.presence.tell()
    assert len(told(world)) == 3


async def test_tell_when_it_never_ends_then_the_rest_waits_for_the_next_beat(
    room: Room, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_module, "CALLS_MAX", 5)
    world.presence_answers = [UNKNOWN] * 9
    await room.presence.tell()
    assert len(told(world)) == 5


async def test_tell_when_its_own_reports_were_late_then_no_other_hub_is_let_go(
    room: Room, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.presence.tell()
    await room.presence.tell()
    monkeypatch.setattr(presence_module, "REPORT_MS", 0)
    await room.presence.tell()
    assert [report.may_let_go for report in told(world)] == [False, True, False]
