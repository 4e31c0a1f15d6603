"""WebSocket frames as bytes (RFC 6455 section 5): built whole, parsed from what arrived.

Frames we send are unmasked, unfragmented and built once with their header, so that one `bytes`
object can be written to every viewer. Frames we receive take one of two ways:

- `quick_frame`: whole, unfragmented, masked, small; nearly everything a viewer sends;
- `Inbox`: the rest. It inflates whole compressed messages itself; what is split over segments or
  fragmented, close frames and whatever breaks the rules is judged by websockets' own sans-I/O
  parser. It exists only while bytes or fragments are pending.
"""

import logging
import struct
import zlib
from typing import Final

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side

from server import limits
from server.errors import LivesaleError
from server.protocol.deflate import inflated, inflater

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel with the C part for this platform: slower, not wrong
    from websockets.utils import apply_mask

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
RSV1: Final = 0x40  # or-ed to the opcode: the message is deflated (RFC 7692 section 6)

_FIN: Final = 0x80
_MASKED: Final = 0x80
_KEY_BYTES: Final = 4
_LENGTH_16: Final = 126  # the length is in the next 2 bytes
_LENGTH_64: Final = 127  # the length is in the next 8 bytes
_CONTROL: Final = 0x8  # the bit in the opcode of a close, ping or pong
# First bytes that the quick way takes: FIN set, no reserved bit, a message or a ping or pong.
_QUICK: Final = frozenset(_FIN | opcode for opcode in (TEXT, BINARY, PING, PONG))
_QUICK_INFLATING: Final = _QUICK | {_FIN | RSV1 | opcode for opcode in (TEXT, BINARY)}
_TO_CLOSE_CODE: Final = struct.Struct("!H")
_HEAD_16: Final = struct.Struct("!BBH")
_HEAD_64: Final = struct.Struct("!BBQ")

# websockets logs each connection it parses; ours may be one frame old.
_PARSER_LOG: Final = logging.getLogger("server.protocol.frames.parser")
_PARSER_LOG.setLevel(logging.ERROR)


class BrokenFrames(LivesaleError):
    """The peer broke RFC 6455 or a size limit: close with `code` (1002, 1007 or 1009)."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"{code} {reason}")


# --- Built ------------------------------------------------------------------------------------


def server_frame(opcode: int, payload: bytes) -> bytes:
    """One whole unmasked frame, header included."""
    return _head(_FIN | opcode, len(payload), 0) + payload


def client_frame(opcode: int, payload: bytes, key: bytes, *, fin: bool = True) -> bytes:
    """One masked frame as a client sends it (load tester, tests). `key`: 4 bytes."""
    head = _head((_FIN if fin else 0) | opcode, len(payload), _MASKED)
    return head + key + apply_mask(payload, key)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close frame. `reason` in UTF-8 must fit 123 bytes."""
    return server_frame(CLOSE, _TO_CLOSE_CODE.pack(code) + reason.encode())


def ping_frame(payload: bytes) -> bytes:
    """A ping of at most 125 bytes; the peer echoes them in its pong."""
    return server_frame(PING, payload)


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping, with the ping's own payload."""
    return server_frame(PONG, payload)


def _head(first: int, length: int, masked: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, masked | length))
    if length < 1 << 16:
        return _HEAD_16.pack(first, masked | _LENGTH_16, length)
    return _HEAD_64.pack(first, masked | _LENGTH_64, length)


# --- Parsed -----------------------------------------------------------------------------------


def quick_frame(
    data: bytes, at: int, quick: frozenset[int] = _QUICK
) -> tuple[int, bytes, int] | None:
    """(opcode, payload, next `at`) of the frame at `data[at]`, or None if it needs an Inbox.

    Takes what is whole in `data`, unfragmented, masked, within COMMAND_BYTES_MAX, and text,
    binary, ping or pong. None judges nothing: the frame may be fine, incomplete or broken.
    `quick`: the first bytes it may have; RSV1 stays in the opcode.
    """
    have = len(data) - at
    if have < 2 + _KEY_BYTES or data[at] not in quick or data[at + 1] < _MASKED:
        return None
    length = data[at + 1] - _MASKED
    start = at + 2
    if length >= _LENGTH_16:
        length = data[at + 2] << 8 | data[at + 3] if length == _LENGTH_16 else _TOO_LONG
        if length > limits.COMMAND_BYTES_MAX or data[at] & _CONTROL:
            return None
        start = at + 4
    body = start + _KEY_BYTES
    end = body + length
    if end > len(data):
        return None
    return data[at] - _FIN, apply_mask(data[body:end], data[start:body]), end


_TOO_LONG: Final = limits.COMMAND_BYTES_MAX + 1


