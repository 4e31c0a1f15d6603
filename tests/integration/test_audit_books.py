"""The audit on orders' lives, payments and what waits: each kind of fault is planted and named."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from server.audit.report import KINDS, PROBLEMS_MAX, AuditReport, ShowReport
from server.store import keys
from tests.bookshop import SHOW, take
from tests.till import Till


async def kinds(till: Till) -> set[str]:
    return {problem.kind for problem in (await till.shop.audit()).problems}


async def planted(till: Till, statement: str, *args: Any) -> set[str]:
    """What is named after the books were changed by hand; all was well before."""
    assert await kinds(till) == set()
    await till.shop.pool.execute(statement, *args)
    return await kinds(till)


async def expired_order(till: Till) -> None:
    await till.expire(await till.order("ex"))


async def paid_order(till: Till) -> None:
    await till.tell(await till.begin(await till.order()), "captured")
    await till.go_on()


async def late_paid_order(till: Till, buyer: str = "late") -> uuid.UUID:
    """The payment of an order that was paid after its time, with its units taken again."""
    payment = await till.late_payment(buyer)
    await till.go_on()
    assert await till.statuses(payment) == ("captured", "paid")
    return payment


# --- What is right ------------------------------------------------------------------------------


async def test_audit_when_orders_went_every_way_then_nothing_is_wrong(till: Till) -> None:
    await expired_order(till)
    await paid_order(till)
    await late_paid_order(till)
    refunded = await late_paid_order(till, "refunded")
    await till.tell(refunded, "refunded")
    await till.go_on()
    assert await till.statuses(refunded) == ("refunded", "refunded")
    assert await kinds(till) == set()


# --- Redis ----------------------------------------------------------------------------------------


async def test_audit_when_redis_is_another_process_then_it_is_not_vouched_for(till: Till) -> None:
    await till.order()
    await till.shop.clients.commands.hset(keys.meta(SHOW), "run", "0" * 40)
    assert await kinds(till) == {"not_vouched"}


async def test_audit_when_redis_has_a_pool_of_its_own_then_it_is_named(till: Till) -> None:
    fields: Any = await till.shop.clients.commands.hgetall(keys.pool(SHOW, till.sale))
    state: Any = await till.shop.clients.commands.hget(keys.state(SHOW), f"stock:{till.sale}")
    await till.shop.clients.commands.hset(keys.pool(SHOW, 77), mapping=fields)
    await till.shop.clients.commands.hset(keys.state(SHOW), "stock:77", state)
    assert await kinds(till) == {"pool_unknown"}


async def test_audit_when_an_entry_cannot_be_booked_then_it_is_named(till: Till) -> None:
    await till.shop.put(raw=b"\xc1")
    assert await kinds(till) == {"unreadable"}


async def test_audit_when_an_entry_is_of_another_epoch_then_it_is_named(till: Till) -> None:
    await till.shop.put(take(till.sale, 1, "ann"), epoch=7)
    assert "unreadable" in await kinds(till)


async def test_audit_when_the_total_was_changed_by_hand_then_it_is_named(till: Till) -> None:
    await till.shop.clients.commands.hincrby(keys.pool(SHOW, till.sale), "n", 1)
    assert "total" in await kinds(till)


@pytest.mark.parametrize("change", [-1, 1])
async def test_audit_when_redis_counts_a_buyer_differently_then_the_limit_is_named(
    till: Till, change: int
) -> None:
    await till.order("an")
    await till.shop.clients.commands.hincrby(keys.buyers(SHOW, till.sale), "an", change)
    assert await kinds(till) == {"limit"}


async def test_audit_when_redis_was_never_told_of_counters_then_it_is_named(till: Till) -> None:
    await till.order()
    assert await planted(till, "UPDATE pools SET version = version + 1") == {"told"}


async def test_audit_when_redis_missed_a_step_then_the_claim_contradicts(till: Till) -> None:
    order_id = await till.order()
    await till.expire(order_id, tell=False)
    assert await kinds(till) == set()  # it is on its way
    await till.shop.pool.execute("UPDATE order_moves SET told_at = now()")
    assert await kinds(till) == {"claim_contradicts"}


# --- The books ------------------------------------------------------------------------------------


async def test_audit_when_one_place_has_two_rows_then_it_is_named(till: Till) -> None:
    await till.order()
    found = await planted(
        till,
        "INSERT INTO incidents (show_id, pool_id, buyer, claim_id, epoch, seq, quantity, reason)"
        " VALUES ($1, $2, 'eve', $3, 1, 1, 1, 'no_room')",
        *(SHOW, till.sale, uuid.uuid4()),
    )
    assert "take_twice" in found


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE orders SET status = 'fulfilled'",
        "UPDATE order_moves SET status_from = 'cancelled'",
        "DELETE FROM order_moves",
    ],
)
async def test_audit_when_steps_do_not_lead_to_the_status_then_the_history_is_named(
    till: Till, statement: str
) -> None:
    await paid_order(till)
    assert "order_history" in await planted(till, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE order_moves SET give_id = NULL",
        "UPDATE gives SET units = 2",
        "UPDATE gives SET buyer = 'eve'",
        "DELETE FROM order_moves",
    ],
)
async def test_audit_when_units_came_back_otherwise_then_the_give_is_named(
    till: Till, statement: str
) -> None:
    await expired_order(till)
    assert "order_give" in await planted(till, statement)


async def test_audit_when_a_late_order_has_no_units_then_its_retake_is_named(till: Till) -> None:
    await late_paid_order(till)
    assert "order_retake" in await planted(till, "UPDATE retakes SET units = 0")


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM stock_ledger WHERE give_id IS NOT NULL", "UPDATE pools SET restocked = 1"],
)
async def test_audit_when_the_ledger_differs_then_it_is_named(till: Till, statement: str) -> None:
    await expired_order(till)
    assert "ledger" in await planted(till, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE payments SET status = 'refunded'",
        "UPDATE payments SET amount = amount + 1",
        "UPDATE payments SET currency = 'EUR'",
        "UPDATE payments SET status = 'retake_pending', next_attempt_at = now()",
        "UPDATE orders SET status = 'cancelled'",
    ],
)
async def test_audit_when_a_payment_contradicts_its_order_then_it_is_named(
    till: Till, statement: str
) -> None:
    await paid_order(till)
    assert "payment" in await planted(till, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE gives SET applied_at = NULL, created_at = now() - interval '2 minutes'",
        "UPDATE order_moves SET told_at = NULL, at = now() - interval '2 minutes'",
        "UPDATE payments SET status = 'refund_requested',"
        " next_attempt_at = now() - interval '2 minutes' WHERE status = 'failed'",
        "UPDATE payment_events SET handled_at = NULL, received_at = now() - interval '2 minutes'",
        "INSERT INTO outbox (show_id, topic, payload, created_at)"
        f" VALUES ('{SHOW}', 'moved', '{{}}', now() - interval '2 minutes')",
    ],
)
async def test_audit_when_something_waits_for_too_long_then_it_is_late(
    till: Till, statement: str
) -> None:
    order_id = await till.order()
    await till.tell(await till.begin(order_id), "failed")
    await till.expire(order_id)
    assert "late" in await planted(till, statement)


# --- The report -----------------------------------------------------------------------------------


def test_kinds_when_listed_then_each_is_planted_by_a_test() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_audit*.py"))
    assert [kind for kind in KINDS if f'"{kind}"' not in tests] == []


def test_report_when_problems_are_many_then_all_are_counted_and_some_listed() -> None:
    report = ShowReport("show1")
    for seq in range(PROBLEMS_MAX + 5):
        report.add("take_missing", f"take {seq}", seq=seq)
    assert (report.found, len(report.problems)) == (PROBLEMS_MAX + 5, PROBLEMS_MAX)
    text = AuditReport([report]).to_text()
    assert "and 5 more problems" in text
    assert text.endswith(f"1 shows: {PROBLEMS_MAX + 5} problems")
