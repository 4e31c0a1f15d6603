"""Values that cross the border of the store: requests, answers, entries, cuts.

Tuples (NamedTuple) where thousands are made per second, frozen dataclasses elsewhere. Amounts are
whole units and minor currency units, times are Redis milliseconds, claim ids are 16 bytes.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from server.domain.claim import Take as Take  # the store's entries are made of them
from server.errors import LivesaleError
from server.protocol.messages import ChatLine, ClaimState, ClaimStatus

# --- Claims -----------------------------------------------------------------------------------

ACCEPTED: Final = 0  # accepted by this call
ACCEPTED_BEFORE: Final = 1  # accepted earlier; the state tells how it stands now


class ClaimRequest(NamedTuple):
    """A claim on its way to the script. Bounds are the command's (protocol/messages.py).

    A refusal of `attempt` above 0 is remembered: no attempt up to it is accepted any more.
    """

    buyer: str
    claim_id: bytes
    pool: int
    quantity: int
    price_version: int
    attempt: int = 0


class ClaimAnswer(NamedTuple):
    """`code`: ACCEPTED, ACCEPTED_BEFORE (both with `state`) or a refusal from server/errors.py.

    `price` and `price_version` are the pool's current ones, 0 for an unknown pool; they matter
    with price_changed.
    """

    code: int
    state: ClaimState | None
    price: int
    price_version: int


class PoolLevel(NamedTuple):
    """`available` units at `version` of a stock epoch; newer (epoch, version) wins."""

    version: int
    available: int
    epoch: int


@dataclass(frozen=True, slots=True)
class ClaimBatchAnswer:
    """Answers in the order of the claims. `pools` has every known pool the batch named.

    `epoch` is the stock epoch in force, 0 while the stock is being rebuilt from nothing.
    """

    now_ms: int
    epoch: int
    answers: list[ClaimAnswer]
    pools: dict[int, PoolLevel]


# --- The order stream -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """One entry of the order stream: the takes of one script call, in the order of acceptance.

    `hub_id` is where the buyers were connected, "" for takes by the host. When the entry cannot
    be read, `fault` says why, `takes` is empty and `raw` has its fields.
    """

    entry_id: str
    epoch: int
    hub_id: str
    takes: list[Take]
    fault: str = ""
    raw: Mapping[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """Entries taken over from dead consumers. `lost_ids` were pending but are gone from the
    stream: units left `available` and nobody knows for whom, so the gate must be closed."""

    entries: list[OrderEntry]
    lost_ids: list[str]


class StreamLost(LivesaleError):
    """The consumer group is gone: Redis lost data. Nothing was read."""


# --- What follows a commit --------------------------------------------------------------------


EVERY_HUB: Final = "*"  # as a hub id: all hubs of the show


class Settled(NamedTuple):
    """A claim as PostgreSQL now has it: an order's status, or `released_by_incident`.

    `hub_id` is the entry's, or EVERY_HUB; "" tells no hub. `at_ms` is the take's.
    """

    hub_id: str
    buyer: str
    claim_id: bytes
    status: ClaimStatus
    pool: int
    quantity: int
    price: int
    price_version: int
    epoch: int
    seq: int
    order_id: int
    pay_by_ms: int
    at_ms: int


class PoolCounters(NamedTuple):
    """A pool's absolute counters in PostgreSQL at `version` of its row; older ones are ignored."""

    pool: int
    reserved: int
    sold: int
    dead: int
    version: int


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What one committed transaction means for Redis. `entry_ids` are acknowledged and deleted."""

    claims: Sequence[Settled] = ()
    pools: Sequence[PoolCounters] = ()
    entry_ids: Sequence[str] = ()


# --- Takes and gives by the host --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakeAnswer:
    """What a host's take did: `units` left the pool at `seq`; `before`: in an earlier call."""

    units: int
    seq: int
    before: bool


@dataclass(frozen=True, slots=True)
class Retake:
    """Units that an order paid late needs again; `payment_id`: 16 bytes. `counted` of them count
    anew against the buyer's limit (the others never stopped counting)."""

    payment_id: bytes
    pool: int
    buyer: str
    quantity: int
    counted: int
    price: int
    price_version: int


