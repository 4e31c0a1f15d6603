"""A claim's steps in Redis: news of its order may come late, twice and in any order."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.domain.order import RANK, STATUSES, OrderStatus
from server.errors import ERRORS
from server.protocol.messages import ClaimState
from server.store.types import (
    ACCEPTED,
    EVERY_HUB,
    Confirmation,
    Give,
    PoolCounters,
    Settled,
)
from tests.shop import EPOCH, HUB, PRICE, SHOW, Shop, claim, claim_id, open_shop

GIVEN_BACK: tuple[Any, ...] = ("expired", "cancelled", "refunded")
BUYER = "buyer-1"


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    """With one claim of two units, held; more are not allowed."""
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=10, limit_per_buyer=2)
        mine = claim(1, BUYER, quantity=2)
        answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [mine])
        assert answer.answers[0].code == ACCEPTED
        yield shop


async def state(shop: Shop) -> ClaimState:
    (found,) = await shop.stock.lookup(SHOW, [(BUYER, claim_id(1))])
    assert found is not None
    return found


async def tell(shop: Shop, status: Any) -> None:
    """What a worker or the projector says of the order."""
    settled = Settled(
        EVERY_HUB, BUYER, claim_id(1), status, 1, 2, PRICE, 1, EPOCH, 1, order_id=7, pay_by_ms=99,
        at_ms=1,
    )  # fmt: skip
    await shop.stock.confirm_batch(SHOW, Confirmation([settled]))


async def give(shop: Shop, reason: Any, give_id: str = "g", **more: Any) -> None:
    one = Give(give_id, 1, 1, reason, BUYER, claim_id(1), order_id=7, pay_by_ms=99, **more)
    assert await shop.stock.give_batch(SHOW, [one]) == [True]


async def units_left(shop: Shop) -> int:
    cut = await shop.stock.audit_cut(SHOW, [1])
    assert cut is not None
    return cut.pools[1].available


@pytest.mark.parametrize("news", STATUSES)
@pytest.mark.parametrize("known", STATUSES)
async def test_news_when_it_is_told_then_a_claim_only_goes_up(
    shop: Shop, known: OrderStatus, news: OrderStatus
) -> None:
    await tell(shop, known)
    for status in (news, "released_by_incident", "confirmed"):
        await tell(shop, status)
        assert (await state(shop)).status == (news if RANK[news] > RANK[known] else known)


@pytest.mark.parametrize("reason", GIVEN_BACK)
@pytest.mark.parametrize("known", STATUSES)
async def test_give_when_the_claim_is_further_then_its_units_return_and_its_state_stays(
    shop: Shop, known: OrderStatus, reason: OrderStatus
) -> None:
    """An expiry may reach Redis after the re-take that followed it."""
    await tell(shop, known)
    await give(shop, reason)
    assert (await state(shop)).status == (reason if RANK[reason] > RANK[known] else known)
    assert await units_left(shop) == 9


async def test_give_when_the_order_was_not_told_yet_then_the_claim_learns_of_it(
    shop: Shop,
) -> None:
    await give(shop, "expired")
    now = await state(shop)
    assert (now.status, now.order_id, now.pay_by) == ("expired", 7, 99)


async def test_gives_when_one_batch_has_two_of_a_claim_then_it_ends_at_the_last(
    shop: Shop,
) -> None:
    gives = [
        Give(f"g{i}", 1, 1, reason, BUYER, claim_id(1)) for i, reason in enumerate(GIVEN_BACK[::2])
    ]
    assert await shop.stock.give_batch(SHOW, gives) == [True, True]
    assert (await state(shop)).status == "refunded"


@pytest.mark.parametrize("forgiven", [True, False])
async def test_give_when_it_is_not_forgiven_then_others_get_the_unit(
    shop: Shop, forgiven: bool
) -> None:
    await give(shop, "expired", forgiven=forgiven)
    again, other = claim(2, BUYER), claim(3, "buyer-2")
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [again, other])
    first = ACCEPTED if forgiven else ERRORS["limit_reached"].code
    assert [one.code for one in answer.answers] == [first, ACCEPTED]


async def test_gives_when_some_of_a_buyers_are_forgiven_then_only_those_free_the_limit(
    shop: Shop,
) -> None:
    gives = [
        Give(f"g{forgiven}", 1, 1, "expired", BUYER, claim_id(1), forgiven=forgiven)
        for forgiven in (True, False)
    ]
    assert await shop.stock.give_batch(SHOW, gives) == [True, True]
    both, one = claim(2, BUYER, quantity=2), claim(3, BUYER)
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [both, one])
    assert [a.code for a in answer.answers] == [ERRORS["limit_reached"].code, ACCEPTED]


async def test_counters_when_a_give_brings_older_ones_then_they_are_ignored(shop: Shop) -> None:
    await shop.stock.confirm_batch(SHOW, Confirmation(pools=[PoolCounters(1, 0, 1, 0, 5)]))
    one = Give("g", 1, 1, "refunded", BUYER, claim_id(1))
    await shop.stock.give_batch(SHOW, [one], [PoolCounters(1, 1, 0, 0, 4)])
    cut = await shop.stock.audit_cut(SHOW, [1])
    assert cut is not None
    assert (cut.pools[1].reserved, cut.pools[1].sold) == (0, 1)
