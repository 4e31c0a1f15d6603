"""Which shows a worker takes up, and what one damaged show does to the others."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from server.errors import StoreUnavailable
from server.orders import worker
from server.orders.reconcile import Diagnosis
from server.orders.worker import OrderWorker, ShowConsumer, Tools
from server.records import orders


@pytest.mark.parametrize("is_away", [False, True])
async def test_discovery_when_shows_are_damaged_or_cannot_be_asked_for_then_the_others_are_taken_up(
    monkeypatch: pytest.MonkeyPatch, is_away: bool
) -> None:
    started: list[str] = []

    async def run(consumer: ShowConsumer, stopping: asyncio.Event) -> None:
        started.append(consumer.show_id)
        await stopping.wait()

    async def diagnose_all(shows: Sequence[str], _: Tools) -> dict[str, Diagnosis]:
        if is_away:
            raise StoreUnavailable("away")
        found = dict.fromkeys(shows, Diagnosis("", 1, 0))
        found["waiting"] = Diagnosis("", 1, backlog=3)
        return {**found, **dict.fromkeys(("damaged", "damaged2"), Diagnosis("damaged: ...", 1, 0))}

    async def some(*_: Any) -> Any:
        return {"selling": True, "damaged": False, "quiet": False}

    async def waiting(*_: Any) -> set[str]:
        return {"damaged2", "waiting"}

    def consumer_of(show_id: str, _: Tools) -> ShowConsumer:
        consumer = object.__new__(ShowConsumer)
        consumer.show_id, consumer.leaving, consumer.is_closed = show_id, False, False
        return consumer

    monkeypatch.setattr(orders, "shows_with_work", some)
    monkeypatch.setattr(orders, "shows_waiting", waiting)
    monkeypatch.setattr(orders, "shows_returning", waiting)
    monkeypatch.setattr(worker, "diagnose_all", diagnose_all)
    monkeypatch.setattr(ShowConsumer, "run", run)
    monkeypatch.setattr(worker, "ShowConsumer", consumer_of)
    monkeypatch.setattr(worker, "DISCOVER_MS", 1)
    monkeypatch.setattr(worker, "QUIET_EVERY_MS", 0)
    stopping = asyncio.Event()
    tools = cast(Tools, SimpleNamespace(pool=None))
    task = asyncio.create_task(OrderWorker(tools).run(stopping))
    async with asyncio.timeout(5):
        while len(started) < (1 if is_away else 4):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    stopping.set()
    await task
    assert started[0] == "selling"
    assert is_away or sorted(started) == ["damaged", "damaged2", "selling", "waiting"]
