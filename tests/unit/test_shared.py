"""One question for a crowd of askers."""

import asyncio

import pytest

from server import clock
from server.web.shared import Shared


class Source:
    """Counts how often it is asked; answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.fails = False

    async def __call__(self) -> int:
        self.asked += 1
        await self.may_answer.wait()
        if self.fails:
            raise OSError("planted")
        return self.asked


async def test_shared_when_many_ask_at_once_then_one_question_answers_all() -> None:
    source = Source()
    shared = Shared(source, ttl_s=60)
    asking = [asyncio.create_task(shared()) for _ in range(100)]
    await asyncio.sleep(0)
    source.may_answer.set()
    assert await asyncio.gather(*asking) == [1] * 100
    assert await shared() == 1


async def test_shared_when_the_answer_is_old_then_it_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Source()
    source.may_answer.set()
    shared = Shared(source, ttl_s=1)
    assert await shared() == 1
    later = clock.monotonic_ms() + 1_001
    monkeypatch.setattr(clock, "monotonic_ms", lambda: later)
    assert await shared() == 2


async def test_shared_when_the_answer_took_long_then_it_is_told_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, now_ms = Source(), [0.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now_ms[0])
    shared = Shared(source, ttl_s=1, factor=10)
    asking = asyncio.create_task(shared())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    now_ms[0] = 300.0
    source.may_answer.set()
    assert await asking == 1
    now_ms[0] = 2_999.0
    assert await shared() == 1
    now_ms[0] = 3_000.0
    assert await shared() == 2
    now_ms[0] = 4_000.0  # that took no time at all
    assert await shared() == 3


async def test_shared_when_it_fails_then_the_next_one_asks_again() -> None:
    source = Source()
    source.may_answer.set()
    source.fails = True
    shared = Shared(source, ttl_s=60)
    with pytest.raises(OSError, match="planted"):
        await shared()
    source.fails = False
    assert await shared() == 2


async def test_shared_when_a_dear_question_fails_then_it_is_not_asked_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, now_ms = Source(), [0.0]
    source.fails = True
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now_ms[0])
    shared = Shared(source, ttl_s=1, factor=10, turn=asyncio.Lock())
    asking = asyncio.create_task(shared())
    for _ in range(3):
        await asyncio.sleep(0)
    now_ms[0] = 300.0
    source.may_answer.set()
    for now_ms[0] in (300.0, 2_999.0):
        with pytest.raises(OSError, match="planted"):
            await (shared() if asking.done() else asking)
    source.fails = False
    now_ms[0] = 3_000.0
    assert await shared() == 2


async def test_shared_when_dear_questions_share_a_turn_then_one_at_a_time_is_asked() -> None:
    turn, sources = asyncio.Lock(), [Source() for _ in range(3)]
    shared = [Shared(source, ttl_s=60, turn=turn) for source in sources]
    asking = [asyncio.create_task(one()) for one in shared]
    for source in sources:
        for _ in range(10):
            await asyncio.sleep(0)
        assert sum(one.asked and not one.may_answer.is_set() for one in sources) == 1
        source.may_answer.set()
    assert await asyncio.gather(*asking) == [1] * 3


async def test_shared_when_one_asker_gives_up_then_the_others_are_answered() -> None:
    source = Source()
    shared = Shared(source, ttl_s=60)
    leaving, staying = asyncio.create_task(shared()), asyncio.create_task(shared())
    await asyncio.sleep(0)
    leaving.cancel()
    source.may_answer.set()
    assert await staying == 1
    with pytest.raises(asyncio.CancelledError):
        await leaving
