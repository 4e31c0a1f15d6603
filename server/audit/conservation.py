"""Conservation of units, exactly, while claims are running: the audit's rules, without I/O.

Redis is cut first, at one instant; the books are read after that. Takes go from Redis to the
books and gives the other way, so at the instant of the cut every take up to a pool's `seq` was in
the books or in the order stream, and every give applied in Redis was in the books. Takes beyond
the cut are ignored, and with them the gives that return them. Then for each pool

    available + backlog + reserved + sold + dead + pending give == initial + restocked - lowered

holds to the unit. Anything else is a fault and is named.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from server.domain.claim import KIND_CLAIM, Take
from server.domain.order import counter_of
from server.protocol.messages import ClaimState
from server.records.audit import PoolBook, Promised, ShowBooks, TakeBook
from server.store.packing import claim_id_text
from server.store.types import AuditCut, PoolCut, RememberedClaim

ClaimKey = tuple[str, bytes]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it must be. `kind` is stable, `detail` is for people."""

    kind: str
    detail: str
    pool: int = 0
    seq: int = 0
    buyer: str = ""
    claim_id: str = ""
    order_id: int = 0


@dataclass(slots=True)
class PoolBalance:
    """A pool at the instant of the cut. `difference`: units Redis has too many (or too few)."""

    pool: int
    initial: int
    restocked: int
    lowered: int
    available: int
    backlog: int
    reserved: int
    sold: int
    dead: int
    pending_give: int
    difference: int


@dataclass(slots=True)
class ShowReport:
    """What the audit found in one show."""

    show_id: str
    epoch: int = 0
    orders: int = 0
    claims: int = 0
    pools: list[PoolBalance] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, detail: str, **where: Any) -> None:
        self.problems.append(Problem(kind, detail, **where))

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": not self.problems}


def _where(take: TakeBook | Take) -> dict[str, Any]:
    order_id = take.order_id if isinstance(take, TakeBook) else 0
    where = {"pool": take.pool, "seq": take.seq, "buyer": take.buyer, "order_id": order_id}
    return {**where, "claim_id": claim_id_text(take.claim_id) if take.claim_id else ""}