@dataclass(frozen=True, slots=True)
class Give:
    """Units that return to a pool, decided and committed in PostgreSQL under `give_id`.

    `restock` adds new units. The other reasons return a claim's units: its buyer's count falls if
    `forgiven`, and the claim, if there is one (16 bytes), goes on to the reason as its status,
    with `order_id` and `pay_by_ms` unless that is 0.
    """

    give_id: str
    pool: int
    units: int
    reason: Literal["restock", "expired", "cancelled", "refunded", "released_by_incident"]
    buyer: str = ""
    claim_id: bytes = b""
    forgiven: bool = True
    order_id: int = 0
    pay_by_ms: int = 0


# --- Projections of PostgreSQL rows -----------------------------------------------------------

Applied = Literal["applied", "stale", "missing"]
"""`applied`: this revision is in force (now or since an earlier call). `stale`: a newer one is.
`missing`: Redis does not have the show or pool, and it must not be made from nothing."""


@dataclass(frozen=True, slots=True)
class ShowProjection:
    """A show's row with its run-list, for viewers. `may_create`: never projected before."""

    revision: int
    phase: Literal["scheduled", "live", "paused", "ended"]
    title: str
    cover_url: str
    playback_url: str
    starts_at: int
    pinned_product: int
    products: Sequence[Mapping[str, Any]]  # as messages.ProductView
    stock_epoch: int
    may_create: bool


@dataclass(frozen=True, slots=True)
class SaleProjection:
    """A sale's row. `units` counts only when the pool is created (`may_create`).

    `status` scheduled and open differ for viewers only: what sells is decided by the window
    [opens_at, closes_at) in Redis time. A closed pool stays closed.
    """

    sale: int
    revision: int
    status: Literal["scheduled", "open", "closed"]
    sku: int
    product: int
    price: int
    list_price: int
    currency: str
    price_version: int
    limit_per_buyer: int
    opens_at: int
    closes_at: int
    pay_within_s: int
    units: int
    may_create: bool


# --- Room -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoomSnapshot:
    """One consistent cut of what a viewer may see. `state` values are maps as in messages.

    `rebuild`: id of the rebuild of the stock that is under way, "" for none.
    """

    now_ms: int
    epoch: int
    seq: int
    stock_epoch: int
    gate: str
    rebuild: str
    state: dict[str, dict[str, Any]]
    chat: list[ChatLine]


@dataclass(frozen=True, slots=True)
class RoomPulse:
    """A show's numbers. Likes, lines and first claims are totals; of hubs that are gone, too.

    `backlog`: entries in the order stream, the oldest written at `oldest_at` (Redis ms, 0: none).
    """

    gate: str
    online: int
    likes: int
    lines: int
    claims: int
    backlog: int
    oldest_at: int


@dataclass(frozen=True, slots=True)
class ChatPolicy:
    """Order in the room. `muted`: user -> until (Redis ms); `bans`: user -> since when (ms)."""

    version: int = 0
    slow_mode_s: int = 0
    words: tuple[str, ...] = ()
    muted: Mapping[str, int] = field(default_factory=dict)
    bans: Mapping[str, int] = field(default_factory=dict)

    @property
    def banned(self) -> Set[str]:
        """Users who are banned."""
        return self.bans.keys()


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """Parts of the chat policy to set; None and empty leave things as they are."""

    slow_mode_s: int | None = None
    words: Sequence[str] | None = None
    mute: Mapping[str, int] = field(default_factory=dict)
    unmute: Sequence[str] = ()
    ban: Mapping[str, int] = field(default_factory=dict)
    unban: Sequence[str] = ()


# --- Audit ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PoolCut:
    """All counters of one pool at the instant of the cut; see lua/claim_batch.lua for the names."""

    pool: int
    available: int
    seq: int
    version: int
    units: int
    sold: int
    reserved: int
    dead: int
    records_version: int
    status: str


@dataclass(frozen=True, slots=True)
class AuditCut:
    """One instant of a show in Redis: every counter, every take not yet settled.

    `same_run`: it is the Redis process that the stock epoch was opened on. `pending` may also have
    entries settled a moment before. `applied`: what must not happen twice, as read after the
    instant: a give's id -> version of its pool that it made; others (host's acts, payments) -> 0.
    """

    now_ms: int
    epoch: int
    gate: str
    same_run: bool
    pools: dict[int, PoolCut]
    pending: list[OrderEntry]
    applied: dict[str, int]


class RememberedClaim(NamedTuple):
    """A claim as the claims hash has it."""

    buyer: str
    claim_id: bytes
    state: ClaimState


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What we found at the other end. `version` is Redis compatibility, `software` its name."""

    software: str
    version: tuple[int, int, int]
    cluster: bool
