"""The wire protocol: every command, reply and event between a viewer and the server.

Prose and examples are in PROTOCOL.md, bytes in codec.py, samples for both codecs in
tests/vectors/. Messages are maps; the field `t` tells which. Unknown fields are ignored, absent
optional fields have the default given here, every field is bounded.

What a rush makes by the thousand is kept out of garbage collection (`gc=False`): it holds plain
values only and cannot be part of a cycle.

How to add an event type: (1) declare the Struct here and add it to `Event`, or add a state value
to `STATE_VALUES` when only its newest version matters; (2) publish it where the fact is born
(a script in server/store/lua, by `publish_event` of lua/_room.lua); (3) handle it in
client-demo/src/live/reducer.ts; (4) add a vector and a PROTOCOL.md entry. Hub, bus and codec stay
untouched: they carry maps and know only lanes.

Versioning: adding a message or an optional field is compatible; anything else needs a new
subprotocol name.
"""

from typing import Annotated, Any, Final, Literal, get_args

from msgspec import UNSET, Meta, Struct, UnsetType

from server import limits

SUBPROTOCOL_MSGPACK: Final = "livesale.v1.msgpack"
SUBPROTOCOL_JSON: Final = "livesale.v1.json"
PROTOCOL_VERSION: Final = 1

Ref = Annotated[int, Meta(ge=0, le=limits.REF_MAX)]
Identifier = Annotated[int, Meta(ge=1, le=2**53 - 1)]
# Canonical text form of a UUID, lower case (RFC 9562 section 4).
ClaimId = Annotated[
    str, Meta(pattern=r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
]


# --- Commands: client to server -------------------------------------------------------------


class Hello(Struct, tag_field="t", tag="hello", frozen=True):
    """Sign in, or refresh the token in-band. Repeating it with another user is refused."""

    token: Annotated[str, Meta(min_length=1, max_length=limits.TOKEN_CHARS_MAX)]
    ref: Ref | None = None


class Chat(Struct, tag_field="t", tag="chat", frozen=True):
    """One danmaku line. Needs a token. The reply carries its id, or says why it was refused."""

    text: Annotated[str, Meta(min_length=1, max_length=limits.CHAT_CHARS_MAX * 4)]
    ref: Ref | None = None


class Like(Struct, tag_field="t", tag="like", frozen=True):
    """`taps` likes at once. Needs a token. `ref` is optional: without it there is no reply."""

    taps: Annotated[int, Meta(ge=1, le=limits.LIKE_TAPS_MAX)] = 1
    ref: Ref | None = None


class Proof(Struct, frozen=True):
    """What an answer `held` said: its receipt and what that was signed over."""

    receipt: Annotated[str, Meta(min_length=1, max_length=limits.RECEIPT_CHARS_MAX)]
    epoch: Annotated[int, Meta(ge=0, le=limits.REF_MAX)]
    seq: Identifier
    price: Annotated[int, Meta(ge=0, le=2**53 - 1)]


class Claim(Struct, tag_field="t", tag="claim", frozen=True, gc=False):
    """Ask for units of a flash sale. Needs a token.

    `claim_id` is made by the client (UUIDv7) and stored before sending; the same id with the same
    fields always gets the same accepted answer. `attempt` counts repeats of this id from 0; an
    attempt above 0 always reaches the script, never a cache. Once the newest attempt was refused,
    none of the earlier ones is accepted any more. `price_version` is the version of the price the
    buyer saw.

    A repeat of a claim that was answered `held` carries the `proof`: should the server have lost
    the hold, it learns of it, or says `released_by_incident` and no refusal.
    """

    ref: Ref
    sale: Identifier
    claim_id: ClaimId
    quantity: Annotated[int, Meta(ge=1, le=limits.CLAIM_QUANTITY_MAX)]
    price_version: Annotated[int, Meta(ge=1, le=limits.REF_MAX)]
    attempt: Annotated[int, Meta(ge=0, le=limits.ATTEMPT_MAX)] = 0
    proof: Proof | UnsetType = UNSET


class OrderStatus(Struct, tag_field="t", tag="order_status", frozen=True):
    """Ask what became of a claim of this buyer. Needs a token. Never creates anything."""

    ref: Ref
    claim_id: ClaimId


class Time(Struct, tag_field="t", tag="time", frozen=True):
    """Clock sync: the reply repeats `sent_at` and adds Redis time (Cristian's algorithm)."""

    ref: Ref
    sent_at: Annotated[float, Meta(ge=0, le=2**53)] = 0.0


Command = Hello | Chat | Like | Claim | OrderStatus | Time


# --- Replies: the answer to one command, by `ref` -------------------------------------------

ClaimStatus = Literal[
    "held",  # Redis accepted; provisional
    "confirmed",  # an order row is committed
    "paid",
    "fulfilled",
    "expired",
    "cancelled",
    "refunded",
    "released_by_incident",  # Redis had accepted, PostgreSQL could not keep it; units returned
    "not_seen",  # no answer is remembered for this id; never final
]


class ClaimState(Struct, omit_defaults=True, frozen=True, gc=False):
    """Where a claim stands. `receipt` proves a hold to the server after a Redis loss."""

    claim_id: str
    status: ClaimStatus
    sale: int = 0
    quantity: int = 0
    price: int = 0  # minor units, per unit, as accepted
    price_version: int = 0
    epoch: int = 0
    seq: int = 0  # place in the sale's order of acceptance, gapless within (epoch, sale)
    order_id: int = 0  # from `confirmed` on
    pay_by: int = 0  # Redis ms; 0: no payment step
    receipt: str = ""


class HelloResult(Struct, frozen=True):
    """Who the connection belongs to from now on. `expires_at`: ms since 1970."""

    user: str
    name: str
    role: str
    expires_at: int


class ChatResult(Struct, frozen=True):
    """The line as it will be shown to others, under its id."""

    id: str
    text: str


class TimeResult(Struct, frozen=True):
    """`now` is Redis time in ms when the server answered."""

    sent_at: float
    now: int


class Accepted(Struct, tag_field="t", tag="accepted", omit_defaults=True, frozen=True, gc=False):
    """The command with this `ref` was accepted; one field, named by the command, may tell more."""

    ref: int
    hello: HelloResult | None = None
    chat: ChatResult | None = None
    claim: ClaimState | None = None
    order: ClaimState | None = None
    time: TimeResult | None = None


class RefusedReply(Struct, tag_field="t", tag="refused", omit_defaults=True, frozen=True):
    """The command was refused; nothing changed, except `outcome_unknown`, where it may have.

    `code`, `name`, texts and hints are a row of server/errors.py. `ref` is null when the message
    was too broken to have one. `price`/`price_version` come with price_changed.
    """

    ref: int | None
    code: int
    name: str
    retryable: bool
    retry_ms: int
    zh: str
    en: str
    field: str = ""
    price: int = 0
    price_version: int = 0


# --- State: values where only the newest version matters (lane L1) --------------------------
#
# Travel as {"key": value} maps (STATE_VALUES) in welcome and tick. A client keeps a value only when
# its (epoch, version) is newer than the one it has. Keys: show, pin, runlist, likes, online, room,
# sale:<sale id>, stock:<sale id>.


class ShowState(Struct, frozen=True):
    """Key `show`. `phase`: scheduled, live, paused or ended."""

    epoch: int
    version: int
    phase: str
    title: str
    cover_url: str
    playback_url: str
    starts_at: int  # ms since 1970; 0: not scheduled


class PinState(Struct, frozen=True):
    """Key `pin`: the product being explained (讲解中); 0: none."""

    epoch: int
    version: int
    product: int


class SkuView(Struct, frozen=True):
    """One sku of a run-list product; `price` in minor units of `currency` (ISO 4217)."""

    sku: int
    title: str
    price: int
    currency: str


class ProductView(Struct, frozen=True):
    """One product of the run-list."""

    product: int
    title: str
    image_url: str
    skus: list[SkuView]


class RunListState(Struct, frozen=True):
    """Key `runlist`: the show's products in the host's order."""

    epoch: int
    version: int
    products: list[ProductView]


class LikesState(Struct, frozen=True):
    """Key `likes`: the show's total."""

    epoch: int
    version: int
    total: int


class OnlineState(Struct, frozen=True):
    """Key `online`: people watching, all hubs together: signed-in users once each, and connections
    without a user."""

    epoch: int
    version: int
    people: int


class RoomState(Struct, frozen=True):
    """Key `room`: chat rules a viewer should see."""

    epoch: int
    version: int
    slow_mode_s: int


class SaleState(Struct, frozen=True):
    """Key `sale:<id>`: terms of a flash sale.

    `phase`: scheduled, open or closed as decided by the host; whether it sells right now is
    opens_at <= Redis time < closes_at. All times in Redis ms; 0: not set.
    """

    epoch: int
    version: int
    sale: int
    sku: int
    product: int
    phase: str
    price: int
    list_price: int  # the sku's own price, to strike through
    currency: str
    price_version: int
    limit_per_buyer: int
    opens_at: int
    closes_at: int
    pay_within_s: int


class StockState(Struct, frozen=True):
    """Key `stock:<id>`: left + held + sold == total, exactly, at every version."""

    epoch: int
    version: int
    sale: int
    left: int
    held: int
    sold: int
    total: int


STATE_VALUES: Final = {
    "show": ShowState,
    "pin": PinState,
    "runlist": RunListState,
    "likes": LikesState,
    "online": OnlineState,
    "room": RoomState,
    "sale": SaleState,
    "stock": StockState,
}


# --- Events that must not be missed (lane L2): numbered by (epoch, seq) ----------------------


class Commentary(Struct, tag_field="k", tag="commentary", frozen=True):
    """The host says something in writing."""

    seq: int
    at: int
    text: str


class Pinned(Struct, tag_field="k", tag="pinned", frozen=True):
    """The host pinned a product (0: unpinned); the state key `pin` follows."""

    seq: int
    at: int
    product: int


class ShowPhaseChanged(Struct, tag_field="k", tag="show_phase", frozen=True):
    """The show went live, paused, resumed (live again) or ended."""

    seq: int
    at: int
    phase: str


class SalePhaseChanged(Struct, tag_field="k", tag="sale_phase", frozen=True):
    """A sale was announced, opened, restocked, repriced, sold out or closed.

    `what`: scheduled, opening, restocked, lowered, price_changed, sold_out, closed.
    """

    seq: int
    at: int
    sale: int
    what: str


class UserRemoved(Struct, tag_field="k", tag="user_removed", frozen=True):
    """A viewer was banned: their lines should disappear from the page."""

    seq: int
    at: int
    user: str


class LineRemoved(Struct, tag_field="k", tag="line_removed", frozen=True):
    """A moderator deleted a danmaku line: the line with this id should disappear from the page."""

    seq: int
    at: int
    line: str


Event = Commentary | Pinned | ShowPhaseChanged | SalePhaseChanged | UserRemoved | LineRemoved


class ChatLine(Struct, frozen=True):
    """One danmaku line (lane L3). `id` is unique within a show (hub id and counter)."""

    id: str
    user: str
    name: str
    role: str
    text: str


# --- Frames from the server ------------------------------------------------------------------


class Welcome(Struct, tag_field="t", tag="welcome", omit_defaults=True, frozen=True):
    """The first frame on every connection.

    `recovered` is true when `resume` could be honoured without a gap; `events` then holds what
    was missed. Otherwise the snapshot alone is the truth. `state` and `chat` are the shared
    snapshot, at most one tick old.
    """

    version: int
    show: str
    epoch: int  # of the event numbers
    seq: int  # newest event this snapshot includes
    now: int  # Redis ms
    tick_ms: int
    recovered: bool
    state: dict[str, Any]
    chat: list[ChatLine]
    events: list[Event] = []


class Tick(Struct, tag_field="t", tag="tick", omit_defaults=True, frozen=True):
    """What changed in the room since the last tick; absent parts did not change.

    `epoch` is sent with `events`. `folded` counts danmaku lines left out of this tick.
    """

    n: int  # tick number of this hub, echoed in pongs
    now: int  # Redis ms when it was encoded
    state: dict[str, Any] = {}
    epoch: int = 0
    events: list[Event] = []
    chat: list[ChatLine] = []
    folded: int = 0


class OrderEvent(Struct, tag_field="t", tag="order", omit_defaults=True, frozen=True, gc=False):
    """The claim of this buyer moved on (lane L0): confirmed, released_by_incident, paid, ..."""

    order: ClaimState


class Bye(Struct, tag_field="t", tag="bye", omit_defaults=True, frozen=True):
    """The server is about to close. Come back after `retry_ms` when `reconnect`."""

    code: int
    name: str
    reconnect: bool
    retry_ms: int = 0


ServerMessage = Welcome | Tick | Accepted | RefusedReply | OrderEvent | Bye

COMMANDS: Final[tuple[type[Struct], ...]] = get_args(Command)
SERVER_MESSAGES: Final[tuple[type[Struct], ...]] = get_args(ServerMessage)
EVENTS: Final[tuple[type[Struct], ...]] = get_args(Event)

__all__ = [
    "COMMANDS",
    "EVENTS",
    "PROTOCOL_VERSION",
    "SERVER_MESSAGES",
    "STATE_VALUES",
    "SUBPROTOCOL_JSON",
    "SUBPROTOCOL_MSGPACK",
    "Accepted",
    "Bye",
    "Chat",
    "ChatLine",
    "ChatResult",
    "Claim",
    "ClaimState",
    "ClaimStatus",
    "Command",
    "Commentary",
    "Event",
    "Hello",
    "HelloResult",
    "Like",
    "LikesState",
    "LineRemoved",
    "OnlineState",
    "OrderEvent",
    "OrderStatus",
    "PinState",
    "Pinned",
    "ProductView",
    "RefusedReply",
    "RoomState",
    "RunListState",
    "SalePhaseChanged",
    "SaleState",
    "ServerMessage",
    "ShowPhaseChanged",
    "ShowState",
    "SkuView",
    "StockState",
    "Tick",
    "Time",
    "TimeResult",
    "UserRemoved",
    "Welcome",
]
