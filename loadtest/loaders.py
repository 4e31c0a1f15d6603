"""Loader processes: started, spoken to, and what they tell (swarm/pipe.py)."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from loadtest import process
from loadtest.swarm import pipe
from loadtest.swarm.pipe import Failed, Harvest, Joined, Pulse

COMMAND: Final = (sys.executable, "-m", "loadtest.swarm.worker")
GONE: Final = "ended without a word"


class Loader:
    """One process. `died` says why it ended too early; `harvest` is None until it is told."""

    def __init__(self, number: int, child: asyncio.subprocess.Process) -> None:
        self.number = number
        self.child = child
        self.joined: Joined | None = None
        self.harvest: Harvest | None = None
        self.died = ""
        self.over = asyncio.Event()

    def send(self, message: pipe.ToLoader) -> None:
        """Tell it; one that has died does not hear."""
        if not self.died and self.child.stdin is not None:
            self.child.stdin.write(pipe.frame(message))

    async def listen(self, on_pulse: Callable[[Pulse], None]) -> None:
        """Take what it tells, until its harvest or its end."""
        assert self.child.stdout is not None
        try:
            while self.harvest is None and not self.died:
                self._take(await pipe.receive(self.child.stdout, pipe.FROM_LOADER), on_pulse)
        except (EOFError, ValueError) as error:
            self.died = f"{type(error).__name__}: {error}"
        finally:
            self.over.set()

    def _take(self, message: pipe.FromLoader | None, on_pulse: Callable[[Pulse], None]) -> None:
        match message:
            case Pulse():
                on_pulse(message)
            case Joined():
                self.joined = message
            case Harvest():
                self.harvest = message
            case Failed(reason=reason):
                self.died = reason
            case None:
                self.died = GONE

    async def end(self) -> None:
        """Kill it if it is still there, and wait for it."""
        if self.child.returncode is None:
            with suppress(ProcessLookupError):
                self.child.kill()
            await self.child.wait()


class Loaders:
    """All of them. `pulses` are those of the run so far."""

    def __init__(self, loaders: Sequence[Loader]) -> None:
        self.all = loaders
        self.pulses: list[Pulse] = []

    def send(self, message: pipe.ToLoader) -> None:
        """Tell everyone the same."""
        for loader in self.all:
            loader.send(message)

    @property
    def joined(self) -> int:
        """Connections that were welcomed, as far as told."""
        return sum(loader.joined.open for loader in self.all if loader.joined)

    @property
    def have_joined(self) -> bool:
        """Whether everybody has come, or been refused."""
        return all(loader.joined for loader in self.all)

    @property
    def died(self) -> bool:
        """Whether one ended too early."""
        return any(loader.died for loader in self.all)

    @property
    def harvests(self) -> list[Harvest]:
        """What was told in the end."""
        return [loader.harvest for loader in self.all if loader.harvest is not None]

    async def over(self, seconds: float) -> None:
        """Wait for every harvest; who is silent for too long has died."""
        waiting = asyncio.gather(*(loader.over.wait() for loader in self.all))
        with suppress(TimeoutError):
            await asyncio.wait_for(waiting, seconds)
        for loader in self.all:
            if loader.harvest is None and not loader.died:
                loader.died = f"no harvest within {seconds:.0f} s"


def cores_for(loaders: int) -> Sequence[int | None]:
    """A core for each, if two are left for the others; else the system decides."""
    cores = process.CORES
    return cores[-loaders:] if len(cores) >= loaders + 2 else [None] * loaders


@asynccontextmanager
async def started(count: int, log: Path) -> AsyncIterator[Loaders]:
    """Start so many; they end with this block, whatever happens, and with us."""
    loaders: list[Loader] = []
    listening: list[asyncio.Task[None]] = []
    try:
        for number, core in enumerate(cores_for(count)):
            child = await process.start_talking(
                COMMAND, log=log, core=core, limit=pipe.FRAME_BYTES_MAX
            )
            loaders.append(Loader(number, child))
        crew = Loaders(loaders)
        listening = [asyncio.create_task(each.listen(crew.pulses.append)) for each in loaders]
        yield crew
    finally:
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
        for loader in loaders:
            await loader.end()
