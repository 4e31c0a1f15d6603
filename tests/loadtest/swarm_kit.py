"""A loader's connections without a network: what they write is read, what they read is given."""

from collections.abc import Iterator
from typing import Any

import msgspec

from loadtest import wire
from loadtest.scenario import Crowd, Persona
from loadtest.swarm.buying import Terms, Till
from loadtest.swarm.connection import Connection
from loadtest.swarm.entrance import Swarm, Target, Who
from loadtest.swarm.personas import Bot, Customer, Payer
from server.protocol import messages as m

SALE = 7
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
_ENCODER = msgspec.msgpack.Encoder()
_COMMANDS = msgspec.msgpack.Decoder(m.Command)


class Wire:
    """An asyncio.Transport of which only the near end exists."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.written = b""
        self.cut = self.paused = False

    def write(self, data: bytes) -> None:
        self.written += data

    def get_extra_info(self, name: str) -> "Wire":
        return self

    def fileno(self) -> int:
        return -1

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        if not self.cut:
            self.cut = True
            self.connection.connection_lost(None)

    def is_closing(self) -> bool:
        return self.cut

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def commands(self) -> list[Any]:
        """What was sent since the last call, without the handshake, pongs as bytes."""
        data, self.written = self.written, b""
        if data.startswith(b"GET "):
            data = data.partition(b"\r\n\r\n")[2]
        return list(_frames(data))


def _frames(data: bytes) -> Iterator[Any]:
    """Masked frames of a client (RFC 6455 section 5.2), each below 64 KiB."""
    while data:
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        key, body = data[at : at + 4], data[at + 4 : at + 4 + size]
        payload = bytes(byte ^ key[place % 4] for place, byte in enumerate(body))
        yield payload if data[0] & 0x08 else _COMMANDS.decode(payload)
        data = data[at + 4 + size :]


def frame(message: Any) -> bytes:
    return wire.server_frame(_ENCODER.encode(message))


def welcome(**changes: Any) -> m.Welcome:
    values: dict[str, Any] = {"epoch": 9, "seq": 0, "state": {}} | changes
    fixed: dict[str, Any] = {"version": 1, "show": "demo", "now": 0, "tick_ms": 100, "chat": []}
    return m.Welcome(recovered=False, **fixed, **values)


def new_swarm() -> Swarm:
    swarm = Swarm(0, 1, [Target(2, ("127.0.0.1", 1), "h:1", "/ws/demo", "", None, "http://h:1")])
    swarm.measured.part_us = (0, 1 << 60)
    swarm.door.enter = lambda connection: None  # type: ignore[method-assign]
    return swarm


def arrive(connection: Connection) -> Wire:
    """Connected, welcomed, and signed in if it has a token."""
    transport = Wire(connection)
    connection.connection_made(transport)  # type: ignore[arg-type]
    connection.data_received(UPGRADED + frame(welcome()))
    if connection.token:
        [hello] = transport.commands()
        assert isinstance(hello, m.Hello)
        who = m.HelloResult(connection.name, "", "viewer", 0)
        connection.data_received(frame(m.Accepted(0, hello=who)))
    return transport


def new_buyer(swarm: Swarm, kind: type[Customer] = Customer, **crowd: Any) -> Customer:
    persona: Persona = "bot" if kind is Bot else "buyer"
    till = Till(swarm, Terms(SALE, 1))
    who = Who("lt-r-b0_1", 0, "a token", 0)
    return kind(swarm, who, Crowd(persona, 1, **crowd), 0, till, Payer(swarm, "demo"))


def held(claim: m.Claim, **changes: Any) -> m.ClaimState:
    values: dict[str, Any] = {"status": "held", "epoch": 1, "seq": 42, "receipt": "r"} | changes
    return m.ClaimState(
        claim.claim_id, sale=claim.sale, quantity=claim.quantity, price=990, **values
    )


def refusal(ref: int | None, name: str, code: int, retry_ms: int = 0) -> m.RefusedReply:
    return m.RefusedReply(ref, code, name, True, retry_ms, "", "")
