"""The usual opening handshake of RFC 6455 section 4.2, read from a parsed request head.

Nearly every client sends the same few headers in the same form. `read_usual` takes those and
nothing else; whatever is missing, twice there, odd or wrong is left to the Starlette endpoint,
which judges and answers it. So this may be strict without ever refusing anybody.
"""

import binascii
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from websockets.utils import accept_key

from server.limits import SHOW_ID_PATTERN

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110 section 5.6.2
_KEY_BYTES: Final = 16
_KEY_CHARS: Final = 24
_TARGET: Final = re.compile(
    rb"/ws/(%b)(?:\?resume=([0-9.]{1,40}))?\Z"
    % SHOW_ID_PATTERN.removeprefix("^").removesuffix("$").encode()
)
# Headers that matter here, each at most once in a usual handshake.
_READ: Final = frozenset(
    {
        b"host",
        b"upgrade",
        b"connection",
        b"origin",
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-protocol",
        b"sec-websocket-extensions",
    }
)
_BODY: Final = frozenset({b"content-length", b"transfer-encoding"})


class Handshake(NamedTuple):
    """What a client asks for. `accept`: the value that shows that we understood (section 4.2.2);
    `extensions`: what it offers, unread."""

    show_id: str
    resume: str | None
    host: str
    origin: str | None
    subprotocols: list[str]
    extensions: str
    accept: str


def read_usual(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> Handshake | None:
    """The handshake in a GET request of HTTP/1.1; None when it is not a usual one.

    Names of `headers` are in lower case.
    """
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in _BODY or name in found:
            return None
        if name in _READ:
            found[name] = value.decode("latin-1")
    place = _TARGET.match(target)
    accept = _accept(found.get(b"sec-websocket-key", ""))
    offered = _names(found.get(b"sec-websocket-protocol"))
    if place is None or not accept or offered is None or not _asks_for_websocket(found):
        return None
    return Handshake(
        show_id=place[1].decode(),
        resume=place[2].decode() if place[2] else None,
        host=found.get(b"host", ""),
        origin=found.get(b"origin"),
        subprotocols=offered,
        extensions=found.get(b"sec-websocket-extensions", ""),
        accept=accept,
    )


def _asks_for_websocket(found: dict[bytes, str]) -> bool:
    options = found.get(b"connection", "").lower().split(",")
    return (
        found.get(b"upgrade", "").lower() == "websocket"
        and found.get(b"sec-websocket-version") == "13"
        and any(option.strip() == "upgrade" for option in options)
    )


def _names(offered: str | None) -> list[str] | None:
    """The subprotocols in a header; None when one of them is no name."""
    names = [] if offered is None else [name.strip(" \t") for name in offered.split(",")]
    return names if all(map(_TOKEN.match, names)) else None


def _accept(key: str) -> str:
    """The answer to a key of 16 bytes in base64; '' for anything else."""
    if len(key) != _KEY_CHARS:
        return ""
    try:
        raw = binascii.a2b_base64(key, strict_mode=True)
    except (binascii.Error, ValueError):  # ValueError: not ASCII
        return ""
    return accept_key(key) if len(raw) == _KEY_BYTES else ""


def response(handshake: Handshake, subprotocol: str | None, extension: str | None = None) -> bytes:
    """The whole answer 101 to `handshake`; `subprotocol`: one of those offered, if any was;
    `extension`: the one agreed to, with its parameters."""
    spoken = f"sec-websocket-protocol: {subprotocol}\r\n" if subprotocol else ""
    agreed = f"sec-websocket-extensions: {extension}\r\n" if extension else ""
    return (
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        f"sec-websocket-accept: {handshake.accept}\r\n{spoken}{agreed}\r\n"
    ).encode()
