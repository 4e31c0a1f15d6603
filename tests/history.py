"""What every client of a test saw, checked against the books afterwards.

`History` is filled by one process (tests/crowd.py), so the number of a record is its time: of two
records the lower one happened first. `violations` compares it with `Books`, read from PostgreSQL
when everything has come to rest. The place (epoch, seq) of an accepted claim is its place in the
linearization, so every check is a sort and one pass: O(n log n).

    I4   whoever was told `confirmed` has exactly one order; every accepted claim ends once
    I5   a claim never has two different accepted answers, nor an acceptance and a refusal
    I6   the places of a pool are dense within an epoch, and no two takes share one
    I7   who was answered before another one asked has the lower place
    I8   nobody gets more units than the limit
    I9   what a connection hears of a claim only goes forward
    I11  what viewers see never goes back, adds up, and never shows units nobody gave
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import asyncpg
import msgpack

from server.domain.order import RANK
from server.protocol.messages import ClaimState

Claim = tuple[str, str]  # buyer, claim id as text
Place = tuple[int, int]  # epoch, seq

COMMITTED: Final = frozenset(RANK)  # statuses that say: there is an order row
ACCEPTED: Final = COMMITTED | {"held"}
# Refusals after which a client gives the claim up; all others say "try again".
ENDING: Final = frozenset({"sold_out", "out_of_stock", "sale_closed", "limit_reached"})
CONTRADICTING: Final = ENDING | {"claim_conflict", "bad_field", "unknown_sale"}
RELEASED: Final = "released_by_incident"
_RANKS: Final[Mapping[str, int]] = {"held": 0, RELEASED: 1, **RANK}
_LIVE: Final = frozenset({"confirmed", "paid", "fulfilled"})


class Sent(NamedTuple):
    """A claim left on a connection."""

    at: int
    connection: str
    buyer: str
    claim_id: str
    sale: int
    quantity: int


class Heard(NamedTuple):
    """A connection was told how a claim stands: by a reply, an event or a status question."""

    at: int
    connection: str
    buyer: str
    state: ClaimState


class Refusal(NamedTuple):
    """A connection was told that a claim is refused."""

    at: int
    connection: str
    buyer: str
    claim_id: str
    name: str


class Seen(NamedTuple):
    """A viewer saw a value of `stock:<sale>`."""

    at: int
    connection: str
    sale: int
    epoch: int
    version: int
    left: int
    held: int
    sold: int
    total: int


@dataclass
class History:
    """Four lists, each in the order of time."""

    sent: list[Sent] = field(default_factory=list)
    heard: list[Heard] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def note_sent(
        self, connection: str, buyer: str, claim_id: str, sale: int, quantity: int = 1
    ) -> None:
        """To be called before the bytes are written."""
        self.sent.append(Sent(next(self._numbers), connection, buyer, claim_id, sale, quantity))

    def note_state(self, connection: str, buyer: str, state: ClaimState) -> None:
        """`not_seen` says nothing and is not kept."""
        if state.status != "not_seen":
            self.heard.append(Heard(next(self._numbers), connection, buyer, state))

    def note_refusal(self, connection: str, buyer: str, claim_id: str, name: str) -> None:
        self.refused.append(Refusal(next(self._numbers), connection, buyer, claim_id, name))

    def note_stock(self, connection: str, value: Mapping[str, Any]) -> None:
        """`value`: of the state key stock:<sale> (protocol/messages.py)."""
        names = ("sale", "epoch", "version", "left", "held", "sold", "total")
        self.seen.append(Seen(next(self._numbers), connection, *(value[name] for name in names)))


class OrderRow(NamedTuple):
    """One row of `orders`."""

    order_id: int
    buyer: str
    claim_id: str
    pool: int
    epoch: int
    seq: int
    quantity: int
    price: int
    status: str


class Taken(NamedTuple):
    """A take in the books that is no order: released, dead, or the host's (buyer "")."""

    buyer: str
    claim_id: str
    pool: int
    epoch: int
    seq: int


