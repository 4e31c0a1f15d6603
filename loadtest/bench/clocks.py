"""Clocks of viewers: their own, which are wrong, and the server's as the SDK estimates it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

# As in client-demo/src/live/clock.ts.
SAMPLE_AGE_MAX_MS: Final = 5 * 60_000
SAMPLES_MAX: Final = 12
TOLERANCE_MS: Final = 250
SEED_SLACK_MS: Final = 1_000


def wall_ms() -> float:
    """This machine's wall time in ms, which is Redis' time where Redis runs on it too."""
    return time.time_ns() / 1e6


@dataclass(frozen=True, slots=True)
class LocalClock:
    """A viewer's monotonic clock: off by `skew_ms`, and `drift` (a share) too fast."""

    skew_ms: float = 0.0
    drift: float = 0.0

    def now(self) -> float:
        """What it shows, ms."""
        return time.monotonic_ns() / 1e6 * (1 + self.drift) + self.skew_ms

    def wall_at(self, shown: float) -> float:
        """The wall time at which it shows `shown`: the truth."""
        ahead = time.time_ns() / 1e6 - time.monotonic_ns() / 1e6
        return (shown - self.skew_ms) / (1 + self.drift) + ahead


class Sample(NamedTuple):
    """One reading of the server's clock; all in ms. `at` is local."""

    round_trip: float
    offset: float
    at: float

    def agrees(self, other: "Sample") -> bool:
        """Both can be right: each is wrong by half its round trip at most."""
        uncertain = (self.round_trip + other.round_trip) / 2 + TOLERANCE_MS
        return abs(self.offset - other.offset) <= uncertain


class ServerClock:
    """The SDK's estimate (client-demo/src/live/clock.ts), line by line.

    Cristian's algorithm: the sample with the least round trip counts, the newest of equals.
    """

    def __init__(self, local: Callable[[], float]) -> None:
        self._local = local
        self._samples: list[Sample] = []

    def seed(self, server_now: float) -> None:
        """A frame said it is `server_now`; nobody knows how long it took."""
        at = self._local()
        self._add(Sample(SEED_SLACK_MS, server_now - at, at))

    def sample(self, sent_at: float, server_now: float) -> None:
        """The reply to a `time` command sent at local `sent_at` arrived just now."""
        at = self._local()
        if sent_at <= at:
            self._add(Sample(at - sent_at, server_now - (sent_at + at) / 2, at))

    def _add(self, sample: Sample) -> None:
        fresh = (old for old in self._samples if sample.at - old.at < SAMPLE_AGE_MAX_MS)
        agreeing = [old for old in fresh if old.agrees(sample)]
        self._samples = [*agreeing, sample][-SAMPLES_MAX:]

    @property
    def best(self) -> Sample:
        """The sample that counts. Raises ValueError before the first."""
        return min(reversed(self._samples), key=lambda sample: sample.round_trip)

    def local_at(self, server_ms: float) -> float:
        """Local time at which the server's clock is believed to show `server_ms`."""
        return server_ms - self.best.offset
