"""Units, orders, limits and answers: invariants I1 to I6, the sequence of I9, and I10.

Each check says in how many places it looked. `found` takes what does not hold, `explained` what
would not hold but for a known reason: a hold released after Redis lost data, a dead letter.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from loadtest.audit.books import Books, OrderRow, PoolHash, PoolRow, Remembered
from loadtest.audit.inspection import Inspection
from loadtest.audit.seen import Asked, ClaimKey, Seen
from server.errors import ERRORS

TOLD_WITHIN_US: Final = 4_000_000  # the server repeats what a buyer did not hear after 2 to 3 s
BACK_WITHIN_US: Final = 30_000_000  # after a fault: whoever is not back then is kept out
BACK_ON_SALE_US: Final = 1_500_000  # until everybody knows of units that came back
SOLD_OUT: Final = ERRORS["sold_out"].code


class Standing(NamedTuple):
    """A claim that has its units: by its order, or by what its buyer was told."""

    epoch: int
    seq: int
    quantity: int
    key: ClaimKey


class ClientChecks(Inspection):
    """What can be said from the clients alone."""

    def check(self) -> None:
        """All of them."""
        self.check_oversold()
        self.check_held()
        self.check_answers(self.seen.claims.values())

    def check_oversold(self) -> None:
        """Where nothing can come back, buyers were not told more units than there were."""
        standing: dict[int, list[Standing]] = defaultdict(list)
        for asked in self.seen.claims.values():
            if asked.confirmed_us:
                standing[asked.sale].append(_told(asked))
        for sale, terms in self.seen.sales.items():
            if not terms.pays:
                self.checked["I1"] += 1
                self.limit_to(terms.units, standing[sale])

    def limit_to(self, total: int, standing: list[Standing]) -> None:
        """Names the claims beyond the total, the last ones in the order of acceptance."""
        sold, so_far = sum(each.quantity for each in standing), 0
        for each in sorted(standing):
            so_far += each.quantity
            if so_far > total:
                self.add_claim("oversold", each.key, total=total, sold=sold)

    def check_held(self) -> None:
        """Whoever was told held was told what became of it, at the latest on asking."""
        for key, asked in self.seen.claims.items():
            if asked.held_us:
                self.checked["I3"] += 1
                if not asked.confirmed_us and not asked.let_go_us:
                    self.add_claim("held_forgotten", key)

    def check_answers(self, claims: Iterable[Asked]) -> None:
        """One claim, one order, one place in the sequence, on all sockets and at all attempts."""
        for asked in claims:
            self.checked["I10"] += 1
            if len(asked.order_ids) > 1:
                self.add_claim("order_changed", asked.key)
            if len(asked.places) > 1 or asked.is_split:
                self.add_claim("two_answers", asked.key)


def _told(asked: Asked) -> Standing:
    epoch, seq = max(asked.places, default=(0, 0))
    return Standing(epoch, seq, asked.quantity, asked.key)


class BookChecks(ClientChecks):
    """Clients, Redis and PostgreSQL against each other."""

    def __init__(self, seen: Seen, books: Books) -> None:
        super().__init__(seen, books)
        self.books = books
        self.records = books.records
        self.store = books.store
        self.live: dict[int, list[OrderRow]] = defaultdict(list)
        for order in books.records.orders.values():
            if order.is_live:
                self.live[order.pool].append(order)
        self.complaints = {(offence.kind, offence.viewer) for offence in seen.offences}

    def check(self) -> None:
        """All of them."""
        if not self.books.is_at_rest:
            self.found.add("not_quiescent", self.timelines.of_facts())
        self.check_oversold()
        for pool in self.records.pools.values():
            self.check_units(pool, self.store.pools.get(pool.pool))
            self.check_undersold(pool)
            self.check_sequence(pool)
        self.check_held()
        self.check_orders()
        self.check_buyers()
        self.check_answers(self.seen.claims.values())
        self.check_repeats()

    # --- I1: never oversold ----------------------------------------------------------------------

    def check_oversold(self) -> None:
        """By the orders and by what buyers were told that has no order."""
        told: dict[int, list[Standing]] = defaultdict(list)
        for key, asked in self.seen.claims.items():
            if asked.confirmed_us and key not in self.records.orders:
                told[asked.sale].append(_told(asked))
        for pool in self.records.pools.values():
            self.checked["I1"] += 1
            stored = [
                Standing(order.epoch, order.seq, order.quantity, order.key)
                for order in self.live[pool.pool]
            ]
            self.limit_to(pool.total, stored + told[pool.pool])

    # --- I2: units add up ------------------------------------------------------------------------

    def check_units(self, row: PoolRow, stock: PoolHash | None) -> None:
        """Left in Redis, reserved, sold and dead in PostgreSQL make up the total."""
        self.checked["I2"] += 1
        left = stock.left if stock else 0
        surplus = left + row.reserved + row.sold + row.dead - row.total
        both = self.timelines.of_facts(
            redis=f"sale {row.pool}: {left} left", postgres=f"sale {row.pool}: {_counted(row)}"
        )
        if surplus:
            name = "units_found" if surplus > 0 else "units_lost"
            self.found.add(name, both, units=abs(surplus))
        for what in self._differences(row, stock):
            self.found.add("counters_differ", both, what=what)

    def _differences(self, row: PoolRow, stock: PoolHash | None) -> Iterator[str]:
        """Counters that are not what they count."""
        units = sum(order.quantity for order in self.live[row.pool])
        if row.reserved + row.sold != units:
            yield f"PostgreSQL counts {row.reserved + row.sold}, its orders have {units}"
        if stock is None:
            yield f"Redis has no sale {row.pool}"
            return
        if stock.total != row.total:
            yield f"{stock.total} units in all in Redis, {row.total} in PostgreSQL"
        told = (stock.reserved, stock.sold, stock.dead)
        if told != (row.reserved, row.sold, row.dead):
            yield f"reserved, sold, dead {told} in Redis, not {row.reserved, row.sold, row.dead}"

    # --- I3: every win is an order ---------------------------------------------------------------

    def check_held(self) -> None:
        """Every claim that was told held or confirmed has its order, or a reason not to."""
        for key, asked in self.seen.claims.items():
            if asked.held_us or asked.confirmed_us:
                self.checked["I3"] += 1
                self._check_win(key, asked, self.records.orders.get(key))

    def _check_win(self, key: ClaimKey, asked: Asked, order: OrderRow | None) -> None:
        if order is not None:
            for what in self._mismatches(asked, order):
                self.add_claim("order_differs", key, what=what)
        elif asked.confirmed_us:
            self.add_claim("confirmed_without_order", key)
        elif reason := self._reason(key, asked):
            self.explain(reason, key)
        elif not asked.let_go_us:
            self.add_claim("held_forgotten", key)
        elif ("two_answers", asked.key[0]) not in self.complaints:
            self.add_claim("two_answers", key)

    def _mismatches(self, asked: Asked, order: OrderRow) -> Iterator[str]:
        if order.pool != asked.sale:
            yield f"of sale {order.pool}, not {asked.sale}"
        if order.quantity != asked.quantity:
            yield f"{order.quantity} units, not {asked.quantity}"
        if order.price != self.records.prices.get((order.pool, order.price_version)):
            yield f"price {order.price} was never that of the sale"
        if asked.places and (order.epoch, order.seq) not in asked.places:
            yield f"seq {order.seq}, not {max(asked.places)[1]}"
        if asked.order_ids and order.order_id not in asked.order_ids:
            yield f"order {order.order_id}, not {max(asked.order_ids)}"

    def _reason(self, key: ClaimKey, asked: Asked) -> str:
        """Why a claim that was held has no order; "" when there is no reason."""
        if key in self.records.released:
            return "released_by_incident"
        takes = (
            self.records.other_takes.get((asked.sale, epoch, seq)) for epoch, seq in asked.places
        )
        return "dead_letter" if any(take and take.kind == "dead letter" for take in takes) else ""

    # --- I3, I4: every order was claimed, and its buyer told --------------------------------------

    def check_orders(self) -> None:
        """Every order has a claim that was sent, and its buyer heard of it by itself."""
        for key, order in self.records.orders.items():
            self.checked["I4"] += 1
            asked = self.seen.claims.get(key)
            if not self.seen.is_ours(order.buyer):
                self.add_claim("foreign_order", key)
            elif asked is None or not asked.attempts:
                self.add_claim("unasked_order", key)
            elif asked.refused_us:
                self.add_claim("two_answers", key)
            else:
                self._check_told(asked, order)

    def _check_told(self, asked: Asked, order: OrderRow) -> None:
        """What was heard only on asking in the end does not count, unless it was fresh then. Only
        a fault that was planned excuses that a buyer was cut off."""
        finish_us, due_us = self.seen.finish_us, order.t_us + TOLD_WITHIN_US
        if asked.confirmed_us and (asked.confirmed_us < finish_us or finish_us < due_us):
            return
        if order.t_us > finish_us:
            self.explain("confirmed_late", order.key)
        elif self._put_off(due_us, asked) > finish_us:
            self.explain("buyer_away", order.key)
        else:
            self.add_claim("never_told", order.key)

    def _put_off(self, due_us: int, asked: Asked) -> int:
        """When the buyer is to have been told, if not by `due_us`: each cut by a planned fault
        before then puts it off until the buyer was back, or should have been."""
        for lost_us, back_us in asked.cuts:
            ends = [end for start, end in self.seen.faults_us if start <= lost_us < end]
            if ends and lost_us < due_us:
                back_us = min(back_us, max(ends) + BACK_WITHIN_US)
                due_us = max(due_us, back_us + TOLD_WITHIN_US)
        return due_us

    # --- I5: the limit per buyer -----------------------------------------------------------------

    def check_buyers(self) -> None:
        """Units of standing orders are within the limit, and both books count them so."""
        bought: Counter[tuple[int, str]] = Counter()
        for order in self.records.orders.values():
            bought[order.pool, order.buyer] += order.quantity if order.is_live else 0
        kept = {(each.pool, each.buyer) for each in self.records.released.values()}
        others = self.records.other_takes.values()
        dead = {take.pool for take in others if take.kind == "dead letter"}
        for place in {*bought, *self.records.buyers, *self.store.buyers}:
            pool, buyer = place
            self.checked["I5"] += 1
            if (row := self.records.pools.get(pool)) and bought[place] > row.limit:
                self._add_buyer("over_limit", place, units=bought[place], limit=row.limit)
            may_have_more = place in kept or pool in dead
            if what := self._miscount(place, bought[place], may_have_more=may_have_more):
                self._add_buyer("buyer_miscounted", place, what=f"{buyer}: {what}")

    def _miscount(self, place: tuple[int, str], bought: int, *, may_have_more: bool) -> str:
        """Forfeited units count on; those of lost holds and dead letters do in Redis."""
        row = self.records.buyers.get(place)
        stored, forfeited = (row.units, row.forfeited) if row else (0, 0)
        counted = self.store.buyers.get(place, 0)
        if stored != bought + forfeited:
            return f"{stored} in PostgreSQL, {bought} ordered, {forfeited} forfeited"
        if counted < stored or (counted > stored and not may_have_more):
            return f"{counted} in Redis, {stored} in PostgreSQL"
        return ""

    def _add_buyer(self, name: str, place: tuple[int, str], **facts: Any) -> None:
        """A finding about a buyer, told by the last order of theirs."""
        pool, buyer = place
        theirs = [order for order in self.live[pool] if order.buyer == buyer]
        if theirs:
            self.add_claim(name, max(theirs, key=lambda order: order.order_id).key, **facts)
        else:
            self.found.add(name, self.timelines.of_facts(buyer), **facts)

    # --- I6: never undersold ---------------------------------------------------------------------

    def check_undersold(self, row: PoolRow) -> None:
        """Nobody is told sold out for good while units are left that nobody gets."""
        self.checked["I6"] += 1
        stock = self.store.pools.get(row.pool)
        if stock is None or stock.left <= 0:
            return
        refused = [
            asked
            for asked in self.seen.claims.values()
            if asked.sale == row.pool and asked.refused_us and SOLD_OUT in asked.codes
        ]
        gives = self.records.gives.get(row.pool, ())
        back_us = max((give.applied_us or give.t_us for give in gives), default=None)
        for asked in refused:
            if back_us is None or asked.refused_us > back_us + BACK_ON_SALE_US:
                self.add_claim("undersold", asked.key, left=stock.left)

    # --- I9: the sequence of takes ---------------------------------------------------------------

    def check_sequence(self, row: PoolRow) -> None:
        """Every place up to Redis' newest was given once, to an order or another take."""
        places: dict[int, Counter[int]] = defaultdict(Counter)
        for order in self.records.orders.values():
            if order.pool == row.pool:
                places[order.epoch][order.seq] += 1
        for take in self.records.other_takes.values():
            if take.pool == row.pool:
                places[take.epoch][take.seq] += 1
        for epoch, seqs in places.items():
            self.checked["I9"] += len(seqs)
            for seq in (seq for seq, times in seqs.items() if times > 1):
                self._add_places("seq_twice", row.pool, f"seq {seq}")
            self._check_holes(row.pool, epoch, set(seqs))
        self._check_told_places(row.pool)

    def _check_holes(self, pool: int, epoch: int, seqs: set[int]) -> None:
        stock, newest = self.store.pools.get(pool), self.store.epoch
        first = 1 if epoch == 1 else min(seqs)
        last = stock.seq if stock and epoch == newest else max(seqs)
        missing = [seq for seq in range(first, last + 1) if seq not in seqs]
        if missing and epoch < newest:
            line = f"sale {pool}, epoch {epoch}: seq {_spans(missing)}"
            facts = self.timelines.of_facts(postgres=line)
            self.explained.add("seq_lost_with_redis", facts, count=len(missing))
        elif missing:
            self._add_places("seq_hole", pool, f"seq {_spans(missing)}", count=len(missing))

    def _check_told_places(self, pool: int) -> None:
        """No two claims were told the same place."""
        told: dict[tuple[int, int], list[ClaimKey]] = defaultdict(list)
        for asked in self.seen.claims.values():
            if asked.sale == pool:
                for place in asked.places:
                    told[place].append(asked.key)
        for (_, seq), claims in told.items():
            for key in claims[1:]:
                self.add_claim("seq_twice", key, what=f"seq {seq}")

    def _add_places(self, name: str, pool: int, what: str, count: int = 1) -> None:
        line = f"sale {pool}: {what}"
        facts = self.timelines.of_facts(postgres=line)
        self.found.add(name, facts, count=count, what=line)

    # --- I10: the same answer to a repeat --------------------------------------------------------

    def check_repeats(self) -> None:
        """What Redis would answer now is the order; and what it holds is one."""
        for key, order in self.records.orders.items():
            known = self.store.claims.get(key)
            if what := _difference(known, order):
                self.add_claim("answer_differs", key, what=what)
        for key, known in self.store.claims.items():
            told = self.seen.claims.get(key)
            is_told = told is not None and (told.held_us or told.confirmed_us)  # see check_held
            place = (known.pool, known.epoch, known.seq)
            if not (
                is_told
                or key in self.records.orders
                or key in self.records.released
                or place in self.records.other_takes
            ):
                self.add_claim("held_forgotten", key)


def _difference(known: Remembered | None, order: OrderRow) -> str:
    """What Redis remembers of an order's claim that is not so; "" when all is."""
    if known is None:
        return "Redis has forgotten the claim"
    remembered = (known.status, known.order_id, known.quantity, known.epoch, known.seq)
    stored = (order.status, order.order_id, order.quantity, order.epoch, order.seq)
    names = ("status", "order", "units", "epoch", "seq")
    for name, there, here in zip(names, remembered, stored, strict=True):
        if there != here:
            return f"{name} {there} in Redis, {here} in PostgreSQL"
    return ""


def _counted(row: PoolRow) -> str:
    return f"{row.total} in all, {row.reserved} reserved, {row.sold} sold, {row.dead} dead"


def _spans(seqs: list[int]) -> str:
    """Numbers in short: the first few, and how many."""
    head = ", ".join(map(str, seqs[:5]))
    return head if len(seqs) <= 5 else f"{head}, ... ({len(seqs)})"