@dataclass
class Books:
    """What PostgreSQL has of one show. `returned`: pool -> units restocked or given back."""

    orders: list[OrderRow] = field(default_factory=list)
    released: list[Taken] = field(default_factory=list)
    dead: list[Taken] = field(default_factory=list)
    others: list[Taken] = field(default_factory=list)
    limits: dict[int, int] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)


async def read_books(database_url: str, show_id: str) -> Books:
    """One snapshot of everything about the show."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection, show_id)
    finally:
        await connection.close()


async def _read(connection: "asyncpg.Connection[asyncpg.Record]", show_id: str) -> Books:
    async def rows(query: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.fetch(query, show_id)]

    of_show = "pool_id IN (SELECT pool_id FROM pools WHERE show_id = $1)"
    dead = await rows(
        "SELECT pool_id, epoch, seq, payload FROM dead_letters"
        " WHERE show_id = $1 AND pool_id > 0 AND status <> 'redriven'"
    )
    return Books(
        orders=[
            OrderRow(*row)
            for row in await rows(
                "SELECT order_id, buyer, claim_id::text, pool_id, epoch, seq, quantity, price,"
                " status FROM orders WHERE show_id = $1"
            )
        ],
        released=[
            Taken(*row)
            for row in await rows(
                "SELECT buyer, claim_id::text, pool_id, epoch, seq FROM incidents"
                " WHERE show_id = $1 AND buyer <> ''"
            )
        ],
        dead=[_dead(*row) for row in dead],
        others=[
            Taken("", "", *row)
            for row in await rows(
                f"SELECT pool_id, epoch, seq FROM lowerings WHERE {of_show}"
                f" UNION SELECT pool_id, epoch, seq FROM retakes WHERE {of_show}"
            )
        ],
        limits=dict(  # type: ignore[arg-type]  # two columns
            await rows("SELECT pool_id, limit_per_buyer FROM pools WHERE show_id = $1")
        ),
        returned=dict(  # type: ignore[arg-type]
            await rows(
                "SELECT pool_id, sum(units)::int FROM gives WHERE show_id = $1 GROUP BY pool_id"
            )
        ),
    )


def _dead(pool: int, epoch: int, seq: int, payload: bytes) -> Taken:
    take = msgpack.unpackb(payload)
    claim_id = take[4].hex() if isinstance(take[4], bytes) else str(take[4])
    text = "-".join(claim_id[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
    return Taken(str(take[3]), text, pool, epoch, seq)


# --- The checks --------------------------------------------------------------------------------


def violations(
    history: History, books: Books, *, lost: bool = False, unanswered: bool = False
) -> list[str]:
    """Every broken promise, each starting with the name of its invariant; [] when all is well.

    `lost`: Redis lost acknowledged writes in this run, so a hold may have vanished (never a
    confirmation). `unanswered`: claims without a last word are no fault, the run was cut short.
    """
    heard: dict[Claim, list[Heard]] = defaultdict(list)
    for one in history.heard:
        heard[one.buyer, one.state.claim_id].append(one)
    refusals: dict[Claim, set[str]] = defaultdict(set)
    for no in history.refused:
        refusals[no.buyer, no.claim_id].add(no.name)
    return [
        *_committed_without_order(history.heard, books.orders),
        *_ends(heard, books, lost=lost),
        *_answers(heard, refusals, lost=lost),
        *([] if unanswered else _unanswered(history.sent, heard, refusals)),
        *_density(books),
        *_real_time(history),
        *_limits(heard, books),
        *([] if lost else _forward(history.heard)),
        *_viewers(history.seen, books.returned),
    ]


def _committed_without_order(heard: Iterable[Heard], orders: Iterable[OrderRow]) -> Iterator[str]:
    """I4: what a client was told of its order is what the row says."""
    by_claim: dict[Claim, list[OrderRow]] = defaultdict(list)
    for order in orders:
        by_claim[order.buyer, order.claim_id].append(order)
    for claim, rows in by_claim.items():
        if len(rows) > 1:
            yield f"I5: {claim} has {len(rows)} orders"
    for _, _, buyer, state in heard:
        if state.status not in COMMITTED:
            continue
        rows = by_claim.get((buyer, state.claim_id), [])
        if not rows:
            yield f"I4: {buyer} was told {state.status} for {state.claim_id} and has no order"
        elif _terms_of(state) != _terms_of_row(rows[0]):
            yield f"I4: {buyer} was told {_terms_of(state)}, the order is {_terms_of_row(rows[0])}"


def _terms_of(state: ClaimState) -> tuple[int, ...]:
    place = (state.epoch, state.seq)
    return (state.order_id, state.sale, state.quantity, state.price, *place)


def _terms_of_row(row: OrderRow) -> tuple[int, ...]:
    return (row.order_id, row.pool, row.quantity, row.price, row.epoch, row.seq)


def _ends(heard: Mapping[Claim, list[Heard]], books: Books, *, lost: bool) -> Iterator[str]:
    """I4: every accepted claim is one order, or one dead letter, or one incident."""
    ends: dict[Claim, list[str]] = defaultdict(list)
    for kind, rows in (("order", books.orders), ("incident", books.released), ("dead", books.dead)):
        for row in rows:
            ends[row.buyer, row.claim_id].append(kind)
    for claim, said in heard.items():
        found = ends.get(claim, [])
        if len(found) > 1:
            yield f"I4: {claim} ended as {found}"
        if not found and not lost and any(one.state.status in ACCEPTED for one in said):
            yield f"I4: {claim} was accepted and is nowhere in the books"


def _answers(
    heard: Mapping[Claim, list[Heard]], refusals: Mapping[Claim, set[str]], *, lost: bool
) -> Iterator[str]:
    """I5: one accepted answer per claim and epoch, the same terms always, never yes and no."""
    for claim, said in heard.items():
        accepted = [one.state for one in said if one.state.status in ACCEPTED]
        terms = {(s.sale, s.quantity, s.price, s.price_version) for s in accepted}
        if len(terms) > 1:
            yield f"I5: {claim} was accepted with different terms: {sorted(terms)}"
        places = {(s.epoch, s.seq) for s in accepted}
        if len({epoch for epoch, _ in places}) < len(places):
            yield f"I5: {claim} was accepted at different places: {sorted(places)}"
        statuses = {one.state.status for one in said}
        no = refusals.get(claim, set()) & CONTRADICTING
        if no and (statuses & COMMITTED or (accepted and not lost)):
            yield f"I5: {claim} was told {sorted(statuses)} and {sorted(no)}"
        if RELEASED in statuses and statuses & COMMITTED:
            yield f"I5: {claim} was told {sorted(statuses)}"


def _unanswered(
    sent: Iterable[Sent], heard: Mapping[Claim, list[Heard]], refusals: Mapping[Claim, set[str]]
) -> Iterator[str]:
    """I4: everybody who asked got a last word."""
    for claim in dict.fromkeys((one.buyer, one.claim_id) for one in sent):
        statuses = {one.state.status for one in heard.get(claim, [])}
        final = statuses & (COMMITTED | {RELEASED}) or refusals.get(claim, set()) & ENDING
        if not final:
            yield f"I4: {claim} never got a last word, only {sorted(statuses)}"


def _density(books: Books) -> Iterator[str]:
    """I6: within an epoch a pool's places have no hole; claims share none."""
    places: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in (*books.orders, *books.released, *books.dead):
        places[row.pool, row.epoch].append(row.seq)
    for where, seqs in places.items():
        if len(set(seqs)) < len(seqs):
            yield f"I6: pool, epoch {where}: two claims share a place"
    for take in books.others:
        places[take.pool, take.epoch].append(take.seq)
    for where, seqs in places.items():
        if len(set(seqs)) != max(seqs) - min(seqs) + 1:
            yield f"I6: pool, epoch {where}: {len(set(seqs))} places in {min(seqs)}..{max(seqs)}"


