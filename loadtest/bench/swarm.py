"""Many receivers in one process: WebSocket clients that count frames and verify a sample."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

from loadtest import wire

CONNECTING_MAX = 64  # handshakes under way at once
CONNECT_SECONDS = 60.0

FrameCheck = Callable[[bytes], None]


class Receiver(asyncio.Protocol):
    """One connection. Counts whole data frames; hands their payloads to `check` if there is one."""

    __slots__ = ("_tail", "check", "frames", "lost", "opened", "request", "size", "transport")

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        self.request = request
        self.opened: asyncio.Future[None] | None = opened
        self.transport: asyncio.Transport | None = None
        self.check: FrameCheck | None = None
        self.frames = 0
        self.size = 0  # bytes received after the handshake
        self.lost = False
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses
        if self.request:
            self.transport.write(self.request)
        elif self.opened is not None:
            self._open()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        if self.opened is not None and not self.opened.done():
            self.opened.set_exception(error or ConnectionError("closed during the handshake"))

    def send(self, data: bytes) -> None:
        """Write bytes that are whole frames already."""
        assert self.transport is not None
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if self.opened is not None:
            data = self._answered(data)
        at = 0
        while (span := wire.payload_span(data, at)) is not None:
            start, end = span
            self.frame(data, at, start, end)
            at = end
        self.size += at
        if at < len(data):
            self._tail = data[at:]

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        """One whole frame: header at `at`, payload `data[start:end]`."""
        if data[at] & 0x08:
            self.control(data[at] & 0x0F, data[start:end])
            return
        self.frames += 1
        if self.check is not None:
            self.check(data[start:end])

    def control(self, opcode: int, payload: bytes) -> None:
        """Answer pings; a close frame ends the connection on the server's side."""
        if opcode == wire.PING:
            self.send(wire.client_frame(payload, wire.PONG))

    def _answered(self, data: bytes) -> bytes:
        """Take the handshake's answer off the front. Fails `opened` unless it is 101."""
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            self._tail = data
            return b""
        if b" 101 " not in head[:16]:
            self._refuse(head)
            return b""
        self._open()
        return rest

    def _open(self) -> None:
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(None)
        self.opened = None

    def _refuse(self, head: bytes) -> None:
        if self.opened is not None and not self.opened.done():
            line = head.partition(b"\r\n")[0].decode(errors="replace")
            self.opened.set_exception(ConnectionError(f"refused: {line}"))


SomeReceiver = TypeVar("SomeReceiver", bound=Receiver)
Factory = Callable[[bytes, "asyncio.Future[None]"], SomeReceiver]


async def connect(
    port: int, requests: Iterable[bytes], factory: "Factory[SomeReceiver]"
) -> list[SomeReceiver]:
    """Open one connection per handshake request, a bounded number at a time, in order.

    An empty request means plain TCP. Raises ConnectionError or OSError when one is refused.
    """
    gate = asyncio.Semaphore(CONNECTING_MAX)
    async with asyncio.timeout(CONNECT_SECONDS):
        return list(await asyncio.gather(*(_open_one(port, r, factory, gate) for r in requests)))


async def _open_one(
    port: int, request: bytes, factory: "Factory[SomeReceiver]", gate: asyncio.Semaphore
) -> SomeReceiver:
    loop = asyncio.get_running_loop()
    async with gate:
        opened: asyncio.Future[None] = loop.create_future()
        _, receiver = await loop.create_connection(
            lambda: factory(request, opened), "127.0.0.1", port
        )
        await opened
    return receiver


async def quiet(receivers: Sequence[Receiver], seconds: float) -> None:
    """Wait until no receiver has got a frame for `seconds`."""
    last = -1
    while (total := sum(receiver.frames for receiver in receivers)) != last:
        last = total
        await asyncio.sleep(seconds)


async def hang_up(receivers: Iterable[Receiver]) -> None:
    """Cut all connections and let the loop notice."""
    for receiver in receivers:
        if receiver.transport is not None:
            receiver.transport.abort()
    await asyncio.sleep(0.05)
