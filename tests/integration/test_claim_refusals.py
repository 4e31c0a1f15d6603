"""A refusal of the newest attempt is final: earlier sendings that come late change nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

import pytest

from server import limits
from server.errors import ERRORS
from server.hub.claims import ClaimDesk
from server.hub.holds import HoldTracker
from server.hub.receipts import Receipts
from server.hub.redo import Redo
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.store import gate, keys, scripts
from server.store.rebuild import Rebuild
from server.store.stock import Stock
from server.store.types import (
    ACCEPTED,
    ACCEPTED_BEFORE,
    ClaimBatchAnswer,
    ClaimRequest,
    Confirmation,
    Give,
    Settled,
)
from tests.hub_fakes import FakeRoom, FakeViewer
from tests.shop import EPOCH, HUB, SHOW, Shop, claim, claim_id, dump, open_shop

KEPT = 5


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    """A live show with one sale, sold out."""
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=1, limit_per_buyer=5)
        assert await ask(shop, claim(1_000)) == [ACCEPTED]
        yield shop


async def ask(shop: Shop, *batch: ClaimRequest, epoch: int = EPOCH) -> list[int]:
    answer = await shop.stock.claim_batch(SHOW, HUB, epoch, batch)
    return [single.code for single in answer.answers]


async def restock(shop: Shop, units: int = 1, sale: int = 1) -> None:
    number = await shop.clients.commands.hlen(keys.applied(SHOW))
    give = Give(f"restock-{number}", sale, units, "restock")
    assert await shop.stock.give_batch(SHOW, [give]) == [True]


async def remembered(shop: Shop) -> set[bytes]:
    """Claim ids of refusals in the claims hash."""
    found = await shop.clients.commands.hgetall(keys.claims(SHOW))
    return {field[-16:] for field, packed in found.items() if packed[2:9] == b"refused"}


def attempt(number: int, n: int = 1, **fields: Any) -> ClaimRequest:
    return claim(n, **fields)._replace(attempt=number)


def code(name: str) -> int:
    return ERRORS[name].code


SOLD_OUT = code("sold_out")


@contextmanager
def kept(count: int) -> Iterator[None]:
    """Only so many refusals of a show are remembered."""
    scripts.load.cache_clear()
    with patch.object(limits, "REFUSALS_KEPT_MAX", count):
        yield
    scripts.load.cache_clear()


# --- Late sendings -----------------------------------------------------------------------------


async def test_refusal_of_a_repeat_when_the_first_sending_comes_late_then_it_is_refused_too(
    shop: Shop,
) -> None:
    assert await ask(shop, attempt(1)) == [SOLD_OUT]
    await restock(shop)
    assert await ask(shop, attempt(0)) == [SOLD_OUT]
    assert await ask(shop, attempt(1)) == [SOLD_OUT]
    assert await ask(shop, claim(2)) == [ACCEPTED]


async def test_refusal_when_a_later_attempt_is_accepted_then_every_sending_is(shop: Shop) -> None:
    assert await ask(shop, attempt(3)) == [SOLD_OUT]
    await restock(shop)
    assert await ask(shop, attempt(2), attempt(4), attempt(1)) == [
        SOLD_OUT, ACCEPTED, ACCEPTED_BEFORE,
    ]  # fmt: skip
    assert await ask(shop, *map(attempt, range(6))) == [ACCEPTED_BEFORE] * 6


async def test_refusal_when_an_older_attempt_is_refused_after_it_then_the_newer_one_counts(
    shop: Shop,
) -> None:
    assert await ask(shop, attempt(5)) == [SOLD_OUT]
    assert await ask(shop, attempt(2)) == [SOLD_OUT]
    await restock(shop)
    assert await ask(shop, attempt(4)) == [SOLD_OUT]
    assert await ask(shop, attempt(6)) == [ACCEPTED]


async def test_refusal_when_told_again_then_with_the_code_it_had(shop: Shop) -> None:
    assert await ask(shop, attempt(1, price_version=9)) == [code("price_changed")]
    assert await ask(shop, attempt(0)) == [code("price_changed")]
    await shop.open_show(revision=2, phase="paused")
    assert await ask(shop, attempt(2)) == [code("show_paused")]
    await shop.open_show(revision=3, phase="live")
    await restock(shop)
    assert await ask(shop, attempt(1), attempt(2)) == [code("show_paused")] * 2


async def test_refusal_when_the_late_sending_is_in_the_same_batch_then_refused_too(
    shop: Shop,
) -> None:
    await restock(shop)
    codes = await ask(shop, attempt(1, price_version=9), attempt(0), attempt(2))
    assert codes == [code("price_changed"), code("price_changed"), ACCEPTED]
    assert await ask(shop, attempt(1)) == [ACCEPTED_BEFORE]
    assert await remembered(shop) == set()


async def test_refusal_when_the_claim_was_accepted_before_then_there_is_none(shop: Shop) -> None:
    late = attempt(7, n=1_000)
    assert await ask(shop, late, late._replace(quantity=2)) == [
        ACCEPTED_BEFORE, code("claim_conflict"),
    ]  # fmt: skip
    assert await ask(shop, claim(1_000)) == [ACCEPTED_BEFORE]


async def test_refusal_of_the_only_sending_when_made_then_nothing_is_written(shop: Shop) -> None:
    before = await dump(shop)
    assert await ask(shop, attempt(0), claim(2, price_version=9)) == [
        SOLD_OUT, code("price_changed"),
    ]  # fmt: skip
    assert await dump(shop) == before


async def test_refusal_when_it_is_only_the_epoch_then_the_same_attempt_may_come_again(
    shop: Shop,
) -> None:
    await restock(shop)
    assert await ask(shop, attempt(1), epoch=EPOCH + 1) == [code("stock_rebuilding")]
    assert await remembered(shop) == set()
    assert await ask(shop, attempt(1)) == [ACCEPTED]


async def test_refusal_when_the_epoch_is_another_then_late_sendings_are_still_refused(
    shop: Shop,
) -> None:
    assert await ask(shop, attempt(1)) == [SOLD_OUT]
    codes = await ask(shop, attempt(0), attempt(2), epoch=EPOCH + 1)
    assert codes == [SOLD_OUT, code("stock_rebuilding")]


@pytest.mark.parametrize("wrong", [-1, limits.ATTEMPT_MAX + 1, 1.5])
async def test_claim_when_its_attempt_is_none_then_bad_field_and_nothing_is_remembered(
    shop: Shop, wrong: int
) -> None:
    assert await ask(shop, attempt(wrong), attempt(1, n=2)) == [code("bad_field"), SOLD_OUT]
    assert await remembered(shop) == {claim_id(2)}


# --- What stands beside it ---------------------------------------------------------------------


async def test_refusal_when_claims_are_read_then_it_is_no_claim(shop: Shop) -> None:
    await ask(shop, attempt(1))
    assert await shop.stock.lookup(SHOW, [("buyer-1", claim_id(1))]) == [None]
    found = [each.claim_id async for each in shop.stock.remembered_claims(SHOW)]
    assert found == [claim_id(1_000)]


async def test_refusal_when_the_books_have_the_claim_then_it_gives_way(shop: Shop) -> None:
    await ask(shop, attempt(1))
    settled = Settled(HUB, "buyer-1", claim_id(1), "confirmed", 1, 1, 990, 1, EPOCH, 7, 70, 0, 5)
    await shop.stock.confirm_batch(SHOW, Confirmation([settled]))
    (state,) = await shop.stock.lookup(SHOW, [("buyer-1", claim_id(1))])
    assert state is not None
    assert (state.status, state.order_id) == ("confirmed", 70)
    assert await ask(shop, attempt(0)) == [ACCEPTED_BEFORE]


async def test_refusal_when_its_units_are_given_back_then_units_only(shop: Shop) -> None:
    await ask(shop, attempt(1))
    give = Give("g", 1, 1, "released_by_incident", "buyer-1", claim_id(1))
    assert await shop.stock.give_batch(SHOW, [give]) == [True]
    assert await shop.stock.lookup(SHOW, [("buyer-1", claim_id(1))]) == [None]
    assert await ask(shop, attempt(0)) == [SOLD_OUT]


async def test_refusal_when_the_stock_is_rebuilt_then_it_still_holds(shop: Shop) -> None:
    await ask(shop, *(attempt(1, n) for n in range(2, 2 + limits.CLAIM_BATCH_MAX)))
    await ask(shop, attempt(1))
    await shop.stock.give_batch(SHOW, [Give("later", 1, 1, "restock")])
    assert await ask(shop, attempt(2)) == [ACCEPTED]
    assert await gate.close_for_rebuilding(shop.scripts, SHOW, rebuild="r1")
    await Rebuild(shop.scripts, SHOW, "r1", EPOCH + 1).begin([1], "live")
    assert await remembered(shop) == {claim_id(n) for n in range(2, 2 + limits.CLAIM_BATCH_MAX)}
    assert await ask(shop, attempt(1, n=2), attempt(2, n=2)) == [
        SOLD_OUT, code("stock_rebuilding"),
    ]  # fmt: skip


# --- Bounds ------------------------------------------------------------------------------------


async def test_refusals_when_there_are_too_many_then_the_oldest_are_forgotten(
    redis_url: str,
) -> None:
    with kept(KEPT):
        async with open_shop(redis_url) as shop:
            await shop.open_show()
            await shop.open_sale(units=1)
            await ask(shop, claim(1_000))
            for n in range(1, KEPT + 1):
                await ask(shop, attempt(1, n))
            await ask(shop, attempt(2, 2))  # refused again: it keeps its place
            await ask(shop, attempt(1, KEPT + 1))
            assert await remembered(shop) == {claim_id(n) for n in range(2, KEPT + 2)}
            await restock(shop, 2)
            assert await ask(shop, attempt(0), attempt(1, 2)) == [ACCEPTED, SOLD_OUT]


async def test_refusals_when_fresh_ids_come_for_ever_then_memory_is_bounded_and_claims_stay(
    redis_url: str,
) -> None:
    with kept(KEPT):
        async with open_shop(redis_url) as shop:
            await shop.open_show()
            await shop.open_sale(units=1, limit_per_buyer=5)
            await ask(shop, claim(1_000))
            await ask(shop, attempt(1, 2_000))
            await restock(shop)
            assert await ask(shop, attempt(2, 2_000)) == [ACCEPTED]  # refused before
            for start in range(0, 4 * limits.CLAIM_BATCH_MAX, limits.CLAIM_BATCH_MAX):
                batch = [attempt(1, 10_000 + start + n) for n in range(limits.CLAIM_BATCH_MAX)]
                assert set(await ask(shop, *batch)) == {SOLD_OUT}
            commands = shop.clients.commands
            assert await commands.llen(keys.refusals(SHOW)) == KEPT
            assert await commands.hlen(keys.claims(SHOW)) == KEPT + 2
            assert await ask(shop, claim(1_000), attempt(0, 2_000)) == [ACCEPTED_BEFORE] * 2


# --- Two hubs ----------------------------------------------------------------------------------


class Frozen:
    """A hub's way to the stock that stands still until it is thawed."""

    def __init__(self, stock: Stock) -> None:
        self._stock = stock
        self.asked = asyncio.Event()
        self.thawed = asyncio.Event()

    async def claim_batch(
        self, show_id: str, hub_id: str, epoch: int, claims: Sequence[Any], /
    ) -> ClaimBatchAnswer:
        self.asked.set()
        await self.thawed.wait()
        return await self._stock.claim_batch(show_id, hub_id, epoch, claims)


