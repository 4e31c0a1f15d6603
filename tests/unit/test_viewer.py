"""One connection: reading, stopping to read, writing, closing, pings."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from server import clock, limits
from server.hub.claims import Mail
from server.hub.hub import Hub
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol import frames
from server.protocol.codec import JSON
from server.protocol.messages import Accepted, ClaimState, Command, Like, OrderEvent, Time
from tests.hub_world import KEY, SHOW, World, connect, flush_all, from_client, new_hub


class Stage:
    """A room with one viewer that has read its welcome."""

    def __init__(self, hub: Hub, room: Room, commands: list[tuple[Viewer, Command]]) -> None:
        self.hub = hub
        self.room = room
        self.commands = commands
        self.viewer, self.transport = connect(room)
        self.transport.take_frames()

    def receive(self, *data: bytes) -> None:
        for segment in data:
            self.viewer.data_received(segment)

    def closed_with(self) -> int:
        """The code of the close frame sent, 0 when none was."""
        codes = [payload[:2] for opcode, payload in self.transport.take_frames() if opcode == 8]
        assert len(codes) <= 1
        return int.from_bytes(codes[0]) if codes else 0


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    world = World()
    world.set("stock:1", left=9)
    hub, commands = new_hub(world)
    room = await hub.room(SHOW)
    assert room is not None
    yield Stage(hub, room, commands)
    hub.ticker.stop()
    hub.wheel.stop()


def advance(stage: Stage, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let `seconds` pass for the hub's clocks, without waiting."""
    now = stage.hub.loop.time() + seconds
    monkeypatch.setattr(stage.hub.loop, "time", lambda: now)


def client(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    return frames.client_frame(opcode, payload, KEY, fin=fin)


def test_viewer_when_it_starts_then_gets_a_welcome_first(stage: Stage) -> None:
    _, transport = connect(stage.room)
    (welcome,) = transport.take_messages()
    assert (welcome["t"], welcome["show"], welcome["recovered"]) == ("welcome", SHOW, False)
    assert welcome["state"]["stock:1"]["left"] == 9


def test_viewer_when_bytes_came_early_then_they_are_read_after_the_welcome(stage: Stage) -> None:
    frame = from_client({"t": "time", "ref": 1})
    viewer, _ = connect(stage.room, early=frame[:5])
    viewer.data_received(frame[5:])
    assert stage.commands == [(viewer, Time(ref=1))]


def test_viewer_when_too_much_came_early_then_1009(stage: Stage) -> None:
    _, transport = connect(stage.room, early=b"x" * (limits.EARLY_BYTES_MAX + 1))
    assert transport.take_frames()[-1][1][:2] == (1009).to_bytes(2)


def test_reading_when_frames_share_a_segment_and_one_is_cut_then_all_arrive(stage: Stage) -> None:
    one, two = from_client({"t": "like", "taps": 1}), from_client({"t": "like", "taps": 2})
    stage.receive(one + two[:3], two[3:7], two[7:] + one)
    assert [command for _, command in stage.commands] == [Like(1), Like(2), Like(1)]
    assert stage.viewer._inbox is None


def test_reading_when_a_message_is_fragmented_then_it_arrives(stage: Stage) -> None:
    payload = msgpack.packb({"t": "like", "taps": 3})
    stage.receive(client(2, payload[:4], fin=False), client(9, b"hi"), client(0, payload[4:]))
    assert stage.commands == [(stage.viewer, Like(3))]
    assert stage.transport.take_frames() == [(frames.PONG, b"hi")]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.server_frame(2, b"abc"), 1002),
        (client(frames.TEXT, b"{}"), 1003),
        (client(2, b"x" * (limits.COMMAND_BYTES_MAX + 1)), 1009),
        (client(2, b"\xc1") * limits.STRIKES_MAX, 4400),
    ],
    ids=["unmasked", "wrong type", "too big", "strikes"],
)
def test_reading_when_rules_are_broken_then_closes_with_the_code(
    stage: Stage, data: bytes, code: int
) -> None:
    stage.receive(data)
    assert stage.closed_with() == code
    assert stage.transport.ended == (code in (1002, 1009))
    assert stage.room.viewers == 0
    assert not stage.viewer.is_open


def test_reading_when_text_is_not_utf8_then_1007(stage: Stage) -> None:
    viewer, transport = connect(stage.room, codec=JSON)
    viewer.data_received(client(frames.TEXT, b'{"t":"like","x":"\xff"}'))
    assert transport.take_frames()[-1] == (frames.CLOSE, (1007).to_bytes(2) + b"bad_text")


