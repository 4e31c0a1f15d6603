"""The claim batcher: batching, bounds, the sold-out cache, lost answers, who is told what."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from server import clock, limits
from server.errors import ERRORS, StoreUnavailable
from server.hub import claims
from server.hub.claims import ClaimDesk
from server.hub.holds import HoldTracker
from server.hub.receipts import Receipts
from server.hub.redo import Claims, Redo
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol.messages import Accepted, ClaimState
from server.store.types import ClaimAnswer, ClaimBatchAnswer, ClaimRequest, PoolLevel
from tests.hub_fakes import FakeRoom, FakeViewer
from tests.hub_world import FakeTransport

RECEIPTS = Receipts(b"k" * 32)


class FakeStock:
    """A stock that answers when it is let; claims of the buyer `poor` are refused."""

    def __init__(self, units: int = 1_000) -> None:
        self.units = units
        self.epoch = 1
        self.version = 1
        self.batches: list[list[ClaimRequest]] = []
        self.epochs: list[int] = []
        self.known: dict[tuple[str, bytes], ClaimState] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: list[BaseException] = []

    async def claim_batch(
        self, show_id: str, hub_id: str, epoch: int, claims: Sequence[Any]
    ) -> ClaimBatchAnswer:
        self.batches.append(list(claims))
        self.epochs.append(epoch)
        await self.gate.wait()
        if self.fails:
            raise self.fails.pop(0)
        answers = [self._answer(epoch, request) for request in claims]
        pools = {r.pool: PoolLevel(self.version, self.units, self.epoch) for r in claims}
        return ClaimBatchAnswer(0, self.epoch, answers, pools)

    def _answer(self, epoch: int, request: ClaimRequest) -> ClaimAnswer:
        key = (request.buyer, request.claim_id)
        if key in self.known:
            return ClaimAnswer(1, self.known[key], 990, 1)
        if epoch != self.epoch:
            return ClaimAnswer(ERRORS["stock_rebuilding"].code, None, 990, 1)
        if request.price_version != 1:
            return ClaimAnswer(ERRORS["price_changed"].code, None, 990, 1)
        if not self.units:
            return ClaimAnswer(ERRORS["sold_out"].code, None, 990, 1)
        self.units -= request.quantity
        self.version += 1
        state = ClaimState(
            str(uuid.UUID(bytes=request.claim_id)), "held", request.pool, request.quantity,
            990, 1, self.epoch, len(self.known) + 1,
        )  # fmt: skip
        self.known[key] = state
        return ClaimAnswer(0, state, 990, 1)

    async def lookup(
        self, show_id: str, claims: Sequence[tuple[str, bytes]]
    ) -> list[ClaimState | None]:
        if self.fails:
            raise self.fails.pop(0)
        return [self.known.get(claim) for claim in claims]


class FakeEvidence:
    """Where hubs hand in what they know; `presented`: (rebuild, claims, hub) of each call."""

    def __init__(self) -> None:
        self.presented: list[tuple[str, list[tuple[str, ClaimState]], str]] = []
        self.fails: list[Exception] = []

    async def present(
        self, show_id: str, rebuild_id: str, claims: Claims, hub_id: str = "", /
    ) -> bool:
        if self.fails:
            raise self.fails.pop(0)
        self.presented.append((rebuild_id, list(claims), hub_id))
        return True


class Desk:
    """A claim desk with everything around it."""

    def __init__(self, units: int = 1_000, stock: FakeStock | None = None) -> None:
        self.stock = stock or FakeStock(units)
        self.room = FakeRoom()
        self.holds = HoldTracker(
            self.stock, lambda room, *moved: self.desk.on_orders(room, (moved,))
        )
        self.evidence = FakeEvidence()
        self.redo = Redo("hub1", self.evidence)
        self.desk = ClaimDesk("hub1", self.stock, RECEIPTS, self.holds.of, self.redo)

    @property
    def batcher(self) -> claims.ClaimBatcher:
        return self.desk.of(cast(Room, self.room))

    def viewer(self, user: str) -> FakeViewer:
        return FakeViewer(self.room, user)

    def claim(self, viewer: FakeViewer, ref: int, n: int = 0, **fields: Any) -> ClaimRequest:
        """Submit claim number `n` (by default the ref) of the viewer's user."""
        attempt = fields.pop("attempt", 0)
        values = {"pool": 1, "quantity": 1, "price_version": 1, **fields}
        assert viewer.user
        request = ClaimRequest(viewer.user, (n or ref).to_bytes(16), **values)
        self.batcher.submit(cast(Viewer, viewer), ref, request._replace(attempt=attempt))
        return request

    def confirm(self, request: ClaimRequest) -> None:
        """The worker's news, as the bus brings it."""
        key = (request.buyer, request.claim_id)
        state = msgspec.structs.replace(self.stock.known[key], status="confirmed", order_id=7)
        self.stock.known[key] = state
        self.desk.on_orders(cast(Room, self.room), [(request.buyer, state)])

    async def settled(self) -> None:
        await self.desk.settled()


