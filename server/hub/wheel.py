"""A timer wheel: thousands of coarse deadlines for the price of one timer.

Every viewer has exactly one entry (its next ping, or the end of its patience); a loop timer per
viewer would cost more memory than the viewer. Entries may ring up to RESOLUTION_S late, and early
when they lie beyond the wheel's horizon: whoever is rung looks at what is really due and
schedules itself again. A loop turn rings RINGS_PER_TURN of them and leaves the others to the next.
"""

import asyncio
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

RESOLUTION_S: Final = 0.25
SLOTS: Final = 256  # a power of two; slot numbers up to 256 are shared small ints in CPython
HORIZON_S: Final = RESOLUTION_S * (SLOTS - 2)
NOWHERE: Final = -1
DUE: Final = SLOTS  # the slot of those that are to ring now
# A ping takes 25 µs, and its turn may have a group's frames to write. (In uvloop a turn that begins
# with our timer rings twice as many: what is called soon from a timer is of the same turn.)
RINGS_PER_TURN: Final = 32


class Entry(Protocol):
    """Something with a deadline; it remembers its slot so that it can be taken out again."""

    wheel_slot: int

    def on_wheel(self) -> None:
        """The deadline (or the horizon) came; the entry is no longer on the wheel."""


class Wheel:
    """Starts turning with its first entry and stops when it is empty."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[set[Entry]] = [set() for _ in range(SLOTS + 1)]
        self._now = 0  # slot that rang last
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None
        self._rest: asyncio.Handle | None = None  # rings what one turn left
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
        slot = entry.wheel_slot
        if slot == NOWHERE or (slot != DUE and (slot - self._now) % SLOTS > _steps(delay_s)):
            self.schedule(entry, delay_s)

    def discard(self, entry: Entry) -> None:
        """Take `entry` out, if it is in."""
        if entry.wheel_slot != NOWHERE:
            self._slots[entry.wheel_slot].discard(entry)
            entry.wheel_slot = NOWHERE
            self._count -= 1

    def stop(self) -> None:
        """Ring nothing any more."""
        for handle in (self._timer, self._rest):
            if handle is not None:
                handle.cancel()
        self._timer = self._rest = None
        self._slots[DUE].clear()

    def _turn(self) -> None:
        now = self._loop.time()
        while self._next_at <= now + 0.001:  # more than once after the loop was blocked
            self._next_at += RESOLUTION_S
            self._take_slot()
        if self._rest is None:
            self._ring_some()
        if self._timer is not None:  # not stopped by an entry
            again = self._count > 0
            self._timer = self._loop.call_at(self._next_at, self._turn) if again else None

    def _take_slot(self) -> set[Entry]:
        self._now = (self._now + 1) % SLOTS
        taken, self._slots[self._now] = self._slots[self._now], set()
        for entry in taken:
            entry.wheel_slot = DUE
        self._slots[DUE] |= taken
        return taken

    def _ring_some(self) -> None:
        self._rest = None
        due = self._slots[DUE]
        for _ in range(RINGS_PER_TURN):
            if not due:
                return
            entry = due.pop()
            self.discard(entry)
            self._ring(entry)
        if due:
            self._rest = self._loop.call_soon(self._ring_some)

    def _ring(self, entry: Entry) -> None:
        try:
            entry.on_wheel()
        except Exception:
            log.exception("wheel_entry_failed")


def _steps(delay_s: float) -> int:
    """Slots from the one that rang last to the one that rings after `delay_s`."""
    return int(min(max(delay_s, 0.0), HORIZON_S) / RESOLUTION_S) + 1
