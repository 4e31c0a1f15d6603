"""Stripe without Stripe: its signature scheme, the shapes of its events, and what it is asked.

The answers are the smallest ones of the documented shape (docs.stripe.com/api).
"""

import asyncio
import json
import time
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

stripe = pytest.importorskip("stripe")

from server.payments import stripe as adapter  # noqa: E402
from server.payments.provider import (  # noqa: E402
    BadSignature,
    Intent,
    ProviderRefused,
    ProviderUnavailable,
    RefundRequest,
)
from server.payments.stripe import StripeProvider, from_stripe, to_stripe  # noqa: E402

PAYMENT = uuid.UUID("019c0000-0000-7000-8000-000000000001")
WEBHOOK_SECRET = "whsec_of_the_tests"
INTENT = Intent(PAYMENT, "show1", 7, 1_990, "CNY", "杯 红 x 1")
REFUND = RefundRequest(PAYMENT, "pi_1", 1_990, "CNY")
OURS = {"livesale_payment": str(PAYMENT)}


class FakeTransport(stripe.HTTPClient):  # type: ignore[name-defined,misc]
    """Answers requests from a list, and keeps them."""

    name = "fake"

    def __init__(self, *answers: tuple[int, Any]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked: list[tuple[str, str, dict[str, str], dict[str, str]]] = []

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, dict[str, str]]:
        parts = urlsplit(url)
        form = {k: v[0] for k, v in parse_qs(post_data or parts.query).items()}
        self.asked.append((method, parts.path, form, dict(headers)))
        status, body = self.answers.pop(0)
        if isinstance(body, Exception):
            raise body
        return json.dumps(body).encode(), status, {}

    async def sleep_async(self, secs: float) -> None:
        await asyncio.sleep(0)

    async def close_async(self) -> None:
        pass


def provider(*answers: tuple[int, Any]) -> tuple[StripeProvider, FakeTransport]:
    transport = FakeTransport(*answers)
    made = StripeProvider("sk_test_1", WEBHOOK_SECRET, "https://shop.example/", transport)
    return made, transport


def error(status: int, code: str = "") -> tuple[int, Any]:
    return status, {"error": {"type": "invalid_request_error", "code": code, "message": "no"}}


def refund(status: str, refund_id: str = "re_1", **more: Any) -> dict[str, Any]:
    return {
        "id": refund_id, "object": "refund", "status": status, "payment_intent": "pi_1",
        "amount": 1_990, "metadata": OURS, **more,
    }  # fmt: skip


def listed(*refunds: dict[str, Any]) -> tuple[int, Any]:
    return 200, {"object": "list", "data": list(refunds), "has_more": False}


# --- paying -----------------------------------------------------------------------------------


async def test_intent_when_made_then_a_session_that_carries_our_payment() -> None:
    url = "https://checkout.stripe.com/c/pay/cs_1"
    made, transport = provider((200, {"id": "cs_1", "object": "checkout.session", "url": url}))
    assert await made.create_intent(INTENT) == ("cs_1", url)
    ((method, path, form, headers),) = transport.asked
    assert (method, path) == ("post", "/v1/checkout/sessions")
    assert headers["Idempotency-Key"] == f"intent:{PAYMENT}"
    assert form["mode"] == "payment"
    assert form["metadata[livesale_payment]"] == str(PAYMENT)
    assert form["payment_intent_data[metadata][livesale_payment]"] == str(PAYMENT)
    assert form["line_items[0][price_data][unit_amount]"] == "1990"
    assert form["line_items[0][price_data][currency]"] == "cny"
    assert form["line_items[0][quantity]"] == "1"
    assert form["adaptive_pricing[enabled]"] == "false"
    assert form["success_url"] == "https://shop.example/watch/show1"


@pytest.mark.parametrize(
    "answer",
    [
        error(500), error(429, "rate_limit"), error(409), error(401), error(403),
        (0, stripe.APIConnectionError("cut")),
    ],
)  # fmt: skip
async def test_intent_when_stripe_is_away_then_unavailable(answer: tuple[int, Any]) -> None:
    made, _ = provider(answer, answer)
    with pytest.raises(ProviderUnavailable):
        await made.create_intent(INTENT)


async def test_intent_when_stripe_says_no_then_refused() -> None:
    made, _ = provider(error(400, "amount_too_small"))
    with pytest.raises(ProviderRefused):
        await made.create_intent(INTENT)


