"""What a provider's news means for a payment and its order, whatever came before."""

import itertools
from typing import get_args

import pytest

from server.domain.order import STATUSES as ORDER_STATUSES
from server.domain.order import OrderStatus
from server.domain.order import may_become as order_may_become
from server.domain.payment import (
    NOTHING,
    STATUSES,
    EventKind,
    PaymentStatus,
    Standing,
    Step,
    may_become,
    step_after,
)

KINDS: tuple[EventKind, ...] = get_args(EventKind)
EVERY_STANDING = [
    Standing(payment, order, 100, "CNY", otherwise)
    for payment, order, otherwise in itertools.product(STATUSES, ORDER_STATUSES, (False, True))
]


def standing(payment: PaymentStatus, order: OrderStatus, **more: bool) -> Standing:
    return Standing(payment, order, 100, "CNY", **more)


@pytest.mark.parametrize("kind", KINDS)
def test_step_when_taken_then_always_along_the_edges(kind: EventKind) -> None:
    for before in EVERY_STANDING:
        step = step_after(kind, before, 100, "CNY")
        assert step.payment is None or may_become(before.payment, step.payment)
        assert step.order is None or order_may_become(before.order, step.order)


@pytest.mark.parametrize("kind", KINDS)
def test_step_when_the_event_comes_again_then_nothing_follows(kind: EventKind) -> None:
    for before in EVERY_STANDING:
        step = step_after(kind, before, 100, "CNY")
        after = Standing(
            step.payment or before.payment, step.order or before.order, 100, "CNY",
            before.paid_otherwise, refused=step.reason == "refund_failed",
        )  # fmt: skip
        assert step_after(kind, after, 100, "CNY") == NOTHING


def test_capture_when_taken_then_the_order_is_paid_or_the_money_goes_back() -> None:
    for before in EVERY_STANDING:
        step = step_after("captured", before, 100, "CNY")
        if before.payment not in ("created", "failed"):
            assert step == NOTHING
        else:
            assert step.payment in ("captured", "retake_pending", "refund_requested")
            assert (step.payment == "captured") == (step.order == "paid")


@pytest.mark.parametrize(
    ("order", "step"),
    [
        ("confirmed", Step("captured", order="paid")),
        ("expired", Step("retake_pending")),
        ("cancelled", Step("refund_requested", "order_cancelled")),
        ("refunded", Step("refund_requested", "order_refunded")),
        ("paid", Step("refund_requested", "paid_already")),
        ("fulfilled", Step("refund_requested", "paid_already")),
    ],
)
def test_capture_when_the_order_is_so_then_this(order: OrderStatus, step: Step) -> None:
    assert step_after("captured", standing("created", order), 100, "CNY") == step


@pytest.mark.parametrize(("amount", "currency"), [(99, "CNY"), (101, "CNY"), (100, "USD")])
def test_capture_when_it_is_not_what_was_asked_then_it_goes_back(
    amount: int, currency: str
) -> None:
    step = step_after("captured", standing("created", "confirmed"), amount, currency)
    assert step == Step("refund_requested", "wrong_amount")


def test_capture_when_another_payment_counts_then_it_goes_back() -> None:
    step = step_after("captured", standing("failed", "expired", paid_otherwise=True), 100, "CNY")
    assert step == Step("refund_requested", "paid_already")


def test_failure_when_anything_else_was_told_then_nothing() -> None:
    for before in EVERY_STANDING:
        step = step_after("failed", before, 100, "CNY")
        assert step == (Step("failed") if before.payment == "created" else NOTHING)


@pytest.mark.parametrize(("order", "follows"), [("paid", "refunded"), ("fulfilled", None)])
def test_refund_at_the_provider_when_captured_then_only_undelivered_orders_follow(
    order: OrderStatus, follows: OrderStatus | None
) -> None:
    step = step_after("refunded", standing("captured", order), 100, "CNY")
    assert step == Step("refunded", "at_provider", follows)


def test_refund_when_it_was_asked_for_then_the_reason_stays_ours() -> None:
    asked = standing("refund_requested", "expired")
    assert step_after("refunded", asked, 100, "CNY") == Step("refunded")


def test_failed_refund_when_told_then_the_payment_waits_for_an_operator() -> None:
    step = step_after("refund_failed", standing("refunded", "refunded"), 100, "CNY")
    assert step == Step("refund_requested", "refund_failed")
    asked = step_after("refund_failed", standing("refund_requested", "refunded"), 100, "CNY")
    assert asked == Step(None, "refund_failed")
    refused = standing("refund_requested", "refunded", refused=True)
    assert step_after("refund_failed", refused, 100, "CNY") == NOTHING


def test_refund_when_it_was_settled_by_hand_then_the_money_went_back_twice() -> None:
    settled = standing("refunded", "refunded", settled_by_hand=True)
    assert step_after("refunded", settled, 100, "CNY") == Step(None, "refunded_twice")


def test_refund_failure_when_it_was_settled_by_hand_then_nothing() -> None:
    settled = standing("refunded", "refunded", settled_by_hand=True)
    assert step_after("refund_failed", settled, 100, "CNY") == NOTHING
