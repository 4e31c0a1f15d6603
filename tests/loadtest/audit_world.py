"""A small sale by hand, right in all three books until a test bends one of them."""

from typing import Any

from loadtest.audit.audit import judged
from loadtest.audit.books import (
    Books,
    BuyerRow,
    Give,
    Move,
    OrderRow,
    OtherTake,
    PoolHash,
    PoolRow,
    Records,
    Released,
    Remembered,
    Store,
)
from loadtest.audit.seen import ClaimKey, Seen, Terms, gathered
from loadtest.measures.claims import Claim
from loadtest.report.summary import Audit
from loadtest.swarm.pipe import Offence, Shown
from server.errors import ERRORS

RUN, SALE, EPOCH, PRICE = "r1", 7, 1, 990
T0_US, FINISH_US = 1_000_000, 30_000_000
SECOND_US = 1_000_000
SOLD_OUT = ERRORS["sold_out"].code


class World:
    """`people` claim one unit each, in turn; the first `units` of them get one."""

    def __init__(self, units: int = 3, people: int = 5, total: int | None = None) -> None:
        total = units if total is None else total
        self.claims = [_claim(n, wins=n < units) for n in range(people)]
        won = self.claims[:units]
        self.orders = {_key(each): _order(each) for each in won}
        self.remembered = {key: _remembered(order) for key, order in self.orders.items()}
        self.buyers = {(SALE, each.user): BuyerRow(SALE, each.user, 1, 0) for each in won}
        self.counted = {place: row.units for place, row in self.buyers.items()}
        self.pool = PoolRow(SALE, 1, total, 0, 0, 0, units, 0, version=2, status="open")
        self.stock = PoolHash(total - units, units, 9, total, units, 0, 0, row_version=2)
        self.shown: dict[str, int] = {}
        self.prices = {(SALE, 1): PRICE}
        self.moves: dict[int, list[Move]] = {}
        self.gives: list[Give] = []
        self.released: dict[ClaimKey, Released] = {}
        self.other_takes: list[OtherTake] = []
        self.offences: list[Offence] = []
        self.screens: list[Shown] = []  # besides those that show what is
        self.counts = {"frames": 100, "taps": 50}
        self.likes = 50
        self.epoch = EPOCH
        self.is_at_rest = True
        self.webs_lost = 0
        self.faults_us: list[tuple[int, int]] = []
        self.pays = False

    # --- Bending ---------------------------------------------------------------------------------

    def key(self, n: int) -> ClaimKey:
        return _key(self.claims[n])

    def bend_claim(self, n: int, **changes: Any) -> None:
        """What the client was told."""
        self.claims[n] = self.claims[n]._replace(**changes)

    def bend_order(self, n: int, **changes: Any) -> None:
        self.orders[self.key(n)] = self.orders[self.key(n)]._replace(**changes)

    def forget_last_win(self) -> None:
        """The last order never was, neither in PostgreSQL nor in Redis: only its buyer knows."""
        key = list(self.orders)[-1]
        del self.orders[key], self.remembered[key]
        del self.buyers[SALE, key[0]], self.counted[SALE, key[0]]
        self.pool = self.pool._replace(sold=self.pool.sold - 1)
        stock = self.stock
        self.stock = stock._replace(left=stock.left + 1, sold=stock.sold - 1, seq=stock.seq - 1)

    def win_again(self, n: int) -> None:
        """One more order, for a claim that had none, although nothing is left."""
        claim = _claim(n, wins=True)
        seq = len(self.orders) + 1
        self.claims[n] = claim._replace(seq=seq)
        self.orders[_key(claim)] = _order(self.claims[n])
        self.remembered[_key(claim)] = _remembered(self.orders[_key(claim)])
        self.buyers[SALE, claim.user] = BuyerRow(SALE, claim.user, 1, 0)
        self.counted[SALE, claim.user] = 1
        self.pool = self.pool._replace(sold=self.pool.sold + 1)
        self.stock = self.stock._replace(sold=self.stock.sold + 1, seq=seq)

    # --- Judging ---------------------------------------------------------------------------------

    def seen(self) -> Seen:
        return Seen(
            run=RUN,
            zero_us=0,
            part_us=(T0_US, 10 * SECOND_US),
            finish_us=FINISH_US,
            sales={SALE: Terms(self.pool.total, 1, PRICE, self.pays)},
            claims=gathered(self.claims),
            offences=self.offences,
            shown=[self._screen(), *self.screens],
            counts=self.counts,
            webs_lost=self.webs_lost,
            faults_us=self.faults_us,
        )

    def _screen(self) -> Shown:
        return Shown(0, SALE, self.epoch, self.stock.version, self.stock.left, viewers=40)

    def books(self) -> Books:
        stock = self.stock
        held = stock.total - stock.left - stock.sold
        shown = {"epoch": self.epoch, "version": stock.version, "left": stock.left, "held": held}
        shown |= {"sold": stock.sold, "total": stock.total, **self.shown}
        takes = {(take.pool, take.epoch, take.seq): take for take in self.other_takes}
        records = Records(
            epoch=self.epoch,
            pools={SALE: self.pool},
            prices=self.prices,
            orders=self.orders,
            moves=self.moves,
            gives={SALE: self.gives},
            released=self.released,
            other_takes=takes,
            buyers=self.buyers,
        )
        store = Store(
            epoch=self.epoch,
            pools={SALE: stock},
            buyers=self.counted,
            claims=self.remembered,
            shown={SALE: shown},
            likes=self.likes,
        )
        return Books(records, store, self.is_at_rest)

    def audit(self) -> Audit:
        return judged(self.seen(), self.books())

    def audit_clients(self) -> Audit:
        return judged(self.seen(), None)


def offence(kind: str) -> Offence:
    return Offence(kind, 5 * SECOND_US, "w1", 1, "left 3", "left 4")


def _claim(n: int, *, wins: bool) -> Claim:
    at_us = T0_US + n * 1_000
    claim = Claim(
        user=f"lt-{RUN}-b{n}",
        claim_id=n.to_bytes(16, "big"),
        crowd=0,
        sale=SALE,
        quantity=1,
        intended_us=at_us,
        sent_us=at_us + 100,
        held_us=0,
        confirmed_us=0,
        ended_us=0,
        attempts=1,
        code=0,
        order_id=0,
        epoch=0,
        seq=0,
        room=0,
    )
    if not wins:
        return claim._replace(ended_us=at_us + 9_000, code=SOLD_OUT)
    return claim._replace(
        held_us=at_us + 5_000,
        confirmed_us=at_us + 50_000,
        order_id=100 + n,
        epoch=EPOCH,
        seq=n + 1,
    )


def _key(claim: Claim) -> ClaimKey:
    return claim.user, claim.claim_id


def _order(claim: Claim) -> OrderRow:
    return OrderRow(
        claim.order_id,
        SALE,
        claim.user,
        claim.claim_id,
        claim.quantity,
        PRICE,
        1,
        claim.epoch,
        claim.seq,
        "confirmed",
        claim.confirmed_us - 1_000,
    )


def _remembered(order: OrderRow) -> Remembered:
    return Remembered(
        order.status,
        SALE,
        order.quantity,
        PRICE,
        1,
        order.epoch,
        order.seq,
        order.order_id,
        0,
        order.t_us,
    )
