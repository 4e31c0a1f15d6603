"""What a host or moderator may send: bodies and queries of the host API, bounded.

Text is Unicode NFC without surrounding spaces when it gets here (server/web/endpoint.py), one
line, without control or bidirectional override characters. Money is in minor units, times in ms
since 1970, 0: not set. The OpenAPI document is made from these Structs.
"""

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from msgspec import UNSET, Meta, Struct, UnsetType, to_builtins

from server import limits
from server.webhooks.topics import TOPICS, Topic

# Patterns that mean the same to Python and to ECMA 262 (JSON Schema): `(?![\s\S])` is the end.
_END: Final = r"(?![\s\S])"
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069"
_LINE: Final = rf"^[^{_CONTROL}]*{_END}"
_URL_REST: Final = rf'[^\s\\"<>{_CONTROL}]*'
_URL: Final = rf"^(?:https?://[A-Za-z0-9\[]{_URL_REST}|/(?!/){_URL_REST})?{_END}"
_USER: Final = rf"^[^\s{_CONTROL}]+{_END}"

Identifier = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Title = Annotated[str, Meta(min_length=1, max_length=limits.TITLE_CHARS_MAX, pattern=_LINE)]
Url = Annotated[
    str,
    Meta(
        max_length=limits.URL_CHARS_MAX,
        pattern=_URL,
        description="http:// or https:// URL, or a path of this site (one leading slash); or empty",
    ),
]
Commentary = Annotated[
    str, Meta(min_length=1, max_length=limits.COMMENTARY_CHARS_MAX, pattern=_LINE)
]
Cues = Annotated[list[Commentary], Meta(max_length=limits.CUES_MAX)]
Word = Annotated[str, Meta(min_length=1, max_length=limits.WORD_CHARS_MAX, pattern=_LINE)]
User = Annotated[str, Meta(min_length=1, max_length=limits.USER_ID_CHARS_MAX, pattern=_USER)]
LineId = Annotated[str, Meta(min_length=1, max_length=limits.LINE_ID_CHARS_MAX, pattern=_USER)]
Price = Annotated[int, Meta(ge=0, le=limits.PRICE_MINOR_MAX, description="Minor units")]
Currency = Annotated[str, Meta(pattern=rf"^[A-Z]{{3}}{_END}", description="ISO 4217 code")]
Units = Annotated[int, Meta(ge=1, le=limits.UNITS_MAX)]
Inventory = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Moment = Annotated[int, Meta(ge=0, le=2**42, description="ms since 1970; 0: not set")]