async def test_intent_when_stripe_is_silent_then_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, transport = provider()

    async def silent(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(adapter, "PROVIDER_SECONDS", 0.01)
    monkeypatch.setattr(transport, "request_async", silent)
    with pytest.raises(ProviderUnavailable):
        await made.create_intent(INTENT)


@pytest.mark.parametrize(
    ("minor", "currency", "stripes"),
    [
        (1_990, "CNY", 1_990),
        (500, "JPY", 500),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (500, "MGA", 5),
        (5_120, "KWD", 5_120),
    ],
)
def test_amount_when_it_crosses_the_border_then_stripes_minor_units(
    minor: int, currency: str, stripes: int
) -> None:
    assert to_stripe(minor, currency) == stripes
    assert from_stripe(stripes, currency) == minor


@pytest.mark.parametrize(("minor", "currency"), [(501, "MGA"), (5_124, "KWD")])
def test_amount_when_stripe_cannot_charge_it_then_refused(minor: int, currency: str) -> None:
    with pytest.raises(ProviderRefused):
        to_stripe(minor, currency)


def test_amount_when_it_is_none_of_ours_then_it_matches_nothing() -> None:
    assert from_stripe(501, "ISK") == -1


# --- webhooks ---------------------------------------------------------------------------------


def webhook(type_: str, thing: dict[str, Any], *, at: float = 0, event_id: str = "evt_1") -> Any:
    event = {
        "id": event_id, "object": "event", "type": type_, "created": 1_700_000_000,
        "data": {"object": thing},
    }  # fmt: skip
    body = json.dumps(event)
    at = at or time.time()
    header = stripe.WebhookSignature.generate_signature_header(body, WEBHOOK_SECRET, int(at))
    return body.encode(), {"stripe-signature": header}


SESSION = {
    "id": "cs_1", "object": "checkout.session", "payment_intent": "pi_1", "amount_total": 1_990,
    "currency": "cny", "payment_status": "paid", "metadata": OURS,
}  # fmt: skip
PAYMENT_INTENT = {
    "id": "pi_1", "object": "payment_intent", "amount": 1_990, "amount_received": 1_990,
    "currency": "cny", "metadata": OURS,
}  # fmt: skip
CHARGE = {
    "id": "ch_1", "object": "charge", "payment_intent": "pi_1", "amount": 1_990,
    "amount_refunded": 1_990, "refunded": True, "currency": "cny", "metadata": OURS,
}  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "thing", "kind"),
    [
        ("payment_intent.succeeded", PAYMENT_INTENT, "captured"),
        ("payment_intent.payment_failed", {**PAYMENT_INTENT, "amount_received": 0}, "failed"),
        ("checkout.session.completed", SESSION, "captured"),
        ("checkout.session.completed", {**SESSION, "payment_status": "unpaid"}, "ignored"),
        ("checkout.session.async_payment_succeeded", SESSION, "captured"),
        ("checkout.session.async_payment_failed", SESSION, "failed"),
        ("checkout.session.expired", {**SESSION, "payment_intent": None}, "failed"),
        ("charge.refunded", CHARGE, "refunded"),
        ("charge.refunded", {**CHARGE, "refunded": False, "amount_refunded": 5}, "ignored"),
        ("refund.updated", {**refund("succeeded"), "currency": "cny"}, "ignored"),
        ("refund.updated", {**refund("failed"), "currency": "cny"}, "refund_failed"),
        ("refund.failed", {**refund("failed"), "currency": "cny"}, "refund_failed"),
        ("customer.created", {"id": "cus_1", "object": "customer"}, "ignored"),
        ("balance.available", {"object": "balance"}, "ignored"),
    ],
)
def test_event_when_signed_then_understood(type_: str, thing: dict[str, Any], kind: str) -> None:
    event = provider()[0].verify(*webhook(type_, thing))
    assert (event.event_id, event.kind, event.occurred_at) == ("evt_1", kind, 1_700_000_000_000)
    if kind == "captured":
        assert (event.amount, event.currency, event.payment_id) == (1_990, "CNY", PAYMENT)
        assert event.external_id == "pi_1"


def test_event_when_the_payment_is_not_ours_then_no_payment() -> None:
    event = provider()[0].verify(*webhook("charge.refunded", {**CHARGE, "metadata": {}}))
    assert (event.payment_id, event.external_id) == (None, "pi_1")


@pytest.mark.parametrize("off_s", [-302, 302])
def test_event_when_its_time_is_too_far_away_then_not_believed(off_s: int) -> None:
    raw, headers = webhook("charge.refunded", CHARGE, at=time.time() + off_s)
    with pytest.raises(BadSignature):
        provider()[0].verify(raw, headers)


