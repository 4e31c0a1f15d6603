"""order_status: many questions in one call, answers to whom they belong."""

import asyncio
from typing import cast

import pytest

from server.errors import StoreUnavailable
from server.hub import order_status
from server.hub.order_status import OrderStatusDesk
from server.hub.receipts import Receipts
from server.hub.viewer import Viewer
from server.protocol.messages import Accepted, ClaimState
from tests.hub_fakes import FakeRoom, FakeViewer

RECEIPTS = Receipts(b"k" * 32)
HELD_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
OTHER_ID = "01890a5d-ac96-774b-bcce-b302099a8058"


class FakeStore:
    def __init__(self) -> None:
        self.calls: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def lookup(
        self, show_id: str, claims: "list[tuple[str, bytes]]"
    ) -> list[ClaimState | None]:
        self.calls.append(len(claims))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        held = ClaimState(HELD_ID, "held", 1, 1, 990, 1, 1, 7)
        return [held if claim_id.hex().endswith("57") else None for _, claim_id in claims]


def order_of(viewer: FakeViewer, index: int = 0) -> ClaimState:
    reply = viewer.sent[index]
    assert isinstance(reply, Accepted)
    assert reply.order
    return reply.order


async def test_ask_when_a_call_is_in_flight_then_the_rest_goes_as_one() -> None:
    store = FakeStore()
    desk = OrderStatusDesk(store, RECEIPTS)  # type: ignore[arg-type]
    viewer = FakeViewer(FakeRoom(), "u1")
    store.gate.clear()
    desk.ask(cast(Viewer, viewer), 1, "u1", HELD_ID)
    await asyncio.sleep(0)
    for ref in range(2, 7):
        desk.ask(cast(Viewer, viewer), ref, "u1", OTHER_ID)
    store.gate.set()
    await asyncio.sleep(0.01)
    assert store.calls == [1, 5]
    assert [reply.ref for reply in viewer.sent] == [1, 2, 3, 4, 5, 6]
    assert RECEIPTS.verify("show1", "u1", order_of(viewer))
    assert order_of(viewer, 1) == ClaimState(OTHER_ID, "not_seen")


async def test_ask_when_there_are_very_many_then_calls_are_bounded_and_then_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(order_status, "HOLD_LOOKUP_BATCH_MAX", 2)
    monkeypatch.setattr(order_status, "CLAIM_QUEUE_MAX", 5)
    store = FakeStore()
    desk = OrderStatusDesk(store, RECEIPTS)  # type: ignore[arg-type]
    viewer = FakeViewer(FakeRoom(), "u1")
    for ref in range(6):
        desk.ask(cast(Viewer, viewer), ref, "u1", OTHER_ID)
    await asyncio.sleep(0.01)
    assert store.calls == [2, 2, 1]
    assert viewer.refused == [(5, "busy")]


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), RuntimeError("bug")])
async def test_ask_when_redis_is_away_then_unavailable_and_later_it_works(
    failure: Exception,
) -> None:
    store = FakeStore()
    desk = OrderStatusDesk(store, RECEIPTS)  # type: ignore[arg-type]
    viewer = FakeViewer(FakeRoom(), "u1")
    store.failure = failure
    desk.ask(cast(Viewer, viewer), 1, "u1", HELD_ID)
    await asyncio.sleep(0.01)
    store.failure = None
    desk.ask(cast(Viewer, viewer), 2, "u1", HELD_ID)
    await asyncio.sleep(0.01)
    assert viewer.refused == [(1, "unavailable")]
    assert order_of(viewer).status == "held"