def desk_of(shop: Shop, store: Stock | Frozen, hub_id: str) -> ClaimDesk:
    """A hub's claim desk; nothing of it is looked up or presented."""
    holds = HoldTracker(shop.stock, lambda *_: None)
    redo = Redo(hub_id, cast(Any, None))
    return ClaimDesk(hub_id, store, Receipts(b"k" * 32), holds.of, redo)


def send(desk: ClaimDesk, viewer: FakeViewer, ref: int, request: ClaimRequest) -> None:
    batcher = desk.of(cast(Room, viewer.room))
    batcher.submit(cast(Viewer, viewer), ref, request)


async def test_claim_when_refused_through_another_hub_then_the_frozen_one_cannot_get_it_accepted(
    shop: Shop,
) -> None:
    """The answer of hub A is lost; B says no; there are units again; A thaws."""
    frozen = Frozen(shop.stock)
    first, second = desk_of(shop, frozen, "A"), desk_of(shop, shop.stock, "B")
    at_a, at_b = FakeViewer(FakeRoom(SHOW), "buyer-1"), FakeViewer(FakeRoom(SHOW), "buyer-1")
    send(first, at_a, 1, attempt(0))
    await frozen.asked.wait()
    send(second, at_b, 2, attempt(1))
    await second.settled()
    assert at_b.refused == [(2, "sold_out")]
    await restock(shop)
    frozen.thawed.set()
    await first.settled()
    assert (at_a.refused, at_a.claims) == ([(1, "sold_out")], [])
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    assert cut.pools[1].available == 1
    assert {take.buyer for entry in cut.pending for take in entry.takes} == {"buyer-1000"}


async def test_claim_when_the_frozen_hub_is_of_an_older_epoch_then_refused_too(shop: Shop) -> None:
    """It asks with the epoch it knows, hears of another, and asks again."""
    frozen = Frozen(shop.stock)
    desk = desk_of(shop, frozen, "A")
    viewer = FakeViewer(FakeRoom(SHOW), "buyer-1")
    cast(Any, viewer.room).stock_epoch = EPOCH + 1
    send(desk, viewer, 1, attempt(0))
    send(desk, viewer, 2, attempt(2))
    assert await ask(shop, attempt(1)) == [SOLD_OUT]
    await restock(shop)
    frozen.thawed.set()
    await desk.settled()
    assert viewer.refused == [(1, "sold_out")]
    assert viewer.claims == [(2, "held")]