def _real_time(history: History) -> Iterator[str]:
    """I7: sweep in time; every claim must stand behind all that were answered before it asked."""
    first_sent: dict[Claim, Sent] = {}
    for one in history.sent:
        first_sent.setdefault((one.buyer, one.claim_id), one)
    bounds: dict[Claim, Place] = {}  # the highest place known when the claim was first sent
    highest: dict[int, Place] = defaultdict(lambda: (0, 0))
    timeline: list[Sent | Heard] = sorted([*first_sent.values(), *history.heard])
    for one in timeline:
        if isinstance(one, Sent):
            bounds[one.buyer, one.claim_id] = highest[one.sale]
        elif one.state.status in ACCEPTED:
            state = one.state
            place = (state.epoch, state.seq)
            bound = bounds.get((one.buyer, state.claim_id), (0, 0))
            if place <= bound:
                yield f"I7: {one.buyer} asked after {bound} was taken and got {place}"
            highest[state.sale] = max(highest[state.sale], place)


def _limits(heard: Mapping[Claim, list[Heard]], books: Books) -> Iterator[str]:
    """I8: by the books, and by what buyers were promised last."""
    bought: dict[tuple[int, str], int] = defaultdict(int)
    for order in books.orders:
        if order.status in _LIVE:
            bought[order.pool, order.buyer] += order.quantity
    promised: dict[tuple[int, str], int] = defaultdict(int)
    for (buyer, _), said in heard.items():
        last = max((one.state for one in said), key=lambda state: _RANKS[state.status])
        if last.status in _LIVE:
            promised[last.sale, buyer] += last.quantity
    for what, units in (("has", bought), ("was promised", promised)):
        for (pool, buyer), count in units.items():
            if count > books.limits.get(pool, count):
                yield f"I8: {buyer} {what} {count} units of pool {pool}"


