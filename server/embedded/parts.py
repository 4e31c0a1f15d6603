"""Parts that `livesale up` keeps running, and when a crashed one is started again."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from server import clock
from server.embedded.child import Child, becomes_ready, until
from server.errors import Misconfigured

FIRST_DELAY_MS = 250
DELAY_MS_MAX = 10_000
LOOP_CRASHES = 5  # crashes within LOOP_WINDOW_MS that are called a crash loop
LOOP_WINDOW_MS = 60_000
WATCH_SECONDS = 0.2
READY_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[2]  # where `python -m server.cli` finds the package


class Runnable(Protocol):
    """What a part is made of: ValkeyServer, PostgresServer or Command."""

    @property
    def child(self) -> Child: ...

    async def start(self) -> None:
        """Start and wait until it serves. Raises Misconfigured."""

    async def stop(self) -> None: ...

    def kill(self) -> None: ...


async def lives() -> bool:
    """For a part without an address to ask."""
    return True


class Command:
    """A process of ours (`web`, `worker`): ready when `answers` says so.

    Without `answers` a process that lives is ready; it reports its own trouble.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        answers: Callable[[], Awaitable[bool]] = lives,
        stop_seconds: float = 15.0,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = {**os.environ, **environment}
        self._answers = answers
        self._stop_seconds = stop_seconds
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child

    async def start(self) -> None:
        self._child = Child.spawn(
            self.name,
            self._command,
            log=self.log,
            environment=self._environment,
            cwd=ROOT,
        )
        if not await becomes_ready(self._answers, lambda: self.child.alive, READY_SECONDS):
            self.kill()
            raise Misconfigured(f"{self.name} did not start:\n{self.child.last_words()}")

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, self._stop_seconds)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()


class Restarts:
    """The delays before a crashed part is started again, and whether it crashes in a loop."""

    def __init__(self) -> None:
        self._crashes: deque[float] = deque(maxlen=LOOP_CRASHES)

    def after_crash(self, now_ms: float) -> int:
        """Milliseconds to wait: doubled for each crash in the window, up to 10 s."""
        while self._crashes and now_ms - self._crashes[0] > LOOP_WINDOW_MS:
            self._crashes.popleft()
        delay = min(FIRST_DELAY_MS << len(self._crashes), DELAY_MS_MAX)
        self._crashes.append(now_ms)
        return delay

    @property
    def looping(self) -> bool:
        return len(self._crashes) == LOOP_CRASHES


class Part:
    """One part by name, started, watched and restarted until it is stopped."""

    def __init__(self, name: str, runs: Runnable, tell: Callable[[str, str, str], None]) -> None:
        self.name = name
        self.runs = runs
        self._tell = tell
        self._restarts = Restarts()

    async def keep(self) -> None:
        """Restart after each crash, for ever; cancel it before stopping the part."""
        while True:
            await until(lambda: not self.runs.child.alive, float("inf"), WATCH_SECONDS)
            await self._restart(f"ended with status {self.runs.child.status}")

    async def _restart(self, why: str) -> None:
        delay_ms = self._restarts.after_crash(clock.monotonic_ms())
        state = "crash loop" if self._restarts.looping else "crashed"
        self._tell(self.name, state, f"{why}; again in {delay_ms / 1000:g} s")
        await asyncio.sleep(delay_ms / 1000)
        try:
            await self.runs.start()
        except (Misconfigured, OSError) as error:
            self._tell(self.name, "failed", str(error))
        else:
            self._tell(self.name, "restarted", "")
