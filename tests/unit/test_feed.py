"""The hub's life with Redis: loading rooms, facts, healing, heartbeats, likes and danmaku out."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from server import limits
from server.domain.presence import PresenceAnswer
from server.errors import StoreUnavailable
from server.hub import feed as feed_module
from server.hub import hub as hub_module
from server.hub import outbox as outbox_module
from server.hub.hub import Hub
from server.hub.room import Room
from server.protocol.facts import EventFact, Resync
from server.protocol.messages import ChatLine
from tests.hub_world import COUNTS, SHOW, World, connect, new_hub, until

LINE = ChatLine("h1-1", "u", "n", "viewer", "hi")


@pytest.fixture
def world() -> World:
    world = World()
    world.set("stock:1", left=9)
    world.happen()
    return world


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths, so that nothing is waited for in earnest."""
    monkeypatch.setattr(feed_module, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(feed_module, "DEAF_SECONDS", 0.1)
    monkeypatch.setattr(feed_module, "RETRY_MS", 5)
    monkeypatch.setattr(outbox_module, "RETRY_SECONDS", 0.01)


@pytest.fixture
async def hub(world: World) -> AsyncIterator[Hub]:
    hub, _ = new_hub(world, tick_ms=20)
    await hub.start()
    yield hub
    world.available = True
    await hub.stop()


def count(world: World, name: str) -> int:
    return sum(call[0] == name for call in world.calls)


async def test_room_when_many_ask_at_once_then_it_is_loaded_once(hub: Hub, world: World) -> None:
    rooms = await asyncio.gather(*(hub.room(SHOW) for _ in range(20)))
    assert len(set(map(id, rooms))) == 1
    assert count(world, "subscribe") == 1


async def test_room_when_it_is_loaded_during_a_rebuild_then_the_hub_hears_of_that(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens from now on, so whoever rebuilds waits for what it knows."""
    world.set("show", phase="live")
    cut, told = world.cut, list[str]()
    monkeypatch.setattr(world, "cut", lambda: replace(cut(), rebuild="r1"))
    monkeypatch.setattr(hub, "on_rebuild", lambda room, rebuild_id: told.append(rebuild_id))
    await hub.room(SHOW)
    assert told == ["r1"]


async def test_room_when_there_is_no_such_show_then_none_and_no_subscription(
    hub: Hub, world: World
) -> None:
    assert await hub.room("nosuch") is None
    assert count(world, "subscribe") == 0
    assert hub.rooms == {}


@pytest.mark.parametrize("show_id", ["", "../x", "x" * 33, "直播直播", "demo1\n", "demo1}"])
async def test_room_when_the_id_is_no_id_then_redis_is_not_even_asked(
    hub: Hub, world: World, show_id: str
) -> None:
    assert await hub.room(show_id) is None
    assert count(world, "snapshot") == 0


async def test_room_when_redis_is_away_then_every_caller_hears_it_and_the_next_may_succeed(
    hub: Hub, world: World
) -> None:
    world.available = False
    results = await asyncio.gather(*(hub.room(SHOW) for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreUnavailable}
    world.available = True
    assert await hub.room(SHOW) is not None


async def test_room_when_redis_goes_away_while_it_loads_then_unsubscribed_again(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*args: object) -> None:
        raise StoreUnavailable("down")

    monkeypatch.setattr(world, "events_after", unavailable)
    with pytest.raises(StoreUnavailable):
        await hub.room(SHOW)
    assert count(world, "unsubscribe") == 1


async def test_stop_when_redis_is_away_then_ends_with_likes_unsent(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLOSE_SECONDS", 0.05)
    room = await hub.room(SHOW)
    assert room is not None
    world.available = False
    room.add_likes(1)
    await hub.stop()
    await room.outbox.settled()


async def test_room_when_facts_arrive_while_it_loads_then_they_are_applied(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = world.cut()
    late = world.set("stock:1", left=3)
    asked = 0

    async def stale_snapshot(show_id: str) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:  # the one after the subscription
            hub.take_fact(SHOW, late)
        return cut

    monkeypatch.setattr(world, "snapshot", stale_snapshot)
    room = await hub.room(SHOW)
    assert room is not None
    assert room.state["stock:1"]["left"] == 3


async def test_room_when_loaded_then_events_before_it_can_be_resumed_from(
    hub: Hub, world: World
) -> None:
    for _ in range(10):
        world.happen()
    room = await hub.room(SHOW)
    assert room is not None
    _, transport = connect(room, resume=(world.epoch, 4))
    (welcome,) = transport.take_messages()
    assert [event["seq"] for event in welcome["events"]] == [5, 6, 7, 8, 9, 10, 11]


async def test_room_when_nobody_watches_for_long_then_unsubscribed(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "IDLE_SECONDS", 0.05)
    room = await hub.room(SHOW)
    assert room is not None
    viewer, _ = connect(room)
    await asyncio.sleep(0.1)
    assert SHOW in hub.rooms
    viewer.connection_lost(None)
    await until(lambda: SHOW not in hub.rooms)
    assert count(world, "unsubscribe") == 1


@pytest.mark.parametrize("phase", ["live", "ended"])
async def test_room_when_it_closes_then_counts_are_told_and_of_an_ended_show_forgotten(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    monkeypatch.setattr(hub_module, "IDLE_SECONDS", 0.01)
    world.set("show", phase=phase)
    room = await hub.room(SHOW)
    assert room is not None
    viewer, _ = connect(room)
    room.counts.claims += 2
    world.available = False
    viewer.connection_lost(None)
    tries = count(world, "heartbeat")
    await until(lambda: count(world, "heartbeat") > tries + 3)
    assert hub.rooms[SHOW] is room  # Redis does not have them yet
    world.available = True
    await until(lambda: SHOW not in hub.rooms)
    assert world.calls.count(("report_counts", 0, 2)) > 0
    assert (SHOW in hub.counts) == (phase == "live")


async def test_room_when_redis_never_takes_its_counts_then_it_is_given_up(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    room.counts.lines += 1
    world.available = False
    room.empty_since -= hub_module.IDLE_SECONDS + 1
    await hub.close_idle_rooms()
    assert hub.rooms[SHOW] is room
    room.empty_since -= hub_module.UNTOLD_SECONDS
    await hub.close_idle_rooms()
    assert SHOW not in hub.rooms


async def test_rooms_when_redis_hangs_for_one_of_them_then_closing_does_not_wait(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    room.counts.lines += 1
    room.empty_since -= hub_module.IDLE_SECONDS + 1
    before = len(world.calls)
    closing = hub.close_idle_rooms()
    with pytest.raises(StopIteration):  # it ends without waiting for anything
        closing.send(None)
    assert len(world.calls) == before


async def test_feed_when_an_event_was_lost_then_it_is_fetched(hub: Hub, world: World) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    _, transport = connect(room)
    world.happen()  # its fact is lost
    world.queue.put_nowait((SHOW, world.happen()))
    await until(lambda: room.seq == 3)
    seqs: list[int] = []
    await until(
        lambda: (
            seqs.extend(
                event["seq"]
                for message in transport.take_messages()
                for event in message.get("events", [])
            )
            or seqs == [2, 3]
        )
    )


async def test_feed_when_a_new_epoch_begins_then_viewers_get_a_new_welcome(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    _, transport = connect(room)
    transport.take_messages()
    world.epoch, world.seq = 200, 0
    world.events.clear()
    world.queue.put_nowait((SHOW, world.happen()))
    await until(lambda: room.epoch == 200)
    await until(lambda: transport.sent)
    (welcome,) = transport.take_messages()
    assert (welcome["t"], welcome["epoch"], welcome["recovered"]) == ("welcome", 200, False)


async def test_feed_when_told_to_resync_then_reads_a_snapshot(hub: Hub, world: World) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    world.set("stock:1", left=0)  # its fact is lost
    world.queue.put_nowait((SHOW, Resync("subscribed")))
    await until(lambda: room.state["stock:1"]["left"] == 0)


async def test_feed_when_facts_are_lost_then_the_periodic_healing_finds_out(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    world.set("stock:1", left=0)
    world.happen()
    await until(lambda: room.state["stock:1"]["left"] == 0 and room.seq == world.seq)


async def test_feed_when_redis_is_away_during_healing_then_it_is_tried_again(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    world.available = False
    world.set("stock:1", left=0)
    hub.heal(room)
    failures = count(world, "snapshot")
    await until(lambda: count(world, "snapshot") > failures + 2)
    world.available = True
    await until(lambda: room.state["stock:1"]["left"] == 0)


async def test_feed_when_its_own_heartbeat_is_not_heard_then_reconnects(
    hub: Hub, world: World
) -> None:
    await hub.room(SHOW)
    world.deaf = True
    await until(lambda: count(world, "reconnect"))


async def test_feed_when_it_stays_deaf_then_the_silence_goes_on_counting(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def in_vain(_: object) -> None:
        world.calls.append(("reconnect",))

    monkeypatch.setattr(hub.ports.bus, "reconnect", in_vain)
    room = await hub.room(SHOW)
    assert room is not None
    world.deaf = True
    heard = room.heard_at
    await until(lambda: count(world, "reconnect") >= 2)
    assert room.heard_at <= heard + 2 * feed_module.BEAT_SECONDS
    assert count(world, "heartbeat") > 2 * count(world, "reconnect")  # each gets its time


async def test_beat_when_redis_fails_for_one_show_then_the_others_are_looked_after(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail_for_one(show_id: str, *_: object) -> PresenceAnswer:
        world._check("report_presence", show_id)
        if show_id == SHOW:
            raise StoreUnavailable("WRONGTYPE")
        return COUNTS

    monkeypatch.setattr(hub.ports.store, "report_presence", fail_for_one)
    room = await hub.room(SHOW)
    assert room is not None
    hub.rooms["other"] = Room("other", hub, room.board)
    await until(lambda: world.calls.count(("report_presence", "other")) > 1)


async def test_beat_when_viewers_did_something_then_the_totals_are_told_again_and_again(
    hub: Hub, world: World
) -> None:
    """Also after Redis lost them; and a room that opens again counts on."""
    room = await hub.room(SHOW)
    assert room is not None
    await until(lambda: count(world, "report_presence") > 2)
    assert count(world, "report_counts") == 0
    for _ in range(3):
        room.say(ChatLine(room.next_chat_id(), "u", "n", "viewer", "hi"))
    room.counts.claims += 2
    await until(lambda: world.calls.count(("report_counts", 3, 2)) > 2)
    again = Room(SHOW, hub, room.board)  # as the room does when its viewers come back
    again.say(ChatLine(again.next_chat_id(), "u", "n", "viewer", "hi"))
    hub.rooms[SHOW] = again
    await until(lambda: ("report_counts", 4, 2) in world.calls)
    again.counts.claims += 1
    await hub.stop()  # what came since the last beat is told, too
    assert ("report_counts", 4, 3) in world.calls


async def test_feed_when_heartbeats_are_heard_then_stays_connected(hub: Hub, world: World) -> None:
    await hub.room(SHOW)
    await until(lambda: count(world, "heartbeat") > 30)
    assert count(world, "reconnect") == 0


async def test_feed_when_a_fact_cannot_be_read_then_the_next_one_is(hub: Hub, world: World) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    world.queue.put_nowait((SHOW, EventFact(world.epoch, {})))
    world.queue.put_nowait((SHOW, world.set("stock:1", left=1)))
    await until(lambda: room.state["stock:1"]["left"] == 1)


async def test_feed_when_people_watch_then_presence_is_reported(hub: Hub, world: World) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    connect(room)
    connect(room)
    await until(
        lambda: any(
            name == "report_presence" and args[0].anonymous == 2 for name, *args in world.calls
        )
    )


async def test_outbox_when_many_tap_then_one_increment_per_tick(hub: Hub, world: World) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    for _ in range(500):
        room.add_likes(3)
    await room.outbox.settled()
    batches = [call[1:] for call in world.calls if call[0] == "add_likes"]
    assert sum(taps for _, taps in batches) == 1500
    assert len(batches) <= 2


async def test_outbox_when_redis_is_away_then_the_same_batch_is_sent_again(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    world.available = False
    room.add_likes(5)
    await until(lambda: count(world, "add_likes") >= 2)
    room.add_likes(7)
    world.available = True
    await room.outbox.settled()
    batches = {call[1]: call[2] for call in world.calls if call[0] == "add_likes"}
    assert list(batches.values()) == [5, 7]


async def test_outbox_when_many_talk_then_one_publish_per_tick_and_the_rest_is_folded(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    for _ in range(limits.CHAT_PUBLISH_PER_TICK_MAX + 30):
        room.say(LINE)
    await room.outbox.settled()
    ((_, lines, folded),) = [call for call in world.calls if call[0] == "publish_chat"]
    assert (len(lines), folded) == (limits.CHAT_PUBLISH_PER_TICK_MAX, 30)


async def test_outbox_when_the_room_opens_again_then_no_number_is_used_twice(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "IDLE_SECONDS", 0.01)
    chat_ids = []
    for _ in range(3):
        room = await hub.room(SHOW)
        assert room is not None
        chat_ids.append(room.next_chat_id())
        room.add_likes(5)
        await until(lambda: SHOW not in hub.rooms)
        assert room.outbox.is_empty
    numbers = [call[1] for call in world.calls if call[0] == "add_likes"]
    assert len(numbers) == len(set(numbers)) == 3
    assert numbers == sorted(numbers)
    assert len(set(chat_ids)) == 3


async def test_room_when_its_likes_are_not_counted_yet_then_it_stays_open(
    hub: Hub, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "IDLE_SECONDS", 0.01)
    room = await hub.room(SHOW)
    assert room is not None
    world.available = False
    room.add_likes(5)
    tries = count(world, "add_likes")
    await until(lambda: count(world, "add_likes") > tries + 5)
    assert hub.rooms[SHOW] is room
    world.available = True
    await until(lambda: SHOW not in hub.rooms)


async def test_outbox_when_many_talk_then_early_and_late_lines_are_as_likely_to_be_shown(
    hub: Hub, world: World
) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    kept = limits.CHAT_PUBLISH_PER_TICK_MAX
    late = 0
    rounds = 20
    for _ in range(rounds):
        for number in range(2 * kept):
            room.say(ChatLine(str(number), "u", "n", "viewer", "hi"))
        await room.outbox.settled()
        (*_, (_, lines, folded)) = [call for call in world.calls if call[0] == "publish_chat"]
        order = [int(line.id) for line in lines]
        assert (len(order), folded) == (kept, kept)
        assert order == sorted(set(order))
        late += sum(number >= kept for number in order)
    assert 0.3 < late / (rounds * kept) < 0.7


async def test_drain_when_called_then_everybody_is_sent_away_and_it_ends(hub: Hub) -> None:
    room = await hub.room(SHOW)
    assert room is not None
    seats = [connect(room) for _ in range(7)]
    draining = asyncio.create_task(hub.drain(0.3))
    await until(lambda: room.viewers < len(seats))
    seats.append(connect(room))  # its handshake was under way
    await until(lambda: not room.viewers)
    assert not draining.done()
    hints = []
    for viewer, transport in seats:
        hints.append(transport.take_messages()[-1]["retry_ms"])
        viewer.connection_lost(None)
    assert len(set(hints)) > 1
    await draining
    assert hub.viewers == 0
