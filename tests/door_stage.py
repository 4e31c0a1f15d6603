"""A door for tests: a small Starlette app behind our protocols, on uvloop in a thread."""

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from server.config import Settings
from server.web.admission import Admission
from server.web.door import HAND_OVER
from server.web.handshake import read_usual, response
from server.web.listeners import listening_socket
from server.web.serve import WebServer

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SECRET = "x" * 32
BIG_BYTES = 32 << 20  # more than the sockets' buffers take


class EchoViewer(asyncio.Protocol):
    """Takes a transport over as the hub's viewer does: says hello, then returns what it reads."""

    def __init__(self, stage: "DoorStage", address: str) -> None:
        self._stage = stage
        self._address = address
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def start(self, early: bytes, response: bytes = b"") -> None:
        self.transport.write(response + b"HELLO:")
        self._stage.early.append(len(early))
        self.data_received(early)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stage.admission.release(self._address)


class DoorStage:
    """The server and what the test may steer: `gate` holds the endpoint before it accepts."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(secret=SECRET, port=0, drain_seconds=0, **settings)
        self.admission = Admission(self.settings)
        self.early: list[int] = []
        self.outcomes: list[str] = []
        self.ushered = 0
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.port = 0
        self.server: WebServer
        self.loop: asyncio.AbstractEventLoop

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self._page, methods=["GET", "POST"]),
                Route("/slow", self._slow, methods=["GET"]),
                Route("/big", self._big, methods=["GET"]),
                WebSocketRoute("/ws/{show}", self._watch),
            ]
        )

    async def _page(self, request: Request) -> Response:
        body = await request.body()
        address = request.client.host if request.client else ""
        return PlainTextResponse(f"{address}:{len(body)}")

    async def _slow(self, request: Request) -> Response:
        self.entered.set()
        await asyncio.to_thread(self.gate.wait)
        return PlainTextResponse("slow")

    async def _big(self, request: Request) -> Response:
        return PlainTextResponse(b"x" * BIG_BYTES)

    async def _watch(self, websocket: WebSocket) -> None:
        self.entered.set()
        await asyncio.to_thread(self.gate.wait)
        if websocket.path_params["show"] == "denied":
            await websocket.send_denial_response(PlainTextResponse("no", 404))
            return
        if websocket.path_params["show"] == "broken":
            raise RuntimeError("planted")
        try:
            await websocket.accept()
        except (WebSocketDisconnect, OSError):
            self.outcomes.append("gone")
            return
        assert websocket.client
        viewer = EchoViewer(self, websocket.client.host)
        taken = websocket.scope["extensions"][HAND_OVER](viewer)
        self.outcomes.append("taken" if taken else "gone")

    def _usher(
        self, target: bytes, headers: list[tuple[bytes, bytes]], address: str
    ) -> tuple[EchoViewer, bytes] | None:
        """Lets everybody into /ws/usual at once."""
        asked = read_usual(target, headers)
        if asked is None or asked.show_id != "usual":
            return None
        self.ushered += 1
        return EchoViewer(self, address), response(asked, None)

    async def main(self, ready: Callable[[], None]) -> None:
        async def drain(seconds: float) -> None:
            self.admission.draining = True

        process = SimpleNamespace(
            app=self.app(), usher=self._usher, admission=self.admission, drain=drain
        )
        self.loop = asyncio.get_running_loop()

        def listening(url: str) -> None:
            self.port = int(url.rsplit(":", 1)[1])
            ready()

        self.server = WebServer(process, self.settings, listening)  # type: ignore[arg-type]
        await self.server.serve([listening_socket("127.0.0.1", 0)])

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client


@contextmanager
def door_stage(kind: type[DoorStage] = DoorStage, /, **settings: Any) -> Iterator[DoorStage]:
    """A running stage; stopped after the block."""
    stage = kind(**settings)
    ready = threading.Event()

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(stage.main(ready.set))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield stage
    finally:
        stage.gate.set()
        stage.loop.call_soon_threadsafe(stage.server.ask_to_stop)
        thread.join(15)
        assert not thread.is_alive()


def handshake(path: str = "/ws/demo", *headers: str, key: str = KEY, method: str = "GET") -> bytes:
    """The bytes of a WebSocket handshake."""
    lines = [
        f"{method} {path} HTTP/1.1", "Host: test", "Connection: Upgrade", "Upgrade: websocket",
        "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", *headers,
    ]  # fmt: skip
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def read_until(client: socket.socket, wanted: bytes) -> bytes:
    """Everything up to and including `wanted`."""
    got = b""
    while wanted not in got:
        more = client.recv(65_536)
        assert more, f"closed after {got!r}"
        got += more
    return got


def read_all(client: socket.socket) -> bytes:
    """Everything until the server closes (a reset counts as that)."""
    got = b""
    try:
        while more := client.recv(65_536):
            got += more
    except ConnectionResetError:
        pass
    return got


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0