def _forward(heard: Iterable[Heard]) -> Iterator[str]:
    """I9: on one connection, news of a claim never go back."""
    last: dict[tuple[str, str], str] = {}
    for _, connection, buyer, state in heard:
        before = last.get((connection, state.claim_id), "held")
        if _RANKS[state.status] < _RANKS[before]:
            yield f"I9: {buyer} was told {before}, then {state.status}"
        last[connection, state.claim_id] = state.status


def _viewers(seen: Iterable[Seen], returned: Mapping[int, int]) -> Iterator[str]:
    """I11: versions rise at each viewer, are the same for all, add up, and rise only by gives."""
    newest: dict[tuple[str, int], Place] = {}
    values: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for one in seen:
        version, value = (one.epoch, one.version), (one.left, one.held, one.sold, one.total)
        if version < newest.get((one.connection, one.sale), (0, 0)):
            yield f"I11: {one.connection} saw sale {one.sale} go back to {version}"
        newest[one.connection, one.sale] = version
        if values.setdefault((one.sale, *version), value) != value:
            yield f"I11: sale {one.sale} version {version} was seen with different values"
        if one.left + one.held + one.sold != one.total or min(value) < 0:
            yield f"I11: sale {one.sale} version {version} does not add up: {value}"
    yield from _rises(values, returned)


def _rises(
    values: Mapping[tuple[int, int, int], tuple[int, ...]], returned: Mapping[int, int]
) -> Iterator[str]:
    """Within an epoch, all rises of `left` together are at most what came back."""
    risen: dict[int, int] = defaultdict(int)
    for (before, a), (after, b) in itertools.pairwise(sorted(values.items())):
        if before[:2] == after[:2]:
            risen[after[0]] += max(0, b[0] - a[0])
    for sale, units in risen.items():
        if units > returned.get(sale, 0):
            yield f"I11: {units} units of sale {sale} appeared, {returned.get(sale, 0)} came back"