def test_reading_when_a_command_is_malformed_then_refused_with_its_ref(stage: Stage) -> None:
    stage.receive(from_client({"t": "claim", "ref": 5, "sale": "x"}))
    (refused,) = stage.transport.take_messages()
    assert (refused["t"], refused["ref"], refused["name"]) == ("refused", 5, "bad_field")
    assert refused["field"] == "sale"
    assert stage.viewer.is_open


def test_reading_when_too_many_commands_are_unanswered_then_waits_for_answers(
    stage: Stage,
) -> None:
    count = limits.COMMANDS_IN_FLIGHT_MAX + 5
    stage.receive(b"".join(from_client({"t": "time", "ref": ref}) for ref in range(count)))
    assert len(stage.commands) == limits.COMMANDS_IN_FLIGHT_MAX
    assert not stage.transport.reading


async def test_reading_when_answers_were_sent_then_goes_on(stage: Stage) -> None:
    count = limits.COMMANDS_IN_FLIGHT_MAX + 5
    stage.receive(b"".join(from_client({"t": "time", "ref": ref}) for ref in range(count)))
    for ref in range(limits.COMMANDS_IN_FLIGHT_MAX):
        stage.viewer.send(Accepted(ref=ref))
    await asyncio.sleep(0)
    assert [command.ref for _, command in stage.commands] == list(range(count))
    assert stage.transport.reading


async def test_reading_when_one_viewer_sends_very_much_then_others_have_their_turn(
    stage: Stage,
) -> None:
    count = limits.MESSAGES_PER_TURN_MAX
    flood = from_client({"t": "like"}) * (3 * count + 5)
    stage.receive(client(2, b"", fin=False)[:1], client(2, b"", fin=False)[1:])  # by the inbox
    stage.receive(client(0, msgpack.packb({"t": "like"})) + flood)
    seen = [len(stage.commands)]
    while len(stage.commands) < 3 * count + 6:
        assert not stage.transport.reading
        await asyncio.sleep(0)
        seen.append(len(stage.commands))
    steps = {after - before for before, after in itertools.pairwise([0, *seen])}
    assert max(steps) == count
    await asyncio.sleep(0)
    assert stage.transport.reading
    assert stage.viewer._inbox is None


