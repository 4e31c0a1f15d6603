"""The lean client: one WebSocket of a viewer, that comes back by itself as a browser's does.

A plain asyncio.Protocol. A read that is exactly one tick somebody here has had before costs two
look-ups and one reading of the clock; everything else is parsed frame by frame.
"""

import asyncio
import os
from contextlib import suppress
from time import monotonic_ns
from typing import Final, cast

import msgspec

from loadtest import wire
from loadtest.swarm.entrance import HANDSHAKE_SECONDS, Swarm, Who
from loadtest.swarm.sight import NOTHING, Facts, Fault, Level
from server.errors import CLOSES
from server.protocol.messages import (
    Accepted,
    Bye,
    Command,
    Hello,
    OrderEvent,
    RefusedReply,
)

# A message is a map whose first pair is "t": its name, so the name's first letter is byte 4
# (map header, header and letter of "t", header of the name).
KIND_AT: Final = 4
TICK: Final = ord("t")
WELCOME: Final = ord("w")
BUCKET_NS: Final = 256_000  # arrivals are counted in steps of 256 µs

BACKOFF_FIRST_S: Final = 0.5
BACKOFF_MAX_S: Final = 8.0
HEAD_BYTES_MAX: Final = 16_384

_ENCODER: Final = msgspec.msgpack.Encoder()
_OWN: Final = msgspec.msgpack.Decoder(Accepted | RefusedReply | OrderEvent | Bye)
_STAYS_AWAY: Final = frozenset(row.code for row in CLOSES.values() if not row.reconnect)


