"""Rounds of work on many things: what one of them does to the others, and what is told of it."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.acts import work as subject
from server.acts.work import Work
from server.errors import RecordsUnavailable, Refused, StoreDamaged, StoreUnavailable


async def fails_for_the_first(thing: int, fault: Exception) -> int:
    if thing == 0:
        raise fault
    return 10


@pytest.mark.parametrize(
    "fault", [Refused("stock_rebuilding"), StoreDamaged("CORRUPT"), ValueError("a fault of ours")]
)
async def test_each_when_one_thing_fails_then_the_others_are_done_and_it_is_no_outage(
    fault: Exception,
) -> None:
    work = Work(set())
    await work.each(fails_for_the_first, ((thing, fault) for thing in range(3)))
    assert work.end() == 20


@pytest.mark.parametrize("outage", [StoreUnavailable("gone"), RecordsUnavailable("gone")])
async def test_each_when_a_server_is_away_then_raised_after_the_others_are_done(
    outage: Exception,
) -> None:
    work = Work(set())
    await work.each(fails_for_the_first, ((thing, outage) for thing in range(3)))
    assert work.done == 20
    with pytest.raises(type(outage)):
        work.end()


async def test_each_when_a_server_is_silent_then_the_round_ends_after_a_few_outages() -> None:
    tried: list[int] = []

    async def act(thing: int) -> int:
        tried.append(thing)
        raise StoreUnavailable("silent")

    work = Work(set())
    await work.each(act, ((thing,) for thing in range(100)))
    await work.each(act, [(100,)])  # another part of the same round
    assert tried == list(range(subject.OUTAGES_MAX))
    with pytest.raises(StoreUnavailable):
        work.end()


@pytest.mark.parametrize(
    "answer", [None, StoreDamaged("CORRUPT"), Refused("stock_rebuilding"), ValueError("ours")]
)
async def test_each_when_something_else_comes_between_outages_then_all_are_tried(
    answer: Exception | None,
) -> None:
    tried: list[int] = []

    async def act(thing: int) -> int:
        tried.append(thing)
        if thing % subject.OUTAGES_MAX:
            raise RecordsUnavailable("gone for a moment")
        if answer is not None:
            raise answer
        return 1

    await Work(set()).each(act, ((thing,) for thing in range(20)))
    assert tried == list(range(20))


def levels(logs: Iterable[Mapping[str, Any]]) -> list[Any]:
    return [line["log_level"] for line in logs if str(line["event"]).startswith("work_failed")]


async def test_each_when_a_thing_fails_again_and_again_then_one_error_until_it_is_well() -> None:
    troubled: set[object] = set()
    ill = True

    async def act(thing: str) -> int:
        if ill:
            raise StoreDamaged(thing)
        return 1

    with capture_logs() as logs:
        for is_ill in (True, True, False, True):
            ill = is_ill
            await Work(troubled).each(act, [("show",)])
    assert levels(logs) == ["error", "debug", "error"]


async def test_each_when_too_many_things_fail_then_they_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subject, "TROUBLED_MAX", 3)
    troubled: set[object] = set()
    fault = ValueError("a fault of ours")

    async def act(_: int) -> int:
        raise fault

    await Work(troubled).each(act, ((thing,) for thing in range(10)))
    assert len(troubled) <= 3


async def test_each_when_several_share_their_things_then_each_is_done_once_and_counted() -> None:
    under_way = most = 0
    seen = []

    async def act(thing: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        seen.append(thing)
        under_way -= 1
        return 1

    work, shared = Work(set()), iter([(thing,) for thing in range(9)])
    await asyncio.gather(*(work.each(act, shared) for _ in range(3)))
    assert (sorted(seen), work.end(), most) == (list(range(9)), 9, 3)
