"""The newest samples of something, to be looked at without a Prometheus."""

import math
from collections import deque
from typing import Final

SAMPLES_MAX: Final = 4_096  # at most 0.5 MB


class Recent:
    """What was measured in the last `seconds`, at most the newest SAMPLES_MAX."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES_MAX)

    def add(self, now: float, value: float) -> None:
        """`value` was measured `now`; times (s) must not fall."""
        self._samples.append((now, value))

    def quantile(self, share: float, now: float) -> float:
        """The smallest value that at least `share` (0 to 1) do not exceed; NaN: no sample."""
        oldest = now - self._seconds
        values = sorted(value for at, value in self._samples if at >= oldest)
        if not values:
            return math.nan
        return values[max(0, math.ceil(share * len(values)) - 1)]
