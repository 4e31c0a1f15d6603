"""Refunds that their provider refuses for good: they stop, are seen, and somebody settles them."""

import asyncio
import json
import uuid
from contextlib import suppress
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.acts.desk import Desk
from server.acts.projector import Projector
from server.acts.refunds import NOTE_CHARS_MAX, RefundActs
from server.domain.identity import Identity
from server.errors import Refused
from server.orders import metrics
from server.payments.provider import (
    ProviderRefused,
    ProviderUnavailable,
    RefundRequest,
    RefundState,
)
from server.records import payments
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from tests.bookshop import SHOW
from tests.till import Till, refused

WHO = Identity("operator", "", "host", "*", 0)
REASON = "InvalidRequestError 400 charge_disputed"


async def due_refund(till: Till, *answers: Any) -> uuid.UUID:
    """A payment whose money has to go back; what the provider will answer, then `refunded`."""
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    till.provider.refund_answers = list(answers)
    return payment


async def refused_refund(till: Till) -> uuid.UUID:
    payment = await due_refund(till, ProviderRefused(REASON))
    await till.round()
    return payment


async def refund_fails(till: Till, payment: uuid.UUID) -> None:
    """The provider tells that a refund which it had taken on has failed."""
    event = payments.NewEvent("demo", "evt_late", "refund_failed", "", payment, 1, "CNY", 0, b"")
    async with till.shop.pool.acquire() as conn:
        await payments.insert_event(conn, event)
    await till.acts.handle("demo", "evt_late")


@pytest.fixture
def refunds(till: Till) -> RefundActs:
    shop = till.shop
    projector = Projector(shop.pool, shop.stock, RoomStore(shop.scripts))
    desk = Desk(shop.pool, projector, RedisClock(shop.clients.commands))
    return RefundActs(desk, lambda *_: None)


async def acts_of(till: Till) -> list[tuple[str, str, Any]]:
    rows = await till.shop.pool.fetch(
        "SELECT actor, action, detail FROM host_acts WHERE action LIKE 'refund%' ORDER BY at"
    )
    return [(row["actor"], row["action"], json.loads(row["detail"])) for row in rows]


# --- Stopping -------------------------------------------------------------------------------------


async def test_refund_when_refused_then_nobody_asks_again_and_it_is_seen(till: Till) -> None:
    payment = await refused_refund(till)
    for _ in range(3):
        await till.round()
    assert len(till.provider.refunds) == 1
    assert await till.status(payment) == "refund_requested"
    async with till.shop.pool.acquire() as conn:
        (row,) = await payments.list_payments(conn, refused=True)
        assert await payments.list_payments(conn, unfinished=True) == [row]
        assert await payments.list_payments(conn, show_id=SHOW) == [row]
    assert (row.payment_id, row.refused) == (payment, True)
    assert row.last_error == f"ProviderRefused: {REASON}"
    waiting = {
        kind: metrics.payments_unfinished.labels(kind)._value.get()
        for kind in payments.Unfinished._fields
    }
    assert waiting.pop("refund_refused") == 1
    assert set(waiting.values()) == {0}


async def test_refund_when_the_provider_tells_of_it_after_refusing_then_refunded(
    till: Till,
) -> None:
    """Somebody gave the money back in the provider's dashboard."""
    payment = await refused_refund(till)
    await till.tell(payment, "refunded")
    assert await till.status(payment) == "refunded"


@pytest.mark.parametrize("answer", [ProviderUnavailable("away"), "pending"])
async def test_refund_when_it_may_still_work_then_it_is_not_stopped(
    till: Till, answer: Any
) -> None:
    payment = await due_refund(till, answer)
    await till.round()
    assert (await till.payment(payment))["next_attempt_at"] is not None
    await till.round()
    assert await till.status(payment) == "refunded"


# --- Asking again ---------------------------------------------------------------------------------


async def test_again_when_the_provider_has_changed_its_mind_then_refunded(
    till: Till, refunds: RefundActs
) -> None:
    payment = await refused_refund(till)
    view = await refunds.again(WHO, payment)
    assert (view.payment_id, view.status) == (str(payment), "refund_requested")
    await till.payer.round()
    assert await till.status(payment) == "refunded"
    assert await acts_of(till) == [("operator", "refund_again", {"payment": str(payment)})]


async def test_again_when_it_is_refused_again_then_it_stops_again(
    till: Till, refunds: RefundActs
) -> None:
    payment = await refused_refund(till)
    till.provider.refund_answers = [ProviderRefused("still no")]
    await refunds.again(WHO, payment)
    for _ in range(3):
        await till.round()
    assert len(till.provider.refunds) == 2
    assert (await till.payment(payment))["last_error"] == "ProviderRefused: still no"


async def test_again_when_no_payment_is_named_then_all_that_were_refused(
    till: Till, refunds: RefundActs
) -> None:
    await till.open_sale(units=9, limit=9)
    some = [await refused_refund(till) for _ in range(3)]
    waiting = await due_refund(till, ProviderUnavailable("away"))
    await till.round()
    asked = await refunds.all_again(WHO)
    assert {view.payment_id for view in asked} == {str(payment) for payment in some}
    await till.payer.round()
    assert [await till.status(payment) for payment in some] == ["refunded"] * 3
    assert await till.status(waiting) == "refund_requested"


