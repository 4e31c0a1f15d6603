"""A timer wheel: thousands of coarse deadlines for the price of one timer.

Every viewer has exactly one entry (its next ping, or the end of its patience); a loop timer per
viewer would cost more memory than the viewer. Entries may ring up to RESOLUTION_S late, and early
when they lie beyond the wheel's horizon: whoever is rung looks at what is really due and
schedules itself again.
"""

import asyncio
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

RESOLUTION_S: Final = 0.25
SLOTS: Final = 256  # a power of two; slot numbers up to 256 are shared small ints in CPython
HORIZON_S: Final = RESOLUTION_S * (SLOTS - 2)
NOWHERE: Final = -1


class Entry(Protocol):
    """Something with a deadline; it remembers its slot so that it can be taken out again."""

    wheel_slot: int

    def on_wheel(self) -> None:
        """The deadline (or the horizon) came; the entry is no longer on the wheel."""


class Wheel:
    """Starts turning with its first entry and stops when it is empty."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[set[Entry]] = [set() for _ in range(SLOTS)]
        self._now = 0  # slot that rang last
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0

    def __len__(self) -> int:
        return self._count

    def schedule(self, entry: Entry, delay_s: float) -> None:
        """Ring `entry` after `delay_s` instead of whenever it was to ring before."""
        self.discard(entry)
        if self._timer is None:
            self._next_at = self._loop.time() + RESOLUTION_S
            self._timer = self._loop.call_at(self._next_at, self._turn)
        entry.wheel_slot = (self._now + _steps(delay_s)) % SLOTS
        self._slots[entry.wheel_slot].add(entry)
        self._count += 1

    def hasten(self, entry: Entry, delay_s: float) -> None:
        """Ring `entry` after `delay_s`, unless it is to ring before."""
        waits = entry.wheel_slot != NOWHERE
        if not waits or (entry.wheel_slot - self._now) % SLOTS > _steps(delay_s):
            self.schedule(entry, delay_s)

    def discard(self, entry: Entry) -> None:
        """Take `entry` out, if it is in."""
        if entry.wheel_slot != NOWHERE:
            self._slots[entry.wheel_slot].discard(entry)
            entry.wheel_slot = NOWHERE
            self._count -= 1

    def stop(self) -> None:
        """Ring nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        now = self._loop.time()
        due: list[Entry] = []
        while self._next_at <= now + 0.001:  # more than once after the loop was blocked
            self._next_at += RESOLUTION_S
            due.extend(self._take_slot())
        for entry in due:
            self._ring(entry)
        if self._timer is not None:  # not stopped by an entry
            again = self._count > 0
            self._timer = self._loop.call_at(self._next_at, self._turn) if again else None

    def _take_slot(self) -> set[Entry]:
        self._now = (self._now + 1) % SLOTS
        due, self._slots[self._now] = self._slots[self._now], set()
        for entry in due:
            entry.wheel_slot = NOWHERE
        self._count -= len(due)
        return due

    def _ring(self, entry: Entry) -> None:
        if entry.wheel_slot != NOWHERE:
            return  # scheduled again meanwhile, by another entry's ring
        try:
            entry.on_wheel()
        except Exception:
            log.exception("wheel_entry_failed")


def _steps(delay_s: float) -> int:
    """Slots from the one that rang last to the one that rings after `delay_s`."""
    return int(min(max(delay_s, 0.0), HORIZON_S) / RESOLUTION_S) + 1
