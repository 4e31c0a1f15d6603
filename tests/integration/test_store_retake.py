"""Taking units again for a late payment, on a real Valkey."""

from collections.abc import AsyncIterator

import pytest

from server.domain.claim import KIND_RETAKE
from server.errors import Refused, StoreUnavailable
from server.store import keys
from server.store.types import Retake
from tests.shop import PRICE, SHOW, Shop, claim, claim_id, dump, open_shop

PAYMENT = claim_id(999)


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=3, limit_per_buyer=2)
        yield shop


def retake(quantity: int = 2, counted: int = 2, pool: int = 1, buyer: str = "an") -> Retake:
    return Retake(PAYMENT, pool, buyer, quantity, counted, PRICE, 1)


async def units(shop: Shop) -> tuple[int, int]:
    """Available, and counted against the buyer."""
    available = await shop.clients.commands.hget(keys.pool(SHOW, 1), "a")
    counted = await shop.clients.commands.hget(keys.buyers(SHOW, 1), "an")
    return int(available), int(counted or 0)


async def buy(shop: Shop, n: int, buyer: str, quantity: int = 1) -> None:
    await shop.stock.claim_batch(SHOW, "hub1", 1, [claim(n, buyer, quantity=quantity)])


async def refusal(shop: Shop, asked: Retake) -> str:
    before = await dump(shop)
    with pytest.raises(Refused) as refused:
        await shop.stock.retake(SHOW, asked)
    assert await dump(shop) == before
    return refused.value.error.name


async def test_retake_when_units_are_left_then_taken_and_in_the_stream(shop: Shop) -> None:
    answer = await shop.stock.retake(SHOW, retake())
    assert (answer.units, answer.seq, answer.before) == (2, 1, False)
    assert await units(shop) == (1, 2)
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    (taken,) = [take for entry in cut.pending for take in entry.takes]
    assert taken[:8] == (KIND_RETAKE, 1, 1, "an", PAYMENT, 2, PRICE, 1)


async def test_retake_when_repeated_then_the_same_answer_and_nothing_more(shop: Shop) -> None:
    first = await shop.stock.retake(SHOW, retake())
    before = await dump(shop)
    again = await shop.stock.retake(SHOW, retake())
    assert (again.seq, again.before) == (first.seq, True)
    assert await dump(shop) == before


async def test_retake_when_units_never_stopped_counting_then_the_count_stays(shop: Shop) -> None:
    await buy(shop, 1, "an", 2)
    await shop.stock.retake(SHOW, retake(quantity=1, counted=0))
    assert await units(shop) == (0, 2)


async def test_retake_when_the_last_unit_goes_then_viewers_see_it_sold_out(shop: Shop) -> None:
    await buy(shop, 1, "bo")
    await shop.stock.retake(SHOW, retake())
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    assert snapshot.state["stock:1"]["left"] == 0
    found = await shop.room.events_after(SHOW, snapshot.epoch, 0, 10)
    assert found is not None
    assert found[-1]["what"] == "sold_out"


async def test_retake_when_too_few_are_left_then_refused_and_nothing_changes(shop: Shop) -> None:
    await buy(shop, 1, "bo", 2)
    assert await refusal(shop, retake()) == "out_of_stock"
    await buy(shop, 2, "cy", 1)
    assert await refusal(shop, retake()) == "sold_out"


async def test_retake_when_the_buyer_has_bought_meanwhile_then_limit_reached(shop: Shop) -> None:
    await buy(shop, 1, "an")
    assert await refusal(shop, retake()) == "limit_reached"


async def test_retake_when_the_pool_is_unknown_then_unknown_sale(shop: Shop) -> None:
    assert await refusal(shop, retake(pool=7)) == "unknown_sale"


async def test_retake_when_the_stock_is_rebuilt_then_stock_rebuilding(shop: Shop) -> None:
    await shop.clients.commands.hset(keys.meta(SHOW), "gate", "rebuilding")
    assert await refusal(shop, retake()) == "stock_rebuilding"


async def test_retake_when_redis_is_another_process_then_stock_rebuilding(shop: Shop) -> None:
    await shop.clients.commands.hset(keys.meta(SHOW), "run", "0" * 40)
    assert await refusal(shop, retake()) == "stock_rebuilding"


@pytest.mark.parametrize("gate", ["paused", "ended"])
async def test_retake_when_the_show_is_paused_or_over_then_only_the_stock_decides(
    shop: Shop, gate: str
) -> None:
    await shop.clients.commands.hset(keys.meta(SHOW), "gate", gate)
    assert (await shop.stock.retake(SHOW, retake())).units == 2


@pytest.mark.parametrize("name", ["pool", "buyers", "applied", "orders", "state", "events"])
async def test_retake_when_a_key_has_a_wrong_type_then_nothing_is_written(
    shop: Shop, name: str
) -> None:
    make = getattr(keys, name)
    key = make(SHOW, 1) if name in ("pool", "buyers") else make(SHOW)
    await shop.clients.commands.delete(key)
    await shop.clients.commands.set(key, "planted")
    before = await dump(shop)
    with pytest.raises(StoreUnavailable):
        await shop.stock.retake(SHOW, retake())
    assert await dump(shop) == before


@pytest.mark.parametrize(("quantity", "counted"), [(0, 0), (-1, 0), (1, 2), (1, -1)])
async def test_retake_when_the_numbers_are_none_then_nothing_is_written(
    shop: Shop, quantity: int, counted: int
) -> None:
    before = await dump(shop)
    with pytest.raises(StoreUnavailable):
        await shop.stock.retake(SHOW, retake(quantity, counted))
    assert await dump(shop) == before