# --- Settling by hand -----------------------------------------------------------------------------


async def test_by_hand_when_settled_then_refunded_with_its_note_and_never_asked_again(
    till: Till, refunds: RefundActs
) -> None:
    payment = await refused_refund(till)
    assert (await refunds.by_hand(WHO, payment, "银行转账 4711")).status == "refunded"
    row = await till.payment(payment)
    assert (row["status"], row["settled_by_hand"], row["last_error"]) == ("refunded", True, "")
    detail = {"payment": str(payment), "note": "银行转账 4711"}
    assert await acts_of(till) == [("operator", "refunded_by_hand", detail)]
    await till.settle()
    assert len(till.provider.refunds) == 1


async def test_by_hand_when_an_old_refund_fails_later_then_the_money_goes_back_once(
    till: Till, refunds: RefundActs
) -> None:
    payment = await refused_refund(till)
    await refunds.by_hand(WHO, payment, "in cash")
    await refund_fails(till, payment)
    await till.settle()
    assert await till.status(payment) == "refunded"
    assert len(till.provider.refunds) == 1


async def test_again_when_the_provider_is_being_asked_then_refused_and_it_is_not_asked_twice(
    till: Till, refunds: RefundActs
) -> None:
    payment = await due_refund(till)
    (due,) = await till.acts.due_refunds(8)
    assert await refused(lambda: refunds.again(WHO, payment)) == "conflict"
    assert await till.acts.due_refunds(8) == []
    await till.acts.refund(due)
    assert await till.status(payment) == "refunded"
    assert await acts_of(till) == []


async def test_by_hand_when_the_provider_is_being_asked_then_refused(
    till: Till, refunds: RefundActs
) -> None:
    """Both would give the money back."""
    payment = await due_refund(till)
    (due,) = await till.acts.due_refunds(8)
    assert await refused(lambda: refunds.by_hand(WHO, payment, "in cash")) == "conflict"
    await till.acts.refund(due)
    assert await till.status(payment) == "refunded"
    assert await acts_of(till) == []


async def test_by_hand_when_a_payer_looks_at_the_same_time_then_one_of_them_gives_it_back(
    till: Till, refunds: RefundActs
) -> None:
    payment = await refused_refund(till)
    till.provider.refunds.clear()

    async def settle() -> bool:
        try:
            await refunds.by_hand(WHO, payment, "in cash")
        except Refused:
            return False
        return True

    async def ask_again() -> None:
        with suppress(Refused):
            await refunds.again(WHO, payment)
        await till.payer.round()

    by_hand_done, _ = await asyncio.gather(settle(), ask_again())
    assert by_hand_done + len(till.provider.refunds) == 1
    assert await till.status(payment) == "refunded"


async def test_by_hand_when_its_provider_is_not_set_up_any_more_then_it_can_be_settled(
    till: Till, refunds: RefundActs
) -> None:
    payment = await due_refund(till)
    await till.shop.pool.execute("UPDATE payments SET provider = 'stripe'")
    await till.round()
    await refunds.by_hand(WHO, payment, "in cash")
    assert await till.status(payment) == "refunded"


@pytest.mark.parametrize("answer", [ProviderUnavailable("timed out"), "pending"])
async def test_by_hand_when_the_provider_may_have_given_it_back_then_refused_however_old(
    till: Till, refunds: RefundActs, answer: Any
) -> None:
    payment = await due_refund(till, answer)
    await till.round()
    await till.shop.pool.execute("UPDATE payments SET updated_at = now() - interval '1 hour'")
    with pytest.raises(Refused, match="may have refunded already"):
        await refunds.by_hand(WHO, payment, "in cash")
    await till.due_now()
    assert await refused(lambda: refunds.by_hand(WHO, payment, "in cash")) == "conflict"
    assert (await till.status(payment), await acts_of(till)) == ("refund_requested", [])


# --- Twice ----------------------------------------------------------------------------------------


async def assert_twice(till: Till, refunds: RefundActs, payment: uuid.UUID) -> None:
    """It is counted, listed and named until somebody says what was done about it."""
    await till.payer.handle_events()
    assert metrics.payments_unfinished.labels("refunded_twice")._value.get() == 1
    async with till.shop.pool.acquire() as conn:
        (row,) = await payments.list_payments(conn, unfinished=True)
    assert (row.payment_id, row.status, row.refunded_twice) == (payment, "refunded", True)
    (problem,) = (await till.shop.audit()).problems
    assert (problem.kind, str(payment) in problem.detail) == ("refund", True)
    await refunds.by_hand(WHO, payment, "the buyer sent it back")
    await till.payer.handle_events()
    assert metrics.payments_unfinished.labels("refunded_twice")._value.get() == 0
    await till.settle()


