"""Distributions of latencies (µs) and sizes (bytes), merged over loaders without loss."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import accumulate
from math import ceil
from operator import mul
from typing import Final

from hdrh.histogram import HdrHistogram

from loadtest.report.summary import Stat

VALUE_MAX: Final = 120_000_000  # 2 min in µs
SIGNIFICANT_DIGITS: Final = 3
US_PER_MS: Final = 1000.0
BLOCKS: Final = 10  # of the measured part, for the noise of a comparison
SPECTRUM_STEPS: Final = 4  # points per halving of what is above


@cache
def _upper_edges() -> list[int]:
    """The greatest value of each bucket."""
    shape = HdrHistogram(1, VALUE_MAX, SIGNIFICANT_DIGITS)
    return [shape.get_value_from_index(index + 1) - 1 for index in range(shape.counts_len)]


@cache
def _middles() -> list[float]:
    """The value that stands for each bucket in a mean."""
    edges = _upper_edges()
    return [(low + 1 + high) / 2 for low, high in zip([-1, *edges], edges, strict=False)]


class Histogram:
    """Whole numbers from 1 to VALUE_MAX with an error of at most 0.1 %; 0 counts as 1.

    What is out of range is put at the nearer end and counted in `clipped`.
    """

    def __init__(self) -> None:
        self._hdr = HdrHistogram(1, VALUE_MAX, SIGNIFICANT_DIGITS)
        self.clipped = 0

    @property
    def count(self) -> int:
        """How many values."""
        return int(self._hdr.total_count)

    def record(self, value: int, count: int = 1) -> None:
        """Count a value; ~2 µs."""
        if not 0 < value <= VALUE_MAX:
            if value:
                self.clipped += count
            value = min(max(value, 1), VALUE_MAX)
        self._hdr.record_value(value, count)

    def add(self, other: "Histogram") -> None:
        """Count all of another's values."""
        if other.count:
            self._hdr.add(other._hdr)
        self.clipped += other.clipped

    def encode(self) -> bytes:
        """HdrHistogram's portable form (V2, base64), a few hundred bytes. `clipped` stays here."""
        return bytes(self._hdr.encode())

    @classmethod
    def merged(cls, encoded: Iterable[bytes]) -> "Histogram":
        """All values of several encoded ones."""
        whole = cls()
        for each in encoded:
            other = HdrHistogram.decode(each)
            if other.total_count:
                whole._hdr.add(other)
        return whole

    def _counts(self) -> list[int]:
        """By bucket, up to the greatest that has any."""
        top = self._hdr.get_counts_array_index(self._hdr.max_value) if self.count else -1
        return list(self._hdr.counts[: top + 1])

    def _at(self, cumulative: list[int], share: float) -> int:
        """The smallest value that at least this share of all are not above (nearest rank)."""
        rank = max(1, ceil(share * cumulative[-1] - 1e-9))
        upper = _upper_edges()[bisect_left(cumulative, rank)]
        return min(upper, int(self._hdr.max_value))

    def percentile(self, share: float) -> int:
        """By nearest rank, share 0 to 1; 0 when empty. ~1 ms: not for each frame."""
        return self._at(list(accumulate(self._counts())), share) if self.count else 0

    def stat(self, per: float = US_PER_MS) -> Stat:
        """Its key figures, divided by `per` (1 for sizes)."""
        if not self.count:
            return Stat()
        counts = self._counts()
        cumulative = list(accumulate(counts))
        p50, p90, p99, p999, top = (
            self._at(cumulative, share) / per for share in (0.5, 0.9, 0.99, 0.999, 1.0)
        )
        mean = sum(map(mul, counts, _middles())) / self.count / per
        return Stat(self.count, p50, p90, p99, p999, top, min(mean, top))

    def spectrum(self, per: float = US_PER_MS) -> list[tuple[float, float]]:
        """(share, value) points, denser towards 1 as far as there are values; the last is the
        maximum."""
        if not self.count:
            return []
        cumulative = list(accumulate(self._counts()))
        return [(share, self._at(cumulative, share) / per) for share in _shares(self.count)]


def _shares(count: int) -> Iterator[float]:
    above, step = 1.0, 0
    while above * count > 1:
        yield 1 - above
        step += 1
        above = 0.5 ** (step / SPECTRUM_STEPS)
    yield 1.0


class Measured:
    """The distributions of one loader by name, room and tenth of the measured part.

    One instant decides whether something is measured, and in which tenth: the intended one of an
    act, the arrival of a frame. `part_us` (start, end) is (0, 0) until it is known.
    """

    def __init__(self, part_us: tuple[int, int] = (0, 0)) -> None:
        self.part_us = part_us
        self._blocks: dict[tuple[str, int, int], Histogram] = {}
        self._second: dict[str, dict[int, int]] = {}  # name -> value -> count

    def record(self, name: str, at_us: int, value: int, *, count: int = 1, room: int = 0) -> None:
        """Count a value that belongs to instant `at_us`, if that is in the measured part."""
        start, end = self.part_us
        if start <= at_us < end:
            self._put(name, room, (at_us - start) * BLOCKS // (end - start), value, count)

    def record_always(self, name: str, value: int, *, room: int = 0) -> None:
        """Count a value whenever it was (joins), in no tenth."""
        self._put(name, room, BLOCKS, value, 1)

    def _put(self, name: str, room: int, block: int, value: int, count: int) -> None:
        key = name, room, block
        histogram = self._blocks.get(key)
        if histogram is None:
            histogram = self._blocks[key] = Histogram()
        histogram.record(value, count)
        second = self._second.setdefault(name, {})
        second[value] = second.get(value, 0) + count

    def quick(self) -> dict[str, tuple[float, float]]:
        """name -> (p50, p99) in ms of what was counted since the last call."""
        second, self._second = self._second, {}
        return {name: _quick(values) for name, values in second.items()}

    @property
    def clipped(self) -> int:
        """Values that were out of range."""
        return sum(each.clipped for each in self._blocks.values())

    def histograms(self) -> dict[str, bytes]:
        """ "name@room" -> encoded, the whole part."""
        whole: dict[str, Histogram] = {}
        for (name, room, _), each in self._blocks.items():
            whole.setdefault(f"{name}@{room}", Histogram()).add(each)
        return {name: each.encode() for name, each in whole.items()}

    def blocks(self) -> dict[str, list[bytes]]:
        """name -> encoded, each tenth of the part over all rooms."""
        tenths: dict[str, list[Histogram]] = {}
        for (name, _, block), each in self._blocks.items():
            if block < BLOCKS:
                of_name = tenths.setdefault(name, [Histogram() for _ in range(BLOCKS)])
                of_name[block].add(each)
        return {name: [each.encode() for each in of_name] for name, of_name in tenths.items()}


def _quick(values: dict[int, int]) -> tuple[float, float]:
    ordered = sorted(values)
    cumulative = list(accumulate(values[value] for value in ordered))
    p50, p99 = (
        ordered[bisect_left(cumulative, ceil(share * cumulative[-1] - 1e-9))] / US_PER_MS
        for share in (0.5, 0.99)
    )
    return p50, p99
