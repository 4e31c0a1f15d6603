"""The timer wheel, on a loop whose time the tests move."""

import asyncio
from typing import Any

import pytest

from server.hub.wheel import HORIZON_S, NOWHERE, RESOLUTION_S, RINGS_PER_TURN, Wheel
from tests.hub_world import SlowLoop


@pytest.fixture
def loop() -> SlowLoop:
    return SlowLoop()


class Bell:
    def __init__(self, loop: SlowLoop, wheel: Wheel, again: float = 0) -> None:
        self.wheel_slot = NOWHERE
        self.loop = loop
        self.wheel = wheel
        self.again = again
        self.rang: list[float] = []

    def on_wheel(self) -> None:
        self.rang.append(self.loop.now - 1_000)
        if self.again:
            self.wheel.schedule(self, self.again)


def new_wheel(loop: SlowLoop) -> Wheel:
    fake: Any = loop
    assert isinstance(fake, SlowLoop)
    wheel: Wheel = Wheel(fake)
    return wheel


@pytest.mark.parametrize("delay", [0, 0.1, 1, 5, 20, HORIZON_S])
def test_wheel_when_a_delay_is_over_then_rings_once_within_its_resolution(
    loop: SlowLoop, delay: float
) -> None:
    wheel = new_wheel(loop)
    bell = Bell(loop, wheel)
    wheel.schedule(bell, delay)
    loop.advance(200)
    (rang,) = bell.rang
    assert delay <= rang <= delay + 2 * RESOLUTION_S
    assert (len(wheel), bell.wheel_slot, loop.timers) == (0, NOWHERE, [])


def test_wheel_when_scheduled_again_then_only_the_last_wish_counts(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bell = Bell(loop, wheel)
    wheel.schedule(bell, 5)
    wheel.schedule(bell, 1)
    assert len(wheel) == 1
    loop.advance(10)
    assert len(bell.rang) == 1


def test_wheel_when_hastened_then_rings_at_the_earlier_of_the_two(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bells = [Bell(loop, wheel) for _ in range(3)]
    wheel.schedule(bells[0], 1)
    wheel.schedule(bells[1], 20)
    for bell in bells:
        wheel.hasten(bell, 5)
        wheel.hasten(bell, 6)
    loop.advance(30)
    rang = [bell.rang[0] for bell in bells]
    assert len(wheel) == 0
    for due, at in zip((1, 5, 5), rang, strict=True):
        assert due <= at <= due + 2 * RESOLUTION_S


def test_wheel_when_an_entry_is_discarded_then_it_stays_silent(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bell = Bell(loop, wheel)
    wheel.schedule(bell, 1)
    wheel.discard(bell)
    wheel.discard(bell)
    loop.advance(10)
    assert bell.rang == []


def test_wheel_when_a_delay_is_beyond_the_horizon_then_rings_early(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bell = Bell(loop, wheel)
    wheel.schedule(bell, 300)
    loop.advance(300)
    assert bell.rang[0] <= HORIZON_S + 2 * RESOLUTION_S


def test_wheel_when_entries_reschedule_then_it_keeps_time_with_one_timer(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bells = [Bell(loop, wheel, again=1) for _ in range(50)]
    for bell in bells:
        wheel.schedule(bell, 1)
    loop.advance(20)
    assert all(15 <= len(bell.rang) <= 20 for bell in bells)
    assert len(loop.timers) == 1


def test_wheel_when_the_loop_was_blocked_then_catches_up(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bell = Bell(loop, wheel)
    wheel.schedule(bell, 3)
    loop.now += 10
    loop.advance(0)
    assert len(bell.rang) == 1


def test_wheel_when_many_are_due_at_once_then_a_turn_rings_a_portion(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bells = [Bell(loop, wheel) for _ in range(3 * RINGS_PER_TURN + 1)]
    for bell in bells:
        wheel.schedule(bell, 1)
    while not any(bell.rang for bell in bells):
        loop.advance(RESOLUTION_S / 2, turns=1)
    assert sum(len(bell.rang) for bell in bells) == RINGS_PER_TURN
    at = loop.now
    silent = next(bell for bell in bells if not bell.rang)
    wheel.discard(silent)
    hastened = next(bell for bell in bells if not bell.rang and bell is not silent)
    wheel.hasten(hastened, 5)
    loop.advance(0)
    assert loop.now == at
    assert [bell for bell in bells if len(bell.rang) != 1] == [silent]
    assert len(wheel) == 0


def test_wheel_when_stopped_with_some_due_then_they_stay_silent(loop: SlowLoop) -> None:
    wheel = new_wheel(loop)
    bells = [Bell(loop, wheel) for _ in range(2 * RINGS_PER_TURN)]
    for bell in bells:
        wheel.schedule(bell, 1)
    while not any(bell.rang for bell in bells):
        loop.advance(RESOLUTION_S / 2, turns=1)
    wheel.stop()
    loop.advance(10)
    assert sum(len(bell.rang) for bell in bells) == RINGS_PER_TURN


async def test_wheel_when_on_a_real_loop_then_rings() -> None:
    rung = asyncio.Event()

    class Once:
        wheel_slot = NOWHERE

        def on_wheel(self) -> None:
            rung.set()

    wheel = Wheel(asyncio.get_running_loop())
    wheel.schedule(Once(), 0)
    await rung.wait()
