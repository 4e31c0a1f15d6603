"""Launcher of one Valkey (or Redis) server on a unix socket, as a child of this process."""

import asyncio
import signal
from collections.abc import Awaitable, Mapping
from pathlib import Path

from server.embedded.binaries import Binary
from server.embedded.remains import stop_remains
from server.errors import Misconfigured
from server.supervision.child import Child, becomes_ready

START_SECONDS = 60.0  # loading a large append-only file
STOP_SECONDS = 20.0
PING_SECONDS = 1.0

# Every write reaches the append-only file within 1 s, nothing is ever evicted.
DURABLE: Mapping[str, str] = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    "maxmemory-policy": "noeviction",
}
# What each durability profile (server/store/durability.py) asks of the server.
CONFIGS: Mapping[str, Mapping[str, str]] = {
    "fast": DURABLE,
    "strict": {**DURABLE, "appendfsync": "always"},
    "none": {**DURABLE, "appendonly": "no"},
}


class ValkeyServer:
    """One server: `directory` holds its data, `sockets` (a short path) its socket."""

    def __init__(
        self,
        binary: Binary,
        directory: Path,
        sockets: Path,
        *,
        log: Path | None = None,
        config: Mapping[str, str] = DURABLE,
    ) -> None:
        self.binary = binary
        self.directory = directory
        self.socket = sockets / "valkey.sock"
        self.log = log if log is not None else directory / "valkey.log"
        self.config = dict(config)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}?db=0"

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child

    async def start(self) -> None:
        """Start and wait until PING is answered. Raises Misconfigured with the log's last lines."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await stop_remains(self._pid_file, self.binary.path.name, signal.SIGTERM)
        self.socket.unlink(missing_ok=True)
        self._child = Child.spawn(
            "valkey", self._command(), log=self.log, death_signal=signal.SIGTERM
        )
        if not await becomes_ready(self._answers, lambda: self.child.alive, START_SECONDS):
            await self.stop()
            raise Misconfigured(f"{self.binary.label} did not start:\n{self.child.last_words()}")

    async def stop(self) -> None:
        """Stop cleanly (the append-only file is synced)."""
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, STOP_SECONDS)

    def kill(self) -> None:
        """SIGKILL: as a power cut would, except for the kernel's page cache."""
        if self._child is not None:
            self._child.kill()

    @property
    def _pid_file(self) -> Path:
        return self.directory / "valkey.pid"

    def _command(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(self.directory),
            "pidfile": str(self._pid_file),
            "daemonize": "no",
            **self.config,
        }
        flags = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return [str(self.binary.path), *flags]

    def _answers(self) -> Awaitable[bool]:
        return answers_ping(self.socket)


async def answers_ping(socket: Path) -> bool:
    """Whether a server on this unix socket answers PING with PONG (not while it loads)."""
    try:
        async with asyncio.timeout(PING_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"PING\r\n")
                return (await reader.readline()).startswith(b"+PONG")
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
