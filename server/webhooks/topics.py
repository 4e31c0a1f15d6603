"""What a merchant can be told of. Every message is {type, timestamp, data}, `type` the topic.

Messages come at least once and in any order: a retry may overtake. `webhook-id` is the same for
every attempt, so a receiver that remembers ids sees each message once; `rank` of an order's data
and `version` of a pool's only ever go up, so a receiver that keeps the highest is never set back.
"""

from typing import Final, Literal, get_args

Topic = Literal[
    "order.confirmed",
    "order.paid",
    "order.fulfilled",
    "order.expired",
    "order.cancelled",
    "order.refunded",
    "order.released",  # a claim was accepted and its units had to be given back; no order
    "stock.changed",  # at most one a second and pool, with the newest counters; also its sale's
]

TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