FLOODS = {
    "time": from_client({"t": "time", "ref": 1}),
    "hello": from_client({"t": "hello", "token": "x"}),
    "ping": client(frames.PING),
    "pong": client(frames.PONG),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_reading_when_cheap_frames_come_without_end_then_4429(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    time_ms = [5_000.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: time_ms[0])
    monkeypatch.setattr(limits, "COMMANDS_IN_FLIGHT_MAX", 10_000)

    async def receive(count: int) -> None:
        stage.receive(FLOODS[name] * count)
        for _ in range(count // limits.MESSAGES_PER_TURN_MAX + 1):
            await asyncio.sleep(0)

    for _ in range(3):  # the bound is for each second
        await receive(limits.FRAMES_PER_SECOND_MAX)
        assert stage.viewer.is_open
        time_ms[0] += 1_000
    await receive(limits.FRAMES_PER_SECOND_MAX + 1)
    assert stage.closed_with() == 4429
    assert len(stage.commands) in (0, 4 * limits.FRAMES_PER_SECOND_MAX)


def test_close_when_a_flood_follows_then_it_is_not_kept(stage: Stage) -> None:
    stage.viewer.close(4400)
    for _ in range(100):
        stage.receive(from_client({"t": "like"}) * 100)
    assert stage.viewer._inbox is None
    stage.receive(client(frames.CLOSE, b"\x11\x30") + b"whatever follows")
    assert stage.transport.closed


async def test_writing_when_the_peer_does_not_read_then_neither_do_we(stage: Stage) -> None:
    stage.transport.stuck = True
    stage.viewer.send(Accepted(ref=1))
    assert not stage.transport.reading
    stage.receive(from_client({"t": "like"}))
    assert stage.commands == []
    stage.transport.unstick()
    await asyncio.sleep(0)
    assert stage.transport.reading
    assert stage.commands == [(stage.viewer, Like())]


def test_writing_when_the_peer_does_not_read_then_ticks_wait_and_one_catch_up_follows(
    stage: Stage,
) -> None:
    world: Any = stage.hub.ports.store
    stage.transport.stuck = True
    stage.viewer.send(Accepted(ref=1))
    for left in range(8, 0, -1):
        stage.room.offer(world.set("stock:1", left=left))
        flush_all(stage.room)
    stage.transport.unstick()
    flush_all(stage.room)
    reply, tick = stage.transport.take_messages()
    assert (reply["t"], tick["t"]) == ("accepted", "tick")
    assert tick["state"]["stock:1"]["left"] == 1
    flush_all(stage.room)
    assert stage.transport.take_messages() == []


def test_writing_when_own_replies_pile_up_then_4408(stage: Stage) -> None:
    stage.transport.stuck = True
    event = OrderEvent(order=ClaimState(claim_id="x" * 1000, status="held"))
    for _ in range(limits.WRITE_BUFFER_BYTES_MAX // 1000 + 1):
        stage.viewer.send(event)
    assert not stage.viewer.is_open
    assert len(stage.transport.buffered) < limits.WRITE_BUFFER_BYTES_MAX + 3_000


def test_close_when_called_then_says_why_once_and_leaves_the_room(stage: Stage) -> None:
    stage.viewer.close(1012, retry_ms=1500)
    stage.viewer.close(4403)
    stage.viewer.send(Accepted(ref=1))
    bye, close = stage.transport.take_frames()
    assert msgpack.unpackb(bye[1]) == {
        "t": "bye", "code": 1012, "name": "restart", "reconnect": True, "retry_ms": 1500,
    }  # fmt: skip
    assert close == (frames.CLOSE, (1012).to_bytes(2) + b"restart")
    assert stage.room.viewers == 0
    assert not stage.transport.closed


def test_close_when_the_client_answers_then_hangs_up(stage: Stage) -> None:
    stage.viewer.close(1012)
    stage.receive(from_client({"t": "like"}) + client(frames.CLOSE, b"\x03\xf4"))
    assert stage.transport.closed
    assert not stage.transport.aborted
    assert stage.commands == []


def test_close_when_the_client_does_not_answer_then_aborts(stage: Stage) -> None:
    stage.viewer.close(1012)
    stage.viewer.on_wheel()
    assert stage.transport.aborted


def test_close_when_the_client_closes_then_gets_its_own_payload_back(stage: Stage) -> None:
    stage.receive(client(frames.CLOSE, b"\x03\xe8bye"))
    assert stage.transport.take_frames() == [(frames.CLOSE, b"\x03\xe8bye")]
    assert stage.transport.closed


def test_close_when_reading_was_stopped_then_their_answer_still_gets_through(stage: Stage) -> None:
    stage.transport.stuck = True
    stage.viewer.send(Accepted(ref=1))
    stage.viewer.close(4408)
    assert stage.transport.reading
    stage.receive(client(frames.CLOSE, b"\x11\x38"))
    assert stage.transport.closed


def test_connection_lost_when_signed_in_then_everything_is_forgotten(stage: Stage) -> None:
    stage.room.sign_in(stage.viewer, "u1", "n", "viewer", 0)
    stage.viewer.connection_lost(None)
    stage.viewer.connection_lost(None)
    assert (stage.hub.viewers, stage.room.viewers, len(stage.hub.wheel)) == (0, 0, 0)
    assert stage.room.viewers_of("u1") == ()
    assert stage.hub._users == {}


def test_wheel_when_a_ping_is_due_then_carries_the_tick_number(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance(stage, monkeypatch, 1_000)
    stage.viewer.on_wheel()
    ((opcode, payload),) = stage.transport.take_frames()
    assert (opcode, int.from_bytes(payload)) == (frames.PING, stage.hub.tick)


def test_wheel_when_no_pong_comes_then_4409(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    advance(stage, monkeypatch, 1_000)
    stage.viewer.on_wheel()
    advance(stage, monkeypatch, stage.hub.settings.pong_seconds - 1)
    stage.viewer.on_wheel()
    assert stage.viewer.is_open
    advance(stage, monkeypatch, 1.5)
    stage.viewer.on_wheel()
    assert stage.closed_with() == 4409


def test_wheel_when_pongs_come_then_pings_keep_their_interval(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        advance(stage, monkeypatch, stage.hub.settings.ping_seconds + 0.1)
        stage.viewer.on_wheel()
        ((_, payload),) = stage.transport.take_frames()
        stage.receive(client(frames.PONG, payload))
        stage.viewer.on_wheel()
        assert stage.transport.take_frames() == []
    assert stage.viewer.is_open


def test_lag_when_pongs_come_late_then_catch_ups_once_a_second_until_they_are_quick(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    world: Any = stage.hub.ports.store
    advance(stage, monkeypatch, 1_000)
    stage.viewer.on_wheel()
    ((_, payload),) = stage.transport.take_frames()
    advance(stage, monkeypatch, limits.LAG_SECONDS_MAX + 1)
    stage.receive(client(frames.PONG, payload))
    assert stage.viewer.is_lagging
    for _ in range(20):
        advance(stage, monkeypatch, 0.1)
        stage.room.offer(world.set("likes", total=1))
        flush_all(stage.room)
    assert 1 <= len(stage.transport.take_messages()) <= 2
    stage.viewer.on_wheel()
    ((_, payload),) = stage.transport.take_frames()
    stage.receive(client(frames.PONG, payload))
    assert not stage.viewer.is_lagging
    flush_all(stage.room)
    for _ in range(5):
        stage.room.offer(world.set("likes", total=2))
        flush_all(stage.room)
    assert len(stage.transport.take_messages()) >= 5


def test_lag_when_it_lasts_then_4408(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(10):
        advance(stage, monkeypatch, 100 if not stage.viewer.is_lagging else 1.1)
        stage.viewer.on_wheel()
        sent = stage.transport.take_frames()
        if sent and sent[-1][0] == frames.CLOSE:
            break
        if sent:
            advance(stage, monkeypatch, limits.LAG_SECONDS_MAX + 0.5)
            stage.receive(client(frames.PONG, sent[-1][1]))
    assert sent[-1] == (frames.CLOSE, (4408).to_bytes(2) + b"too_slow")


def test_wheel_when_a_viewer_does_not_read_for_long_then_4408(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.transport.stuck = True
    stage.viewer.send(Accepted(ref=1))
    advance(stage, monkeypatch, limits.SLOW_SECONDS_MAX + 1)
    stage.viewer.on_wheel()
    assert not stage.viewer.is_open


def test_wheel_when_a_link_pauses_again_and_again_then_its_deadline_is_not_put_off(
    stage: Stage,
) -> None:
    stage.hub.wheel.schedule(stage.viewer, 2 * limits.SLOW_SECONDS_MAX)  # the dice may say sooner
    stage.viewer.pause_writing()
    deadline = stage.viewer.wheel_slot
    for _ in range(4):
        stage.viewer.resume_writing()
        assert stage.hub.wheel._take_slot() == set()  # time goes on
        stage.viewer.pause_writing()
        assert stage.viewer.wheel_slot == deadline


def test_wheel_when_a_message_drips_for_ever_then_1002(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.receive(client(2, b"x", fin=False))
    advance(stage, monkeypatch, limits.MESSAGE_SECONDS_MAX + 1)
    stage.viewer.on_wheel()
    assert stage.closed_with() == 1002


def test_refuse_when_the_command_had_no_ref_then_nothing_is_sent(stage: Stage) -> None:
    stage.viewer.refuse(None, "busy")
    assert stage.transport.take_frames() == []
    stage.viewer.refuse(3, "price_changed", price=5, price_version=2)
    (refused,) = stage.transport.take_messages()
    assert (refused["ref"], refused["price"], refused["price_version"]) == (3, 5, 2)


def test_viewer_when_idle_then_has_no_dict_and_nothing_lazy(stage: Stage) -> None:
    assert not hasattr(stage.viewer, "__dict__")
    assert stage.viewer._inbox is None
    assert stage.viewer.budget is None


# --- Many at once ----------------------------------------------------------------------------


async def test_mail_when_some_viewers_cannot_take_it_then_each_gets_its_own_in_order(
    stage: Stage,
) -> None:
    """Answers of one batch: to a viewer that reads, one that is full and one that leaves."""
    full, full_transport = connect(stage.room)
    leaving, leaving_transport = connect(stage.room)
    for transport in (full_transport, leaving_transport):
        transport.take_frames()
    full_transport.stuck = True
    full.send(Accepted(ref=0))  # pauses it
    leaving.close(1012)
    leaving_transport.take_frames()

    mail = Mail()
    for ref in (1, 2):
        for viewer in (stage.viewer, full, leaving):
            mail.add(viewer, Accepted(ref=ref))
    mail.send()

    assert [message["ref"] for message in stage.transport.take_messages()] == [1, 2]
    assert full_transport.take_frames() == []
    full_transport.unstick()
    assert [message["ref"] for message in full_transport.take_messages()] == [0, 1, 2]
    assert leaving_transport.take_frames() == []


async def test_mail_when_it_answers_commands_then_reading_goes_on(stage: Stage) -> None:
    refs = range(1, limits.COMMANDS_IN_FLIGHT_MAX + 1)
    for ref in refs:
        stage.receive(client(frames.BINARY, msgpack.packb({"t": "time", "ref": ref})))
    assert not stage.transport.reading
    mail = Mail()
    for ref in refs:
        mail.add(stage.viewer, Accepted(ref=ref))
    mail.send()
    await asyncio.sleep(0)
    assert stage.transport.reading
