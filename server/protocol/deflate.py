"""permessage-deflate (RFC 7692) as it is spoken here: nobody takes a context over, in no direction.

So a frame that was deflated once suits all who agreed to it, and a connection has no zlib state:
with context it would be tens of KB for each viewer, and a compression for each viewer and frame.

Only what everybody in a room is shown is deflated (Codec.shared_frame), never what one viewer is
told: texts of strangers beside somebody's receipt in one message would let whoever can watch its
length guess at the receipt (BREACH).
"""

import zlib
from collections.abc import Sequence
from typing import Final

from websockets.exceptions import InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.headers import parse_extension
from websockets.typing import ExtensionParameter

from server import limits

# Of our window, 4 KB: a larger one makes no frame smaller by more than 1 %, 10 bits take twice the
# time for a snapshot. An offer that asks for less is declined.
WINDOW_BITS: Final = 12
PAYLOAD_BYTES_MIN: Final = 128  # below it next to nothing is gained

# The one answer to an offer (section 7.1). It asks for all we need and tells of our window, which
# section 7.1.2.1 allows unasked, so it does not depend on what was offered.
ANSWER: Final = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    f"server_max_window_bits={WINDOW_BITS}"
)

_JUDGE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
)
_TAIL: Final = b"\x00\x00\xff\xff"  # ends what zlib flushes, and is not sent (section 7.2.1)


def is_acceptable(offers: str) -> bool:
    """May `ANSWER` be given to a Sec-WebSocket-Extensions header?

    Never raises: an extension that we do not know, or that is not offered as section 7 has it, is
    declined by not answering it.
    """
    if not offers or len(offers) > limits.OFFERS_CHARS_MAX:
        return False
    try:
        extensions = parse_extension(offers)
    except InvalidHeader:
        return False
    return any(name == _JUDGE.name and _suits(parameters) for name, parameters in extensions)


def _suits(parameters: Sequence[ExtensionParameter]) -> bool:
    try:
        _, agreed = _JUDGE.process_request_params(parameters, [])
    except NegotiationError:  # a parameter that is unknown, twice there, or has no such value
        return False
    return agreed.local_max_window_bits == WINDOW_BITS


def deflated(payload: bytes) -> bytes | None:
    """The payload of a compressed message; None where it would not be smaller."""
    if len(payload) < PAYLOAD_BYTES_MIN:
        return None
    deflate = zlib.compressobj(wbits=-WINDOW_BITS)
    data = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return data[: -len(_TAIL)] if len(data) - len(_TAIL) < len(payload) else None


def inflated(payload: bytes, bytes_max: int) -> bytes | None:
    """A compressed message; None, and not inflated any further, when it has above `bytes_max`.

    Raises zlib.error for what was not deflated.
    """
    message = zlib.decompressobj(-15).decompress(payload + _TAIL, bytes_max + 1)
    return message if len(message) <= bytes_max else None


def inflater() -> PerMessageDeflate:
    """The same for websockets' parser, which has `max_size` for the bound."""
    return PerMessageDeflate(
        remote_no_context_takeover=True,
        local_no_context_takeover=True,
        remote_max_window_bits=15,
        local_max_window_bits=WINDOW_BITS,
    )
