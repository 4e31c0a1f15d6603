"""A room: facts in, shared frames out, users, groups."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server import limits
from server.errors import Refused
from server.hub.hub import Hub
from server.hub.room import Room
from server.protocol import deflate, frames
from server.protocol.codec import DEFLATING, JSON, MSGPACK
from server.protocol.facts import KickFact, OrderFact, PolicyFact, StateFact
from server.protocol.messages import Accepted, ClaimState
from tests.hub_world import SHOW, World, connect, flush_all, new_hub


@pytest.fixture
def world() -> World:
    world = World()
    world.set("stock:1", left=9)
    for _ in range(5):
        world.happen()
    world.chatter(3)
    return world


@pytest.fixture
async def hub(world: World) -> AsyncIterator[Hub]:
    hub, _ = new_hub(world)
    yield hub
    hub.ticker.stop()
    hub.wheel.stop()


@pytest.fixture
async def room(hub: Hub) -> Room:
    room = await hub.room(SHOW)
    assert room is not None
    return room


def messages_after(room: Room, transport: Any) -> list[dict[str, Any]]:
    flush_all(room)
    found: list[dict[str, Any]] = transport.take_messages()
    return found


def test_join_when_nothing_changes_then_no_frame_follows(room: Room) -> None:
    _, transport = connect(room)
    (welcome,) = transport.take_messages()
    assert (welcome["epoch"], welcome["seq"], welcome["tick_ms"]) == (100, 5, 100)
    assert [line["id"] for line in welcome["chat"]] == ["x-0", "x-1", "x-2"]
    assert messages_after(room, transport) == []


def test_join_when_many_come_in_one_tick_then_they_share_the_snapshot(
    room: Room, world: World
) -> None:
    seats = [connect(room) for _ in range(3)]
    room.offer(world.set("stock:1", left=8))
    seats.append(connect(room))
    frames = {id(frame) for frame, _ in room._welcomes.values()}
    assert len(frames) == 1
    for _, transport in seats:
        welcome, *ticks = transport.take_messages() + messages_after(room, transport)
        assert welcome["state"]["stock:1"]["left"] == 9
        assert [tick["state"]["stock:1"]["left"] for tick in ticks] == [8]


@pytest.mark.parametrize(
    ("resume", "recovered", "missed"),
    [
        ((100, 5), True, []),
        ((100, 3), True, [4, 5]),
        ((100, 0), True, [1, 2, 3, 4, 5]),
        ((100, 6), False, []),  # from the future
        ((99, 5), False, []),  # another epoch
        ((100, -1), False, []),
    ],
)
def test_join_when_resuming_then_told_whether_it_could_be_honoured(
    room: Room, resume: tuple[int, int], recovered: bool, missed: list[int]
) -> None:
    _, transport = connect(room, resume=resume)
    (welcome,) = transport.take_messages()
    assert welcome["recovered"] is recovered
    assert [event["seq"] for event in welcome.get("events", [])] == missed


def test_join_when_the_gap_is_longer_than_allowed_then_not_recovered(
    room: Room, world: World
) -> None:
    for _ in range(limits.RESUME_EVENTS_MAX + 1):
        room.offer(world.happen())
    _, exact = connect(room, resume=(100, room.seq - limits.RESUME_EVENTS_MAX))
    _, too_long = connect(room, resume=(100, room.seq - limits.RESUME_EVENTS_MAX - 1))
    assert exact.take_messages()[0]["recovered"] is True
    assert too_long.take_messages()[0]["recovered"] is False


def test_offer_when_a_state_is_older_then_it_is_dropped(room: Room, world: World) -> None:
    _, transport = connect(room)
    old = world.set("pin", product=1)
    new = world.set("pin", product=2)
    transport.take_messages()
    room.offer(new)
    room.offer(old)
    (tick,) = messages_after(room, transport)
    assert tick["state"] == {"pin": {"epoch": 100, "version": 2, "product": 2}}


def test_offer_when_a_stock_epoch_is_newer_then_its_low_version_wins(room: Room) -> None:
    room.offer(StateFact("stock:1", {"epoch": 2, "version": 1, "left": 3}))
    assert room.state["stock:1"]["left"] == 3
    assert room.stock_epoch == 2
    room.offer(StateFact("stock:1", {"epoch": 1, "version": 99, "left": 7}))
    assert room.state["stock:1"]["left"] == 3


def test_offer_when_an_event_is_missing_then_later_ones_wait_for_it(
    room: Room, world: World, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Room] = []
    monkeypatch.setattr(hub, "heal", asked.append)
    _, transport = connect(room)
    transport.take_messages()
    facts = [world.happen() for _ in range(3)]
    room.offer(facts[2])
    assert asked == [room]
    assert messages_after(room, transport) == []
    room.offer(facts[0])
    room.offer(facts[1])
    (tick,) = messages_after(room, transport)
    assert [event["seq"] for event in tick["events"]] == [6, 7, 8]
    assert tick["epoch"] == 100


def test_offer_when_there_is_much_danmaku_then_it_is_sampled_in_order_and_counted(
    room: Room, world: World
) -> None:
    _, transport = connect(room)
    transport.take_messages()
    room.offer(world.chatter(20, folded=5))
    room.offer(world.chatter(20))
    (tick,) = messages_after(room, transport)
    ids = [int(line["id"].partition("-")[2]) for line in tick["chat"]]
    assert len(ids) == limits.CHAT_LINES_PER_TICK_MAX
    assert ids == sorted(ids)
    assert tick["folded"] == 45 - limits.CHAT_LINES_PER_TICK_MAX


def test_offer_when_a_snapshot_held_a_line_already_then_it_is_not_repeated(
    room: Room, world: World
) -> None:
    fact = world.chatter(2)
    room.board.recent.extend(fact.lines)
    assert room.board.add_lines(fact.lines, 0) is False


@pytest.mark.parametrize(
    ("what", "left"),
    [("x-3", ["x-0", "x-1", "x-2", "x-4", "x-5"]), ("u0", ["x-1", "x-2", "x-4", "x-5"])],
)
def test_lines_when_taken_back_then_neither_who_is_behind_nor_who_joins_gets_them(
    room: Room, world: World, what: str, left: list[str]
) -> None:
    _, behind = connect(room)
    behind.take_messages()
    said = world.chatter(3)
    room.offer(said)
    connect(room)  # a welcome of this tick, with all lines
    room.offer(world.take_line_back(what) if what == "x-3" else world.ban(what))
    (tick,) = messages_after(room, behind)
    assert [event["seq"] for event in tick["events"]] == [6]
    assert [line["id"] for line in tick["chat"]] == ["x-4", "x-5"]
    _, joiner = connect(room)
    (welcome,) = joiner.take_messages()
    assert [line["id"] for line in welcome["chat"]] == left
    room.offer(said)  # late, or once more
    assert messages_after(room, behind) == []


def test_frames_when_codecs_differ_then_one_encoding_each(room: Room, world: World) -> None:
    seats = [connect(room, codec=codec) for codec in (MSGPACK, MSGPACK, JSON, JSON)]
    position = room.position
    room.offer(world.set("likes", total=1))
    binary, text = (room.frame_since(position, codec) for codec in (MSGPACK, JSON))
    assert binary is room.frame_since(position, MSGPACK)
    flush_all(room)
    assert [transport.sent.endswith(binary) for _, transport in seats] == [True, True, False, False]
    assert [transport.sent.endswith(text) for _, transport in seats] == [False, False, True, True]


def test_frames_when_viewers_took_compression_then_deflated_once_for_all_of_them(
    room: Room, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deflated: list[bytes] = []
    deflate_one = deflate.deflated
    monkeypatch.setattr(deflate, "deflated", lambda p: deflated.append(p) or deflate_one(p))
    seats = [connect(room, codec=DEFLATING[MSGPACK])[1] for _ in range(5)]
    plain = connect(room)[1]
    assert len(deflated) == 1  # the welcome
    for transport in (*seats, plain):
        transport.sent = b""
    room.offer(world.set("show", title="晚八点" * 100))
    flush_all(room)
    assert len(deflated) == 2
    [shared] = {transport.sent for transport in seats}
    assert shared[0] == frames.BINARY | frames.RSV1 | 0x80
    assert 4 * len(shared) < len(plain.sent)
    assert plain.take_messages()[0]["state"].keys() == {"show"}


def test_frames_when_they_are_for_one_viewer_then_never_deflated(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.room.WELCOMES_MAX", 0)
    viewer, transport = connect(room, codec=DEFLATING[MSGPACK])
    assert transport.sent[0] == frames.BINARY | 0x80  # a welcome that nobody else gets
    transport.sent = b""
    viewer.send({"t": "accepted", "ref": 1, "padding": "x" * 1_000})
    assert transport.sent[0] == frames.BINARY | 0x80


def test_groups_when_one_is_full_then_another_is_made_and_removed_again(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PHASE_VIEWERS_MAX", 2)
    viewers = [connect(room)[0] for _ in range(5)]
    assert [len(group) for group in room._groups[MSGPACK]] == [2, 2, 1]
    assert len({group.phase for group in room._groups[MSGPACK]}) == 3
    for viewer in viewers:
        viewer.connection_lost(None)
    assert room._groups[MSGPACK] == []
    assert room.viewers == 0


def test_sign_in_when_two_connections_then_one_person(room: Room) -> None:
    (one, _), (two, _), (three, _) = (connect(room) for _ in range(3))
    for viewer in (one, two):
        room.sign_in(viewer, "u1", "小林", "viewer", 5)
    assert room.viewers_of("u1") == (one, two)
    assert (room.viewers, room.anonymous, [*room.users]) == (3, 1, ["u1"])
    room.sign_in(one, "u1", "小林", "viewer", 9)
    assert (one.expires_at_ms, room.anonymous) == (9, 1)
    one.connection_lost(None)
    assert room.viewers_of("u1") == (two,)
    assert three.user is None
    two.connection_lost(None)
    assert (room.viewers, room.anonymous, [*room.users]) == (1, 1, [])


def test_sign_in_when_it_is_another_user_then_refused(room: Room) -> None:
    viewer, _ = connect(room)
    room.sign_in(viewer, "u1", "n", "viewer", 0)
    with pytest.raises(Refused, match="other_user"):
        room.sign_in(viewer, "u2", "n", "host", 0)
    assert (viewer.user, viewer.role) == ("u1", "viewer")


def test_sign_in_when_a_user_has_too_many_connections_then_refused(room: Room, hub: Hub) -> None:
    for _ in range(hub.settings.viewers_per_user_max):
        room.sign_in(connect(room)[0], "u1", "n", "viewer", 0)
    viewer, _ = connect(room)
    with pytest.raises(Refused, match="too_many_connections"):
        room.sign_in(viewer, "u1", "n", "viewer", 0)
    room.viewers_of("u1")[0].close(1012)
    room.sign_in(viewer, "u1", "n", "viewer", 0)


def test_offer_when_a_user_is_kicked_then_all_its_connections_close(room: Room) -> None:
    seats = [connect(room) for _ in range(3)]
    for viewer, _ in seats[:2]:
        room.sign_in(viewer, "u1", "n", "viewer", 0)
    room.offer(KickFact("u1", 4403))
    assert [viewer.is_open for viewer, _ in seats] == [False, False, True]


def test_offer_when_orders_or_policies_arrive_then_their_owners_hear(room: Room, hub: Hub) -> None:
    heard: list[tuple[Any, ...]] = []
    hub.on_orders = lambda *args: heard.append(args)
    hub.on_policy = lambda *args: heard.append(args)
    state = ClaimState(claim_id="c", status="confirmed")
    room.offer(OrderFact([("u1", state), ("u2", state)]))
    room.offer(PolicyFact(3))
    assert heard == [(room, [("u1", state), ("u2", state)]), (room,)]


def test_chat_ids_when_made_then_are_unique(room: Room) -> None:
    assert [room.next_chat_id() for _ in range(2)] == ["h1-1", "h1-2"]


def test_paused_viewer_when_history_is_gone_then_gets_a_welcome_that_says_so(
    room: Room, world: World
) -> None:
    viewer, transport = connect(room)
    transport.take_messages()
    transport.stuck = True
    viewer.send(Accepted(ref=1))
    for _ in range(limits.HISTORY_EVENTS_MAX + 1):
        room.offer(world.happen())
    transport.unstick()
    _, welcome = messages_after(room, transport)
    assert (welcome["t"], welcome["recovered"], welcome["seq"]) == ("welcome", False, room.seq)


def test_edge_when_offered_then_every_group_is_due_now(room: Room, world: World, hub: Hub) -> None:
    connect(room)
    (group,) = room._groups[MSGPACK]
    fact = world.set("sale:1", phase="closed")
    room.offer(StateFact(fact.key, fact.value, edge=True))
    assert group.due <= hub.loop.time()


# --- Removed users ----------------------------------------------------------------------------


def shown(room: Room, transport: Any) -> list[str]:
    """Ids of the lines that a viewer is sent now."""
    return [line["id"] for tick in messages_after(room, transport) for line in tick["chat"]]


def test_ban_when_the_policy_is_not_read_yet_then_late_lines_are_not_shown(
    room: Room, world: World
) -> None:
    _, transport = connect(room)
    transport.take_messages()
    begun_before = room.position
    removal = world.ban("u0")
    world.banned.clear()  # what the hub has read of the policy does not say so yet
    room.offer(removal)
    room.offer(world.chatter(3))
    assert shown(room, transport) == ["x-4", "x-5"]
    room.believe_policy(begun_before, ())  # it was asked for before: knows nothing of the ban
    room.offer(world.chatter(3))
    assert shown(room, transport) == ["x-7", "x-8"]
    room.believe_policy(room.position, ())  # this one knows that the user may speak again
    room.offer(world.chatter(3))
    assert shown(room, transport) == ["x-9", "x-10", "x-11"]


def test_policy_when_it_bans_then_lines_that_came_before_it_are_not_for_joiners(
    room: Room, world: World
) -> None:
    connect(room)  # the welcome of this tick has the lines
    room.believe_policy(room.position, {"u1"})
    _, transport = connect(room)
    (welcome,) = transport.take_messages()
    assert [line["id"] for line in welcome["chat"]] == ["x-0", "x-2"]