def names(frames: bytes) -> list[tuple[int, str]]:
    """(ref, status or refusal) of server frames in msgpack."""
    transport = FakeTransport()
    transport.sent = frames
    messages = transport.take_messages()
    return [(x["ref"], x["name"] if "name" in x else x["claim"]["status"]) for x in messages]


@pytest.fixture
def time_ms(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A monotonic clock that stands still until the test moves it."""
    now = [1_000_000.0]
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now[0])
    return now


# --- Batching ---------------------------------------------------------------------------------


async def test_submit_when_a_batch_is_in_flight_then_the_rest_leaves_as_one() -> None:
    desk = Desk()
    desk.stock.gate.clear()
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1)
    await asyncio.sleep(0)
    for ref in range(2, 12):
        desk.claim(viewer, ref)
    assert [len(batch) for batch in desk.stock.batches] == [1]
    assert desk.desk.waiting == 11
    desk.stock.gate.set()
    await desk.settled()
    assert [len(batch) for batch in desk.stock.batches] == [1, 10]
    assert viewer.claims == [(ref, "held") for ref in range(1, 12)]
    assert desk.desk.waiting == 0


async def test_submit_when_many_wait_then_no_batch_is_larger_than_the_script_takes() -> None:
    desk = Desk(units=2_000)
    viewer = desk.viewer("u1")
    for ref in range(1, limits.CLAIM_BATCH_MAX * 2 + 11):
        desk.claim(viewer, ref)
    await desk.settled()
    assert [len(batch) for batch in desk.stock.batches] == [512, 512, 10]
    assert [request.claim_id for batch in desk.stock.batches for request in batch] == [
        ref.to_bytes(16) for ref in range(1, 1_035)
    ]


async def test_submit_when_the_queue_is_full_then_busy_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "CLAIM_QUEUE_MAX", 3)
    desk = Desk()
    desk.stock.gate.clear()
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1)
    await asyncio.sleep(0)
    for ref in range(2, 6):
        desk.claim(viewer, ref)
    assert viewer.refused == [(5, "busy")]
    assert viewer.details[0]["retry_ms"] > 0
    desk.stock.gate.set()
    await desk.settled()
    assert [ref for ref, _ in viewer.claims] == [1, 2, 3, 4]


async def test_desk_when_rooms_differ_then_each_has_a_batch_of_its_own() -> None:
    desk = Desk()
    other_room = FakeRoom("show2")
    other = FakeViewer(other_room, "u2")
    desk.stock.gate.clear()
    desk.claim(desk.viewer("u1"), 1)
    request = ClaimRequest("u2", b"2" * 16, 1, 1, 1)
    desk.desk.of(cast(Room, other_room)).submit(cast(Viewer, other), 1, request)
    await asyncio.sleep(0)
    assert len(desk.stock.batches) == 2
    desk.stock.gate.set()
    await desk.settled()


# --- Answers ----------------------------------------------------------------------------------


async def test_accepted_when_held_then_the_receipt_is_signed_for_this_buyer() -> None:
    desk = Desk()
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1)
    await desk.settled()
    accepted = viewer.sent[0]
    assert isinstance(accepted, Accepted)
    assert accepted.claim
    assert RECEIPTS.verify("show1", "u1", accepted.claim)
    assert not RECEIPTS.verify("show1", "u2", accepted.claim)


async def test_same_claim_when_it_comes_on_two_sockets_then_both_get_the_same_answer() -> None:
    desk = Desk()
    first, second = desk.viewer("u1"), desk.viewer("u1")
    desk.claim(first, 1, n=5)
    desk.claim(second, 9, n=5)
    await desk.settled()
    answers = [
        next(x.claim for x in viewer.sent if isinstance(x, Accepted)) for viewer in (first, second)
    ]
    assert answers[0] == answers[1]
    assert desk.stock.units == 999


async def test_accepted_when_the_buyer_has_more_sockets_then_all_hear_held_and_confirmed() -> None:
    desk = Desk()
    asking, watching = desk.viewer("u1"), desk.viewer("u1")
    stranger = desk.viewer("u2")
    request = desk.claim(asking, 1)
    await desk.settled()
    desk.confirm(request)
    assert asking.claims == [(1, "held")]
    assert asking.orders == ["confirmed"]
    assert watching.orders == ["held", "confirmed"]
    assert stranger.sent == []
    assert desk.holds.open == 0


async def test_confirmation_when_it_overtakes_the_answer_then_held_still_comes_first() -> None:
    desk = Desk()
    viewer = desk.viewer("u1")
    desk.stock.gate.clear()
    request = desk.claim(viewer, 1)
    await asyncio.sleep(0)
    held = ClaimState(str(uuid.UUID(bytes=request.claim_id)), "confirmed", 1, 1, 990, 1, 1, 1, 7)
    desk.desk.on_orders(cast(Room, desk.room), [("u1", held)])
    assert viewer.sent == []
    desk.stock.gate.set()
    await desk.settled()
    assert viewer.claims == [(1, "held")]
    assert viewer.orders == ["confirmed"]
    assert desk.holds.open == 0


async def test_price_when_it_changed_then_the_refusal_tells_the_new_one() -> None:
    desk = Desk()
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1, price_version=4)
    await desk.settled()
    assert viewer.refused == [(1, "price_changed")]
    assert viewer.details == [{"retry_ms": 0, "price": 990, "price_version": 1}]


async def test_answers_when_claims_of_one_batch_fare_differently_then_in_one_write_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refusals too: each viewer gets its answers joined, in the order of its claims."""
    writes: list[dict[FakeViewer, bytes]] = []
    monkeypatch.setattr(FakeViewer, "is_writable", True)

    def write_each(viewers: list[FakeViewer], frames: list[bytes]) -> None:
        writes.append(dict(zip(viewers, frames, strict=True)))

    monkeypatch.setattr(claims, "write_each", write_each)
    desk = Desk()
    desk.stock.gate.clear()
    one, other = desk.viewer("u1"), desk.viewer("u2")
    for ref in range(3):  # the first leaves at once
        desk.claim(one, ref, n=10 + ref, price_version=1 + ref % 2)
        await asyncio.sleep(0)
    desk.claim(other, 0, n=20)
    desk.stock.gate.set()
    await desk.settled()
    assert [{viewer.user: names(frame) for viewer, frame in sent.items()} for sent in writes] == [
        {"u1": [(0, "held")]},
        {"u1": [(1, "price_changed"), (2, "held")], "u2": [(0, "held")]},
    ]
    assert (one.answers, other.answers) == (3, 1)


# --- Lost answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [StoreUnavailable("cut"), RuntimeError("bug")])
async def test_batch_when_its_answer_is_lost_then_outcome_unknown_and_the_same_id_finds_out(
    failure: Exception,
) -> None:
    desk = Desk()
    desk.stock.fails = [failure]
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1, n=5)
    desk.claim(viewer, 2, n=6)
    await desk.settled()
    assert viewer.refused == [(1, "outcome_unknown"), (2, "outcome_unknown")]
    desk.claim(viewer, 3, n=5, attempt=1)
    await desk.settled()
    assert viewer.claims == [(3, "held")]


