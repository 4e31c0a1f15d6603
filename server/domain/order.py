"""The life of an order: its states and the only edges between them.

    confirmed -> paid -> fulfilled
        |          |
        |          +-> refunded
        +-> expired -> paid      (only after its units were taken again in Redis)
        +-> cancelled

Where a sale sets no time to pay, confirmed is the end. Every change in PostgreSQL names the
status it comes from (`UPDATE ... WHERE status = ...`), so that of two racing changes one wins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from server import limits

OrderStatus = Literal["confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"]

# Why an order moved: its time to pay was over; the buyer, the host asked for it; its payment was
# captured, or refunded at the provider; it was paid late and its units were taken again; it was
# confirmed out of a dead letter (the only step that does not start from an order's status).
MoveReason = Literal["deadline", "buyer", "host", "payment", "retake", "redrive"]

STATUSES: Final[tuple[OrderStatus, ...]] = get_args(OrderStatus)

EDGES: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    "confirmed": frozenset({"paid", "expired", "cancelled"}),
    "paid": frozenset({"fulfilled", "refunded"}),
    "expired": frozenset({"paid"}),
    "fulfilled": frozenset(),
    "cancelled": frozenset(),
    "refunded": frozenset(),
}

# Every edge goes up in rank, so whoever is told of states out of order keeps the highest.
RANK: Final[Mapping[OrderStatus, int]] = {
    "confirmed": 1,
    "expired": 2,
    "cancelled": 2,
    "paid": 3,
    "fulfilled": 4,
    "refunded": 4,
}
assert all(RANK[a] < RANK[b] for a, following in EDGES.items() for b in following)

# Which counter of its pool holds the units of an order in this state; "": they were given back.
COUNTED_AS: Final[Mapping[OrderStatus, Literal["reserved", "sold", ""]]] = {
    "confirmed": "reserved",
    "paid": "sold",
    "fulfilled": "sold",
    "expired": "",
    "cancelled": "",
    "refunded": "",
}


def may_become(status: OrderStatus, following: OrderStatus) -> bool:
    """Whether an order may go from one state to the other in one step."""
    return following in EDGES[status]


def counter_of(status: OrderStatus, *, to_be_paid: bool) -> Literal["reserved", "sold", ""]:
    """The pool's counter that holds an order's units. Without a payment step, confirmed is sold."""
    if status == "confirmed" and not to_be_paid:
        return "sold"
    return COUNTED_AS[status]


@dataclass(slots=True)
class BuyerUnits:
    """What counts for one buyer in one pool. `units` are all that count against the limit;
    `forfeited` of them are no order's any more. `returns`: how often units came back unpaid.

    Claiming, not paying and claiming again keeps units from others at no cost. So only the first
    FORGIVEN_RETURNS_MAX returns free the buyer's limit; the units of later ones go back to the
    pool for others and stay counted against the buyer.
    """

    units: int = 0
    returns: int = 0
    forfeited: int = 0

    def give_back(self, quantity: int, reason: MoveReason) -> bool:
        """An order's units return to the pool. True: forgiven, they do not count any more."""
        forgiven = True
        if reason in ("deadline", "buyer"):
            forgiven = self.returns < limits.FORGIVEN_RETURNS_MAX
            self.returns += 1
        if forgiven:
            self.units -= quantity
        else:
            self.forfeited += quantity
        return forgiven

    def take_again(self, quantity: int, *, forgiven: bool) -> None:
        """Units that were given back, `forgiven` or not, are an order's again."""
        if forgiven:
            self.units += quantity
        else:
            self.forfeited -= quantity
