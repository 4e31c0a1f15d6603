"""The beat of a hub: when each phase group's frame leaves, and how much is written at a time.

One timer per process. A group that has something to show is queued for its own instant within the
tick (`phase`, spread so that groups do not bunch); an edge is queued for now. Each loop turn
writes to groups until half of PHASE_VIEWERS_MAX viewers or PHASE_MS_MAX, then lets the loop read
sockets and answer commands: a sweep over 10,000 viewers takes about 67 ms and must not delay own
replies. A hub with nothing new has no timer at all.
"""

import asyncio
import heapq
import itertools
import math
from typing import Final, Literal, Protocol

import structlog

from server import clock, limits
from server.telemetry import metrics

log = structlog.get_logger()

# Multiples of the golden ratio's fraction are spread evenly however many there are.
_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_NEVER: Final = math.inf

Again = Literal["never", "next tick", "now"]


class Flushable(Protocol):
    """Something the ticker can flush: a phase group."""

    phase: float  # 0 <= phase < 1, its instant within the tick
    due: float  # when it is queued for (loop time); kept by the ticker, like
    since: float  # loop time since when it has had something to show

    def flush(self, end: float) -> tuple[int, Again]:
        """Write what is new until `end` (monotonic ms): (frames written, when to flush again)."""


class Ticker:
    """Queues groups and flushes them. `tick_s`: 0.02 to 1."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tick_s: float) -> None:
        self._loop = loop
        self.tick_s = tick_s
        self._queue: list[tuple[float, int, Flushable]] = []
        self._order = itertools.count()  # breaks ties; groups are not compared
        self._timer: asyncio.Handle | None = None
        self._timer_at = _NEVER
        self._phases = itertools.count()
        self._turn_at = 0.0  # loop time at which the flushing began
        self._turn_ms = 0.0  # the same by the clock that goes on

    @property
    def n(self) -> int:
        """Number of the current tick. Rises with time, whether or not anything is written."""
        return int(self._loop.time() / self.tick_s)

    def number_at(self, time: float) -> int:
        """Number of the tick at a loop time."""
        return int(time / self.tick_s)

    def ticks(self, seconds: float) -> int:
        """`seconds` in whole ticks, at least one."""
        return max(1, math.ceil(seconds / self.tick_s))

    def new_phase(self) -> float:
        """An instant within the tick for a new group."""
        return next(self._phases) * _GOLDEN % 1.0

    def schedule(self, group: Flushable) -> None:
        """Queue `group` for its next instant, unless it is queued for that or earlier already."""
        if group.due == _NEVER:
            group.since = now = self._loop.time()
            turns = math.floor(now / self.tick_s - group.phase) + 1
            self._push(group, (turns + group.phase) * self.tick_s)

    def hurry(self, group: Flushable) -> None:
        """Queue `group` for now: an edge."""
        now = self._loop.time()
        if group.due == _NEVER:
            group.since = now
        if group.due > now:
            self._push(group, now)

    def forget(self, group: Flushable) -> None:
        """Unqueue a group that is no more."""
        group.due = _NEVER

    def stop(self) -> None:
        """Flush nothing any more."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_at = _NEVER

    def _push(self, group: Flushable, due: float) -> None:
        group.due = due
        heapq.heappush(self._queue, (due, next(self._order), group))
        self._arm()

    def _arm(self) -> None:
        """Make sure that the timer rings for the first in the queue."""
        if not self._queue or self._queue[0][0] >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due = self._queue[0][0]
        if due <= self._loop.time():
            self._timer = self._loop.call_soon(self._run)
        else:
            self._timer = self._loop.call_at(due, self._run)

    def _run(self) -> None:
        self._timer = None
        self._timer_at = _NEVER
        self._turn_ms = clock.monotonic_ms()
        self._turn_at = self._loop.time()
        end = self._turn_ms + limits.PHASE_MS_MAX
        horizon = self._turn_at + 0.001  # timers may ring up to a millisecond early
        written = 0
        while self._queue and self._queue[0][0] <= horizon:
            due, _, group = heapq.heappop(self._queue)
            if due != group.due:
                continue  # requeued for another time, or forgotten
            written += self._flush(group, end)
            # Half of what a turn may write: the next group may be a full one.
            if 2 * written >= limits.PHASE_VIEWERS_MAX or clock.monotonic_ms() >= end:
                break
        self._arm()

    def _flush(self, group: Flushable, end: float) -> int:
        due, since = group.due, group.since
        group.due = _NEVER
        try:
            written, again = group.flush(end)
        except Exception:
            log.exception("flush_failed")
            return 0
        if again == "now":
            self.hurry(group)
            group.since = since
        elif again == "next tick":
            self.schedule(group)
        if written:
            self._measure(due, since)
        return written

    def _measure(self, due: float, since: float) -> None:
        """A group that was `due`, with something to show `since`, has just been written to."""
        # The loop's own time stands still within a turn.
        now = self._turn_at + (clock.monotonic_ms() - self._turn_ms) / 1_000
        metrics.tick_lateness.observe(max(0.0, now - due))
        metrics.change_wait.observe(now - since)
        if now - due > limits.TICK_LATE_SECONDS:
            metrics.ticks_late.inc()
