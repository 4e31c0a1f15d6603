"""A hub without sockets and without Redis, for tests: fake transports, store, bus and clock.

`World` holds the truth of one show like the scripts do (state versions, event numbers, danmaku)
and hands out facts and snapshots; a `Screen` is what a client would show after the frames that
were written to one viewer.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack

from server import clock
from server.domain.presence import PresenceAnswer, PresenceReport
from server.errors import StoreUnavailable
from server.hub.hub import Hub
from server.hub.ports import HubSettings, Ports
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol import frames
from server.protocol.codec import MSGPACK, Codec
from server.protocol.facts import ChatFact, EventFact, Fact, HeartbeatFact, Resync, StateFact
from server.protocol.messages import ChatLine, Command

SHOW = "demo1"
KEY = b"\x0a\x0b\x0c\x0d"
COUNTS = PresenceAnswer(counts=True, people=0, is_unswept=False)


class FakeTransport(asyncio.Transport):
    """Keeps what is written. With `stuck`, it behaves like a socket whose peer does not read."""

    def __init__(self) -> None:
        super().__init__()
        self.viewer: Viewer | None = None
        self.sent = b""
        self.buffered = b""
        self.stuck = False
        self.reading = True
        self.closed = False
        self.ended = False
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def get_write_buffer_size(self) -> int:
        return len(self.buffered)

    def is_closing(self) -> bool:
        return self.closed

    def write(self, data: Any) -> None:
        assert not self.closed, "written after close()"
        assert not self.ended, "written after write_eof()"
        if self.stuck or self.buffered:
            was_empty = not self.buffered
            self.buffered += data
            if was_empty and self.viewer is not None:
                self.viewer.pause_writing()
        else:
            self.sent += data

    def unstick(self) -> None:
        """The peer reads again."""
        self.stuck = False
        if self.buffered:
            self.sent += self.buffered
            self.buffered = b""
            assert self.viewer is not None
            self.viewer.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def take_messages(self) -> list[dict[str, Any]]:
        """Data messages (msgpack) sent since the last call."""
        return [msgpack.unpackb(payload) for opcode, payload in self.take_frames() if opcode == 2]

    def take_frames(self) -> list[tuple[int, bytes]]:
        """Frames sent since the last call, as (opcode, payload)."""
        data, self.sent = self.sent, b""
        found = []
        while data:
            length, start = data[1], 2
            if length == 126:
                length, start = int.from_bytes(data[2:4]), 4
            elif length == 127:
                length, start = int.from_bytes(data[2:10]), 10
            found.append((data[0] & 0x0F, data[start : start + length]))
            data = data[start + length :]
        return found


@dataclass
class Snapshot:
    epoch: int
    seq: int
    stock_epoch: int
    gate: str
    state: dict[str, dict[str, Any]]
    chat: list[ChatLine]
    rebuild: str = ""


@dataclass
class World:
    """The truth about one show: also the hub's store, bus and clock."""

    epoch: int = 100
    seq: int = 0
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    chat: list[ChatLine] = field(default_factory=list)
    said: int = 0  # lines ever
    # Line id -> (epoch, seq) of the event that took it back.
    taken_back: dict[str, tuple[int, int]] = field(default_factory=dict)
    banned: set[str] = field(default_factory=set)
    available: bool = True
    history_max: int = 512
    now: int = 1_790_000_000_000
    queue: asyncio.Queue[tuple[str, Fact | Resync]] = field(default_factory=asyncio.Queue)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    deaf: bool = False
    presence_answers: list[PresenceAnswer] = field(default_factory=list)  # then COUNTS

    # --- Changes, as scripts make them; each returns the fact they publish ---

    def set(self, key: str, **values: Any) -> StateFact:
        epoch = 1 if key.startswith(("sale:", "stock:")) else self.epoch
        version = self.state.get(key, {"version": 0})["version"] + 1
        value = {"epoch": epoch, "version": version, **values}
        self.state[key] = value
        return StateFact(key, dict(value))

    def happen(self, **fields: Any) -> EventFact:
        self.seq += 1
        event = {"k": "commentary", "seq": self.seq, "at": self.now, "text": "", **fields}
        self.events.append(event)
        del self.events[: -self.history_max]
        return EventFact(self.epoch, event)

    def chatter(self, count: int = 1, folded: int = 0) -> ChatFact:
        numbers = range(self.said, self.said + count)
        self.said += count
        lines = [ChatLine(f"x-{n}", f"u{n % 3}", "n", "viewer", "hi") for n in numbers]
        unheard = {line.id for line in lines if line.user in self.banned}
        self.chat += [line for line in lines if line.id not in unheard]
        self.taken_back |= dict.fromkeys(unheard, (0, 0))
        return ChatFact(lines, folded)

    def take_line_back(self, line_id: str) -> EventFact:
        """A moderator deletes a line."""
        return self._forget({line_id}, k="line_removed", line=line_id)

    def ban(self, user: str) -> EventFact:
        self.banned.add(user)
        lines = {line.id for line in self.chat if line.user == user}
        return self._forget(lines, k="user_removed", user=user)

    def _forget(self, lines: Collection[str], **event: Any) -> EventFact:
        fact = self.happen(**event)
        self.chat = [line for line in self.chat if line.id not in lines]
        self.taken_back |= dict.fromkeys(lines, (self.epoch, self.seq))
        return fact

    # --- RoomStorePort ---

    def _check(self, *call: Any) -> None:
        self.calls.append(call)
        if not self.available:
            raise StoreUnavailable("down")

    async def snapshot(self, show_id: str) -> Snapshot | None:
        self._check("snapshot", show_id)
        if show_id != SHOW:
            return None
        return self.cut()

    def cut(self) -> Snapshot:
        state = {key: dict(value) for key, value in self.state.items()}
        return Snapshot(self.epoch, self.seq, 1, "open", state, self.chat[-50:])

    async def events_after(
        self, show_id: str, epoch: int, seq: int, limit: int
    ) -> list[dict[str, Any]] | None:
        self._check("events_after", show_id, epoch, seq, limit)
        first = self.events[0]["seq"] if self.events else self.seq + 1
        if epoch != self.epoch or seq + 1 < first:
            return None
        return [event for event in self.events if event["seq"] > seq][:limit]

    async def add_likes(self, show_id: str, hub_id: str, batch_no: int, taps: int) -> int:
        self._check("add_likes", batch_no, taps)
        return taps

    async def publish_chat(self, show_id: str, lines: Sequence[ChatLine], folded: int) -> None:
        self._check("publish_chat", list(lines), folded)

    async def report_presence(
        self, show_id: str, hub_id: str, report: PresenceReport, ttl_ms: int
    ) -> PresenceAnswer:
        self._check("report_presence", report)
        return self.presence_answers.pop(0) if self.presence_answers else COUNTS

    async def report_counts(self, show_id: str, hub_id: str, lines: int, claims: int) -> None:
        self._check("report_counts", lines, claims)

    async def heartbeat(self, show_id: str, hub_id: str, n: int) -> None:
        self._check("heartbeat", n)
        if not self.deaf:
            self.queue.put_nowait((show_id, HeartbeatFact(hub_id, n)))

    # --- BusPort ---

    async def subscribe(self, show_id: str, hub_id: str) -> None:
        self._check("subscribe", show_id)

    async def unsubscribe(self, show_id: str) -> None:
        self.calls.append(("unsubscribe", show_id))

    async def facts(self) -> AsyncIterator[tuple[str, Fact | Resync]]:
        while True:
            yield await self.queue.get()

    async def reconnect(self, shows: Collection[str]) -> None:
        self.calls.append(("reconnect",))
        self.deaf = False

    # --- ClockPort ---

    def now_ms(self) -> int:
        return self.now

    async def refresh(self) -> None:
        self._check("refresh")


