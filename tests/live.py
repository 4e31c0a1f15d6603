"""A live system for tests: real web and worker processes, a host's HTTP calls, buyers' sockets."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from server import clock
from server.protocol import messages as m
from server.web import auth

SECRET = "a secret for tests, long enough to be one"
DEADLINE_S = 60.0

_COMMANDS = msgspec.msgpack.Encoder()
_SERVER_MESSAGES = msgspec.msgpack.Decoder(m.ServerMessage)


async def until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for `condition`, checked every 10 ms. Fails the test naming `what` at the deadline."""
    end = clock.monotonic_ms() + deadline_s * 1000
    while not condition():
        assert clock.monotonic_ms() < end, f"not within {deadline_s} s: {what}"
        await asyncio.sleep(0.01)


async def until_answer(ask: Callable[[], Awaitable[bool]], what: str) -> None:
    end = clock.monotonic_ms() + DEADLINE_S * 1000
    while not await ask():
        assert clock.monotonic_ms() < end, f"not within {DEADLINE_S} s: {what}"
        await asyncio.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class LiveSystem:
    """Web and worker processes of one test, against one Redis and one PostgreSQL."""

    redis_url: str
    database_url: str
    log_dir: Path
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "LIVESALE_SECRET": SECRET,
            "LIVESALE_DEMO": "true",  # the tests' Redis keeps nothing
            "LIVESALE_DURABILITY": "none",
            **{f"LIVESALE_{name.upper()}": value for name, value in self.settings.items()},
        }

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        """One CLI command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "server.cli", *args],
            env=self.environment(), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def start(self, *args: str, **environment: str) -> subprocess.Popen[bytes]:
        log = (self.log_dir / f"{len(self.processes)}-{args[0]}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "server.cli", *args],
            env={**self.environment(), **environment}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        log.close()
        self.processes.append(process)
        return process

    async def start_web(self) -> str:
        """A web process that is ready. Returns its base URL."""
        port = free_port()
        process = self.start("web", PORT=str(port))
        url = f"http://127.0.0.1:{port}"

        async def ready() -> bool:
            assert process.poll() is None, self.logs()
            try:
                return (await call("GET", f"{url}/readyz"))[0] == 200
            except OSError:
                return False

        await until_answer(ready, f"web ready at {url}")
        return url

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker")

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-4000:]}"
            for path in sorted(self.log_dir.glob("*.log"))
        )

    def stop(self) -> list[int]:
        """SIGTERM to all that still run; returns their exit codes. Kills after 15 s."""
        running = [process for process in self.processes if process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        codes = []
        for process in running:
            try:
                codes.append(process.wait(15))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        return codes


def _call(method: str, url: str, token: str | None, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(url, method=method)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    data = None
    if body is not None:
        data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, data, timeout=20) as response:
            status, payload = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, payload = error.code, error.read()
    try:
        return status, json.loads(payload)
    except ValueError:
        return status, payload.decode(errors="replace")


async def call(
    method: str, url: str, token: str | None = None, body: object = None
) -> tuple[int, Any]:
    """One HTTP request: status and decoded body. Raises OSError when nobody listens."""
    return await asyncio.to_thread(_call, method, url, token, body)


@dataclass
class Host:
    """The host's side: HTTP calls that must succeed."""

    url: str
    token: str

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        status, answer = await call(method, f"{self.url}{path}", self.token, body)
        assert status < 300, (method, path, status, answer)
        return answer


def token_of(user: str, show: str, role: str = "viewer") -> str:
    return auth.issue(SECRET.encode(), user=user, role=role, show=show, name=user[:24], ttl_s=3600)


@dataclass
class Client:
    """One viewer's socket: sends commands, collects what the server says."""

    socket: ClientConnection
    welcome: m.Welcome | None = None
    state: dict[str, dict[str, Any]] = field(default_factory=dict)
    replies: dict[int, m.Accepted | m.RefusedReply] = field(default_factory=dict)
    orders: list[m.ClaimState] = field(default_factory=list)
    events: list[m.Event] = field(default_factory=list)
    chat: list[m.ChatLine] = field(default_factory=list)
    lefts: dict[str, list[tuple[int, int, int]]] = field(default_factory=dict)
    closed: tuple[int, str] | None = None
    reader: asyncio.Task[None] | None = None
    next_ref: int = 0

    @classmethod
    async def open(cls, url: str, show: str, *, query: str = "", **options: Any) -> "Client":
        socket = await connect(
            f"{url.replace('http', 'ws', 1)}/ws/{show}{query}",
            subprotocols=[m.SUBPROTOCOL_MSGPACK], compression=None, ping_interval=None,
            max_queue=None, **options,
        )  # fmt: skip
        client = cls(socket)
        client.reader = asyncio.create_task(client._read())
        await until(lambda: client.welcome is not None or client.closed is not None, "welcome")
        return client

    async def _read(self) -> None:
        try:
            async for payload in self.socket:
                assert isinstance(payload, bytes)
                self._take(_SERVER_MESSAGES.decode(payload))
        except ConnectionClosed:
            pass
        finally:
            self.closed = (self.socket.close_code or 1006, self.socket.close_reason or "")

    def _take(self, message: m.ServerMessage) -> None:
        match message:
            case m.Welcome():
                self.welcome = message
                self._take_parts(message.state, message.events, message.chat)
            case m.Tick():
                self._take_parts(message.state, message.events, message.chat)
            case m.Accepted():
                self.replies[message.ref] = message
            case m.RefusedReply():
                self.replies[-1 if message.ref is None else message.ref] = message
            case m.OrderEvent():
                self.orders.append(message.order)

    def _take_parts(
        self, state: dict[str, Any], events: list[m.Event], chat: list[m.ChatLine]
    ) -> None:
        self.state.update(state)
        self.events.extend(events)
        self.chat.extend(chat)
        for key, value in state.items():
            if key.startswith("stock:"):
                self.lefts.setdefault(key, []).append(
                    (value["epoch"], value["version"], value["left"])
                )

    def post(self, make: Callable[[int], msgspec.Struct]) -> tuple[int, Awaitable[None]]:
        """A command with the next ref: the ref, and the sending to be awaited."""
        self.next_ref += 1
        return self.next_ref, self.socket.send(_COMMANDS.encode(make(self.next_ref)))

    async def ask(self, make: Callable[[int], msgspec.Struct]) -> m.Accepted | m.RefusedReply:
        """Send a command and wait for its reply."""
        ref, sending = self.post(make)
        await sending
        await until(lambda: ref in self.replies or self.closed is not None, f"reply to {ref}")
        return self.replies[ref]

    async def sign_in(self, user: str, show: str) -> None:
        reply = await self.ask(lambda ref: m.Hello(ref=ref, token=token_of(user, show)))
        assert isinstance(reply, m.Accepted), reply

    def cut(self) -> None:
        """Break the connection without a word, as a lost network does."""
        self.socket.transport.abort()

    async def close(self) -> None:
        await self.socket.close()
        if self.reader:
            await self.reader
