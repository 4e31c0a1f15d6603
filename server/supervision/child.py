"""One foreground child process in its own session, which dies when this process dies."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from server import clock

LEASH = Path(__file__).with_name("leash.py")
LOG_BYTES_MAX = 8 * 1024 * 1024  # a log file above this is set aside (.1) at the next start
LAST_WORDS_BYTES = 4096
POLL_SECONDS = 0.01


class Account(NamedTuple):
    """A user of this machine that a child runs as."""

    name: str
    uid: int
    gid: int


class Child:
    """A started process. Spawn from the main thread: the tie to the parent is to that thread."""

    def __init__(
        self, name: str, process: "subprocess.Popen[bytes]", log: Path | None, log_from: int
    ) -> None:
        self.name = name
        self.process = process
        self._log = log
        self._log_from = log_from

    @classmethod
    def spawn(
        cls,
        name: str,
        command: Sequence[str],
        *,
        log: Path | None = None,
        account: Account | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        sockets: Mapping[str, socket.socket] | None = None,
    ) -> "Child":
        """Start `command`; its output goes to the file `log` (appended) or to our own stderr.

        Its own session keeps the terminal's Ctrl-C away from it. `sockets` by name are its own as
        well as ours from now on (sd_listen_fds(3)). Raises OSError when the process cannot be
        made; a program that cannot be executed ends with status 127.
        """
        given = {} if sockets is None else {name: s.fileno() for name, s in sockets.items()}
        leash = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(int(death_signal))]
        leash.append("-" if account is None else f"{account.uid}:{account.gid}")
        leash.append(",".join(map(str, given.values())) or "-")
        output: IO[bytes] | int = sys.stderr.fileno() if log is None else open_log(log)
        log_from = 0 if isinstance(output, int) else output.tell()
        try:
            process = subprocess.Popen(  # noqa: S603  (our own command line)
                [*leash, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=_with_sockets(environment, list(given)),
                pass_fds=list(given.values()),
                start_new_session=True,
            )
        finally:
            if not isinstance(output, int):
                output.close()
        return cls(name, process, log, log_from)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def last_words(self, lines: int = 5) -> str:
        """The last lines this process wrote to its log file, for an error message."""
        if self._log is None:
            return ""
        with self._log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self._log_from, size - LAST_WORDS_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process is gone."""
        self.process.send_signal(number)

    async def wait(self, seconds: float) -> bool:
        """True when the process has ended within `seconds`."""
        return await until(lambda: not self.alive, seconds)

    async def stop(self, number: signal.Signals, seconds: float) -> int:
        """Ask to stop with `number`, after `seconds` kill the whole session. Returns the status."""
        if self.alive:
            self.send(number)
            if not await self.wait(seconds):
                self.kill()
        return self.process.wait()

    def kill(self) -> int:
        """SIGKILL to the process and its session, and wait for it. Returns the status."""
        if self.alive:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                self.process.kill()
        return self.process.wait()


def _with_sockets(
    environment: Mapping[str, str] | None, names: Sequence[str]
) -> dict[str, str] | None:
    """What a child is told; None: what we were told. leash.py adds LISTEN_PID."""
    if not names:
        return None if environment is None else dict(environment)
    told = os.environ if environment is None else environment
    return {**told, "LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}


def open_log(path: Path) -> IO[bytes]:
    """`path` opened for appending, private; an overgrown one is first renamed to `.1`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_name(path.name + ".1"))
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
    file.seek(0, os.SEEK_END)
    return file


async def until(condition: Callable[[], bool], seconds: float, every: float = POLL_SECONDS) -> bool:
    """Poll `condition` until it holds; False when it did not within `seconds`."""
    deadline = clock.monotonic_ms() + seconds * 1000
    while not condition():
        if clock.monotonic_ms() >= deadline:
            return False
        await asyncio.sleep(every)
    return True


async def becomes_ready(
    answers: Callable[[], Awaitable[bool]], alive: Callable[[], bool], seconds: float
) -> bool:
    """Ask `answers` until it says yes; False once not `alive`, or after `seconds`."""
    deadline = clock.monotonic_ms() + seconds * 1000
    while alive() and clock.monotonic_ms() < deadline:
        if await answers():
            return True
        await asyncio.sleep(POLL_SECONDS)
    return False
