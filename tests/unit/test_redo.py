"""What a hub presents when a show's stock is rebuilt, and what a proved hold is told."""

import asyncio
from typing import cast

import pytest

from server.errors import ERRORS, StoreUnavailable
from server.hub import redo
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol.messages import ClaimState
from server.store.types import ClaimAnswer, ClaimRequest
from tests.hub_fakes import FakeRoom, FakeViewer
from tests.unit.test_claims import RECEIPTS, Desk, FakeStock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redo, "RETRY_MS", 1)


async def presented(desk: Desk, rebuild: str) -> list[str]:
    """Claim ids handed in to a rebuild by this hub."""
    desk.redo.on_rebuild(cast(Room, desk.room), rebuild)
    async with asyncio.timeout(5):
        while not any(call[0] == rebuild for call in desk.evidence.presented):  # noqa: ASYNC110
            await asyncio.sleep(0)
    (call,) = [call for call in desk.evidence.presented if call[0] == rebuild]
    assert call[2] == "hub1"
    return [state.claim_id[-2:] for _, state in call[1]]


async def hold(desk: Desk, *numbers: int) -> None:
    viewer = desk.viewer("ann")
    for n in numbers:
        desk.claim(viewer, n)
    await desk.desk.settled()


def state_of(desk: Desk, buyer: str, n: int) -> ClaimState:
    ring = desk.redo.of(cast(Room, desk.room))
    return next(state for _, state in ring.since(0) if state.claim_id.endswith(f"{n:02x}"))


async def test_rebuild_when_claims_are_unsettled_then_they_are_presented_once() -> None:
    desk = Desk()
    await hold(desk, 1, 2, 3)
    settled = state_of(desk, "ann", 2)
    desk.desk.on_orders(cast(Room, desk.room), [("ann", settled)])
    assert await presented(desk, "r1") == ["01", "03"]
    desk.redo.on_rebuild(cast(Room, desk.room), "r1")
    await asyncio.sleep(0.01)
    assert len(desk.evidence.presented) == 1
    assert await presented(desk, "r2") == ["01", "03"]


async def test_rebuild_when_redis_does_not_answer_at_first_then_presented_later() -> None:
    desk = Desk()
    desk.evidence.fails = [StoreUnavailable("away"), StoreUnavailable("away")]
    await hold(desk, 1)
    assert await presented(desk, "r1") == ["01"]


async def test_ring_when_it_is_full_then_the_oldest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redo, "REDO_CLAIMS_MAX", 2)
    desk = Desk()
    await hold(desk, 1, 2, 3)
    assert await presented(desk, "r1") == ["02", "03"]


async def test_ring_when_it_made_way_for_another_room_then_later_holds_are_presented() -> None:
    desk = Desk()
    await hold(desk, 1)
    desk.desk.on_orders(cast(Room, desk.room), [("ann", state_of(desk, "ann", 1))])
    desk.redo.of(cast(Room, FakeRoom("show2")))
    await hold(desk, 2)
    assert await presented(desk, "r1") == ["02"]


async def test_rebuild_when_a_hold_had_its_chance_before_then_it_is_not_presented() -> None:
    desk = Desk()
    await hold(desk, 1)
    desk.room.stock_epoch = state_of(desk, "ann", 1).epoch + 1
    assert await presented(desk, "r1") == []


# --- Proved holds ---------------------------------------------------------------------------------


def proof(epoch: int = 1, receipt: str | None = None) -> ClaimState:
    """A hold of claim 9, of an epoch that is over, with its receipt."""
    claim = ClaimState(
        claim_id="00000000-0000-0000-0000-000000000009", status="held", sale=1, quantity=1,
        price=100, price_version=1, epoch=epoch, seq=5,
    )  # fmt: skip
    fields = {name: getattr(claim, name) for name in claim.__struct_fields__}
    fields["receipt"] = receipt or RECEIPTS.sign("show1", "ann", claim)
    return ClaimState(**fields)


class Refusing(FakeStock):
    """A stock that refuses everything in the same way."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._code = ERRORS[name].code

    def _answer(self, epoch: int, request: ClaimRequest) -> ClaimAnswer:
        return ClaimAnswer(self._code, None, 990, 1)


async def resubmitted(desk: Desk, hold: ClaimState) -> FakeViewer:
    """The viewer, after its claim 9 came with this hold and was answered."""
    viewer = desk.viewer("ann")
    request = ClaimRequest("ann", (9).to_bytes(16), 1, 1, 1)
    desk.batcher.resubmit(cast(Viewer, viewer), 7, request._replace(attempt=1), hold)
    await desk.desk.settled()
    return viewer


def refusing(name: str) -> Desk:
    return Desk(stock=Refusing(name))


@pytest.mark.parametrize("name", ["sold_out", "limit_reached", "sale_closed", "price_changed"])
async def test_proved_hold_when_refused_for_good_then_released_by_incident(name: str) -> None:
    viewer = await resubmitted(refusing(name), proof())
    assert viewer.claims == [(7, "released_by_incident")]
    assert viewer.refused == []


async def test_proved_hold_when_the_stock_is_rebuilt_then_presented_and_it_may_come_again() -> None:
    desk = refusing("stock_rebuilding")
    assert await presented(desk, "r1") == []
    viewer = await resubmitted(desk, proof())
    assert viewer.refused == [(7, "stock_rebuilding")]
    await asyncio.sleep(0.01)
    assert desk.evidence.presented[-1] == ("r1", [("ann", proof())], "")


async def test_proved_hold_when_there_are_units_then_held_again() -> None:
    viewer = await resubmitted(Desk(), proof())
    assert viewer.claims == [(7, "held")]


async def test_proof_when_its_receipt_is_not_ours_then_refused_like_anybody() -> None:
    viewer = await resubmitted(refusing("sold_out"), proof(receipt="0" * 32))
    assert viewer.refused == [(7, "sold_out")]


async def test_proof_when_its_claim_got_no_answer_then_it_is_not_kept() -> None:
    desk = refusing("sold_out")
    desk.stock.fails = [StoreUnavailable("away")]
    viewer = await resubmitted(desk, proof())
    desk.batcher.submit(cast(Viewer, viewer), 8, ClaimRequest("ann", (9).to_bytes(16), 1, 1, 1, 1))
    await desk.desk.settled()
    assert viewer.refused == [(7, "outcome_unknown"), (8, "sold_out")]
