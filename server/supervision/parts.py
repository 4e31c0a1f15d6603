"""Parts that are kept running, and when a crashed one is started again."""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final, Protocol

from server import clock
from server.errors import Misconfigured
from server.supervision.child import Child, until
from server.supervision.notices import READY, Notices

FIRST_DELAY_MS = 250
DELAY_MS_MAX = 10_000
LOOP_CRASHES = 5  # crashes within LOOP_WINDOW_MS that are called a crash loop
LOOP_WINDOW_MS = 60_000
WATCH_SECONDS = 0.2
READY_SECONDS = 60.0

# Our own command line, whatever the working directory has: -P and PYTHONPATH see to it.
LIVESALE: Final = (sys.executable, "-P", "-m", "server.cli")
ROOT: Final = Path(__file__).resolve().parents[2]


def environment_of_ours() -> dict[str, str]:
    """Our environment, in which LIVESALE finds the code that runs here."""
    paths = (str(ROOT), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Runnable(Protocol):
    """What a part is made of."""

    @property
    def child(self) -> Child: ...

    async def start(self) -> None:
        """Start and wait until it serves. Raises Misconfigured."""

    async def stop(self) -> None: ...

    def kill(self) -> None: ...


class Command:
    """A command of ours (`web`, `worker`) as one process.

    It is ready when it says so to the socket that is made at `notices`; without one, as soon as
    it lives.
    """

    def __init__(
        self,
        name: str,
        *words: str,
        environment: Mapping[str, str],
        log: Path,
        notices: Path | None = None,
        stop_seconds: float = 15.0,
    ) -> None:
        self.name = name
        self.log = log
        self._command = [*LIVESALE, *words]
        self._environment = {**environment_of_ours(), **environment}
        self._notices = notices
        self._stop_seconds = stop_seconds
        self._child: Child | None = None

    @property
    def child(self) -> Child:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child

    async def start(self) -> None:
        if self._notices is None:
            self._spawn({})
            return
        with closing(Notices(self._notices)) as notices:
            self._spawn({"NOTIFY_SOCKET": str(self._notices)})
            if not await says(READY, notices, self.child, READY_SECONDS):
                self.kill()
                raise Misconfigured(f"{self.name} did not start:\n{self.child.last_words()}")

    def _spawn(self, more: Mapping[str, str]) -> None:
        environment = {**self._environment, **more}
        self._child = Child.spawn(self.name, self._command, log=self.log, environment=environment)

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop(signal.SIGTERM, self._stop_seconds)

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()


async def says(what: str, notices: Notices, child: Child, seconds: float) -> bool:
    """Wait until `child` says it; False once it has ended without, or after `seconds`."""
    await until(lambda: notices.has(what) or not child.alive, seconds)
    return notices.has(what)


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

    def __init__(
        self,
        name: str,
        runs: Runnable,
        tell: Callable[[str, str, str], None],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`tell(name, state, detail)` hears what happens; `pause` is what is done for so many
        seconds before a restart."""
        self.name = name
        self.runs = runs
        self._tell = tell
        self._pause = pause
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
        await self._pause(delay_ms / 1000)
        try:
            await self.runs.start()
        except (Misconfigured, OSError) as error:
            self._tell(self.name, "failed", str(error))
        else:
            self._tell(self.name, "restarted", "")
