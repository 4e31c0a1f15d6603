"""Card payments through Stripe: Checkout Sessions, webhooks, refunds (docs.stripe.com/api).

The buyer pays on a page of Stripe's (`pay_url`). A session makes its PaymentIntent only when
somebody pays, so our payment's id travels in the metadata of both; later events are known by it.
The library is the extra `stripe`; nothing else needs it.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import stripe

from server import clock
from server.domain.money import minor_digits
from server.domain.payment import EventKind
from server.payments.provider import (
    PROVIDER_SECONDS,
    TOLERANCE_S,
    Ack,
    BadSignature,
    Intent,
    IntentCreated,
    ProviderEvent,
    ProviderRefused,
    ProviderUnavailable,
    RefundRequest,
    RefundState,
)

PAYMENT_KEY: Final = "livesale_payment"  # metadata: our payment's id
REFUNDS_MAX: Final = 100  # of one payment; one page of Stripe's list

# Where Stripe's minor unit has other digits than ISO 4217 (docs.stripe.com/currencies).
_DIGITS: Final = {
    "BIF": 0, "DJF": 0, "GNF": 0, "KMF": 0, "MGA": 0, "RWF": 0, "VUV": 0, "ISK": 2, "UGX": 2,
}  # fmt: skip

# Of the 4xx, those that another attempt may mend: what Stripe asks to repeat, and our key, which
# says nothing of the payment.
_COME_BACK: Final = (401, 403, 409, 424, 429)


class StripeProvider:
    """Implements provider.Provider. `return_base`: our public URL, where buyers come back to."""

    name: Final = "stripe"
    ack: Final = Ack()

    def __init__(
        self,
        secret_key: str,
        webhook_secret: str,
        return_base: str,
        http_client: stripe.HTTPClient | None = None,
    ) -> None:
        self._webhook_secret = webhook_secret
        self._return_base = return_base.rstrip("/")
        self._http = http_client or stripe.AIOHTTPClient(timeout=None)
        self._stripe = stripe.StripeClient(
            secret_key, http_client=self._http, max_network_retries=1
        )

    # --- Paying ---------------------------------------------------------------------------------

    async def create_intent(self, intent: Intent) -> IntentCreated:
        metadata = {PAYMENT_KEY: str(intent.payment_id)}
        back = f"{self._return_base}/watch/{intent.show_id}"
        price = {
            "currency": intent.currency.lower(),
            "unit_amount": to_stripe(intent.amount, intent.currency),
            "product_data": {"name": intent.description},
        }
        params: Any = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "client_reference_id": str(intent.payment_id),
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "adaptive_pricing": {"enabled": False},  # another currency would be a wrong amount
            "success_url": back,
            "cancel_url": back,
        }
        async with _asking():
            session = await self._stripe.v1.checkout.sessions.create_async(
                params, {"idempotency_key": f"intent:{intent.payment_id}"}
            )
        return IntentCreated(session.id, session.url or "")

    # --- News -----------------------------------------------------------------------------------

    def verify(self, raw: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        signature = headers.get("stripe-signature", "")
        try:
            stripe.WebhookSignature.verify_header(raw, signature, self._webhook_secret, TOLERANCE_S)
            if _signed_at(signature) > clock.now_ms() / 1000 + TOLERANCE_S:  # not the library's
                raise BadSignature("the timestamp is in the future")
            return _event(json.loads(raw))
        except (stripe.SignatureVerificationError, ValueError, KeyError, TypeError) as fault:
            raise BadSignature(type(fault).__name__) from None

    # --- Refunds --------------------------------------------------------------------------------

    async def refund(self, request: RefundRequest) -> RefundState:
        """Looks before it asks: Stripe remembers an idempotency key for a day only, and a refund
        may fail after it was accepted, which needs a new key."""
        async with _asking():
            intent = await self._payment_intent(request.external_id)
            listed = await self._stripe.v1.refunds.list_async(
                {"payment_intent": intent, "limit": REFUNDS_MAX}
            )
            for made in listed.data:
                if made.status not in ("failed", "canceled") and _is_ours(made, request):
                    return _state(made)
            params: Any = {
                "payment_intent": intent,
                "metadata": {PAYMENT_KEY: str(request.payment_id)},
            }
            key = f"refund:{request.payment_id}:{len(listed.data)}"
            try:
                made = await self._stripe.v1.refunds.create_async(params, {"idempotency_key": key})
            except stripe.InvalidRequestError as error:
                if error.code == "charge_already_refunded":  # by hand, in Stripe's dashboard
                    return "refunded"
                raise
            return _state(made)

    async def _payment_intent(self, external_id: str) -> str:
        """Of a session, or itself. Raises ProviderRefused when nobody ever paid the session."""
        if not external_id.startswith("cs_"):
            return external_id
        session = await self._stripe.v1.checkout.sessions.retrieve_async(external_id)
        if not session.payment_intent:
            raise ProviderRefused("the session has no payment")
        return str(session.payment_intent)

    async def aclose(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def _asking() -> AsyncIterator[None]:
    """Stripe's errors as ours, and a bound on the time."""
    try:
        async with asyncio.timeout(PROVIDER_SECONDS):
            yield
    except TimeoutError:
        raise ProviderUnavailable("Stripe does not answer") from None
    except stripe.StripeError as error:
        status = error.http_status or 0
        what = f"{type(error).__name__} {status} {error.code or ''}".rstrip()
        if 400 <= status < 500 and status not in _COME_BACK:
            raise ProviderRefused(what) from None
        raise ProviderUnavailable(what) from None