class Inbox:
    """Frames of one viewer that the quick way cannot take; dropped again when `is_idle`.

    `inflates`: the viewer may send compressed messages. Memory is bounded: at most one frame of
    COMMAND_BYTES_MAX is awaited and one message of COMMAND_BYTES_MAX, inflated, assembled, beside
    what the transport handed over at once.
    """

    __slots__ = ("_at", "_buffer", "_fragments", "_opcode", "_parser", "_parts", "_quick")

    def __init__(self, data: bytes = b"", *, inflates: bool = False) -> None:
        self._quick = _QUICK_INFLATING if inflates else _QUICK
        self._buffer = data
        self._at = 0  # of the first byte not looked at; a copy per frame would be quadratic
        self._parser: Protocol | None = None
        self._parts: list[bytes] = []
        self._opcode = 0
        self._fragments = 0

    @property
    def is_idle(self) -> bool:
        """Between messages with nothing pending: the quick way may take over."""
        return self._at == len(self._buffer) and not self._fragments

    @property
    def in_message(self) -> bool:
        """A message has begun and is not complete."""
        return bool(self._fragments)

    def feed(self, data: bytes) -> None:
        """Append what arrived."""
        self._buffer = self._buffer[self._at :] + data
        self._at = 0

    def next(self) -> tuple[int, bytes] | None:
        """The next whole message, ping, pong or close as (opcode, payload); None: need more bytes.

        Raises BrokenFrames; nothing may be read after that, nor after a close.
        """
        while self._at < len(self._buffer):
            if not self._fragments and (got := quick_frame(self._buffer, self._at, self._quick)):
                self._at = got[2]
                return (got[0] - RSV1, _inflated(got[1])) if got[0] & RSV1 else got[:2]
            frame = self._take_frame()
            if frame is None:
                return None
            message = self._judge(frame)
            if message is not None:
                return message
        return None

    def _take_frame(self) -> bytes | None:
        """Cut one whole frame off the buffer; a frame that must be refused counts as whole."""
        length = _whole_length(self._buffer, self._at)
        if length == 0:
            return None
        start = self._at
        self._at += length
        return self._buffer[start : self._at]

    def _judge(self, frame: bytes) -> tuple[int, bytes] | None:
        """What the parser says of one frame: a message, or None for a fragment of one."""
        if self._parser is None:
            self._parser = _new_parser(inflates=self._quick is _QUICK_INFLATING)
        parser = self._parser
        parser.receive_data(frame)
        parser.data_to_send()  # the viewer answers pings and closes itself
        if parser.parser_exc is not None:
            sent = parser.close_sent
            raise BrokenFrames(sent.code if sent else 1002, str(parser.parser_exc)[:100])
        (event,) = parser.events_received()
        assert isinstance(event, Frame)
        return self._assemble(event.opcode, bytes(event.data), event.fin)

    def _assemble(self, opcode: Opcode, payload: bytes, fin: bool) -> tuple[int, bytes] | None:
        if opcode >= CLOSE:
            return int(opcode), payload
        if opcode:
            self._opcode = int(opcode)
        self._parts.append(payload)
        self._fragments += 1
        if not fin:
            if self._fragments >= limits.FRAGMENTS_MAX:
                raise BrokenFrames(1009, "too many fragments")
            return None
        message = b"".join(self._parts)
        if len(message) > limits.COMMAND_BYTES_MAX:  # the parser's bound can be missed by a little
            raise BrokenFrames(1009, "over size limit")
        self._parts.clear()
        self._fragments = 0
        return self._opcode, message


def _inflated(payload: bytes) -> bytes:
    try:
        message = inflated(payload, limits.COMMAND_BYTES_MAX)
    except zlib.error:
        raise BrokenFrames(1002, "not deflated") from None
    if message is None:
        raise BrokenFrames(1009, "over size limit")
    return message


def _new_parser(*, inflates: bool) -> Protocol:
    parser = Protocol(Side.SERVER, max_size=limits.COMMAND_BYTES_MAX, logger=_PARSER_LOG)
    if inflates:
        parser.extensions = [inflater()]
    return parser


def _whole_length(data: bytes, at: int) -> int:
    """Bytes of the frame at `data[at]`; 0: more must arrive.

    A frame whose header is already refusable (unmasked, or longer than any message may be) is
    not awaited: its length is what there is, and the parser will say why.
    """
    have = len(data) - at
    if have < 2:
        return 0
    length = data[at + 1] & 0x7F
    head = 2
    if length == _LENGTH_16:
        head = 4
        length = int.from_bytes(data[at + 2 : at + 4])
    elif length == _LENGTH_64:
        head = 10
        length = int.from_bytes(data[at + 2 : at + 10])
    if data[at + 1] < _MASKED:
        return have
    if have < head:
        return 0
    if length > limits.COMMAND_BYTES_MAX:
        return have
    whole = head + _KEY_BYTES + length
    return whole if have >= whole else 0
