"""One viewer's connection, after the door: an asyncio.Protocol made to be idle.

The door (server/web/door.py) hands over a transport whose handshake is done. From then on this
object is all there is for a viewer: no task, no queue, no timer of its own. What is rarely needed
(a parser for split or odd frames, rate limit buckets) is made when it is needed.

Reading stops while the viewer does not read (its write buffer is not empty), while it has
COMMANDS_IN_FLIGHT_MAX commands unanswered, and after MESSAGES_PER_TURN_MAX messages until the
others had their turn. Frames of the room are kept back from a viewer that does not read
(server/hub/ladder.py); its own replies are not, up to WRITE_BUFFER_BYTES_MAX.
"""

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final, cast

from server import clock, limits
from server.errors import CLOSES
from server.hub.direct import NO_SOCKET, fd_of, write_frame
from server.hub.ladder import PAUSED, RETRY_MS, Paced
from server.hub.refusal import refusal
from server.protocol import frames
from server.protocol.codec import Codec, Malformed
from server.protocol.messages import Accepted, Bye, RefusedReply
from server.telemetry import metrics
from server.telemetry.metrics import own_lane

if TYPE_CHECKING:
    from server.hub.room import Room

# Unsent bytes the kernel takes before it calls the socket full (tcp(7)): with the default, 3.8 MB
# of frames went into a reader's socket that never read; with this, 16 KB do.
NOTSENT_LOWAT_BYTES: Final = 16 * 1024
_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)

# Bits of Viewer._flags, above those of the ladder.
_BUSY: Final = 8  # too many commands in flight
_CLOSING: Final = 16  # our close frame was sent, or theirs was answered
_LOST: Final = 32  # the connection is gone
_TAKING_TURNS: Final = 64  # too many messages in one loop turn
_READING_OFF: Final = 128  # the transport was told not to read
_NOT_READING: Final = PAUSED | _BUSY | _TAKING_TURNS
_STOPPED: Final = _NOT_READING | _CLOSING | _LOST
_UNWRITABLE: Final = PAUSED | _CLOSING | _LOST

_FIRST_BYE_CODE: Final = 1012  # from here on the close is ours to explain

_TURN: Final = range(limits.MESSAGES_PER_TURN_MAX)
_ANSWERS: Final = frozenset((Accepted, RefusedReply))
_CLOSES_BY_CODE: Final = {row.code: row for row in CLOSES.values()}