class Screen:
    """A client's reducer: what one viewer would see, with every promise checked on the way."""

    def __init__(self) -> None:
        self.epoch = 0
        self.seq = 0
        self.state: dict[str, dict[str, Any]] = {}
        self.events: list[int] = []  # seq of every event shown, in order
        self.lines: dict[str, str] = {}  # danmaku shown: id -> user
        self.folded = 0
        self.welcomes = 0

    def show(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            if message["t"] == "welcome":
                self._on_welcome(message)
            elif message["t"] == "tick":
                self._on_tick(message)

    def _on_welcome(self, message: dict[str, Any]) -> None:
        self.welcomes += 1
        if not message["recovered"] or self.epoch != message["epoch"]:
            self.events.clear()
            self.state.clear()
        self._on_events(message["epoch"], message.get("events", []), message["recovered"])
        self.epoch, self.seq = message["epoch"], message["seq"]
        self._on_state(message["state"])
        self.lines = {line["id"]: line["user"] for line in message["chat"]}

    def _on_tick(self, message: dict[str, Any]) -> None:
        assert message.keys() - {"t", "n", "now"}, "a frame without news"
        if "events" in message:
            assert message["epoch"] == self.epoch
            self._on_events(self.epoch, message["events"], True)
        self._on_state(message.get("state", {}))
        for line in message.get("chat", []):
            assert line["id"] not in self.lines, "a danmaku line twice"
            self.lines[line["id"]] = line["user"]
        self.folded += message.get("folded", 0)

    def _on_events(self, epoch: int, events: list[dict[str, Any]], gapless: bool) -> None:
        for event in events:
            if gapless and self.epoch == epoch:
                assert event["seq"] == self.seq + 1, "a hole or a repeated event"
            self.seq = event["seq"]
            self.events.append(event["seq"])
            gone = (event.get("line"), event.get("user"))  # of line_removed, of user_removed
            self.lines = {
                line: user
                for line, user in self.lines.items()
                if line != gone[0] and user != gone[1]
            }

    def _on_state(self, state: dict[str, dict[str, Any]]) -> None:
        for key, value in state.items():
            old = self.state.get(key, {"epoch": 0, "version": 0})
            assert (value["epoch"], value["version"]) >= (old["epoch"], old["version"]), "backwards"
            self.state[key] = value


def new_hub(world: World, **settings: Any) -> tuple[Hub, list[tuple[Viewer, Command]]]:
    """A hub on `world` (inside a running loop) and the list of commands it dispatched."""
    commands: list[tuple[Viewer, Command]] = []
    hub = Hub(
        "h1",
        Ports(world, world, world),
        HubSettings(**settings),
        lambda viewer, command: commands.append((viewer, command)),
        banned_in=lambda room: world.banned,
    )
    return hub, commands


def connect(
    room: Room, *, codec: Codec = MSGPACK, resume: tuple[int, int] | None = None, early: bytes = b""
) -> tuple[Viewer, FakeTransport]:
    """A viewer that has just come through the door."""
    viewer = Viewer(room, codec, address="192.0.2.1", resume=resume)
    transport = FakeTransport()
    transport.viewer = viewer
    viewer.connection_made(transport)
    viewer.start(early)
    return viewer, transport


def from_client(message: dict[str, Any]) -> bytes:
    """A message as a client's frame."""
    return frames.client_frame(frames.BINARY, msgpack.packb(message), KEY)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition`; fails the test after 20 s."""
    end = clock.monotonic_ms() + 20_000
    while not condition():
        assert clock.monotonic_ms() < end, "not within 20 s"
        await asyncio.sleep(0.002)


def flush_all(room: Room) -> None:
    """Flush every group of a room now, as the ticker would in its time."""
    for groups in room._groups.values():
        for group in list(groups):
            group.flush()


class Handle:
    """A timer of SlowLoop."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SlowLoop:
    """An event loop, as far as wheel and ticker use one: time moves only by `advance`."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[tuple[float, Handle, Callable[[], None]]] = []
        self.turns = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Any:
        handle = Handle()
        self.timers.append((when, handle, callback))
        return handle

    def call_soon(self, callback: Callable[[], None]) -> Any:
        return self.call_at(self.now, callback)

    def advance(self, seconds: float, turns: float = math.inf) -> None:
        """Go on by `seconds`, or until so many timers rang."""
        end = self.now + seconds
        last = self.turns + turns
        while self.turns < last:
            self.timers = [timer for timer in self.timers if not timer[1].cancelled]
            due = min(self.timers, key=lambda timer: timer[0], default=None)
            if due is None or due[0] > end:
                break
            self.timers.remove(due)
            self.now = max(self.now, due[0])
            self.turns += 1
            due[2]()
        else:
            return
        self.now = end