def _is_ours(made: stripe.Refund, request: RefundRequest) -> bool:
    metadata = made.metadata
    return metadata is not None and metadata.to_dict().get(PAYMENT_KEY) == str(request.payment_id)


def _state(made: stripe.Refund) -> RefundState:
    if made.status == "succeeded":
        return "refunded"
    if made.status in ("failed", "canceled"):
        raise ProviderRefused(f"the refund {made.status}: {made.failure_reason or 'unknown'}")
    return "pending"


# --- Amounts -------------------------------------------------------------------------------------


def to_stripe(minor: int, currency: str) -> int:
    """Our minor units as Stripe's. Raises ProviderRefused for what Stripe cannot charge."""
    more = _more_digits(currency)
    factor: int = 10 ** abs(more)
    amount, rest = (minor * factor, 0) if more >= 0 else divmod(minor, factor)
    if rest:
        raise ProviderRefused(f"Stripe takes no such fraction of {currency}")
    if minor_digits(currency) == 3 and amount % 10:
        raise ProviderRefused(f"Stripe takes {currency} in steps of ten")
    return amount


def from_stripe(amount: int, currency: str) -> int:
    """Stripe's minor units as ours; -1, which is no amount of ours, where that cannot be."""
    more = _more_digits(currency)
    factor: int = 10 ** abs(more)
    minor, rest = divmod(amount, factor) if more > 0 else (amount * factor, 0)
    return -1 if rest else minor


def _more_digits(currency: str) -> int:
    ours = minor_digits(currency)
    return _DIGITS.get(currency, ours) - ours


# --- Events --------------------------------------------------------------------------------------


def _signed_at(header: str) -> int:
    """The timestamp of a header whose signature is verified."""
    parts = dict(part.split("=", 1) for part in header.split(",") if part.startswith("t="))
    return int(parts["t"])


def _event(event: dict[str, Any]) -> ProviderEvent:
    """Raises KeyError, TypeError or ValueError for what is no event."""
    thing = event["data"]["object"]
    kind, amount = _meaning(event["type"], thing)
    currency = str(thing.get("currency") or "").upper()
    ours = (thing.get("metadata") or {}).get(PAYMENT_KEY, "")
    return ProviderEvent(
        event_id=str(event["id"]),
        kind=kind,
        external_id=str(thing.get("payment_intent") or thing.get("id", "")),
        payment_id=uuid.UUID(ours) if ours else None,
        amount=from_stripe(int(amount or 0), currency),
        currency=currency,
        occurred_at=int(event["created"]) * 1000,
    )


def _meaning(type_: str, thing: dict[str, Any]) -> tuple[EventKind, int | None]:
    """What an event of this type says about `thing`, and the amount it names, in Stripe's units."""
    match type_:
        case "payment_intent.succeeded":
            return "captured", thing["amount_received"]
        case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
            paid = thing["payment_status"] == "paid"
            return ("captured" if paid else "ignored"), thing["amount_total"]
        case "payment_intent.payment_failed":
            return "failed", thing["amount"]
        case "checkout.session.expired" | "checkout.session.async_payment_failed":
            return "failed", thing["amount_total"]
        case "charge.refunded":  # also sent when a part went back
            return ("refunded" if thing["refunded"] else "ignored"), thing["amount_refunded"]
        case "refund.updated" | "refund.failed" | "charge.refund.updated":
            failed = thing["status"] in ("failed", "canceled")
            return ("refund_failed" if failed else "ignored"), thing["amount"]
    return "ignored", 0
