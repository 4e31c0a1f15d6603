"""`--abort-on-fail`: whether it is worth while to go on with a run."""

from collections.abc import Mapping
from math import inf
from typing import Final

from loadtest.report.summary import Second
from loadtest.report.thresholds import COMPARE, parsed

# Seconds beyond the limit until a run is lost. A second's p99 is at most its maximum: once that is
# beyond, the maximum of the run is too.
PATIENCE_S: Final = {"p99_ms": 3, "max_ms": 1}
UPPER: Final = ("<", "<=")


class Patience:
    """Looks at every second of the measured part. A run is lost

    - for good, when viewers were told what must never be, or a maximum is beyond its limit;
    - in all likelihood, when the p99 of the slowest loader was beyond its limit in the first three
      seconds that had one: enough good seconds after them might still make up for it.
    """

    def __init__(self, thresholds: Mapping[str, str]) -> None:
        self._limits = []
        self._left: dict[str, float] = {}  # threshold -> misses until it is lost
        for name, wanted in thresholds.items():
            measure, _, stat = name.partition(".")
            sign, limit = parsed(wanted)
            if stat in PATIENCE_S and sign in UPPER:
                self._limits.append((name, measure, stat, COMPARE[sign], limit))
                self._left[name] = PATIENCE_S[stat]

    def lost(self, second: Second) -> str:
        """Why it is lost: an offence or a threshold by name; "" while it is not."""
        if second.phase == "measure":
            self._look(second.quick)
        offences = (name for name in second.totals if name.startswith("offences."))
        missed = (name for name, left in self._left.items() if left <= 0)
        return next(offences, "") or next(missed, "")

    def _look(self, quick: Mapping[str, tuple[float, float]]) -> None:
        for name, measure, stat, is_kept, limit in self._limits:
            if measure not in quick:
                continue
            _, p99_ms = quick[measure]
            if not is_kept(p99_ms, limit):
                self._left[name] -= 1
            elif stat == "p99_ms":
                self._left[name] = inf
