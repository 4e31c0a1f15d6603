"""Who has been shown what: groups of viewers that are written to in one go.

A group holds at most PHASE_VIEWERS_MAX viewers of one codec. `current` viewers have all been sent
everything up to the group's `position`, so one frame serves them all. `behind` viewers have a
position of their own: they just joined with a cached snapshot, or could not take frames for a
while; at the next flush they get one frame from where they stand (the same frame for all who
stand there) and are current again.
"""

import math
from typing import Final, Protocol

from server import clock, limits
from server.hub.direct import write_all, write_each
from server.hub.tick import Again
from server.hub.viewer import Viewer
from server.protocol.codec import Codec
from server.telemetry.metrics import room_lane

CHUNK: Final = 256  # viewers written to between two looks at the clock, 1 to 2 ms


class FrameSource(Protocol):
    """A room, as a group sees it."""

    @property
    def position(self) -> int:
        """The board's position now."""

    def frame_since(self, position: int, codec: Codec) -> bytes:
        """The frame for viewers who stand at `position`, which is behind the board's."""


class PhaseGroup:
    """See the module docstring. Flushed by the hub's Ticker, who owns `phase`, `due`, `since`."""

    __slots__ = ("_source", "behind", "codec", "current", "due", "phase", "position", "since")

    def __init__(self, source: FrameSource, codec: Codec, phase: float) -> None:
        self._source = source
        self.codec = codec
        self.phase = phase
        self.due = math.inf
        self.since = 0.0
        self.position = source.position
        self.current: dict[Viewer, None] = {}
        self.behind: dict[Viewer, int] = {}

    def __len__(self) -> int:
        return len(self.current) + len(self.behind)

    @property
    def is_full(self) -> bool:
        return len(self) >= limits.PHASE_VIEWERS_MAX

    def add(self, viewer: Viewer, position: int) -> None:
        """A viewer that has been shown the board up to `position`."""
        if position == self.position and not viewer.is_paused:
            self.current[viewer] = None
        else:
            self.behind[viewer] = position

    def discard(self, viewer: Viewer) -> None:
        """No more frames for `viewer`."""
        self.current.pop(viewer, 0)
        self.behind.pop(viewer, 0)

    def hold(self, viewer: Viewer) -> None:
        """Keep frames back from `viewer` until it may catch up; what it was sent stays counted."""
        if viewer in self.current:
            del self.current[viewer]
            self.behind[viewer] = self.position

    def flush(self, end: float = math.inf) -> tuple[int, Again]:
        """Show everybody who may be written to what changed: (frames written, when again).

        Stops at `end` (monotonic ms), but not before some were served; who is left then stays
        behind and is served `now`, in another loop turn, with whatever is newest by then.
        """
        now = self._source.position
        written = self._write_current(now, end) if self.position != now else 0
        if not self.behind:
            return written, "never"
        caught_up, again = self._write_behind(now, end)
        return written + caught_up, again

    def _write_current(self, now: int, end: float) -> int:
        if not self.current:
            self.position = now
            return 0
        before = self.position
        frame = self._source.frame_since(before, self.codec)
        # From here on: a transport that cannot take it all calls pause_writing, so hold(), at once.
        self.position = now
        viewers = list(self.current)
        for start in range(0, len(viewers), CHUNK):
            # The last portion is written all the same: leaving it costs more than it delays.
            if 0 < start < len(viewers) - CHUNK and clock.monotonic_ms() >= end:
                self._leave_behind(viewers[start:], before)
                del viewers[start:]
                break
            write_all(viewers[start : start + CHUNK], frame)
        room_lane.add(len(viewers), len(viewers) * len(frame))
        return len(viewers)

    def _leave_behind(self, viewers: list[Viewer], position: int) -> None:
        for viewer in viewers:
            del self.current[viewer]
            self.behind[viewer] = position

    def _write_behind(self, now: int, end: float) -> tuple[int, Again]:
        """Each gets the frame from where it stands, a portion of them at a time."""
        written = 0
        again: Again = "never"
        viewers: list[Viewer] = []
        frames: list[bytes] = []
        for viewer, position in list(self.behind.items()):
            if not viewer.may_catch_up():
                if position != now and not viewer.is_paused:
                    again = "next tick"
                continue
            if len(viewers) == CHUNK:
                _catch_up(viewers, frames)
                written += CHUNK
                viewers, frames = [], []
                if clock.monotonic_ms() >= end:
                    return written, "now"
            if viewer.is_lagging:
                self.behind[viewer] = now
            else:
                del self.behind[viewer]
                self.current[viewer] = None
            if position != now:
                viewer.caught_up()
                viewers.append(viewer)
                frames.append(self._source.frame_since(position, self.codec))
        _catch_up(viewers, frames)
        return written + len(viewers), again


def _catch_up(viewers: list[Viewer], frames: list[bytes]) -> None:
    write_each(viewers, frames)
    room_lane.add(len(frames), sum(map(len, frames)))
