"""The demo provider: a pay page and signed webhooks, without money and without state.

A pay link carries everything in a signed token (JWT, RFC 7519), so any web process can serve it;
it stands in the link's fragment, which browsers keep out of requests and logs. Webhooks follow the
Standard Webhooks scheme. All keys come from LIVESALE_SECRET, so nothing has to be set up.
Demo mode only: whoever has a link can say that it was paid.
"""

import hashlib
import hmac
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

import jwt
import msgspec
from msgspec import Struct
from standardwebhooks import Webhook, WebhookVerificationError

from server import clock
from server.domain.payment import EventKind
from server.errors import Refused
from server.payments.provider import (
    Ack,
    BadSignature,
    Intent,
    IntentCreated,
    ProviderEvent,
    RefundRequest,
    RefundState,
)

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "livesale-demo-pay"
LINK_S: Final = 24 * 3600  # a pay link works for so long, also after the order has expired
PAGE: Final = "/pay.html"
DESCRIPTION_CHARS_MAX: Final = 60  # in a link; the rest is cut off, so that a token stays short

_KINDS: Final[Mapping[str, EventKind]] = {
    "payment.captured": "captured",
    "payment.failed": "failed",
    "payment.refunded": "refunded",
}


class Money(Struct, frozen=True):
    """What an event is about; `amount` in minor units."""

    payment: uuid.UUID
    amount: int
    currency: str


class Event(Struct, frozen=True):
    """Body of a webhook. `timestamp`: when it happened (ISO 8601)."""

    type: Literal["payment.captured", "payment.failed", "payment.refunded"]
    timestamp: datetime
    data: Money


class SignedWebhook(Struct, frozen=True):
    """A webhook ready to be sent, any number of times."""

    headers: dict[str, str]
    body: bytes


class DemoProvider:
    """Implements provider.Provider. `page_base` stands before the page's path; "": our own host."""

    name: Final = "demo"
    ack: Final = Ack()

    def __init__(self, secret: bytes, page_base: str = "") -> None:
        self._link_key = _derived(secret, b"livesale demo pay links")
        self._webhook = Webhook(_derived(secret, b"livesale demo webhooks"))
        self._page = page_base.rstrip("/") + PAGE

    async def create_intent(self, intent: Intent) -> IntentCreated:
        now_s = clock.now_ms() // 1000
        claims = {
            "aud": AUDIENCE,
            "exp": now_s + LINK_S,
            "jti": str(intent.payment_id),
            "show": intent.show_id,
            "order": intent.order_id,
            "amount": intent.amount,
            "currency": intent.currency,
            "description": intent.description[:DESCRIPTION_CHARS_MAX],
        }
        token = jwt.encode(claims, self._link_key, algorithm=ALGORITHM)
        return IntentCreated(external_id(intent.payment_id), f"{self._page}#{token}")

    def intent_of(self, token: str) -> Intent:
        """What a pay link is for. Raises Refused(token_invalid, token_expired)."""
        options: Any = {"require": ["exp", "aud", "jti"]}
        try:
            claims = jwt.decode(
                token, self._link_key, algorithms=[ALGORITHM], audience=AUDIENCE, options=options
            )
        except jwt.ExpiredSignatureError:
            raise Refused("token_expired") from None
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise Refused("token_invalid") from None
        return Intent(
            payment_id=uuid.UUID(claims["jti"]),
            show_id=claims["show"],
            order_id=claims["order"],
            amount=claims["amount"],
            currency=claims["currency"],
            description=claims["description"],
        )

    def webhook(self, type_: str, intent: Intent) -> SignedWebhook:
        """A new event about `intent`, signed now."""
        now_ms = clock.now_ms()
        money = Money(intent.payment_id, intent.amount, intent.currency)
        event = {"type": type_, "timestamp": _at(now_ms), "data": money}
        return self.sign(f"evt_{clock.new_uuid7().hex}", now_ms, msgspec.json.encode(event))

    def sign(self, event_id: str, now_ms: int, body: bytes) -> SignedWebhook:
        """Any body as a webhook of this provider."""
        headers = {
            "content-type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(now_ms // 1000),
            "webhook-signature": self._webhook.sign(event_id, _at(now_ms), body.decode()),
        }
        return SignedWebhook(headers, body)

    def verify(self, raw: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        try:
            self._webhook.verify(raw, dict(headers), json_parse=False)
            event = msgspec.json.decode(raw, type=Event)
        except (WebhookVerificationError, ValueError) as fault:
            # ValueError: a signature, text or body that is not even in form.
            raise BadSignature(type(fault).__name__) from None
        money = event.data
        return ProviderEvent(
            event_id=headers["webhook-id"],
            kind=_KINDS[event.type],
            external_id=external_id(money.payment),
            payment_id=money.payment,
            amount=money.amount,
            currency=money.currency,
            occurred_at=round(event.timestamp.timestamp() * 1000),
        )

    async def refund(self, request: RefundRequest) -> RefundState:
        return "refunded"

    async def aclose(self) -> None:
        pass


def external_id(payment_id: uuid.UUID) -> str:
    """The provider's own name of a payment."""
    return f"demo_{payment_id.hex}"


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hmac.digest(secret, purpose, hashlib.sha256)


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