@pytest.mark.parametrize("off_s", [-295, 295])
def test_event_when_its_time_is_near_then_believed(off_s: int) -> None:
    raw, headers = webhook("charge.refunded", CHARGE, at=time.time() + off_s)
    assert provider()[0].verify(raw, headers).kind == "refunded"


@pytest.mark.parametrize("header", ["", "t=1", "v1=00", "t=x,v1=00", "t=1,v0=00", "nonsense"])
def test_event_when_the_header_is_wrong_then_not_believed(header: str) -> None:
    raw, _ = webhook("charge.refunded", CHARGE)
    with pytest.raises(BadSignature):
        provider()[0].verify(raw, {"stripe-signature": header})


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: b"\xff" + raw])
def test_event_when_the_body_was_changed_then_not_believed(change: Any) -> None:
    raw, headers = webhook("charge.refunded", CHARGE)
    with pytest.raises(BadSignature):
        provider()[0].verify(change(raw), headers)


@pytest.mark.parametrize("thing", [{}, {"id": "ch_1"}, {**CHARGE, "metadata": OURS | {"x": 1}}])
def test_event_when_signed_but_misshapen_then_not_believed_or_understood(thing: Any) -> None:
    raw, headers = webhook("charge.refunded", thing)
    try:
        assert provider()[0].verify(raw, headers).kind == "refunded"
    except BadSignature:
        assert "refunded" not in thing


# --- refunds ----------------------------------------------------------------------------------


async def test_refund_when_there_is_none_then_made_once() -> None:
    made, transport = provider(listed(), (200, refund("succeeded")))
    assert await made.refund(REFUND) == "refunded"
    _, (method, path, form, headers) = transport.asked
    assert (method, path) == ("post", "/v1/refunds")
    assert form == {"payment_intent": "pi_1", "metadata[livesale_payment]": str(PAYMENT)}
    assert headers["Idempotency-Key"] == f"refund:{PAYMENT}:0"


@pytest.mark.parametrize(("status", "state"), [("succeeded", "refunded"), ("pending", "pending")])
async def test_refund_when_it_was_made_before_then_its_state(status: str, state: str) -> None:
    made, transport = provider(listed(refund(status)))
    assert await made.refund(REFUND) == state
    assert len(transport.asked) == 1


async def test_refund_when_an_earlier_one_failed_then_another_is_made() -> None:
    made, transport = provider(listed(refund("failed")), (200, refund("pending", "re_2")))
    assert await made.refund(REFUND) == "pending"
    assert transport.asked[1][3]["Idempotency-Key"] == f"refund:{PAYMENT}:1"


async def test_refund_when_it_fails_at_once_then_refused_and_the_reason_is_told() -> None:
    failed = {**refund("failed"), "failure_reason": "expired_or_canceled_card"}
    made, _ = provider(listed(), (200, failed))
    with pytest.raises(ProviderRefused, match="expired_or_canceled_card"):
        await made.refund(REFUND)


@pytest.mark.parametrize("status", [401, 403, 424, 429])
async def test_refund_when_another_attempt_may_work_then_unavailable(status: int) -> None:
    made, _ = provider(error(status), error(status))
    with pytest.raises(ProviderUnavailable):
        await made.refund(REFUND)


async def test_refund_when_done_by_hand_then_refunded() -> None:
    made, _ = provider(listed(), error(400, "charge_already_refunded"))
    assert await made.refund(REFUND) == "refunded"


async def test_refund_when_only_the_session_is_known_then_its_payment_is() -> None:
    session = {"id": "cs_1", "object": "checkout.session", "payment_intent": "pi_1"}
    made, transport = provider((200, session), listed(), (200, refund("succeeded")))
    request = RefundRequest(PAYMENT, "cs_1", 1_990, "CNY")
    assert await made.refund(request) == "refunded"
    assert [path for _, path, _, _ in transport.asked] == [
        "/v1/checkout/sessions/cs_1",
        "/v1/refunds",
        "/v1/refunds",
    ]


async def test_refund_when_nobody_paid_then_refused() -> None:
    session = {"id": "cs_1", "object": "checkout.session", "payment_intent": None}
    made, _ = provider((200, session))
    with pytest.raises(ProviderRefused):
        await made.refund(RefundRequest(PAYMENT, "cs_1", 1_990, "CNY"))
