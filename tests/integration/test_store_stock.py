"""Claims, takes, gives and confirmations on a real Valkey: the stories one by one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from server import limits
from server.domain.claim import KIND_CLOSING, KIND_LOWERING
from server.errors import ERRORS, Refused, StoreUnavailable
from server.store import gate, keys
from server.store.types import (
    ACCEPTED,
    ACCEPTED_BEFORE,
    ClaimRequest,
    Confirmation,
    Give,
    PoolCounters,
)
from tests.shop import (
    EPOCH,
    HUB,
    PRICE,
    SHOW,
    Shop,
    claim,
    claim_id,
    confirmation,
    dump,
    open_shop,
    sale_projection,
    show_projection,
)


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=10, limit_per_buyer=2)
        yield shop


async def claim_codes(shop: Shop, *batch: ClaimRequest, epoch: int = EPOCH) -> list[int]:
    answer = await shop.stock.claim_batch(SHOW, HUB, epoch, batch)
    return [single.code for single in answer.answers]


def code(name: str) -> int:
    return ERRORS[name].code


async def stock_state(shop: Shop, sale: int = 1) -> dict[str, int]:
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    return snapshot.state[f"stock:{sale}"]


async def event_phases(shop: Shop) -> list[str]:
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    after = max(0, snapshot.seq - 20)
    events = await shop.room.events_after(SHOW, snapshot.epoch, after, 20)
    return [event["what"] for event in events or [] if event["k"] == "sale_phase"]


# --- claim_batch -------------------------------------------------------------------------------


async def test_claim_batch_when_accepted_then_the_state_says_all_about_it(shop: Shop) -> None:
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(7, quantity=2)])
    (single,) = answer.answers
    assert single.state is not None
    assert single.code == ACCEPTED
    assert single.state.claim_id == "00000000-0000-0000-0000-000000000007"
    assert (single.state.status, single.state.sale, single.state.quantity) == ("held", 1, 2)
    assert (single.state.price, single.state.price_version) == (PRICE, 1)
    assert (single.state.epoch, single.state.seq, single.state.pay_by) == (EPOCH, 1, 0)
    assert answer.pools[1].available == 8
    assert abs(answer.now_ms - await shop.now_ms()) < 60_000


async def test_claim_batch_when_asked_again_after_the_end_then_the_same_answer(
    shop: Shop,
) -> None:
    first = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
    await shop.stock.take(SHOW, 1, claim_id(99), None, close=True)
    await shop.open_show(revision=2, phase="ended")
    again = await shop.stock.claim_batch(SHOW, "other", EPOCH + 7, [claim(1), claim(2)])
    assert again.answers[0].code == ACCEPTED_BEFORE
    assert again.answers[0].state == first.answers[0].state
    assert again.answers[1].code == code("show_ended")


@pytest.mark.parametrize("other", [{"quantity": 2}, {"pool": 2}, {"price_version": 2}])
async def test_claim_batch_when_an_id_is_used_differently_then_claim_conflict(
    shop: Shop, other: dict[str, int]
) -> None:
    await shop.open_sale(2)
    both = await claim_codes(shop, claim(1), claim(1, **other))
    assert both == [ACCEPTED, code("claim_conflict")]
    assert await claim_codes(shop, claim(1, **other)) == [code("claim_conflict")]
    assert (await stock_state(shop))["left"] == 9


async def test_claim_batch_when_another_buyer_uses_the_id_then_it_is_another_claim(
    shop: Shop,
) -> None:
    assert await claim_codes(shop, claim(1, "a"), claim(1, "b")) == [ACCEPTED, ACCEPTED]


async def test_claim_batch_when_refused_then_the_refusal_is_not_remembered(shop: Shop) -> None:
    await shop.open_show(revision=2, phase="paused")
    assert await claim_codes(shop, claim(1)) == [code("show_paused")]
    await shop.open_show(revision=3, phase="live")
    assert await claim_codes(shop, claim(1)) == [ACCEPTED]


async def test_claim_batch_when_the_last_unit_is_asked_for_twice_then_one_gets_it(
    shop: Shop,
) -> None:
    await shop.open_sale(2, units=1)
    codes = await claim_codes(shop, claim(1, pool=2), claim(2, pool=2), claim(3, pool=2))
    assert codes == [ACCEPTED, code("sold_out"), code("sold_out")]
    assert await event_phases(shop) == ["opening", "opening", "sold_out"]


async def test_claim_batch_when_some_are_left_but_too_few_then_out_of_stock(shop: Shop) -> None:
    await shop.open_sale(2, units=1)
    assert await claim_codes(shop, claim(1, pool=2, quantity=2)) == [code("out_of_stock")]


async def test_claim_batch_when_one_claim_is_malformed_then_the_others_are_decided(
    shop: Shop,
) -> None:
    bad = [
        claim(1, quantity=0),
        claim(2, quantity=limits.CLAIM_QUANTITY_MAX + 1),
        claim(3, price_version=0),
        ClaimRequest("b4", b"short", 1, 1, 1),
        ClaimRequest("", claim_id(4), 1, 1, 1),
        claim(5)._replace(quantity=1.5),  # type: ignore[arg-type]
        claim(6)._replace(quantity=float("nan")),  # type: ignore[arg-type]
    ]
    codes = await claim_codes(shop, *bad, claim(7))
    assert codes == [code("bad_field")] * len(bad) + [ACCEPTED]


async def test_claim_batch_when_redis_does_not_know_the_show_then_stock_rebuilding(
    shop: Shop,
) -> None:
    answer = await shop.stock.claim_batch("nowhere", HUB, EPOCH, [claim(1)])
    assert [single.code for single in answer.answers] == [code("stock_rebuilding")]
    assert (answer.epoch, answer.pools) == (0, {})


async def test_claim_batch_when_the_epoch_is_another_then_stock_rebuilding(shop: Shop) -> None:
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH + 1, [claim(1)])
    assert [single.code for single in answer.answers] == [code("stock_rebuilding")]
    assert answer.epoch == EPOCH


async def test_claim_batch_when_it_is_as_large_as_can_be_then_all_are_decided(
    shop: Shop,
) -> None:
    count = limits.CLAIM_BATCH_MAX
    for pool in range(2, count + 2):
        await shop.open_sale(pool, units=1)
    buyers = [f"{n:0{limits.USER_ID_CHARS_MAX}}" for n in range(count)]
    batch = [claim(n, buyers[n], pool=n + 2) for n in range(count)]
    assert await claim_codes(shop, *batch) == [ACCEPTED] * count
    assert (await event_phases(shop))[-1] == "sold_out"


async def test_claim_batch_when_hubs_compete_then_no_unit_is_sold_twice(shop: Shop) -> None:
    await shop.open_sale(2, units=37, limit_per_buyer=1)
    batches = [
        [claim(n, f"buyer-{n % 90}", pool=2) for n in range(start, start + 40)]
        for start in range(0, 200, 10)
    ]
    answers = await asyncio.gather(
        *(shop.stock.claim_batch(SHOW, f"h{i}", EPOCH, b) for i, b in enumerate(batches))
    )
    states = [a.state for answer in answers for a in answer.answers if a.code == ACCEPTED]
    assert sorted(state.seq for state in states if state) == list(range(1, 38))
    units = await shop.clients.commands.hgetall(keys.buyers(SHOW, 2))
    assert Counter(units.values()) == {b"1": 37}


async def test_claim_batch_when_accepted_then_one_entry_with_all_its_claims(shop: Shop) -> None:
    await claim_codes(shop, claim(1), claim(2), claim(1), claim(3, quantity=3))
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    (entry,) = cut.pending
    assert (entry.epoch, entry.hub_id, entry.fault) == (EPOCH, HUB, "")
    assert [(t.buyer, t.claim_id, t.seq) for t in entry.takes] == [
        ("buyer-1", claim_id(1), 1),
        ("buyer-2", claim_id(2), 2),
    ]


async def test_claim_batch_when_all_are_refused_then_nothing_is_written(shop: Shop) -> None:
    await claim_codes(shop, claim(1))
    before = await dump(shop)
    await claim_codes(shop, claim(1), claim(1, quantity=2), claim(2, price_version=9))
    assert await dump(shop) == before


async def test_claim_batch_when_the_sale_is_only_announced_then_its_window_decides(
    shop: Shop,
) -> None:
    """Nobody needs to do anything at the moment a scheduled sale starts."""
    now_ms = await shop.now_ms()
    await shop.open_sale(2, status="scheduled", opens_at=now_ms + 60_000)
    await shop.open_sale(3, status="scheduled", opens_at=now_ms - 1)
    codes = await claim_codes(shop, claim(1, pool=2), claim(2, pool=3))
    assert codes == [code("sale_not_open"), ACCEPTED]
    assert await event_phases(shop) == ["opening", "scheduled", "scheduled"]


# --- lookup ------------------------------------------------------------------------------------


async def test_lookup_when_asked_then_each_claims_state_or_none(shop: Shop) -> None:
    await claim_codes(shop, claim(1))
    found = await shop.stock.lookup(SHOW, [("buyer-1", claim_id(1)), ("buyer-2", claim_id(1))])
    assert found[0] is not None
    assert (found[0].status, found[0].seq) == ("held", 1)
    assert found[1] is None
    assert await shop.stock.lookup(SHOW, []) == []


# --- confirm_batch -----------------------------------------------------------------------------


async def confirm_all(shop: Shop, *counters: PoolCounters) -> Confirmation:
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    said = confirmation(cut.pending, *counters)
    await shop.stock.confirm_batch(SHOW, said)
    return said


async def test_confirm_batch_when_committed_then_claims_counters_and_stream_say_so(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1), claim(2, quantity=2))
    await confirm_all(shop, PoolCounters(1, 0, 3, 0, 1))
    (state,) = await shop.stock.lookup(SHOW, [("buyer-2", claim_id(2))])
    assert state is not None
    assert (state.status, state.order_id) == ("confirmed", 1_002)
    stock = await stock_state(shop)
    assert (stock["left"], stock["held"], stock["sold"], stock["total"]) == (7, 0, 3, 10)
    assert await shop.clients.commands.xlen(keys.orders(SHOW)) == 0


async def test_confirm_batch_when_repeated_then_nothing_changes(shop: Shop) -> None:
    await claim_codes(shop, claim(1))
    said = await confirm_all(shop, PoolCounters(1, 0, 1, 0, 1))
    before = await dump(shop)
    await shop.stock.confirm_batch(SHOW, said)
    assert await dump(shop) == before


async def test_confirm_batch_when_older_counters_come_late_then_they_are_ignored(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1), claim(2))
    await confirm_all(shop, PoolCounters(1, 0, 2, 0, 2))
    await shop.stock.confirm_batch(SHOW, Confirmation(pools=[PoolCounters(1, 0, 1, 0, 1)]))
    assert (await stock_state(shop))["sold"] == 2


async def test_confirm_batch_when_the_claim_moved_on_then_it_is_not_turned_back(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1))
    said = await confirm_all(shop)
    give = Give("expired-1", 1, 1, "expired", "buyer-1", claim_id(1))
    assert await shop.stock.give_batch(SHOW, [give]) == [True]
    await shop.stock.confirm_batch(SHOW, said)
    (state,) = await shop.stock.lookup(SHOW, [("buyer-1", claim_id(1))])
    assert state is not None
    assert state.status == "expired"


async def test_confirm_batch_when_redis_lost_the_claim_then_it_is_remembered_again(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1))
    await shop.clients.commands.delete(keys.claims(SHOW))
    await confirm_all(shop)
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
    assert answer.answers[0].code == ACCEPTED_BEFORE
    assert answer.answers[0].state is not None
    assert answer.answers[0].state.status == "confirmed"


async def test_confirm_batch_when_longer_than_one_call_then_all_are_settled(shop: Shop) -> None:
    count = limits.CLAIM_BATCH_MAX + 10
    await shop.open_sale(2, units=count)
    batch = [claim(n, pool=2) for n in range(count)]
    await claim_codes(shop, *batch[: limits.CLAIM_BATCH_MAX])
    for single in batch[limits.CLAIM_BATCH_MAX :]:
        await claim_codes(shop, single)
    await confirm_all(shop)
    states = await shop.stock.lookup(SHOW, [(c.buyer, c.claim_id) for c in batch])
    assert {state.status for state in states if state} == {"confirmed"}
    assert await shop.clients.commands.xlen(keys.orders(SHOW)) == 0


# --- take --------------------------------------------------------------------------------------


async def test_take_when_lowering_then_units_leave_and_the_stream_knows(shop: Shop) -> None:
    answer = await shop.stock.take(SHOW, 1, claim_id(50), 4, close=False)
    again = await shop.stock.take(SHOW, 1, claim_id(50), 4, close=False)
    assert (answer.units, answer.seq, answer.before) == (4, 1, False)
    assert (again.units, again.seq, again.before) == (4, 1, True)
    stock = await stock_state(shop)
    assert (stock["left"], stock["held"], stock["total"]) == (6, 0, 6)
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    (take,) = (take for entry in cut.pending for take in entry.takes)
    assert take[:6] == (KIND_LOWERING, 1, 1, "", claim_id(50), 4)
    assert (await event_phases(shop))[-1] == "lowered"


async def test_take_when_more_than_is_left_then_out_of_stock_and_nothing_changes(
    shop: Shop,
) -> None:
    before = await dump(shop)
    with pytest.raises(Refused, match="out_of_stock"):
        await shop.stock.take(SHOW, 1, claim_id(50), 11, close=False)
    assert await dump(shop) == before


async def test_take_when_closing_then_all_that_is_left_and_nobody_buys_any_more(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1))
    answer = await shop.stock.take(SHOW, 1, claim_id(50), None, close=True)
    assert (answer.units, answer.seq) == (9, 2)
    assert await claim_codes(shop, claim(2)) == [code("sale_closed")]
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    assert snapshot.state["sale:1"]["phase"] == "closed"
    assert (await event_phases(shop))[-1] == "closed"


async def test_take_when_closing_a_sold_out_sale_then_the_worker_is_told_with_0_units(
    shop: Shop,
) -> None:
    await shop.open_sale(2, units=1)
    await claim_codes(shop, claim(1, pool=2))
    answer = await shop.stock.take(SHOW, 2, claim_id(50), None, close=True)
    assert (answer.units, answer.seq) == (0, 2)
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    assert cut.pending[-1].takes[0].kind == KIND_CLOSING


async def test_take_when_the_units_are_negative_then_nothing_changes(shop: Shop) -> None:
    before = await dump(shop)
    with pytest.raises(StoreUnavailable, match="BADTAKE"):
        await shop.stock.take(SHOW, 1, claim_id(50), -1, close=False)
    assert await dump(shop) == before


async def test_take_when_the_pool_is_unknown_then_unknown_sale(shop: Shop) -> None:
    with pytest.raises(Refused, match="unknown_sale"):
        await shop.stock.take(SHOW, 9, claim_id(50), None, close=True)


async def test_takes_and_gives_when_the_gate_is_shut_then_stock_rebuilding(shop: Shop) -> None:
    assert await gate.close_for_rebuilding(shop.scripts, SHOW)
    assert not await gate.close_for_rebuilding(shop.scripts, SHOW)
    await shop.open_show(revision=2)  # a projection must not open it
    assert await claim_codes(shop, claim(1)) == [code("stock_rebuilding")]
    with pytest.raises(Refused, match="stock_rebuilding"):
        await shop.stock.take(SHOW, 1, claim_id(50), None, close=True)
    with pytest.raises(Refused, match="stock_rebuilding"):
        await shop.stock.give_batch(SHOW, [Give("g", 1, 1, "restock")])


# --- give_batch --------------------------------------------------------------------------------


async def test_give_batch_when_restocked_then_sold_out_buyers_can_buy_again(shop: Shop) -> None:
    await shop.open_sale(2, units=1)
    await claim_codes(shop, claim(1, pool=2))
    give = Give("g1", 2, 2, "restock")
    assert await shop.stock.give_batch(SHOW, [give, give]) == [True, True]
    assert await shop.stock.give_batch(SHOW, [give]) == [True]
    stock = await stock_state(shop, 2)
    assert (stock["left"], stock["held"], stock["total"]) == (2, 1, 3)
    assert (await event_phases(shop))[-1] == "restocked"
    assert await claim_codes(shop, claim(2, pool=2)) == [ACCEPTED]


async def test_give_batch_when_a_claim_is_released_then_its_buyer_may_buy_again(
    shop: Shop,
) -> None:
    mine = [claim(1, "a", quantity=2), claim(2, "a")]
    assert await claim_codes(shop, *mine) == [ACCEPTED, code("limit_reached")]
    give = Give("g1", 1, 2, "cancelled", "a", claim_id(1))
    await shop.stock.give_batch(SHOW, [give])
    assert await claim_codes(shop, claim(2, "a")) == [ACCEPTED]
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [mine[0]])
    assert answer.answers[0].state is not None
    assert answer.answers[0].state.status == "cancelled"


async def test_give_batch_when_a_refund_returns_a_sold_unit_then_the_sum_stays_exact(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1))
    await confirm_all(shop, PoolCounters(1, 0, 1, 0, 1))
    give = Give("g1", 1, 1, "refunded", "buyer-1", claim_id(1))
    await shop.stock.give_batch(SHOW, [give], [PoolCounters(1, 0, 0, 0, 2)])
    stock = await stock_state(shop)
    assert (stock["left"], stock["held"], stock["sold"], stock["total"]) == (10, 0, 0, 10)


async def test_give_batch_when_the_pool_is_missing_then_it_is_not_in_force(shop: Shop) -> None:
    gives = [Give("g1", 9, 1, "restock"), Give("g2", 1, 1, "restock")]
    assert await shop.stock.give_batch(SHOW, gives) == [False, True]
    await shop.open_sale(9, units=1)
    assert await shop.stock.give_batch(SHOW, gives) == [True, True]
    assert (await stock_state(shop, 9))["left"] == 2


# --- projections -------------------------------------------------------------------------------


async def test_apply_sale_when_repeated_or_older_then_nothing_is_written(shop: Shop) -> None:
    now_ms = await shop.now_ms()
    newer = sale_projection(now_ms, revision=3, price=1, price_version=2)
    assert await shop.stock.apply_sale(SHOW, newer) == "applied"
    before = await dump(shop)
    assert await shop.stock.apply_sale(SHOW, newer) == "applied"
    assert await shop.stock.apply_sale(SHOW, sale_projection(now_ms, revision=2)) == "stale"
    assert await dump(shop) == before
    assert (await event_phases(shop))[-1] == "price_changed"
    assert await claim_codes(shop, claim(1)) == [code("price_changed")]


async def test_apply_sale_when_the_pool_may_not_be_made_then_missing(shop: Shop) -> None:
    now_ms = await shop.now_ms()
    lost = sale_projection(now_ms, sale=5, may_create=False)
    assert await shop.stock.apply_sale(SHOW, lost) == "missing"
    assert await shop.stock.apply_sale("nowhere", sale_projection(now_ms)) == "missing"


async def test_apply_sale_when_the_pool_exists_then_its_units_are_not_touched(
    shop: Shop,
) -> None:
    await claim_codes(shop, claim(1))
    again = sale_projection(await shop.now_ms(), revision=2, units=1_000)
    assert await shop.stock.apply_sale(SHOW, again) == "applied"
    assert (await stock_state(shop))["left"] == 9


async def test_apply_sale_when_closed_in_redis_then_an_older_row_cannot_open_it(
    shop: Shop,
) -> None:
    await shop.stock.take(SHOW, 1, claim_id(50), None, close=True)
    late = sale_projection(await shop.now_ms(), revision=2, status="open")
    assert await shop.stock.apply_sale(SHOW, late) == "applied"
    assert await claim_codes(shop, claim(1)) == [code("sale_closed")]


async def test_apply_show_when_repeated_or_older_then_nothing_is_written(shop: Shop) -> None:
    newer = show_projection(revision=3, phase="paused", pinned_product=4)
    assert await shop.stock.apply_show(SHOW, newer) == "applied"
    before = await dump(shop)
    assert await shop.stock.apply_show(SHOW, newer) == "applied"
    assert await shop.stock.apply_show(SHOW, show_projection(revision=2)) == "stale"
    assert await dump(shop) == before


async def test_apply_show_when_it_may_not_be_made_then_missing(shop: Shop) -> None:
    lost = show_projection(may_create=False)
    assert await shop.stock.apply_show("nowhere", lost) == "missing"


async def test_audit_cut_when_pools_are_not_named_then_it_has_them_all(shop: Shop) -> None:
    await shop.open_sale(2)
    cut = await shop.stock.audit_cut(SHOW, [1, 77])
    assert cut is not None
    assert sorted(cut.pools) == [1, 2]
    assert (cut.epoch, cut.gate, cut.pools[2].status) == (EPOCH, "open", "open")
    assert await shop.stock.audit_cut("nowhere") is None