async def test_refund_when_it_was_settled_by_hand_before_then_an_operator_hears_of_it(
    till: Till, refunds: RefundActs
) -> None:
    payment = await refused_refund(till)
    await refunds.by_hand(WHO, payment, "in cash")
    with capture_logs() as logs:
        event = await till.tell(payment, "refunded")
    assert ("refunded_twice", "error") in {(line["event"], line["log_level"]) for line in logs}
    query = "SELECT outcome FROM payment_events WHERE event_id = $1"
    assert await till.shop.pool.fetchval(query, event) == "refunded_twice"
    await assert_twice(till, refunds, payment)


async def test_refund_when_settled_by_hand_while_a_slow_question_is_answered_then_it_is_seen(
    till: Till, refunds: RefundActs, monkeypatch: pytest.MonkeyPatch
) -> None:
    payment = await due_refund(till)
    (slow,) = await till.acts.due_refunds(8)

    async def refund(request: RefundRequest) -> RefundState:
        await till.shop.pool.execute("UPDATE payments SET next_attempt_at = NULL")  # refused
        await refunds.by_hand(WHO, payment, "in cash")
        return "refunded"

    monkeypatch.setattr(till.provider, "refund", refund)
    await till.acts.refund(slow)
    await assert_twice(till, refunds, payment)


# --- Payers that were stopped for long ------------------------------------------------------------


async def test_refund_when_it_was_settled_while_the_payer_was_stopped_then_nobody_is_asked(
    till: Till, refunds: RefundActs
) -> None:
    payment = await due_refund(till, ProviderRefused(REASON))
    (frozen,) = await till.acts.due_refunds(8)
    await till.round()
    assert not await till.acts.refund(frozen)  # refused meanwhile
    await refunds.by_hand(WHO, payment, "in cash")
    assert not await till.acts.refund(frozen)
    assert len(till.provider.refunds) == 1
    assert await till.status(payment) == "refunded"


async def test_refund_when_an_operator_asks_again_while_a_payer_was_stopped_then_asked_once(
    till: Till, refunds: RefundActs
) -> None:
    payment = await due_refund(till, ProviderRefused(REASON))
    (frozen,) = await till.acts.due_refunds(8)
    await till.round()
    await refunds.again(WHO, payment)
    assert not await till.acts.refund(frozen)
    await till.payer.round()
    assert len(till.provider.refunds) == 2
    assert await till.status(payment) == "refunded"


@pytest.mark.parametrize("late", [ProviderRefused("late"), "pending"])
async def test_again_when_an_old_question_is_answered_late_then_the_new_one_is_asked(
    till: Till, refunds: RefundActs, monkeypatch: pytest.MonkeyPatch, late: Any
) -> None:
    payment = await due_refund(till)
    (slow,) = await till.acts.due_refunds(8)

    async def refund(request: RefundRequest) -> RefundState:
        await till.shop.pool.execute("UPDATE payments SET updated_at = now() - interval '1 minute'")
        await refunds.again(WHO, payment)
        if isinstance(late, Exception):
            raise late
        return "pending"

    with monkeypatch.context() as patched:
        patched.setattr(till.provider, "refund", refund)
        assert not await till.acts.refund(slow)
    row = await till.payment(payment)
    assert (row["next_attempt_at"] is not None, row["last_error"]) == (True, "")
    await till.payer.round()
    assert await till.status(payment) == "refunded"


# --- Failing later --------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["pending", "refunded"])
async def test_refund_when_it_fails_after_the_provider_took_it_then_it_waits_for_an_operator(
    till: Till, refunds: RefundActs, answer: Any
) -> None:
    payment = await due_refund(till, answer)
    await till.round()
    await refund_fails(till, payment)
    for _ in range(3):
        await till.round()
    assert len(till.provider.refunds) == 1
    async with till.shop.pool.acquire() as conn:
        (row,) = await payments.list_payments(conn, refused=True)
    assert (row.reason, row.last_error) == ("refund_failed", "the provider says that it failed")
    await refunds.again(WHO, payment)
    await till.payer.round()
    assert await till.status(payment) == "refunded"
    assert len(till.provider.refunds) == 2


async def test_operator_when_there_is_nothing_to_refund_then_refused_and_nothing_noted(
    till: Till, refunds: RefundActs
) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured")
    assert await refused(lambda: refunds.again(WHO, payment)) == "conflict"
    assert await refused(lambda: refunds.by_hand(WHO, payment, "in cash")) == "conflict"
    nobody = uuid.uuid4()
    assert await refused(lambda: refunds.again(WHO, nobody)) == "not_found"
    assert await refused(lambda: refunds.by_hand(WHO, nobody, "in cash")) == "not_found"
    assert (await till.status(payment), await acts_of(till)) == ("captured", [])


@pytest.mark.parametrize("note", ["", "  ", "a\0b", "x" * (NOTE_CHARS_MAX + 1)])
async def test_by_hand_when_the_note_says_nothing_or_too_much_then_refused(
    till: Till, refunds: RefundActs, note: str
) -> None:
    payment = await refused_refund(till)
    assert await refused(lambda: refunds.by_hand(WHO, payment, note)) == "bad_field"
    assert await till.status(payment) == "refund_requested"
