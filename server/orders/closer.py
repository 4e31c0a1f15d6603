"""What must happen without anybody asking: sales open and close in time, host acts get finished.

Every worker does this; all of it may be done by many at once (server/acts).
"""

import asyncio
from typing import Final

import structlog

from server import clock
from server.acts.projector import Projector
from server.acts.timetable import Timetable
from server.acts.work import Work
from server.orders.waiting import keep_on
from server.store.redis_clock import RedisClock

log = structlog.get_logger()

ROUND_MS: Final = 500
CLOCK_EVERY_MS: Final = 10_000


class Closer:
    """`projector` finishes what crashes left, `timetable` acts by Redis time."""

    def __init__(self, projector: Projector, timetable: Timetable, redis_clock: RedisClock) -> None:
        self._projector = projector
        self._timetable = timetable
        self._redis_clock = redis_clock
        self._clock_due = 0.0  # monotonic ms
        self._troubled: set[object] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """A round every 500 ms until `stopping` is set; outages are waited out."""
        await keep_on(self.round, stopping, every_ms=ROUND_MS, name="closer")

    async def round(self) -> None:
        """Once everything that is due, whatever becomes of the rest. Raises StoreUnavailable,
        RecordsUnavailable."""
        if clock.monotonic_ms() >= self._clock_due:
            await self._redis_clock.refresh()
            self._clock_due = clock.monotonic_ms() + CLOCK_EVERY_MS
        work = Work(self._troubled)
        for part in (self._timetable.open_due, self._timetable.close_due, self._projector.sweep):
            await work.each(part, [()])
        if done := work.end():
            log.info("round_done", done=done)
