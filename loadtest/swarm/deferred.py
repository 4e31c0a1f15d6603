"""Values are taken at once and counted a little later: counting one costs more than receiving a
frame, and in a rush the loader has better things to do."""

import asyncio
from collections import deque
from typing import Final

from loadtest.measures.histogram import Measured

PAUSE_S: Final = 0.02
PORTION: Final = 500  # values counted in one turn of the loop, ~3 ms


class Deferred(Measured):
    """Distributions of one loader that are counted in portions. `quick` may lag behind a rush;
    `histograms`, `blocks` and `clipped` never do."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[tuple[str, int, int, int, int]] = deque()
        self._scheduled = False

    def record(self, name: str, at_us: int, value: int, *, count: int = 1, room: int = 0) -> None:
        self._waiting.append((name, at_us, value, count, room))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(PAUSE_S, self._count_some)

    def _count_some(self) -> None:
        self._count(PORTION)
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._loop.call_later(PAUSE_S, self._count_some)

    def _count(self, most: int) -> None:
        for _ in range(min(most, len(self._waiting))):
            name, at_us, value, count, room = self._waiting.popleft()
            super().record(name, at_us, value, count=count, room=room)

    @property
    def clipped(self) -> int:
        self._count(len(self._waiting))
        return super().clipped

    def histograms(self) -> dict[str, bytes]:
        self._count(len(self._waiting))
        return super().histograms()

    def blocks(self) -> dict[str, list[bytes]]:
        self._count(len(self._waiting))
        return super().blocks()
