"""How old what viewers see is: per update, of what stands on the screen, and between viewers.

A viewer's ages belong to the room it is in. A level that was skipped because a newer one came is
not late: only what is shown can be old.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from math import ceil
from typing import Final, NamedTuple

from loadtest.measures.histogram import Measured
from loadtest.measures.witness import FirstSeen, Instants, Version
from loadtest.swarm.pipe import Trace

BUCKET_BITS: Final = 8  # arrivals are counted in steps of 256 µs
GRID_US: Final = 10_000  # the displayed value is looked at so often


class Arrived(NamedTuple):
    """One distinct tick and when it came: what the fast path hands over once a second.

    `stock`: sale -> (epoch, version, left). `arrivals`: t_us >> BUCKET_BITS -> how many viewers.
    Ticks only: a welcome may bring old levels to a new viewer; and only of viewers who read as
    fast as they can, because slow ones are late by their own will.
    """

    room: int
    stock: Mapping[int, tuple[int, int, int]]
    arrivals: Mapping[int, int]


class Staleness:
    """Records `stale`, publish to receipt, for each level at each viewer.

    Ticks are resolved by the second fold after they came: the witness may hear a publish later
    than a viewer; at the end fold twice with nothing. `early` counts arrivals before the instant
    known (their age is 0); `witnessed` and `lost` count levels in ticks whose instant is known, or
    not. Without a witness the instant of a level is that of its first arrival in this loader.
    """

    def __init__(self, measured: Measured, witness: Instants | None) -> None:
        self._measured = measured
        self._first_seen = None if witness else FirstSeen()
        self._waiting: list[Arrived] = []
        self.instants: Instants = witness or self._first_seen or FirstSeen()
        self.early = self.witnessed = self.lost = 0

    def fold(self, arrived: Iterable[Arrived]) -> None:
        """Resolve what the last fold was given, and keep this for the next one."""
        resolving, self._waiting = self._waiting, list(arrived)
        if self._first_seen:
            self._note_first(self._first_seen)
        for each in resolving:
            for sale, (epoch, version, _) in each.stock.items():
                published_us = self.instants.at(sale, (epoch, version))
                if published_us is None:
                    self.lost += 1
                else:
                    self.witnessed += 1
                    self._record(each, published_us)

    def _note_first(self, first_seen: FirstSeen) -> None:
        for each in self._waiting:
            if each.arrivals:
                t_us = min(each.arrivals) << BUCKET_BITS
                for sale, (epoch, version, _) in each.stock.items():
                    first_seen.note(sale, (epoch, version), t_us)

    def _record(self, each: Arrived, published_us: int) -> None:
        for bucket, viewers in each.arrivals.items():
            t_us = (bucket << BUCKET_BITS) + (1 << BUCKET_BITS >> 1)
            age_us = max(0, t_us - published_us)
            self._measured.record("stale", t_us, age_us, count=viewers, room=each.room)
            if (bucket + 1) << BUCKET_BITS <= published_us:
                self.early += viewers


def made(viewer: str, room: int, sale: int, shown: Iterable[tuple[int, int, int]]) -> Trace:
    """A trace from (t_us, epoch, version) triples in the order of arrival."""
    columns = array("q"), array("q"), array("q")
    for triple in shown:
        for column, value in zip(columns, triple, strict=True):
            column.append(value)
    return Trace(viewer, room, sale, *(column.tobytes() for column in columns))


def shown(trace: Trace) -> list[tuple[int, Version]]:
    """(t_us, level) in the order of arrival, each newer than the one before."""
    epochs, versions = array("q", trace.epoch), array("q", trace.version)
    newest: list[tuple[int, Version]] = []
    for t_us, level in zip(array("q", trace.t_us), zip(epochs, versions, strict=True), strict=True):
        if not newest or level > newest[-1][1]:
            newest.append((t_us, level))
    return newest


def record_ages(measured: Measured, traces: Iterable[Trace], instants: Instants) -> None:
    """Record `age`: on a grid of 10 ms, for how long what a sampled viewer sees has been outdated;
    0 while it is the newest published. From a viewer's first level on."""
    for trace in traces:
        for at_us, age_us, times in _ages(shown(trace), instants.history(trace.sale), measured):
            measured.record("age", at_us, age_us, count=times, room=trace.room)


def _ages(
    steps: Sequence[tuple[int, Version]],
    published: Sequence[tuple[Version, int]],
    measured: Measured,
) -> Iterator[tuple[int, int, int]]:
    """(t_us, age, grid points) with what was displayed during the measured part."""
    start, end = measured.part_us
    levels = [level for level, _ in published]
    outdated = _outdated_from([t_us for _, t_us in published])
    until = [t_us for t_us, _ in steps[1:]] + [end]
    for (since_us, level), until_us in zip(steps, until, strict=True):
        outdated_us = outdated[bisect_right(levels, level)]
        first = _next_on_grid(max(since_us, start))
        fresh_until = _next_on_grid(min(max(outdated_us, first), until_us, end))
        if fresh_until > first:
            yield from _fresh(first, fresh_until, measured.part_us)
        for at_us in range(max(first, fresh_until), min(until_us, end), GRID_US):
            yield at_us, at_us - outdated_us, 1


def _fresh(first: int, until: int, part_us: tuple[int, int]) -> Iterator[tuple[int, int, int]]:
    """Grid points of age 0, together by tenth of a second: nothing is lost but their place."""
    for at_us in range(first, until, 10 * GRID_US):
        yield at_us, 0, min(10, (until - at_us) // GRID_US)


def _next_on_grid(t_us: int) -> int:
    return -(-t_us // GRID_US) * GRID_US


def _outdated_from(published_us: Sequence[int]) -> list[int]:
    """For the level before each: the first instant at which that one or a newer is public; after
    the newest never."""
    instants = [1 << 62]
    for t_us in reversed(published_us):
        instants.append(min(t_us, instants[-1]))
    return instants[::-1]


def skews(traces: Iterable[Trace]) -> Iterator[tuple[int, int]]:
    """(instant of the first, µs from the first to the last sampled viewer that shows at least it)
    for each level shown, over all loaders.

    A viewer counts from the level after its first one: that may have been old when it came.
    """
    of_sale: dict[int, list[list[tuple[int, Version]]]] = {}
    for trace in traces:
        of_sale.setdefault(trace.sale, []).append(shown(trace))
    return chain.from_iterable(_skews(viewers) for viewers in of_sale.values())


def _skews(viewers: Sequence[Sequence[tuple[int, Version]]]) -> Iterator[tuple[int, int]]:
    levels = sorted({level for steps in viewers for _, level in steps[1:]})
    first, last = [1 << 62] * len(levels), [0] * len(levels)
    for steps in viewers:
        at = bisect_right(levels, steps[0][1]) if steps else 0
        for t_us, level in steps[1:]:
            upto = bisect_right(levels, level)
            for place in range(at, upto):
                first[place], last[place] = min(first[place], t_us), max(last[place], t_us)
            at = upto
    return ((begun, ended - begun) for begun, ended in zip(first, last, strict=True) if ended)


def aware_after(seen_us: Sequence[int], since_us: int, share: float) -> int | None:
    """µs after which this share of the viewers had seen the sale sold out.

    `seen_us`: one instant per viewer, 0: never. None when too many never did, or nobody is there.
    """
    rank = ceil(share * len(seen_us) - 1e-9)
    in_time = sorted(t_us for t_us in seen_us if t_us)
    if not rank or rank > len(in_time):
        return None
    return max(0, in_time[rank - 1] - since_us)