class Comparison:
    """The books of one show against one cut of Redis; fills `report`."""

    def __init__(self, report: ShowReport, cut: AuditCut, books: ShowBooks) -> None:
        self.report = report
        self.cut = cut
        self.books = books
        self.by_pool: dict[int, list[TakeBook]] = defaultdict(list)
        for row in books.takes:
            self.by_pool[row.pool].append(row)
        self.waiting: dict[int, dict[int, Take]] = defaultdict(dict)  # pool -> seq -> take
        for entry in cut.pending:
            for take in entry.takes:
                self.waiting[take.pool][take.seq] = take
        self.claims_waiting = {
            (take.buyer, take.claim_id)
            for takes in self.waiting.values()
            for take in takes.values()
        }
        self.claims_booked: dict[ClaimKey, TakeBook] = {
            (row.buyer, row.claim_id): row for row in books.takes if row.claim_id
        }

    # --- The show as a whole ------------------------------------------------------------------

    def check_show(self) -> None:
        """Epoch, gate, and what the books say of the show as a whole."""
        report, cut, books = self.report, self.cut, self.books
        report.epoch = cut.epoch
        report.orders = sum(row.kind == "order" for row in books.takes)
        if cut.epoch != books.epoch:
            report.add("epoch", f"Redis has stock epoch {cut.epoch}, the books {books.epoch}")
        if books.halted_by:
            report.add("halted", f"the show is halted: {books.halted_by}")
        elif cut.gate == "rebuilding":
            report.add("halted", "the gate is shut for rebuilding")
        for entry in cut.pending:
            if entry.fault:
                report.add("unreadable", f"stream entry {entry.entry_id}: {entry.fault}")
        for pool in sorted(cut.pools.keys() - books.pools.keys()):
            report.add("pool_unknown", f"the books have no pool {pool}", pool=pool)
        self._check_buyers_and_skus()

    def check_promised(self, promised: Promised) -> None:
        """Redis has forgotten nothing that the books had before the cut."""
        for pool, (epoch, seq) in sorted(promised.pools.items()):
            cut = self.cut.pools.get(pool)
            if cut is None:
                self.report.add("pool_missing", f"Redis has lost pool {pool}", pool=pool)
            elif epoch == self.cut.epoch and cut.seq < seq:
                detail = f"pool {pool}: Redis went back to take {cut.seq}, the books have {seq}"
                self.report.add("went_back", detail, pool=pool, seq=seq)
        for give_id in promised.gives:
            if give_id not in self.cut.applied:
                self.report.add("give_lost", f"Redis has forgotten give {give_id}")

    def _check_buyers_and_skus(self) -> None:
        for row in self.books.wrong_buyers:
            detail = f"{row.counted} units counted, {row.ordered} ordered, limit {row.limit}"
            self.report.add("buyer_units", detail, pool=row.pool, buyer=row.buyer)
        for sku in self.books.wrong_skus:
            detail = f"sku {sku.sku}: {sku.allotted} units allotted, its sales have {sku.units}"
            self.report.add("sku_units", detail)

    def check_pools(self) -> None:
        for pool, book in sorted(self.books.pools.items()):
            self._check_book(book)
            if cut := self.cut.pools.get(pool):
                self._check_sequence(cut, book)
                balance = self._balance(cut, book)
                self.report.pools.append(balance)
                self._check_balance(cut, balance)
                self._check_told(cut, book, balance)

    # --- The books in themselves --------------------------------------------------------------

    def _check_book(self, book: PoolBook) -> None:
        """A pool's counters and ledger are the sums of its rows."""
        rows = self.by_pool[book.pool]
        sums = _counted(rows, to_be_paid=book.pay_within_s > 0)
        taken = sum(row.quantity for row in rows if row.kind == "order")
        for name, counter, total in (
            ("reserved", book.reserved, sums["reserved"]),
            ("sold", book.sold, sums["sold"]),
            ("dead", book.dead, sums["dead"]),
            ("lowered", book.lowered, sums["lowered"]),
            ("ledger taken", book.ledger_taken, taken),
            ("ledger dead", book.ledger_dead, sums["dead"]),
        ):
            if counter != total:
                detail = f"pool {book.pool}: {name} is {counter}, its rows have {total}"
                self.report.add("counter", detail, pool=book.pool)

    # --- The sequence of takes ----------------------------------------------------------------

    def _check_sequence(self, cut: PoolCut, book: PoolBook) -> None:
        """Every seq of this epoch up to the cut is somewhere, once."""
        rows = [row for row in self.by_pool[book.pool] if row.epoch == self.cut.epoch]
        places = Counter(row.seq for row in rows)
        known = places.keys() | self.waiting[book.pool].keys()
        first = 1 if self.cut.epoch == 1 else min(known, default=cut.seq + 1)
        for seq in range(first, cut.seq + 1):
            if seq not in known:
                detail = f"pool {book.pool}: take {seq} left Redis and is nowhere"
                self.report.add("take_missing", detail, pool=book.pool, seq=seq)
        for row in rows:
            if places[row.seq] > 1:
                self.report.add("take_twice", f"seq {row.seq} is there twice", **_where(row))
            if not 1 <= row.seq <= book.taken_seq:
                detail = f"{row.kind} at seq {row.seq} is outside of the watermark {book.taken_seq}"
                self.report.add("take_extra", detail, **_where(row))

    def _is_before_cut(self, pool: int, epoch: int, seq: int) -> bool:
        cut = self.cut.pools[pool]
        return epoch < self.cut.epoch or (epoch == self.cut.epoch and seq <= cut.seq)

    # --- Units --------------------------------------------------------------------------------

    def _balance(self, cut: PoolCut, book: PoolBook) -> PoolBalance:
        rows = [r for r in self.by_pool[cut.pool] if self._is_before_cut(r.pool, r.epoch, r.seq)]
        sums = _counted(rows, to_be_paid=book.pay_within_s > 0)
        backlog = self._backlog(cut.pool)
        lowered_waiting = sum(take.quantity for take in backlog if take.kind != KIND_CLAIM)
        claims_waiting = sum(take.quantity for take in backlog if take.kind == KIND_CLAIM)
        lowered = sums["lowered"] + lowered_waiting
        pending = self._pending_gives(cut.pool)
        total = book.initial + book.restocked - lowered
        out = claims_waiting + sums["reserved"] + sums["sold"] + sums["dead"] + pending
        return PoolBalance(
            pool=cut.pool,
            initial=book.initial,
            restocked=book.restocked,
            lowered=lowered,
            available=cut.available,
            backlog=claims_waiting,
            reserved=sums["reserved"],
            sold=sums["sold"],
            dead=sums["dead"],
            pending_give=pending,
            difference=cut.available + out - total,
        )

    def _backlog(self, pool: int) -> list[Take]:
        """Takes in the stream that the books do not have yet."""
        booked = {row.seq for row in self.by_pool[pool] if row.epoch == self.cut.epoch}
        return [take for seq, take in self.waiting[pool].items() if seq not in booked]

    def _pending_gives(self, pool: int, reason: str = "") -> int:
        """Units given back in the books and not yet in Redis, for takes up to the cut."""
        return sum(
            give.units
            for give in self.books.gives
            if give.pool == pool
            and give.give_id not in self.cut.applied
            and (give.seq == 0 or self._is_before_cut(pool, give.epoch, give.seq))
            and reason in ("", give.reason)
        )

    def _check_balance(self, cut: PoolCut, balance: PoolBalance) -> None:
        if difference := balance.difference:
            what = "too many" if difference > 0 else "too few"
            detail = f"pool {cut.pool}: Redis has {abs(difference)} units {what}"
            self.report.add("units", detail, pool=cut.pool)
        excess = self._lowered_in_excess(cut.pool)
        restocked = balance.restocked - self._pending_gives(cut.pool, "restock")
        belonging = balance.initial + restocked - balance.lowered - excess
        if cut.units != belonging:
            detail = f"pool {cut.pool}: Redis shows {cut.units} units in all, not {belonging}"
            self.report.add("total", detail, pool=cut.pool)

    def _lowered_in_excess(self, pool: int) -> int:
        """Units that Redis lowered and the books could not, up to the cut."""
        return sum(
            row.quantity - row.units
            for row in self.by_pool[pool]
            if row.kind == "lowering" and self._is_before_cut(pool, row.epoch, row.seq)
        )

    def _check_told(self, cut: PoolCut, book: PoolBook, balance: PoolBalance) -> None:
        """The counters that Redis was told are those of the books at that version."""
        if cut.records_version > book.version:
            detail = f"pool {cut.pool}: Redis was told of version {cut.records_version}"
            self.report.add("told", f"{detail}, the books are at {book.version}", pool=cut.pool)
            return
        told = (cut.reserved, cut.sold, cut.dead)
        if cut.records_version == book.version:
            right = (book.reserved, book.sold, book.dead)
        elif not self.waiting[cut.pool] and cut.records_version:
            right = (balance.reserved, balance.sold, balance.dead)
        else:
            return
        if told != right:
            detail = f"pool {cut.pool}: Redis has reserved, sold, dead {told}, the books {right}"
            self.report.add("told", detail, pool=cut.pool)

    # --- Claims and orders --------------------------------------------------------------------

    def check_claim(self, claim: RememberedClaim) -> None:
        """What Redis remembers of a claim fits its row in the books."""
        state = claim.state
        if state.sale not in self.cut.pools:
            return  # of a sale made after the cut
        row = self.claims_booked.get((claim.buyer, claim.claim_id))
        settled = (
            self._is_before_cut(state.sale, state.epoch, state.seq)
            and (
                claim.buyer,
                claim.claim_id,
            )
            not in self.claims_waiting
        )
        if row is None:
            if settled and not self._is_dead(state):
                self._add_claim("claim_lost", "accepted, but no order and not in the stream", claim)
        elif (row.pool, row.seq, row.quantity) != (state.sale, state.seq, state.quantity):
            self._add_claim("claim_differs", f"the books have it as {row}", claim)
        elif not _may_say(state, row, settled=settled):
            detail = f"Redis says {state.status}, the books {row.status}"
            self._add_claim("claim_contradicts", detail, claim)

    def _is_dead(self, state: ClaimState) -> bool:
        return any(
            row.kind == "dead" and (row.epoch, row.seq) == (state.epoch, state.seq)
            for row in self.by_pool[state.sale]
        )

    def _add_claim(self, kind: str, detail: str, claim: RememberedClaim) -> None:
        state = claim.state
        where = {"pool": state.sale, "seq": state.seq, "buyer": claim.buyer}
        detail = f"claim {state.claim_id} of {claim.buyer}: {detail}"
        self.report.add(kind, detail, claim_id=state.claim_id, order_id=state.order_id, **where)

    def check_origin(self, row: TakeBook) -> None:
        """To be called for an order whose claim Redis does not remember."""
        claim = claim_id_text(row.claim_id)
        detail = f"order {row.order_id} of {row.buyer} has no accepted claim {claim}"
        self.report.add("order_without_claim", detail, **_where(row))

    # --- What viewers see ---------------------------------------------------------------------

    def check_viewers(
        self, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """State values read `before` and `after` the cut, against the pools at the cut."""
        for pool, cut in self.cut.pools.items():
            older, newer = before.get(f"stock:{pool}"), after.get(f"stock:{pool}")
            faults = [f"viewers see no stock of pool {pool}"] if newer is None else []
            if older is not None:
                faults += _seen_wrong(cut, older, is_possible=older["version"] <= cut.version)
            if newer is not None:
                faults += _seen_wrong(cut, newer, is_possible=newer["version"] >= cut.version)
            for detail in dict.fromkeys(faults):
                self.report.add("viewers", detail, pool=pool)


def _seen_wrong(cut: PoolCut, value: Mapping[str, Any], *, is_possible: bool) -> list[str]:
    """What is wrong with a stock value that viewers see; at the cut's version it must be equal."""
    head = f"viewers of pool {cut.pool} see version {value['version']}"
    if not is_possible:
        return [f"{head}, the pool is at {cut.version}"]
    seen = tuple(value[name] for name in ("left", "held", "sold", "total"))
    right = (cut.available, cut.units - cut.available - cut.sold, cut.sold, cut.units)
    if value["version"] == cut.version and seen != right:
        return [f"{head} with left, held, sold, total {seen}, not {right}"]
    return []


def _may_say(state: ClaimState, row: TakeBook, *, settled: bool) -> bool:
    """Whether Redis may say this of a claim with that row; it lags until the entry is settled."""
    if state.status == "held":
        return not settled
    if row.kind == "released":
        return state.status == "released_by_incident"
    return state.status != "released_by_incident" and state.order_id == row.order_id


def _counted(rows: Iterable[TakeBook], *, to_be_paid: bool) -> dict[str, int]:
    """Units of `rows` by the pool's counters."""
    sums = {"reserved": 0, "sold": 0, "dead": 0, "lowered": 0}
    for row in rows:
        if row.kind == "order":
            status: Any = row.status
            if counter := counter_of(status, to_be_paid=to_be_paid):
                sums[counter] += row.units
        elif row.kind == "dead" and row.status == "parked":
            sums["dead"] += row.units
        elif row.kind == "lowering":
            sums["lowered"] += row.units
    return sums
