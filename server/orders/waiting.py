"""Work done in rounds, and waiting that ends early when the process is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from server import clock
from server.errors import RecordsUnavailable, StoreUnavailable

log = structlog.get_logger()

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
    """Pauses that double from 100 ms to `most_ms`, jittered; `reset` after a success."""

    def __init__(self, most_ms: int = BACKOFF_MAX_MS) -> None:
        self._ms = BACKOFF_FIRST_MS
        self._most_ms = most_ms

    def next_ms(self) -> int:
        pause = clock.jittered(self._ms)
        self._ms = min(self._ms * 2, self._most_ms)
        return pause

    def reset(self) -> None:
        self._ms = BACKOFF_FIRST_MS


async def keep_on(
    work: Callable[[], Awaitable[object]], stopping: asyncio.Event, *, every_ms: int, name: str
) -> None:
    """Call `work` again and again until `stopping` is set; what it raises is waited out.

    Whatever that is: orders must go on being stored by this process. `name`: for the log.
    """
    backoff = Backoff()
    while not stopping.is_set():
        pause_ms = every_ms
        try:
            await work()
            backoff.reset()
        except (StoreUnavailable, RecordsUnavailable) as outage:
            pause_ms = backoff.next_ms()
            log.warning("round_backs_off", work=name, reason=str(outage), pause_ms=pause_ms)
        except Exception:
            pause_ms = backoff.next_ms()
            log.exception("round_failed", work=name, pause_ms=pause_ms)
        await wait_for(stopping, pause_ms)
