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
from typing import Final, Literal, get_args

OrderStatus = Literal["confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"]

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
