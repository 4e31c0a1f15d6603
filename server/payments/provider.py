"""What livesale needs of a payment provider: make a payment, understand its news, give money back.

An adapter is one class with this shape and one row in registry.py. `verify` gets the raw body and
all headers, and `ack` is what the provider wants to hear, so that providers with signatures of
their own (Alipay's form parameters, WeChat Pay's RSA headers) fit as well as HMAC ones.

Amounts are minor units of `currency` (server/domain/money.py) on this side of the interface.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

from server.domain.payment import EventKind
from server.errors import LivesaleError

TOLERANCE_S: Final = 300  # how far a webhook's timestamp may be from our clock, either way
PROVIDER_SECONDS: Final = 10.0  # for one question to a provider, its library's retries included


class BadSignature(LivesaleError):
    """A webhook that is not from the provider, too old, or not readable. The message says which
    check failed and nothing of the content."""


class ProviderUnavailable(LivesaleError):
    """The provider did not answer, or asks to come back later. Whether it acted is unknown."""


class ProviderRefused(LivesaleError):
    """The provider will not do this, now or later. Nothing was done."""


@dataclass(frozen=True, slots=True)
class Intent:
    """A payment to be made. `description` is shown to the buyer."""

    payment_id: uuid.UUID
    show_id: str
    order_id: int
    amount: int
    currency: str
    description: str


class IntentCreated(NamedTuple):
    """The provider's name for the payment, and where the buyer pays."""

    external_id: str
    pay_url: str


@dataclass(frozen=True, slots=True)
class ProviderEvent:
    """News of a payment. `payment_id` is None where the provider named only its own id."""

    event_id: str
    kind: EventKind
    external_id: str
    payment_id: uuid.UUID | None
    amount: int
    currency: str
    occurred_at: int


@dataclass(frozen=True, slots=True)
class RefundRequest:
    """All of a captured payment is to go back. `amount` and `currency` are what was asked for;
    the provider returns what it took."""

    payment_id: uuid.UUID
    external_id: str
    amount: int
    currency: str


class Ack(NamedTuple):
    """What a provider wants to hear for a webhook that was taken."""

    body: bytes = b"{}"
    media_type: str = "application/json"


RefundState = Literal["refunded", "pending"]


class Provider(Protocol):
    """One payment provider."""

    @property
    def name(self) -> str:
        """As in paths, settings and rows: lower-case letters."""
        ...

    @property
    def ack(self) -> Ack: ...

    async def create_intent(self, intent: Intent) -> IntentCreated:
        """Make the payment; the same `payment_id` always makes one.

        Raises ProviderUnavailable, ProviderRefused.
        """
        ...

    def verify(self, raw: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        """The event of a webhook, by its raw body and lower-case headers. Raises BadSignature."""
        ...

    async def refund(self, request: RefundRequest) -> RefundState:
        """Give all of it back; the same payment is refunded once. Asked again while `pending`.

        Raises ProviderUnavailable, ProviderRefused.
        """
        ...

    async def aclose(self) -> None: ...
