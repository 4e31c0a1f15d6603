"""The way into a room: addresses, handshakes under way, and what all connections share."""

import asyncio
import random
import socket
import ssl
import sys
from collections import Counter, deque
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from loadtest import wire
from loadtest.swarm.deferred import Deferred
from loadtest.swarm.pipe import Offence
from loadtest.swarm.sight import Fault, Sight, View
from server.protocol.messages import SUBPROTOCOL_MSGPACK

if TYPE_CHECKING:
    from loadtest.swarm.connection import Connection

CONNECTING_MAX: Final = 64  # handshakes under way at once
HANDSHAKE_SECONDS: Final = 10.0
OFFENCES_MAX: Final = 1_000  # of one loader; those beyond are only counted
PEOPLE_PER_ADDRESS: Final = 1_000
ADDRESSES_MAX: Final = 250
IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h; the socket module has it from Python 3.12 on


class Target(NamedTuple):
    """Where the viewers of one room connect. `base`: for HTTP requests."""

    family: int
    address: tuple[Any, ...]
    host: str  # as in the Host header
    path: str
    query: str
    tls: ssl.SSLContext | None
    base: str

    @classmethod
    async def of(cls, url: str, show: str) -> "Target":
        """From http(s):// or ws(s)://, with or without the path of the show. Raises OSError."""
        parts = urlsplit(url)
        secure = parts.scheme in ("https", "wss")
        port = parts.port or (443 if secure else 80)
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
        path = parts.path if len(parts.path) > 1 else f"/ws/{show}"
        tls = ssl.create_default_context() if secure else None
        base = f"{'https' if secure else 'http'}://{parts.netloc}"
        return cls(found[0][0], found[0][4], parts.netloc, path, parts.query, tls, base)

    @property
    def has_sources(self) -> bool:
        """Whether viewers may come from several addresses: Linux has 16 million on loopback."""
        return self.address[0] == "127.0.0.1" and sys.platform == "linux"

    def request(self, view: View) -> bytes:
        """The handshake of a viewer who has seen this."""
        query = [self.query] if self.query else []
        if view.epoch:
            query.append(f"resume={view.epoch}.{view.seq}")
        path = f"{self.path}?{'&'.join(query)}" if query else self.path
        return wire.upgrade_request(self.host, path, SUBPROTOCOL_MSGPACK)


class Who(NamedTuple):
    """A viewer. `room`: index of the target; `token`: "" without a user; `address`: number of the
    source address on loopback."""

    name: str
    room: int
    token: str
    address: int


class Swarm:
    """What all connections of a loader share: clock, counts, sights, the way in.

    `counts` are totals; `lags`: by how many µs each act of this second was late. `ended`: nobody
    comes back any more.
    """

    def __init__(
        self, zero_us: int, seed: int, targets: list[Target], *, source_net: str = "127.0.0"
    ) -> None:
        self.source_net = source_net
        self.zero_ns = zero_us * 1000
        self.rng = random.Random(seed)
        self.targets = targets
        self.loop = asyncio.get_running_loop()
        self.measured = Deferred()
        self.counts: Counter[str] = Counter()
        self.lags: list[int] = []
        self.offences: list[Offence] = []
        self.ended = False
        rooms = range(len(targets))
        self.sights = [Sight(room, timely=True, on_fault=self.offend) for room in rooms]
        self.slow_sights = [Sight(room, timely=False, on_fault=self.offend) for room in rooms]
        self.door = Door(self)

    def now_us(self) -> int:
        """t_us of this moment."""
        return (monotonic_ns() - self.zero_ns) // 1000

    def offend(self, fault: Fault, viewer: str, room: int) -> None:
        """Take note of something that must never be shown or told."""
        self.counts[f"offences.{fault.kind}"] += 1
        if len(self.offences) < OFFENCES_MAX:
            kind, was, now = fault
            self.offences.append(Offence(kind, self.now_us(), viewer, room, was, now))

    def acted(self, intended_us: int, t_us: int) -> None:
        """An act took place: later than intended by the schedule lag."""
        self.lags.append(t_us - intended_us)


class Door:
    """The way in: a bounded number of handshakes at once; the others wait in order."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._waiting: deque[Connection] = deque()
        self._inside: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def enter(self, connection: "Connection") -> None:
        """Connect as soon as it is this one's turn."""
        self._waiting.append(connection)
        self._next()

    def leave(self, connection: "Connection") -> None:
        """The handshake is over, whatever came of it. Calling it again changes nothing."""
        if connection in self._inside:
            self._inside.discard(connection)
            self._next()

    def _next(self) -> None:
        while self._waiting and len(self._inside) < CONNECTING_MAX and not self._swarm.ended:
            connection = self._waiting.popleft()
            self._inside.add(connection)
            task = self._swarm.loop.create_task(self._open(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(self, connection: "Connection") -> None:
        target = self._swarm.targets[connection.room]
        sock = None
        try:
            sock = _socket(target, self._swarm.source_net, connection)
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await self._swarm.loop.sock_connect(sock, target.address)
                await self._swarm.loop.create_connection(
                    lambda: connection,
                    sock=sock,
                    ssl=target.tls,
                    server_hostname=target.host.partition(":")[0] if target.tls else None,
                )
        except OSError:  # TimeoutError is one; and no descriptor or no port is left
            if sock is not None:
                sock.close()
            self._swarm.counts["connect_failed"] += 1
            connection.failed()


def _socket(target: Target, source_net: str, connection: "Connection") -> socket.socket:
    """A socket from the connection's own source address where there are several. Raises OSError."""
    sock = socket.socket(target.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if connection.receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, connection.receive_buffer)
    if target.has_sources:
        sock.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        try:
            sock.bind((f"{source_net}.{1 + connection.address % ADDRESSES_MAX}", 0))
        except OSError:
            sock.close()
            raise
    return sock
