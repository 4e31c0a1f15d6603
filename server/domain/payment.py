"""The life of a payment: its states, the only edges between them, and what a provider's news means.

    created -> captured -> refund_requested -> refunded
       |  \\
       |   failed -> captured ...        (providers may report a success after a failure)
       +-> retake_pending                (captured by the provider after the order had expired)
               +-> captured              (its units could be taken again)
               +-> refund_requested      (they could not)

The provider may also refund by its own decision, from any state, and a refund may fail later
(refunded -> refund_requested), or be refused for good: then the payment waits in refund_requested
for an operator, who may settle it without the provider. Every captured amount ends as `captured`
with its order paid, or as `refunded`: never both, and never neither.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, get_args

from server.domain.order import OrderStatus

PaymentStatus = Literal[
    "created", "captured", "retake_pending", "refund_requested", "refunded", "failed"
]
# What a provider can say. `refunded`: the whole amount went back; `refund_failed`: it did not
# after all.
EventKind = Literal["captured", "failed", "refunded", "refund_failed", "ignored"]

STATUSES: Final[tuple[PaymentStatus, ...]] = get_args(PaymentStatus)

EDGES: Final[Mapping[PaymentStatus, frozenset[PaymentStatus]]] = {
    "created": frozenset({"captured", "failed", "retake_pending", "refund_requested", "refunded"}),
    "failed": frozenset({"captured", "retake_pending", "refund_requested", "refunded"}),
    "retake_pending": frozenset({"captured", "refund_requested", "refunded"}),
    "captured": frozenset({"refund_requested", "refunded"}),
    "refund_requested": frozenset({"refunded"}),
    "refunded": frozenset({"refund_requested"}),
}


def may_become(status: PaymentStatus, following: PaymentStatus) -> bool:
    """Whether a payment may go from one state to the other in one step."""
    return following in EDGES[status]


@dataclass(frozen=True, slots=True)
class Standing:
    """A payment and its order, both rows held. `paid_otherwise`: another payment of the order is
    captured or waits for a re-take. `refused`: the refund waits for an operator; `settled_by_hand`:
    the money went back without the provider."""

    payment: PaymentStatus
    order: OrderStatus
    amount: int
    currency: str
    paid_otherwise: bool = False
    refused: bool = False
    settled_by_hand: bool = False


class Step(NamedTuple):
    """What follows from an event: the payment's next status (None: nothing), why, and the order's.

    `reason` of a refund: wrong_amount, paid_already, order_cancelled, order_refunded, refund_failed
    or at_provider. Others that a payment can have: by_host; and of a late one sold_out,
    out_of_stock, limit_reached, undecided, no_room, over_limit, not_waiting or dead_letter.
    What an operator has to see to: refund_failed, also without a next status (the refund was under
    way), and refunded_twice (by hand and by the provider), which has none.
    """

    payment: PaymentStatus | None
    reason: str = ""
    order: OrderStatus | None = None


NOTHING: Final = Step(None)


def step_after(event: EventKind, standing: Standing, amount: int, currency: str) -> Step:
    """What an event means, whatever came before it. `amount`, `currency`: as the provider says.

    Events come in any order and any number of times: one that the payment has outgrown is nothing.
    """
    match event:
        case "captured":
            return _after_capture(standing, amount, currency)
        case "failed":
            return Step("failed") if standing.payment == "created" else NOTHING
        case "refunded":
            return _after_refund(standing)
        case "refund_failed":
            return _after_failed_refund(standing)
        case "ignored":
            return NOTHING


def _after_capture(standing: Standing, amount: int, currency: str) -> Step:
    if standing.payment not in ("created", "failed"):
        return NOTHING
    if (amount, currency) != (standing.amount, standing.currency):
        return Step("refund_requested", "wrong_amount")
    if standing.paid_otherwise:
        return Step("refund_requested", "paid_already")
    match standing.order:
        case "confirmed":
            return Step("captured", order="paid")
        case "expired":
            return Step("retake_pending")
        case "paid" | "fulfilled":
            return Step("refund_requested", "paid_already")
        case "cancelled" | "refunded":
            return Step("refund_requested", f"order_{standing.order}")


def _after_refund(standing: Standing) -> Step:
    """A fulfilled order stays: goods that are on their way are not taken back silently."""
    if standing.payment == "refunded":
        return Step(None, "refunded_twice") if standing.settled_by_hand else NOTHING
    if standing.payment == "refund_requested":  # by us: the reason is known
        return Step("refunded")
    undone = standing.payment == "captured" and standing.order == "paid"
    return Step("refunded", "at_provider", "refunded" if undone else None)


def _after_failed_refund(standing: Standing) -> Step:
    """It is not asked for again by itself: the next one would fail as well, and so on for ever."""
    if standing.payment == "refunded" and not standing.settled_by_hand:
        return Step("refund_requested", "refund_failed")
    under_way = standing.payment == "refund_requested" and not standing.refused
    return Step(None, "refund_failed") if under_way else NOTHING
