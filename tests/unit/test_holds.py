"""Late holds are looked up until they have moved on or their buyer has left."""

from typing import cast

import msgspec

from server.errors import StoreUnavailable
from server.hub.holds import Holds
from server.hub.room import Room
from server.limits import HOLD_LOOKUP_AFTER_MS, HOLD_LOOKUP_BATCH_MAX
from tests.hub_fakes import FakeRoom, FakeViewer
from tests.unit.test_claims import Desk

LATE = 10**9 + HOLD_LOOKUP_AFTER_MS


async def held(desk: Desk, user: str = "u1") -> tuple[FakeViewer, tuple[str, bytes]]:
    """A viewer with one hold, and its key in the stock."""
    viewer = desk.viewer(user)
    request = desk.claim(viewer, 1, n=len(desk.stock.known) + 1)
    await desk.settled()
    return viewer, (request.buyer, request.claim_id)


def move_on(desk: Desk, key: tuple[str, bytes], status: str) -> None:
    """The claim changes in Redis, and nobody tells the hub."""
    state = desk.stock.known[key]
    desk.stock.known[key] = msgspec.structs.replace(state, status=status)


async def test_hold_when_its_confirmation_was_lost_then_the_look_up_tells_the_buyer() -> None:
    desk = Desk()
    viewer, key = await held(desk)
    move_on(desk, key, "confirmed")
    await desk.holds.look_up_late(LATE * 10)
    assert viewer.orders == ["confirmed"]
    assert desk.holds.open == 0


async def test_hold_when_it_is_young_then_it_is_left_alone() -> None:
    room = cast(Room, FakeRoom())
    FakeViewer(cast(FakeRoom, room), "u1")
    holds = Holds(room)
    holds.add("u1", "a", 1_000)
    assert holds.take_due(1_000 + HOLD_LOOKUP_AFTER_MS - 1) == []
    assert holds.take_due(1_000 + HOLD_LOOKUP_AFTER_MS) == [("u1", "a")]
    assert holds.take_due(1_001 + HOLD_LOOKUP_AFTER_MS) == []  # it counts as young again
    assert len(holds) == 1


async def test_hold_when_it_is_still_held_then_it_stays_open() -> None:
    desk = Desk()
    viewer, key = await held(desk)
    await desk.holds.look_up_late(LATE * 10)
    assert viewer.orders == []
    assert desk.holds.open == 1
    move_on(desk, key, "released_by_incident")
    await desk.holds.look_up_late(LATE * 20)
    assert viewer.orders == ["released_by_incident"]


async def test_hold_when_its_buyer_has_left_then_it_is_forgotten() -> None:
    desk = Desk()
    viewer, _ = await held(desk)
    viewer.leave()
    await desk.holds.look_up_late(LATE * 10)
    assert desk.holds.open == 0


async def test_hold_when_redis_does_not_answer_then_it_is_looked_up_later() -> None:
    desk = Desk()
    viewer, key = await held(desk)
    move_on(desk, key, "confirmed")
    desk.stock.fails = [StoreUnavailable("away")]
    await desk.holds.look_up_late(LATE * 10)
    assert desk.holds.open == 1
    await desk.holds.look_up_late(LATE * 20)
    assert viewer.orders == ["confirmed"]


async def test_holds_when_there_are_many_then_one_round_is_bounded_and_all_get_their_turn() -> None:
    room = FakeRoom()
    FakeViewer(room, "u1")
    holds = Holds(cast(Room, room))
    for n in range(HOLD_LOOKUP_BATCH_MAX + 10):
        holds.add("u1", str(n), 0)
    first = holds.take_due(HOLD_LOOKUP_AFTER_MS)
    second = holds.take_due(HOLD_LOOKUP_AFTER_MS + 1)
    assert (len(first), len(second)) == (HOLD_LOOKUP_BATCH_MAX, 10)
    assert not set(first) & set(second)


async def test_hold_when_it_is_told_again_and_again_then_the_others_are_still_looked_up() -> None:
    room = FakeRoom()
    FakeViewer(room, "u1")
    holds = Holds(cast(Room, room))
    holds.add("u1", "a", 0)
    holds.add("u1", "b", 1)
    holds.add("u1", "a", HOLD_LOOKUP_AFTER_MS)
    assert holds.take_due(HOLD_LOOKUP_AFTER_MS + 1) == [("u1", "a"), ("u1", "b")]


async def test_hold_when_it_was_confirmed_twice_then_the_buyer_hears_it_twice_and_no_harm() -> None:
    desk = Desk()
    viewer = desk.viewer("u1")
    request = desk.claim(viewer, 1)
    await desk.settled()
    desk.confirm(request)
    desk.confirm(request)
    assert viewer.orders == ["confirmed", "confirmed"]
    assert desk.holds.open == 0
