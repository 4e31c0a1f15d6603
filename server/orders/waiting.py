"""Waiting that ends early when the process is told to stop."""

import asyncio

from server import clock

BACKOFF_FIRST_MS = 100
BACKOFF_MAX_MS = 5_000


async def wait_for(stopping: asyncio.Event, ms: float) -> None:
    """Sleep for `ms`, or until `stopping` is set."""
    try:
        async with asyncio.timeout(ms / 1000):
            await stopping.wait()
    except TimeoutError:
        pass


class Backoff:
    """Pauses that double from 100 ms to 5 s, jittered; `reset` after a success."""

    def __init__(self) -> None:
        self._ms = BACKOFF_FIRST_MS

    def next_ms(self) -> int:
        pause = clock.jittered(self._ms)
        self._ms = min(self._ms * 2, BACKOFF_MAX_MS)
        return pause

    def reset(self) -> None:
        self._ms = BACKOFF_FIRST_MS
