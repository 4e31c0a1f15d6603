"""The ticker, on a loop whose time the tests move."""

import itertools
from typing import Any

import pytest

from server import limits
from server.hub.tick import Again, Ticker
from tests.hub_world import SlowLoop


@pytest.fixture
def loop() -> SlowLoop:
    return SlowLoop()


class Group:
    def __init__(self, loop: SlowLoop, phase: float, size: int = 1) -> None:
        self.loop = loop
        self.phase = phase
        self.size = size
        self.due = float("inf")
        self.since = 0.0
        self.flushed: list[float] = []
        self.again: Again = "never"
        self.broken = False

    def flush(self, end: float) -> tuple[int, Again]:
        self.flushed.append(self.loop.now - 1_000)
        if self.broken:
            raise RuntimeError("broken")
        return self.size, self.again


def new_ticker(loop: SlowLoop) -> Ticker:
    fake: Any = loop
    return Ticker(fake, 0.1)


def test_ticker_when_groups_are_scheduled_then_each_leaves_in_its_own_instant(
    loop: SlowLoop,
) -> None:
    ticker = new_ticker(loop)
    groups = [Group(loop, phase) for phase in (0.1, 0.4, 0.9)]
    for group in groups:
        ticker.schedule(group)
        ticker.schedule(group)
    loop.advance(0.2)
    assert [len(group.flushed) for group in groups] == [1, 1, 1]
    assert [round(group.flushed[0], 3) for group in groups] == [0.01, 0.04, 0.09]


def test_ticker_when_hurried_then_flushes_now_and_not_again(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    group = Group(loop, 0.9)
    ticker.schedule(group)
    ticker.hurry(group)
    loop.advance(0.2)
    assert group.flushed == [0.0]


def test_ticker_when_changes_keep_coming_then_flushes_once_per_tick(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    group = Group(loop, 0.5)
    for _ in range(100):
        ticker.schedule(group)
        loop.advance(0.01)
    assert 9 <= len(group.flushed) <= 11


def test_ticker_when_groups_are_large_then_one_per_loop_turn(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    groups = [Group(loop, 0.1 * n, size=limits.PHASE_VIEWERS_MAX) for n in range(5)]
    for group in groups:
        ticker.hurry(group)
    loop.advance(0)
    assert loop.turns == 5
    assert all(len(group.flushed) == 1 for group in groups)


def test_ticker_when_groups_are_small_then_they_share_a_turn(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    for group in [Group(loop, 0.1 * n, size=10) for n in range(5)]:
        ticker.hurry(group)
    loop.advance(0)
    assert loop.turns == 1


def test_ticker_when_a_group_wants_more_then_it_is_queued_again(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    group = Group(loop, 0.5)
    group.again = "next tick"
    ticker.schedule(group)
    loop.advance(0.5)
    assert len(group.flushed) == 5


def test_ticker_when_a_flush_fails_then_the_others_still_leave(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    bad, good = Group(loop, 0.1), Group(loop, 0.2)
    bad.broken = True
    for group in (bad, good):
        ticker.hurry(group)
    loop.advance(1)
    assert len(good.flushed) == 1


def test_ticker_when_a_group_is_forgotten_then_it_is_not_flushed(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    group = Group(loop, 0.1)
    ticker.schedule(group)
    ticker.forget(group)
    loop.advance(1)
    assert group.flushed == []


def test_ticker_when_phases_are_handed_out_then_they_spread(loop: SlowLoop) -> None:
    ticker = new_ticker(loop)
    phases = sorted(ticker.new_phase() for _ in range(10))
    gaps = [after - before for before, after in itertools.pairwise(phases)]
    assert phases[0] >= 0
    assert phases[-1] < 1
    assert max(gaps) < 0.2