class Body(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A request body; unknown fields are refused."""


# --- Shows ------------------------------------------------------------------------------------


class CreateShow(Body, frozen=True):
    """With a `request_id` a repeated request of the same host makes one show."""

    title: Title
    cover_url: Url = ""
    playback_url: Url = ""
    starts_at: Moment = 0
    request_id: UUID | None = None


class EditShow(Body, frozen=True):
    """Only the fields that are sent change."""

    title: Title | UnsetType = UNSET
    cover_url: Url | UnsetType = UNSET
    playback_url: Url | UnsetType = UNSET
    starts_at: Moment | UnsetType = UNSET


class Pin(Body, frozen=True):
    """`product` is being explained (讲解中) from now on; 0: none."""

    product: Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Say(Body, frozen=True):
    """Written commentary. With a `request_id` a repeated request is said once."""

    text: Commentary
    request_id: UUID | None = None


# --- Products ---------------------------------------------------------------------------------


class CreateSku(Body, frozen=True):
    title: Title
    price: Price
    inventory: Inventory
    currency: Currency = "CNY"


class EditSku(Body, frozen=True):
    """Only the fields that are sent change. `inventory` cannot fall below the units allotted."""

    title: Title | UnsetType = UNSET
    price: Price | UnsetType = UNSET
    inventory: Inventory | UnsetType = UNSET


class CreateProduct(Body, frozen=True):
    """With a `request_id` a repeated request makes one product."""

    title: Title
    skus: Annotated[list[CreateSku], Meta(min_length=1, max_length=limits.SKUS_PER_PRODUCT_MAX)]
    image_url: Url = ""
    cues: Cues = []
    request_id: UUID | None = None


class EditProduct(Body, frozen=True):
    """Only the fields that are sent change."""

    title: Title | UnsetType = UNSET
    image_url: Url | UnsetType = UNSET
    cues: Cues | UnsetType = UNSET


class SetRunList(Body, frozen=True):
    """The show's products in this order; products left out leave the list, not the show."""

    products: Annotated[list[Identifier], Meta(max_length=limits.PRODUCTS_MAX)]


# --- Sales ------------------------------------------------------------------------------------


class CreateSale(Body, frozen=True):
    """A flash sale. `start`: now (after `countdown_s`), at `starts_at`, or later by hand.

    `pay_within_s` 0: an order is complete once it is confirmed. With a `request_id` a repeated
    request makes one sale.
    """

    sku: Identifier
    price: Price
    units: Units
    limit_per_buyer: Units
    duration_s: Annotated[int, Meta(ge=limits.SALE_SECONDS_MIN, le=limits.SALE_SECONDS_MAX)]
    countdown_s: Annotated[int, Meta(ge=0, le=limits.COUNTDOWN_S_MAX)] = 0
    pay_within_s: Annotated[int, Meta(ge=0, le=24 * 3600)] = 0
    start: Literal["now", "at", "later"] = "later"
    starts_at: Moment = 0
    request_id: UUID | None = None


class StartSale(Body, frozen=True):
    """`starts_at` 0: now, after the sale's countdown."""

    starts_at: Moment = 0


class ChangeUnits(Body, frozen=True):
    """Restock or lower by `units`; the same `request_id` again is answered the same."""

    units: Units
    request_id: UUID


class ChangePrice(Body, frozen=True):
    price: Price


# --- Order in the room ------------------------------------------------------------------------


class SetChatPolicy(Body, frozen=True):
    """Seconds between two lines of one viewer, and words that are refused."""

    slow_mode_s: Annotated[int, Meta(ge=0, le=limits.SLOW_MODE_S_MAX)]
    words: Annotated[list[Word], Meta(max_length=limits.WORDS_MAX)]


class Mute(Body, frozen=True):
    user: User
    seconds: Annotated[int, Meta(ge=1, le=limits.MUTE_SECONDS_MAX)]


class OneUser(Body, frozen=True):
    user: User


class OneLine(Body, frozen=True):
    """`line`: the id of a danmaku line, as the room shows it."""

    line: LineId


# --- Webhooks ---------------------------------------------------------------------------------


class CreateWebhook(Body, frozen=True):
    """`url`: http:// or https://, to a public address. No `topics`: all of them."""

    url: Annotated[str, Meta(min_length=1, max_length=limits.URL_CHARS_MAX, pattern=_LINE)]
    topics: Annotated[list[Topic], Meta(max_length=len(TOPICS))] = []


# --- Queries ----------------------------------------------------------------------------------

OrderStatus = Literal["confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"]


class OrdersQuery(Body, frozen=True):
    """Orders with an id above `after`, oldest first; with `before` those below it, newest first:
    one of the two.

    `order`: that one order, if the other filters hold for it.
    """

    after: Annotated[int, Meta(ge=0, le=2**53 - 1)] = 0
    before: Identifier | None = None
    order: Identifier | None = None
    sale: Identifier | None = None
    limit: Annotated[int, Meta(ge=1, le=500)] = 100
    status: OrderStatus | None = None
    buyer: User | None = None


class ActsQuery(Body, frozen=True):
    """Acts older than the act `before`, newest first."""

    before: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50


class DeliveriesQuery(Body, frozen=True):
    """Deliveries older than the delivery `before`, newest first."""

    before: Identifier | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    status: Literal["pending", "delivered", "failed"] | None = None


class DeadLettersQuery(Body, frozen=True):
    """Dead letters older than the letter `before`, newest first."""

    before: Identifier | None = None
    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    status: Literal["parked", "redriven", "given_back"] | None = None


def changed_fields(body: Struct) -> dict[str, Any]:
    """The fields that a PATCH body carries."""
    values = {name: getattr(body, name) for name in body.__struct_fields__}
    return {name: value for name, value in values.items() if value is not UNSET}


def asked_fields(body: Body) -> dict[str, Any]:
    """What a body asks for, in JSON's types and without its `request_id`."""
    asked: dict[str, Any] = to_builtins(body)
    asked.pop("request_id", None)
    return asked
