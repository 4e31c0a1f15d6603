"""The life of a payment: its states and the only edges between them.

    created -> captured -> refund_requested -> refunded
       |  \\
       |   failed -> captured ...        (providers may report a success after a failure)
       +-> retake_pending                (captured by the provider after the order had expired)
               +-> captured              (its units could be taken again)
               +-> refund_requested      (they could not)

Every captured amount ends as `captured` with its order paid, or as `refunded`: never both, and
never neither.
"""

from collections.abc import Mapping
from typing import Final, Literal, get_args

PaymentStatus = Literal[
    "created", "captured", "retake_pending", "refund_requested", "refunded", "failed"
]

STATUSES: Final[tuple[PaymentStatus, ...]] = get_args(PaymentStatus)

EDGES: Final[Mapping[PaymentStatus, frozenset[PaymentStatus]]] = {
    "created": frozenset({"captured", "failed", "retake_pending", "refund_requested"}),
    "failed": frozenset({"captured", "retake_pending", "refund_requested"}),
    "retake_pending": frozenset({"captured", "refund_requested"}),
    "captured": frozenset({"refund_requested"}),
    "refund_requested": frozenset({"refunded"}),
    "refunded": frozenset(),
}


def may_become(status: PaymentStatus, following: PaymentStatus) -> bool:
    """Whether a payment may go from one state to the other in one step."""
    return following in EDGES[status]
