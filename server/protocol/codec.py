"""Messages to bytes and back, in the two codecs of the wire.

`livesale.v1.msgpack` travels in binary frames, `livesale.v1.json` in text frames; both carry the
Structs of server/protocol/messages.py as maps. msgspec decodes straight into bounded Structs and
writes the same bytes as the msgpack package (tests/property/test_codec_random.py compares them);
the msgpack package itself reads what msgspec refused, to find the `ref` a refusal must name.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgpack
import msgspec

from server import limits
from server.errors import LivesaleError
from server.protocol import deflate, frames
from server.protocol.messages import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, Command

# What decoding hostile bytes can raise: DecodeError and ValidationError are MsgspecError, invalid
# UTF-8 is a plain ValueError, and nesting ends in RecursionError.
_HOSTILE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
# The same for the loose readers: TypeError is a map key that cannot be one.
_HOSTILE_LOOSELY: Final = (ValueError, TypeError, OverflowError, RecursionError)
_FIELD: Final = re.compile(r"(?:at `(?:key` in `)?\$\.?([\w.\[\]]*)|required field `(\w+)`)")
_FIELD_CHARS_MAX: Final = 64


class Malformed(LivesaleError):
    """A command that cannot be understood; nothing was done.

    `name` is a row of server/errors.py: malformed (not a message at all), unknown_command or
    bad_field. `field` names the offending field ("" when unknown). `ref` is the command's number
    when it could be read, so that the refusal can be matched to it.
    """

    def __init__(self, name: str, field: str, ref: int | None) -> None:
        self.name = name
        self.field = field
        self.ref = ref
        super().__init__(f"{name}: {field}")


class Codec:
    """One way to write messages: `MSGPACK`, `JSON`, and their twins in `DEFLATING`.

    `opcode` is the frame type it travels in; a viewer that sends the other one breaks its
    subprotocol (close 1003). `deflates`: permessage-deflate was agreed to.
    """

    __slots__ = ("_decode", "_encode", "_read_loosely", "deflates", "name", "opcode", "subprotocol")

    def __init__(
        self,
        name: str,
        subprotocol: str,
        opcode: int,
        encode: Callable[[object], bytes],
        decode: Callable[[bytes], Command],
        read_loosely: Callable[[bytes], object],
    ) -> None:
        self.name = name
        self.subprotocol = subprotocol
        self.opcode = opcode
        self.deflates = False
        self._encode = encode
        self._decode = decode
        self._read_loosely = read_loosely

    def __repr__(self) -> str:
        return f"<Codec {self.name}>"

    def deflating(self) -> "Codec":
        """The same for viewers who agreed to permessage-deflate."""
        twin = copy.copy(self)
        twin.name = f"{self.name}+deflate"
        twin.deflates = True
        return twin

    def encode(self, message: object) -> bytes:
        """Bytes of a Struct or of a map of plain values."""
        return self._encode(message)

    def frame(self, message: object) -> bytes:
        """A whole server frame holding `message`, header included."""
        return frames.server_frame(self.opcode, self._encode(message))

    def shared_frame(self, message: object) -> bytes:
        """The same for a message that many are sent: deflated where that was agreed to and pays."""
        payload = self._encode(message)
        small = deflate.deflated(payload) if self.deflates else None
        if small is None:
            return frames.server_frame(self.opcode, payload)
        return frames.server_frame(self.opcode | frames.RSV1, small)

    def decode_command(self, payload: bytes) -> Command:
        """The command in one message of at most COMMAND_BYTES_MAX bytes. Raises Malformed."""
        try:
            return self._decode(payload)
        except _HOSTILE as error:
            raise self._explain(payload, error) from None

    def _explain(self, payload: bytes, error: Exception) -> Malformed:
        try:
            message = self._read_loosely(payload)
        except _HOSTILE_LOOSELY:
            return Malformed("malformed", "", None)
        if not isinstance(message, Mapping):
            return Malformed("malformed", "", None)
        field = _field_named_in(str(error))
        name = "bad_field" if field != "t" else "unknown_command"
        return Malformed(name, field, _ref_of(message))


def _field_named_in(text: str) -> str:
    """The path in a ValidationError's text ("... - at `$.ref`"), or ""."""
    found = _FIELD.search(text)
    return (found[1] or found[2] or "")[:_FIELD_CHARS_MAX] if found else ""


def _ref_of(message: Mapping[Any, Any]) -> int | None:
    ref = message.get("ref")
    usable = type(ref) is int and 0 <= ref <= limits.REF_MAX
    return ref if usable else None


def _read_msgpack(payload: bytes) -> object:
    return msgpack.unpackb(payload, raw=False, strict_map_key=False)


MSGPACK: Final = Codec(
    "msgpack",
    SUBPROTOCOL_MSGPACK,
    frames.BINARY,
    msgspec.msgpack.Encoder().encode,
    msgspec.msgpack.Decoder(Command).decode,
    _read_msgpack,
)
JSON: Final = Codec(
    "json",
    SUBPROTOCOL_JSON,
    frames.TEXT,
    msgspec.json.Encoder().encode,
    msgspec.json.Decoder(Command).decode,
    json.loads,
)
CODECS: Final[Mapping[str | None, Codec]] = {
    SUBPROTOCOL_MSGPACK: MSGPACK,
    SUBPROTOCOL_JSON: JSON,
    None: JSON,  # no subprotocol asked for: text, so that a terminal client works
}
DEFLATING: Final[Mapping[Codec, Codec]] = {codec: codec.deflating() for codec in (MSGPACK, JSON)}
