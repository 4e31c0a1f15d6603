"""Conservation of units, exactly, while everything is running: the audit's rules, without I/O.

Redis is cut first, at one instant; the books are read after that. Takes go from Redis to the
books and gives the other way, so at the instant of the cut every take up to a pool's `seq` was in
the books or in the order stream, and every give applied in Redis was in the books. Takes beyond
the cut are ignored, and so is what became of them; gives applied after the cut count as not yet
applied. Then for each pool

    available + backlog + reserved + sold + dead + pending give == initial + restocked - lowered

holds to the unit. Anything else is a fault and is named.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

from server.audit.report import PoolBalance, ShowReport
from server.domain.claim import KIND_CLOSING, KIND_LOWERING, Take
from server.domain.order import counter_of
from server.records.audit import GiveBook, PoolBook, PoolPromise, Promised, ShowBooks, TakeBook
from server.store.packing import claim_id_text
from server.store.types import AuditCut, OrderEntry, PoolCut

_BY_HOST: Final = (KIND_LOWERING, KIND_CLOSING)


def where_is(row: TakeBook) -> dict[str, Any]:
    """A row of the books, as a Problem names it."""
    claim_id = claim_id_text(row.claim_id) if row.claim_id else ""
    place = {"pool": row.pool, "seq": row.seq, "buyer": row.buyer}
    return {**place, "claim_id": claim_id, "order_id": row.order_id}


class PoolTally:
    """One pool: its rows in the books, added up, against the cut of Redis (None: not there).

    `waiting`: the takes of the order stream by seq.
    """

    def __init__(self, book: PoolBook, cut: PoolCut | None, epoch: int) -> None:
        self.book = book
        self.cut = cut
        self.epoch = epoch
        self.waiting: dict[int, Take] = {}
        self.booked: Counter[str] = Counter()  # units of all rows by the pool's counters
        self.at_cut: Counter[str] = Counter()  # of those up to the cut
        self.seqs: Counter[int] = Counter()  # of this epoch
        self.pending: Counter[str] = Counter()  # units of gives not applied at the cut, by reason
        self.lowered_in_excess = 0  # that Redis lowered and the books could not
        self.dead = self.released = 0  # takes that stay counted in Redis against their buyers
        self.extra: list[TakeBook] = []

    def enter(self, row: TakeBook) -> None:
        """Add one row of the books."""
        counter = _counter_of(row)
        self.dead += row.kind == "dead"
        self.released += row.kind == "released"
        self.booked[counter] += row.units
        if row.kind in ("order", "retake"):
            self.booked["taken"] += row.quantity if row.kind == "order" else row.units
        if row.epoch == self.epoch:
            self.seqs[row.seq] += 1
        if not 1 <= row.seq <= self.book.taken_seq:
            self.extra.append(row)
        if self.is_before_cut(row.epoch, row.seq):
            self.at_cut[counter] += row.units
            if row.kind == "lowering" and row.epoch == self.epoch:
                self.lowered_in_excess += row.quantity - row.units

    def enter_give(self, give: GiveBook, mark: int | None) -> bool:
        """Add one give; `mark`: what Redis remembers of it. True when it was not applied at the
        cut."""
        if self.cut is None or (mark is not None and mark <= self.cut.version):
            return False
        if give.seq and not self.is_before_cut(give.epoch, give.seq):
            return False
        self.pending[give.reason] += give.units
        return True

    def is_before_cut(self, epoch: int, seq: int) -> bool:
        """Whether Redis had this take at the cut."""
        if self.cut is None:
            return False
        return epoch < self.epoch or (epoch == self.epoch and seq <= self.cut.seq)

    @property
    def backlog(self) -> list[Take]:
        """Takes in the stream that the books do not have yet."""
        return [take for seq, take in self.waiting.items() if seq not in self.seqs]

    def balance(self, cut: PoolCut) -> PoolBalance:
        """The pool at the cut."""
        backlog, sums, book = self.backlog, self.at_cut, self.book
        lowered_waiting = sum(take.quantity for take in backlog if take.kind in _BY_HOST)
        lowered = sums["lowered"] + lowered_waiting
        taken = sum(take.quantity for take in backlog) - lowered_waiting
        pending = self.pending.total()
        out = taken + sums["reserved"] + sums["sold"] + sums["dead"] + pending
        return PoolBalance(
            pool=book.pool,
            initial=book.initial,
            restocked=book.restocked,
            lowered=lowered,
            available=cut.available,
            backlog=taken,
            reserved=sums["reserved"],
            sold=sums["sold"],
            dead=sums["dead"],
            pending_give=pending,
            difference=cut.available + out - (book.initial + book.restocked - lowered),
        )


def _counter_of(row: TakeBook) -> str:
    """The pool's counter that holds a row's units; "" for none."""
    if row.kind in ("order", "retake"):
        status: Any = row.status
        return counter_of(status, to_be_paid=row.to_be_paid)
    if row.kind == "dead" and row.status == "parked":
        return "dead"
    return "lowered" if row.kind == "lowering" else ""


class Conservation:
    """All pools of a show: the books, row by row, against one cut of Redis; fills `report`."""

    def __init__(
        self, report: ShowReport, cut: AuditCut, books: ShowBooks, promised: Promised
    ) -> None:
        self.report = report
        self.cut = cut
        self.promised = promised
        self.pools = {
            pool: PoolTally(book, cut.pools.get(pool), cut.epoch)
            for pool, book in sorted(books.pools.items())
        }
        self.pending_gives: dict[int, list[GiveBook]] = defaultdict(list)
        self._check_promised()
        for pool in sorted(cut.pools.keys() - books.pools.keys()):
            report.add("pool_unknown", f"the books have no pool {pool}", pool=pool)

    def _check_promised(self) -> None:
        """Redis has forgotten nothing that the books had before the cut."""
        for pool, promise in sorted(self.promised.pools.items()):
            cut = self.cut.pools.get(pool)
            if cut is None:
                self.report.add("pool_missing", f"Redis has lost pool {pool}", pool=pool)
            elif promise.epoch == self.cut.epoch and cut.seq < promise.seq:
                what = f"Redis went back to take {cut.seq}, the books have {promise.seq}"
                detail = f"pool {pool}: {what}"
                self.report.add("went_back", detail, pool=pool, seq=promise.seq)
        for give_id in self.promised.gives:
            if give_id not in self.cut.applied:
                self.report.add("give_lost", f"Redis has forgotten give {give_id}")

    def enter_entry(self, entry: OrderEntry) -> None:
        """Add an entry of the order stream; one that nobody can book is a fault."""
        fault = entry.fault
        if not fault and entry.epoch != self.cut.epoch:
            fault = f"it is of epoch {entry.epoch}"
        if fault:
            self.report.add("unreadable", f"stream entry {entry.entry_id}: {fault}")
        for take in entry.takes:
            if take.pool in self.pools:
                self.pools[take.pool].waiting[take.seq] = take

    def enter_takes(self, rows: Iterable[TakeBook]) -> None:
        """Add rows of the books."""
        for row in rows:
            self.report.orders += row.kind == "order"
            if row.pool in self.pools:
                self.pools[row.pool].enter(row)

    def enter_gives(self, gives: Iterable[GiveBook]) -> None:
        """Add gives of the books."""
        for give in gives:
            mark = self.cut.applied.get(give.give_id)
            if self.pools[give.pool].enter_give(give, mark):
                self.pending_gives[give.pool].append(give)

    def check(self) -> None:
        """To be called when everything is entered."""
        for pool, tally in self.pools.items():
            self._check_counters(tally)
            if tally.cut is not None:
                self._check_sequence(tally, tally.cut)
                balance = tally.balance(tally.cut)
                self.report.pools.append(balance)
                self._check_balance(tally, tally.cut, balance)
                self._check_told(tally, tally.cut, self.promised.pools.get(pool))

    def _check_counters(self, tally: PoolTally) -> None:
        """A pool's counters and ledger are the sums of its rows."""
        book, sums = tally.book, tally.booked
        for name, counter, total in (
            ("reserved", book.reserved, sums["reserved"]),
            ("sold", book.sold, sums["sold"]),
            ("dead", book.dead, sums["dead"]),
            ("lowered", book.lowered, sums["lowered"]),
            ("ledger taken", book.ledger_taken, sums["taken"]),
            ("ledger dead", book.ledger_dead, sums["dead"]),
        ):
            if counter != total:
                detail = f"pool {book.pool}: {name} is {counter}, its rows have {total}"
                self.report.add("counter", detail, pool=book.pool)

    def _check_sequence(self, tally: PoolTally, cut: PoolCut) -> None:
        """Every seq of this epoch up to the cut is somewhere, once."""
        pool, known = cut.pool, tally.seqs.keys() | tally.waiting.keys()
        first = 1 if tally.epoch == 1 else min(known, default=cut.seq + 1)
        if sum(first <= seq <= cut.seq for seq in known) <= cut.seq - first:
            for seq in range(first, cut.seq + 1):
                if seq not in known:
                    detail = f"pool {pool}: take {seq} left Redis and is nowhere"
                    self.report.add("take_missing", detail, pool=pool, seq=seq)
        for seq, rows in tally.seqs.items():
            if rows > 1:
                detail = f"pool {pool}: {rows} rows at seq {seq}"
                self.report.add("take_twice", detail, pool=pool, seq=seq)
        for row in tally.extra:
            watermark = tally.book.taken_seq
            detail = f"{row.kind} at seq {row.seq} is outside of the watermark {watermark}"
            self.report.add("take_extra", detail, **where_is(row))

    def _check_balance(self, tally: PoolTally, cut: PoolCut, balance: PoolBalance) -> None:
        if difference := balance.difference:
            what = "too many" if difference > 0 else "too few"
            detail = f"pool {cut.pool}: Redis has {abs(difference)} units {what}"
            self.report.add("units", detail, pool=cut.pool)
        restocked = balance.restocked - tally.pending["restock"]
        belonging = balance.initial + restocked - balance.lowered - tally.lowered_in_excess
        if cut.units != belonging:
            detail = f"pool {cut.pool}: Redis shows {cut.units} units in all, not {belonging}"
            self.report.add("total", detail, pool=cut.pool)

    def _check_told(self, tally: PoolTally, cut: PoolCut, promise: PoolPromise | None) -> None:
        """Redis has the counters of the books at its version, and the newest ones unless
        something is on its way."""
        book = tally.book
        must_be_newest = (
            promise is not None
            and promise.version == book.version
            and not (promise.untold or tally.waiting)
        )
        head = f"pool {cut.pool}: Redis was told of version {cut.records_version}"
        if cut.records_version > book.version:
            detail = f"{head}, the books are at {book.version}"
            self.report.add("told", detail, pool=cut.pool)
        elif cut.records_version == book.version:
            told, right = (cut.reserved, cut.sold, cut.dead), (book.reserved, book.sold, book.dead)
            if told != right:
                detail = f"pool {cut.pool}: Redis has reserved, sold, dead {told}, not {right}"
                self.report.add("told", detail, pool=cut.pool)
        elif must_be_newest:
            self.report.add("told", f"{head} and never of {book.version}", pool=cut.pool)


# --- What viewers see ----------------------------------------------------------------------------


def check_viewers(
    report: ShowReport,
    cut: AuditCut,
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
) -> None:
    """State values read `before` and `after` the cut, against the pools at the cut."""
    for pool, at_cut in cut.pools.items():
        older, newer = before.get(f"stock:{pool}"), after.get(f"stock:{pool}")
        faults = [f"viewers see no stock of pool {pool}"] if newer is None else []
        if older is not None:
            faults += _seen_wrong(at_cut, older, is_possible=older["version"] <= at_cut.version)
        if newer is not None:
            faults += _seen_wrong(at_cut, newer, is_possible=newer["version"] >= at_cut.version)
        for detail in dict.fromkeys(faults):
            report.add("viewers", detail, pool=pool)


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
