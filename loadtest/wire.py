"""WebSocket frames as a client sees them (RFC 6455 section 5.2), for prebuilt load.

Only what a load generator needs: it builds its frames once and trusts the server's framing.
"""

import os
from base64 import b64encode
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA


def upgrade_request(host: str, path: str, subprotocol: str = "", extensions: str = "") -> bytes:
    """The client's handshake (RFC 6455 section 4.1), as a browser on the same host sends it."""
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        f"Origin: http://{host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {b64encode(os.urandom(16)).decode()}",
    ]
    if subprotocol:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    if extensions:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _head(opcode: int, size: int, mask_bit: int) -> bytes:
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, mask_bit | size))
    if size < 1 << 16:
        return bytes((first, mask_bit | 126)) + size.to_bytes(2, "big")
    return bytes((first, mask_bit | 127)) + size.to_bytes(8, "big")


def client_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """One whole masked frame, header included."""
    size = len(payload)
    key = os.urandom(4)
    mask = (key * (size // 4 + 1))[:size]
    masked = int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")
    return _head(opcode, size, 0x80) + key + masked.to_bytes(size, "big")


def server_frame(payload: bytes, opcode: int = BINARY) -> bytes:
    """One whole unmasked frame, header included."""
    return _head(opcode, len(payload), 0) + payload


def payload_span(data: bytes, at: int) -> tuple[int, int] | None:
    """(start, end) of the payload of the server frame at `data[at:]`; None while incomplete."""
    size = len(data)
    if size - at < 2:
        return None
    length = data[at + 1]
    start = at + 2
    if length == 126:
        start = at + 4
        if start > size:
            return None
        length = data[at + 2] << 8 | data[at + 3]
    elif length == 127:
        start = at + 10
        if start > size:
            return None
        length = int.from_bytes(data[at + 2 : start], "big")
    end = start + length
    return None if end > size else (start, end)