class Viewer(Paced, asyncio.Protocol):
    """One connection in one room. Made by the door, then `connection_made`, then `start`.

    `user` is None until a token was accepted (Room.sign_in). `budget` belongs to the commands
    (rate limits). `expires_at_ms` (of the token) is wall time.
    """

    __slots__ = (
        "_in_flight",
        "_inbox",
        "_inbox_since",
        "_rate",
        "_strikes",
        "address",
        "budget",
        "codec",
        "expires_at_ms",
        "fd",
        "name",
        "resume",
        "role",
        "transport",
        "user",
    )

    def __init__(
        self,
        room: "Room",
        codec: Codec,
        *,
        address: str,
        resume: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(room)
        self.codec = codec
        self.address = address
        self.resume = resume
        self.transport: asyncio.Transport
        self.fd = NO_SOCKET  # where frames are written past the transport
        self.user: str | None = None
        self.name = ""
        self.role = "viewer"
        self.expires_at_ms = 0
        self.budget: Any = None
        self._in_flight = 0
        self._strikes = 0
        self._inbox: frames.Inbox | None = None
        self._inbox_since = 0  # tick in which the pending message began; 0: none
        self._rate = 0  # second << 8 | frames received in it

    # --- Beginning ------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport; called by the door right after `transport.set_protocol`."""
        self.transport = cast(asyncio.Transport, transport)
        # A TLS transport is full at its high-water mark, not above it: with 0 it would always be.
        is_tls = transport.get_extra_info("sslcontext") is not None
        self.transport.set_write_buffer_limits(high=1 if is_tls else 0)
        self.fd = fd_of(transport)
        sock = transport.get_extra_info("socket")
        if _NOTSENT_LOWAT is not None and sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, _NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)

    def start(self, early: bytes = b"", response: bytes = b"") -> None:
        """Join the room, then read what came `early`, before the hand-over.

        The welcome is written in one go with the handshake's `response`, if that is still unsent.
        """
        self.room.join(self, response)
        if len(early) > limits.EARLY_BYTES_MAX:
            self.close(1009)
        elif early:
            self.data_received(early)

    @property
    def is_open(self) -> bool:
        """Neither side has begun to close."""
        return not self._flags & (_CLOSING | _LOST)

    # --- Reading --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        at = 0
        if self._inbox is None:
            for _ in _TURN:
                if self._flags & _STOPPED:
                    break
                quick = frames.quick_frame(data, at)
                if quick is None:
                    break
                at = quick[2]
                self._take(quick[0], quick[1])
                if at == len(data):
                    return
            self._inbox = frames.Inbox(inflates=self.codec.deflates)
            self._inbox_since = self.room.tick
        self._inbox.feed(data[at:] if at else data)
        self._pump()

    def _pump(self) -> None:
        """Take messages out of the inbox until it is empty or reading stops."""
        inbox = self._inbox
        if inbox is None or self._flags & _LOST:
            return
        try:
            self._empty(inbox)
            if self._flags & _CLOSING:
                self._await_close(inbox)
        except frames.BrokenFrames as broken:
            self._on_broken(broken)
            return
        if inbox.is_idle:
            self._inbox = None
            self._inbox_since = 0

    def _empty(self, inbox: frames.Inbox) -> None:
        for _ in _TURN:
            if self._flags & _STOPPED:
                return
            message = inbox.next()
            if message is None:
                return
            if not inbox.in_message:  # else a control frame in the middle of one that goes on
                self._inbox_since = self.room.tick
            self._take(*message)
        self._take_turns()

    def _await_close(self, inbox: frames.Inbox) -> None:
        """We sent a close frame: theirs is all that still matters."""
        while not self.transport.is_closing():
            message = inbox.next()
            if message is None:
                return
            if message[0] == frames.CLOSE:
                self.transport.close()

    def _on_broken(self, broken: frames.BrokenFrames) -> None:
        """Fail the connection (RFC 6455 section 7.1.7): close frame, then the end of our stream.

        Not transport.close(): with bytes of theirs unread, that is a reset, which can overtake
        the close frame.
        """
        self._inbox = None
        if self._flags & _CLOSING:
            return  # discarded until the deadline: an abort now could overtake our close frame
        self.close(broken.code)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _take(self, opcode: int, payload: bytes) -> None:
        """One whole message or control frame."""
        if self._is_flooding():
            self.close(4429)
        elif opcode == self.codec.opcode:
            self._on_message(payload)
        elif opcode == frames.PONG:
            self._on_pong(payload)
        elif opcode == frames.PING:
            self.send_frame(frames.pong_frame(payload))
        elif opcode == frames.CLOSE:
            self._on_close(payload)
        else:
            self.close(1003)

    def _is_flooding(self) -> bool:
        """Count one frame: is it above FRAMES_PER_SECOND_MAX of this second?"""
        second = int(clock.monotonic_ms()) // 1_000
        seen = self._rate & 0xFF if self._rate >> 8 == second else 0
        self._rate = second << 8 | seen + 1
        return seen >= limits.FRAMES_PER_SECOND_MAX

    def _on_message(self, payload: bytes) -> None:
        if self.codec.opcode == frames.TEXT and not _is_utf8(payload):
            self.close(1007)
            return
        try:
            command = self.codec.decode_command(payload)
        except Malformed as malformed:
            self._on_malformed(malformed)
            return
        if command.ref is not None:
            self._in_flight += 1
            if self._in_flight >= limits.COMMANDS_IN_FLIGHT_MAX:
                self._stop_reading(_BUSY)
        self.room.dispatch(self, command)

    def _on_malformed(self, malformed: Malformed) -> None:
        self._strikes += 1
        self.send(refusal(malformed.ref, malformed.name, field=malformed.field), is_answer=False)
        if self._strikes >= limits.STRIKES_MAX:
            self.close(4400)

    def _on_close(self, payload: bytes) -> None:
        """Their close frame: answer with the same (RFC 6455 section 5.5.1) and hang up."""
        self._begin_closing()
        self.transport.write(frames.server_frame(frames.CLOSE, payload))
        self.transport.close()

    def eof_received(self) -> bool | None:
        return None  # the transport closes itself

    # --- When reading stops ---------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The write buffer is not empty: no more frames from the room, and nothing more read."""
        metrics.shed.add("paused")
        self._fall_behind()
        self._stop_reading(PAUSED)

    def resume_writing(self) -> None:
        self._start_reading(PAUSED)
        self._follow_again()

    def _hold_back(self) -> None:
        if self.group is not None:
            self.group.hold(self)

    def _stop_reading(self, why: int) -> None:
        self._flags |= why
        self._switch_reading()

    def _start_reading(self, why: int) -> None:
        """One reason to stop is gone. What was received already comes first, in the next turn."""
        if not self._flags & why:
            return
        self._flags &= ~why
        if self._inbox is not None and not self._flags & _STOPPED:
            self._take_turns()
        else:
            self._switch_reading()

    def _take_turns(self) -> None:
        """Go on with the inbox after everybody else had a turn."""
        self._stop_reading(_TAKING_TURNS)
        self.room.hub.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._flags &= ~_TAKING_TURNS
        self._pump()
        self._switch_reading()

    def _switch_reading(self) -> None:
        """Tell the transport whether to read; when closing, the end of their stream is awaited."""
        if self._flags & _LOST:
            return
        stop = bool(self._flags & _NOT_READING) and not self._flags & _CLOSING
        if stop and not self._flags & _READING_OFF:
            self._flags |= _READING_OFF
            self.transport.pause_reading()
        elif not stop and self._flags & _READING_OFF:
            self._flags &= ~_READING_OFF
            self.transport.resume_reading()

    # --- Writing --------------------------------------------------------------------------------

    def send(self, message: object, *, is_answer: bool = True) -> None:
        """Own lane: to this viewer at once. Nothing happens once it is closing.

        An Accepted or RefusedReply ends one command in flight, unless `is_answer` is False.
        """
        self.send_frame(self.codec.frame(message))
        if is_answer:
            self.answered(message)

    def answered(self, message: object) -> None:
        """`message` was sent: an Accepted or RefusedReply ends one command in flight."""
        if self._in_flight and type(message) in _ANSWERS:
            self._in_flight -= 1
            if self._flags & _BUSY and self._in_flight <= limits.COMMANDS_IN_FLIGHT_MAX // 2:
                self._start_reading(_BUSY)

    def refuse(
        self,
        ref: int | None,
        name: str,
        *,
        field: str = "",
        retry_ms: int | None = None,
        price: int = 0,
        price_version: int = 0,
    ) -> None:
        """Refuse the command `ref` with a row of server/errors.py. Nothing without a `ref`."""
        if ref is not None:
            self.send(refusal(ref, name, field, retry_ms, price, price_version))

    def send_frame(self, frame: bytes) -> None:
        """Write a prebuilt frame of this viewer's codec at once, unless it is closing."""
        if self._flags & (_CLOSING | _LOST):
            return
        own_lane.add(1, len(frame))
        if not self._flags & PAUSED:
            write_frame(self, frame)
            return
        self.transport.write(frame)
        if self.transport.get_write_buffer_size() > limits.WRITE_BUFFER_BYTES_MAX:
            self.close(4408)

    @property
    def is_writable(self) -> bool:
        """Open, with an empty write buffer: frames may go past the transport."""
        return not self._flags & _UNWRITABLE

    # --- Deadlines ------------------------------------------------------------------------------

    def on_wheel(self) -> None:
        """Its deadline came: hang up, give up on it, ping it, or look again later."""
        if self._flags & _CLOSING:
            self.transport.abort()
            return
        tick = self.room.tick
        if self._is_too_slow(tick):
            self.close(4408, retry_ms=clock.jittered(RETRY_MS))
        elif self._inbox_since and tick - self._inbox_since >= self.room.hub.message_ticks:
            self._on_old_message()
        else:
            self._ping_or_wait()

    def _on_old_message(self) -> None:
        """A split message is not complete after long, unless it waits for us to read on."""
        if self._inbox is not None and not self._flags & _NOT_READING:
            self.close(1002)
        else:
            self._inbox_since = 0
            self.on_wheel()

    # --- End ------------------------------------------------------------------------------------

    def close(self, code: int, *, retry_ms: int = 0) -> None:
        """Say why (a Bye for our own reasons), send the close frame, and hang up soon.

        The connection ends when the viewer answers, or with an abort after CLOSE_SECONDS. Calling
        it again changes nothing.
        """
        if self._flags & (_CLOSING | _LOST):
            return
        row = _CLOSES_BY_CODE[code]
        metrics.closes.add(row.name)
        self._begin_closing()
        farewell = frames.close_frame(code, row.name)
        if code >= _FIRST_BYE_CODE:
            bye = Bye(code=code, name=row.name, reconnect=row.reconnect, retry_ms=retry_ms)
            farewell = self.codec.frame(bye) + farewell
        self.transport.write(farewell)

    def _begin_closing(self) -> None:
        """Leave the room (nothing may follow a close frame) and set the deadline for abort()."""
        self._flags |= _CLOSING
        self.room.leave(self)
        self.room.hub.wheel.schedule(self, limits.CLOSE_SECONDS)
        self._switch_reading()

    def shutdown(self) -> None:
        """The process is stopping: come back soon, elsewhere."""
        self.close(1012, retry_ms=clock.jittered(2_000))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._flags & _LOST:
            return
        self._flags |= _LOST
        self._inbox = None
        self.fd = NO_SOCKET
        self.room.leave(self)
        self.room.hub.on_lost(self)


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