async def test_epoch_when_the_hub_has_an_old_one_then_the_batch_is_asked_again_with_the_new() -> (
    None
):
    desk = Desk()
    desk.stock.epoch = 4
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1)
    await desk.settled()
    assert desk.stock.epochs == [1, 4]
    assert viewer.claims == [(1, "held")]
    desk.claim(viewer, 2)
    await desk.settled()
    assert desk.stock.epochs == [1, 4, 4]


async def test_epoch_when_the_stock_is_being_rebuilt_then_it_says_so() -> None:
    desk = Desk()
    desk.stock.epoch = 0
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1)
    await desk.settled()
    assert desk.stock.epochs == [1]
    assert viewer.refused == [(1, "stock_rebuilding")]


# --- Sold out ---------------------------------------------------------------------------------


async def sold_out_desk() -> tuple[Desk, FakeViewer]:
    desk = Desk(units=1)
    viewer = desk.viewer("u1")
    desk.claim(viewer, 1)
    await desk.settled()
    assert len(desk.stock.batches) == 1
    return desk, viewer


async def test_sold_out_when_it_was_just_learned_then_it_is_answered_here(
    time_ms: list[float],
) -> None:
    desk, viewer = await sold_out_desk()
    time_ms[0] += limits.SOLD_OUT_CACHE_MS - 1
    desk.claim(viewer, 2)
    assert viewer.refused == [(2, "sold_out")]
    assert len(desk.stock.batches) == 1


