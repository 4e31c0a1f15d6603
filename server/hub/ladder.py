"""Does a viewer keep up, and what is it still shown when it does not?

The ladder: every frame; then a catch-up once a second, or none while its write buffer is not
empty; after SLOW_SECONDS_MAX of either, the end (4408). Who does not even answer a ping is closed
earlier or later with 4409.

Two things tell. The write buffer does, but only of what the kernel did not take. A ping carries the
number of its tick and leaves behind all that was written before, so the time until its pong is how
old what the viewer has read is, at most: it sees the buffers that we cannot.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from server import clock, limits
from server.hub.wheel import NOWHERE
from server.protocol import frames
from server.telemetry import metrics

if TYPE_CHECKING:
    from server.hub.phases import PhaseGroup
    from server.hub.room import Room

# Bits of Paced._flags; the higher ones belong to the connection (server/hub/viewer.py).
PAUSED: Final = 1  # its write buffer is not empty
LAGGING: Final = 2  # its pongs come late
PINGED: Final = 4  # a ping is unanswered

RETRY_MS: Final = 3_000  # on the average, for who was closed because it did not keep up
_TICK_NUMBER_MASK: Final = 0xFFFF_FFFF


class Paced(ABC):
    """The part of a Viewer that knows how it follows. `group` is None unless it is in the room."""

    __slots__ = (
        "_caught_up_tick",
        "_flags",
        "_pinged_at",
        "_slow_since",
        "group",
        "room",
        "wheel_slot",
    )

    def __init__(self, room: "Room") -> None:
        self.room = room
        self.group: PhaseGroup | None = None
        self.wheel_slot = NOWHERE
        self._flags = 0
        self._pinged_at = 0.0  # loop time of the last ping
        self._caught_up_tick = 0  # of its last catch-up while lagging
        self._slow_since = 0  # tick since which it does not keep up; 0: it does

    @abstractmethod
    def send_frame(self, frame: bytes) -> None:
        """Write a frame at once, unless it is closing."""

    @abstractmethod
    def close(self, code: int, *, retry_ms: int = 0) -> None:
        """Say why, and begin to close."""

    @abstractmethod
    def on_wheel(self) -> None:
        """The deadline it asked the hub for came."""

    @abstractmethod
    def _hold_back(self) -> None:
        """Write nothing of the room to it until `may_catch_up`."""

    @property
    def is_paused(self) -> bool:
        """Its write buffer is not empty."""
        return bool(self._flags & PAUSED)

    @property
    def is_lagging(self) -> bool:
        """Its pongs come late: it gets catch-ups once a second."""
        return bool(self._flags & LAGGING)

    def may_catch_up(self) -> bool:
        """May a frame of the room be written to this viewer that is behind?"""
        if self._flags & PAUSED:
            return False
        hub = self.room.hub
        return not self._flags & LAGGING or hub.tick - self._caught_up_tick >= hub.second_ticks

    def caught_up(self) -> None:
        """It was written a catch-up."""
        if self._flags & LAGGING:
            self._caught_up_tick = self.room.tick
            metrics.shed.add("catch_up")

    # --- Down and up again ----------------------------------------------------------------------

    def _fall_behind(self) -> None:
        """No more frames of the room for now, and SLOW_SECONDS_MAX to keep up again."""
        self._slow_since = self._slow_since or self.room.tick
        if self.group is not None:
            self._hold_back()
            # What rings earlier stays: a link that pauses at each frame must not put off its ping.
            self.room.hub.wheel.hasten(self, limits.SLOW_SECONDS_MAX)

    def _follow_again(self) -> None:
        """It may be written to again, and keeps up unless its pongs are late."""
        if not self._flags & LAGGING:
            self._slow_since = 0
        if self.group is not None:
            self.room.wake(self.group)

    def _is_too_slow(self, tick: int) -> bool:
        """It has not kept up for SLOW_SECONDS_MAX."""
        return bool(self._slow_since) and tick - self._slow_since >= self.room.hub.slow_ticks

    def _begin_lagging(self) -> None:
        """Frames wait in buffers we cannot see: catch-ups once a second until pongs are quick."""
        if not self._flags & LAGGING:
            self._flags |= LAGGING
            self._caught_up_tick = self.room.tick
            metrics.shed.add("lagging")
        self._fall_behind()

    # --- Pings ----------------------------------------------------------------------------------

    def _ping_or_wait(self) -> None:
        """Its deadline came: await its pong, give up on it, or ping it when that is due."""
        hub = self.room.hub
        now = hub.loop.time()
        passed = now - self._pinged_at
        is_pinged = bool(self._flags & PINGED)
        patience = hub.settings.pong_seconds if is_pinged else self._ping_seconds
        if passed < patience:
            self._ring_in(patience - passed)
        elif is_pinged:
            self.close(4409, retry_ms=clock.jittered(RETRY_MS))
        else:
            self._ping(now)

    def _ring_in(self, seconds: float) -> None:
        """Look again then, or earlier when its time to keep up again is over."""
        hub = self.room.hub
        if self._slow_since:
            left = self._slow_since + hub.slow_ticks - hub.tick
            seconds = min(seconds, left * hub.ticker.tick_s)
        hub.wheel.schedule(self, seconds)

    @property
    def _ping_seconds(self) -> float:
        """From one ping to the next."""
        return 1 if self._flags & LAGGING else self.room.hub.settings.ping_seconds

    def _ping(self, now: float) -> None:
        self._pinged_at = now
        self._flags |= PINGED
        self._ring_in(self.room.hub.settings.pong_seconds)
        self.send_frame(frames.ping_frame(self._ping_payload))

    @property
    def _ping_payload(self) -> bytes:
        """The number of the tick in which it was pinged."""
        tick = self.room.hub.ticker.number_at(self._pinged_at)
        return (tick & _TICK_NUMBER_MASK).to_bytes(4)

    def _on_pong(self, payload: bytes) -> None:
        if not self._flags & PINGED or payload != self._ping_payload:
            return  # unsolicited: allowed, and says nothing (RFC 6455 section 5.5.3)
        hub = self.room.hub
        lag = hub.loop.time() - self._pinged_at
        self._flags &= ~PINGED
        if not self._flags & LAGGING:  # else it is asked more often, and would count for many
            hub.on_echo(lag)
        if lag > limits.LAG_SECONDS_MAX:
            self._begin_lagging()
        elif self._flags & LAGGING:
            self._flags &= ~LAGGING
            self._follow_again()
        self._ring_in(self._ping_seconds - lag)
