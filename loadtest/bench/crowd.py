"""Thousands of viewers that cost the machine little: a program in C (crowd.c) beside this process.

For what one Python process cannot read: 10,000 viewers with 10 frames a second each. Frames are
counted, not looked at; beside a crowd a few receivers in this process (swarm.py) look at theirs.
An `Audience` is both together.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from loadtest import process
from loadtest.bench import peers, swarm

OPEN_SECONDS = 60.0
ANSWER_SECONDS = 10.0


class Counts(NamedTuple):
    """What came since the last `mark`; `lost` and `refused` are since the start."""

    open: int
    frames: int
    size: int  # bytes
    fewest: int  # frames of the viewer that got fewest
    most: int
    lost: int
    refused: int


class Crowd:
    """A running crowd. Every viewer is in; that took `joined_s` seconds."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child
        self.joined_s = 0.0

    async def mark(self) -> None:
        """Count from here on."""
        await self.ask("!")

    async def counts(self) -> Counts:
        """What came so far."""
        return Counts(*map(int, (await self.ask("?")).split()))

    async def ask(self, line: str) -> str:
        """The answer to one line; to none, the next line said. Raises RuntimeError if it died."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        if line:
            self._child.stdin.write(line.encode() + b"\n")
        async with asyncio.timeout(ANSWER_SECONDS if line else OPEN_SECONDS):
            answer = await self._child.stdout.readline()
        if not answer:
            raise RuntimeError(f"the crowd ended with status {await self._child.wait()}")
        return answer.decode()


@asynccontextmanager
async def crowd(
    folder: Path, port: int, request: bytes, count: int, *, next_port: int = 0
) -> AsyncIterator[Crowd]:
    """`count` viewers at `port`, on the loader's core; who is thrown out goes to `next_port`.

    Raises RuntimeError where there is no C compiler, or when a viewer is refused.
    """
    program = peers.compile_c("crowd")
    if program is None:
        raise RuntimeError("no C compiler: no crowd")
    said = folder / f"request-{port}"
    said.write_bytes(request)
    arguments = [str(said), str(port), str(count), *([str(next_port)] if next_port else [])]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(program, *arguments, stdin=pipe, stdout=pipe)
    process.pin(child.pid, process.LOADER_CORE)
    try:
        running = Crowd(child)
        running.joined_s = int((await running.ask("")).split()[1]) / 1000
        yield running
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


class Audience:
    """All viewers of one server: `sampled` in this process, the others, if any, in a crowd."""

    def __init__(self, sampled: Sequence[swarm.Receiver], others: Crowd | None = None) -> None:
        self.sampled = sampled
        self._others = others
        self._had = [0] * len(sampled)
        self._size = 0

    async def mark(self) -> None:
        """Count from here on."""
        self._had = [viewer.frames for viewer in self.sampled]
        self._size = sum(viewer.size for viewer in self.sampled)
        if self._others is not None:
            await self._others.mark()

    async def counts(self) -> Counts:
        """What came since the mark. `lost` and `refused` are the crowd's only."""
        got = [v.frames - had for v, had in zip(self.sampled, self._had, strict=True)]
        size = sum(viewer.size for viewer in self.sampled) - self._size
        mine = Counts(len(got), sum(got), size, min(got), max(got), 0, 0)
        if self._others is None:
            return mine
        theirs = await self._others.counts()
        return Counts(
            mine.open + theirs.open,
            mine.frames + theirs.frames,
            mine.size + theirs.size,
            min(mine.fewest, theirs.fewest),
            max(mine.most, theirs.most),
            theirs.lost,
            theirs.refused,
        )

    async def quiet(self, seconds: float) -> None:
        """Wait until nobody has got a frame for `seconds`."""
        last = -1
        while (total := (await self.counts()).frames) != last:
            last = total
            await asyncio.sleep(seconds)

    async def reached(self, frames: int, seconds: float, what: str) -> None:
        """Wait until every viewer has `frames` since the mark. Raises TimeoutError with `what`."""

        async def all_there() -> bool:
            return (await self.counts()).fewest >= frames

        await process.wait_for_answer(all_there, seconds, what)


@asynccontextmanager
async def audience(
    port: int, request: bytes, folder: Path, viewers: int, sampled: int
) -> AsyncIterator[Audience]:
    """`viewers` at `port`, connected: `sampled` of them in this process, the others in a crowd."""
    async with AsyncExitStack() as stack:
        here = await swarm.connect(port, itertools.repeat(request, sampled), swarm.Receiver)
        stack.push_async_callback(swarm.hang_up, here)
        others = None
        if viewers > sampled:
            joining = crowd(folder, port, request, viewers - sampled)
            others = await stack.enter_async_context(joining)
        yield Audience(here, others)