async def test_sold_out_when_the_news_is_old_then_the_script_is_asked(
    time_ms: list[float],
) -> None:
    desk, viewer = await sold_out_desk()
    time_ms[0] += limits.SOLD_OUT_CACHE_MS
    desk.claim(viewer, 2)
    await desk.settled()
    assert len(desk.stock.batches) == 2


async def test_sold_out_when_it_is_a_repeat_then_the_script_is_asked(time_ms: list[float]) -> None:
    desk, viewer = await sold_out_desk()
    desk.claim(viewer, 2, n=1, attempt=1)
    await desk.settled()
    assert viewer.claims == [(1, "held"), (2, "held")]


@pytest.mark.parametrize(
    ("left", "version", "epoch", "asked"),
    [(5, 3, 1, True), (5, 1, 2, True), (0, 3, 1, False), (5, 2, 1, False), (5, 1, 1, False)],
    ids=["restocked", "new epoch", "still empty", "same version", "older"],
)
async def test_sold_out_when_the_room_knows_better_then_the_script_is_asked(
    time_ms: list[float], left: int, version: int, epoch: int, asked: bool
) -> None:
    desk, viewer = await sold_out_desk()
    desk.room.stock(1, left, version, epoch)
    desk.claim(viewer, 2)
    await desk.settled()
    assert (len(desk.stock.batches) == 2) is asked


async def test_held_when_it_is_asked_again_then_the_other_sockets_are_not_told_twice() -> None:
    desk = Desk()
    asking, watching = desk.viewer("u1"), desk.viewer("u1")
    desk.claim(asking, 1, n=5)
    await desk.settled()
    desk.claim(asking, 2, n=5, attempt=1)
    await desk.settled()
    assert asking.claims == [(1, "held"), (2, "held")]
    assert watching.orders == ["held"]


async def test_settling_when_our_code_fails_then_the_next_batch_still_goes() -> None:
    desk = Desk()
    viewer = desk.viewer("u1")
    broken = desk.viewer("u2")
    broken.send = lambda message: 1 / 0  # type: ignore[method-assign,assignment]
    desk.claim(broken, 1)
    desk.claim(viewer, 1, n=7)
    await asyncio.sleep(0)
    desk.claim(viewer, 2)
    await desk.settled()
    assert (2, "held") in viewer.claims
    assert desk.desk.waiting == 0