class Connection(asyncio.Protocol):
    """One viewer's WebSocket. Subclasses are personas: they override what begins with `on_`.

    `name`: the user, or a name for a viewer without one. `size`: bytes received after handshakes.
    `arrived`: it has been here; `welcomed`: it is here now; `over`: it will not come back.
    """

    __slots__ = (
        "_bye",
        "_close_code",
        "_failures",
        "_fd",
        "_handshake",
        "_known",
        "_tail",
        "_timer",
        "address",
        "arrived",
        "name",
        "over",
        "ref",
        "room",
        "sight",
        "signed_in",
        "since_us",
        "size",
        "swarm",
        "token",
        "trace",
        "transport",
        "view",
        "welcomed",
    )  # fmt: skip
    receive_buffer = 0  # bytes; 0: the system's
    timely = True

    def __init__(self, swarm: Swarm, who: Who) -> None:
        self.swarm = swarm
        self.name, self.room, self.token, self.address = who
        self.sight = (swarm.sights if self.timely else swarm.slow_sights)[self.room]
        self._known = self.sight.known
        self.view = NOTHING
        self.transport: asyncio.Transport | None = None
        self.size = 0
        self.ref = 0
        self.since_us = 0  # when it was meant to come (again)
        self.arrived = self.welcomed = self.signed_in = self.over = False
        self._handshake = False
        self._tail = b""
        self._failures = 0
        self._fd = -1  # of the socket, where nothing stands between it and the frames
        self._bye: Bye | None = None
        self._close_code = 0
        self._timer: asyncio.TimerHandle | None = None
        self.trace: list[tuple[int, int, Level]] | None = None

    @property
    def settled(self) -> bool:
        """Whether it has arrived, and signed in if it has a token."""
        return self.arrived and (self.signed_in or not self.token)

    def keep_trace(self) -> None:
        """Note everything it is shown of stock in `trace`: (sale, t_us, level). It then takes the
        slow path."""
        self.trace = []
        self._known = {}

    # --- Coming and going ---------------------------------------------------------------------

    def come(self, since_us: int) -> None:
        """Connect; it is meant to be there from `since_us` on."""
        self.since_us = since_us
        self.swarm.door.enter(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        self._handshake = True
        self._tail = b""
        self._bye, self._close_code = None, 0
        plain = self.swarm.targets[self.room].tls is None
        self._fd = transport.get_extra_info("socket").fileno() if plain else -1
        self.transport.write(self.swarm.targets[self.room].request(self.view))
        self._timer = self.swarm.loop.call_later(HANDSHAKE_SECONDS, self.transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.welcomed:
            self.welcomed = self.signed_in = False
            self.since_us = self.swarm.now_us()
            self.swarm.counts["open"] -= 1
            self.swarm.counts["sockets_lost"] += 1
            self.on_away()
        self.failed()

    def failed(self) -> None:
        """There is no connection: come back later, unless that is not wanted."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self.swarm.door.leave(self)
        if self.swarm.ended or self.over:
            return
        code = self._bye.code if self._bye else self._close_code
        if not self._bye.reconnect if self._bye else code in _STAYS_AWAY:
            self._stay_away(f"close.{code}")
            return
        self._timer = self.swarm.loop.call_later(self._pause_s(), self._again)

    def _pause_s(self) -> float:
        """The server's hint spread over half as much again, else full jitter over a growing
        step, never below a tenth of it."""
        jitter = self.swarm.rng.random()
        bye, self._bye = self._bye, None
        if bye and bye.retry_ms:
            return bye.retry_ms / 1000 * (1 + jitter / 2)
        step = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 10))
        self._failures += 1
        return float(step * (0.1 + 0.9 * jitter))

    def _again(self) -> None:
        self._timer = None
        if not self.swarm.ended:
            self.swarm.door.enter(self)

    def _stay_away(self, reason: str) -> None:
        self.over = True
        self.swarm.counts[f"over.{reason}"] += 1
        self.swarm.counts["errors"] += 1

    def abort(self) -> None:
        """Cut the connection without a word."""
        if self.transport is not None:
            self.transport.abort()

    # --- Reading ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        facts = self._known.get(data)
        if facts is None or self._tail:
            self._parse(data)
            return
        step = facts.steps.get(self.view) or self.sight.step(facts, self.view, self.name)
        step.arrivals[(monotonic_ns() - self.swarm.zero_ns) // BUCKET_NS] += 1
        self.view = step.view
        self.size += len(data)

    def _parse(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if self._handshake:
            data = self._answered(data)
        at = 0
        while (span := wire.payload_span(data, at)) is not None:
            start, end = span
            self._frame(data, at, start, end)
            at = end
        self.size += at
        if at < len(data):
            self._tail = data[at:]

    def _frame(self, data: bytes, at: int, start: int, end: int) -> None:
        """One whole frame: header at `at`, payload `data[start:end]`."""
        if data[at] & 0x08:
            self._control(data[at] & 0x0F, data[start:end])
            return
        try:
            self._message(data, at, start, end)
        except (msgspec.MsgspecError, LookupError) as error:
            self.swarm.offend(Fault("unreadable", "", str(error)), self.name, self.room)
            self.abort()

    def _message(self, data: bytes, at: int, start: int, end: int) -> None:
        kind = data[start + KIND_AT] if end - start > KIND_AT else 0
        if kind == TICK:
            self._shown(self.sight.tick(data[at:end], start - at, self.name))
        elif kind == WELCOME:
            self._shown(self.sight.welcome(data[at:end], start - at, self.name))
            self._on_welcome()
        else:
            self._own(_OWN.decode(data[start:end]))

    def _shown(self, facts: Facts) -> None:
        step = self.sight.step(facts, self.view, self.name)
        since_zero_ns = monotonic_ns() - self.swarm.zero_ns
        step.arrivals[since_zero_ns // BUCKET_NS] += 1
        if self.trace is not None and step.view.levels is not self.view.levels:
            for sale, level in step.view.levels.items():
                if self.view.levels.get(sale) != level:
                    self.trace.append((sale, since_zero_ns // 1000, level))
        self.view = step.view

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == wire.PING:
            self.write(wire.client_frame(payload, wire.PONG))
        elif opcode == wire.CLOSE and self.transport is not None:
            self._close_code = int.from_bytes(payload[:2], "big")
            self.transport.abort()

    def _answered(self, data: bytes) -> bytes:
        """Take the handshake's answer off the front."""
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            self._tail = data
            if len(data) > HEAD_BYTES_MAX:
                self.abort()
            return b""
        if head[9:12] != b"101":
            self._turned_away(head)
            return b""
        self._handshake = False
        return rest

    def _turned_away(self, head: bytes) -> None:
        """Full: come back when told. Anything else will not change."""
        status = head[9:12].decode(errors="replace")
        self.swarm.counts[f"join_refused.{status}"] += 1
        if status == "503":
            self._bye = Bye(1013, "overloaded", True, _retry_after_ms(head))
        else:
            self._stay_away(f"http.{status}")
        self.abort()

    # --- What is said to this viewer ----------------------------------------------------------

    def _on_welcome(self) -> None:
        if self.welcomed:
            return
        self.welcomed = True
        self._failures = 0
        self.swarm.door.leave(self)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        t_us = self.swarm.now_us()
        self.swarm.counts["open"] += 1
        if not self.arrived:
            self.arrived = True
            self.swarm.counts["joins"] += 1
            self.swarm.measured.record_always("join", t_us - self.since_us, room=self.room)
        else:
            self.swarm.counts["reconnects"] += 1
            took_us = t_us - self.since_us
            self.swarm.measured.record("reconnect", self.since_us, took_us, room=self.room)
        if self.token:
            self.send(Hello(self.token, ref=0))
        self.on_here()

    def _own(self, message: Accepted | RefusedReply | OrderEvent | Bye) -> None:
        if isinstance(message, OrderEvent):
            self.on_order(message)
        elif isinstance(message, Bye):
            self._bye = message
        elif message.ref == 0:
            self._on_hello(message)
        elif isinstance(message, Accepted):
            self.on_accepted(message)
        else:
            self.on_refused(message)

    def _on_hello(self, reply: Accepted | RefusedReply) -> None:
        """Nothing but `hello` has ref 0 here."""
        if isinstance(reply, Accepted):
            self.signed_in = True
            self.on_signed_in()
        elif reply.retryable:
            self.swarm.loop.call_later(max(reply.retry_ms, 300) / 1000, self._hello_again)
        else:
            self._stay_away(f"hello.{reply.name}")
            self.abort()

    def _hello_again(self) -> None:
        if self.welcomed and not self.signed_in:
            self.send(Hello(self.token, ref=0))

    # --- Sending ------------------------------------------------------------------------------

    def next_ref(self) -> int:
        """A number for a command; replies carry it."""
        self.ref += 1
        return self.ref

    def send(self, command: Command) -> None:
        """Encode, mask and send a command now."""
        self.write(wire.client_frame(_ENCODER.encode(command)))

    def write(self, frame: bytes) -> None:
        """Send a whole frame, if there is a connection.

        Now, by the socket itself: the loop would send it after all reads that are due, and the
        instant of sending would not be what it is said to be.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        sent = 0
        if self._fd >= 0 and not transport.get_write_buffer_size():
            with suppress(OSError):  # full, or broken, which reading will tell
                sent = os.write(self._fd, frame)
        if sent < len(frame):
            transport.write(frame[sent:])

    # --- What personas do ---------------------------------------------------------------------

    def on_here(self) -> None:
        """Welcomed (again)."""

    def on_signed_in(self) -> None:
        """Signed in (again)."""

    def on_away(self) -> None:
        """The connection is lost."""

    def on_accepted(self, reply: Accepted) -> None:
        """A command was accepted."""

    def on_refused(self, reply: RefusedReply) -> None:
        """A command was refused."""

    def on_order(self, event: OrderEvent) -> None:
        """A claim of this user has moved on."""


def _retry_after_ms(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"retry-after:"):
            value = line.partition(b":")[2].strip()
            return int(value) * 1000 if value.isdigit() else 0
    return 0
