"""The longest turns of a web process' loop, by a timer inside it (watched/sitecustomize.py).

By the clock and in CPU time: what the process waited for its core is in the first only, and says
more about the machine than about the server.
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

from loadtest.bench import watched

SPAN_SECONDS = 0.25  # as in watched/sitecustomize.py


class Worst(NamedTuple):
    """Each the worst of the time looked at, in ms; maybe of two different turns."""

    by_clock: float
    cpu: float


class Turns:
    """The turns of a web process that is started with `path` as PYTHONPATH and `file`, which is
    its own, as BENCH_TURNS."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._since = 0.0
        there = [str(folder) for folder in watched.__path__]
        before = [folder for folder in (os.environ.get("PYTHONPATH"),) if folder]
        self.path = os.pathsep.join([*there, *before])

    def mark(self) -> None:
        """Look at the turns from here on."""
        self._since = time.monotonic()

    def worst(self) -> Worst:
        """The worst of the spans of 250 ms that began after the mark and are over. Raises
        ValueError: none is."""
        spans = [[*map(float, line.split())] for line in self.file.read_text().splitlines()]
        seen = [span for span in spans if span[0] >= self._since + SPAN_SECONDS]
        return Worst(max(span[1] for span in seen), max(span[2] for span in seen))
