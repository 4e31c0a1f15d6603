"""`--abort-on-fail`: whether anything good can still come of a run under way."""

from collections.abc import Mapping
from typing import Final

from loadtest.report.summary import Second
from loadtest.report.thresholds import COMPARE, parsed

MISSED_S: Final = 3  # seconds with figures, all of them beyond the limit
OF_A_SECOND: Final = {"p50_ms": 0, "p99_ms": 1, "max_ms": 1}  # the p99 is at most the maximum


class Patience:
    """Looks at every second of the measured part. Lost for good once viewers were told what must
    never be, or when a latency has been beyond its limit in every second that had any: then it is
    over all of them together, too."""

    def __init__(self, thresholds: Mapping[str, str]) -> None:
        self._limits = []
        for name, wanted in thresholds.items():
            measure, _, stat = name.partition(".")
            if stat in OF_A_SECOND:
                self._limits.append((name, measure, OF_A_SECOND[stat], parsed(wanted)))
        self._missed = {name: 0 for name, *_ in self._limits}  # -1: it was kept once

    def lost(self, second: Second) -> str:
        """Why it is lost: an offence or a threshold by name; "" while it is not."""
        if second.phase == "measure":
            self._look(second.quick)
        offences = (name for name in second.totals if name.startswith("offences."))
        hopeless = (name for name, missed in self._missed.items() if missed >= MISSED_S)
        return next(offences, "") or next(hopeless, "")

    def _look(self, quick: Mapping[str, tuple[float, float]]) -> None:
        for name, measure, place, (sign, limit) in self._limits:
            if measure in quick and self._missed[name] >= 0:
                kept = COMPARE[sign](quick[measure][place], limit)
                self._missed[name] = -1 if kept else self._missed[name] + 1
