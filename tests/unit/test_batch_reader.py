"""The reader of the order stream rests in a rush, so that transactions grow, and only then."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from server import clock
from server.orders import batch
from server.orders.batch import BatchReader
from server.store.order_stream import OrderStream
from server.store.types import OrderEntry, Take


class FakeStream:
    """Hands out entries with so many takes each."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)

    async def read(self, consumer: str, count: int, block_ms: int) -> list[OrderEntry]:
        if not self.sizes:
            return []
        take = Take(0, 1, 1, "ann", b"c" * 16, 1, 100, 1, 1)
        return [OrderEntry("1-0", 1, "hub1", [take] * self.sizes.pop(0))]


@pytest.fixture
def time_ms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now[0])
    return now


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of every rest."""
    rested: list[float] = []

    async def sleep(seconds: float) -> None:
        rested.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return rested


def reader(*sizes: int, claims: int = 2_048) -> BatchReader:
    return BatchReader(cast(OrderStream, FakeStream(sizes)), "w1", claims)


@pytest.mark.parametrize(
    ("took_ms", "rest_s"), [(20.0, 0.02), (100.0, 0.1), (5_000.0, batch.REST_MS_MAX / 1000)]
)
async def test_read_when_the_last_batch_was_a_rush_then_it_rests_as_long_as_that_took(
    time_ms: list[float], rests: list[float], took_ms: float, rest_s: float
) -> None:
    reading = reader(batch.REST_AFTER_CLAIMS, 1)
    await reading.read()
    time_ms[0] += took_ms
    await reading.read()
    assert rests == [pytest.approx(rest_s)]


async def test_read_when_claims_are_few_or_none_then_it_never_rests(
    time_ms: list[float], rests: list[float]
) -> None:
    reading = reader(batch.REST_AFTER_CLAIMS - 1, 1)
    for _ in range(4):
        await reading.read()
        time_ms[0] += 50
    assert rests == []


async def test_read_when_a_backlog_lasts_then_the_next_batch_is_read_ahead_without_a_rest(
    time_ms: list[float], rests: list[float]
) -> None:
    reading = reader(512, 512, 512, 512, claims=512)
    for _ in range(3):
        await reading.read()
        time_ms[0] += 50
        await asyncio.wait([reading._ahead] if reading._ahead else [])
    assert rests == []
    await reading.drop()
