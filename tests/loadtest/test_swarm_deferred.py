"""Counting is put off, never left out."""

from loadtest.measures.histogram import Histogram
from loadtest.swarm.deferred import PORTION, Deferred
from tests.live import until


def count_of(measured: Deferred, name: str) -> int:
    return Histogram.merged([measured.histograms()[f"{name}@0"]]).count


async def test_values_when_asked_for_at_once_then_all_are_counted() -> None:
    measured = Deferred()
    measured.part_us = (0, 100)
    for at_us in range(-50, 150):
        measured.record("stale", at_us, 7, count=2)
    assert count_of(measured, "stale") == 200
    assert sum(len(tenth) > 0 for tenth in measured.blocks()["stale"]) == 10


async def test_values_when_nobody_asks_then_they_are_counted_in_portions() -> None:
    measured = Deferred()
    measured.part_us = (0, 1 << 40)
    for at_us in range(PORTION * 2 + 1):
        measured.record("stale", at_us, 7)
    assert not measured.quick()
    await until(lambda: not measured._waiting, "all are counted")
    assert measured.quick()["stale"] == (0.007, 0.007)
    assert count_of(measured, "stale") == PORTION * 2 + 1
