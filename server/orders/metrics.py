"""What the order worker counts. No label ever holds something a client chose."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

stored: Final = Counter("livesale_orders_stored", "Orders committed")
repeated: Final = Counter(
    "livesale_takes_repeated", "Takes that came again and were in the books already"
)
expired: Final = Counter("livesale_orders_expired", "Orders that were not paid in time")
released: Final = Counter(
    "livesale_claims_released", "Claims that Redis accepted and PostgreSQL could not keep"
)
dead: Final = Counter("livesale_dead_letters", "Takes parked because their data cannot be stored")
incidents: Final = Counter(
    "livesale_stock_incidents", "Contradictions between Redis and PostgreSQL", ["kind"]
)
reconciliations: Final = Counter(
    "livesale_reconciliations", "Stocks rebuilt in Redis", ["why"]
)  # restarted, missing, halted kinds of incident, ...
recovered: Final = Counter(
    "livesale_claims_recovered", "Orders made from claims that Redis had lost"
)
reconciling_seconds: Final = Histogram(
    "livesale_reconciling_seconds",
    "How long a show was closed for a reconciliation",
    buckets=(0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
outages: Final = Counter(
    "livesale_worker_outages", "Times the worker backed off", ["part"]
)  # redis, postgres
webhooks: Final = Counter(
    "livesale_webhooks", "Attempts to deliver a webhook", ["outcome"]
)  # delivered, pending (to be tried again), failed
batch_claims: Final = Histogram(
    "livesale_batch_claims",
    "Takes in one transaction",
    buckets=(1, 4, 16, 64, 256, 1024, 2048, 4096, 8192),
)
commit_seconds: Final = Histogram(
    "livesale_commit_seconds",
    "Duration of one transaction",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
shows: Final = Gauge("livesale_worker_shows", "Shows this worker consumes")
closed: Final = Gauge(
    "livesale_shows_closed",
    "Shows of this worker that sell nothing because their stock could not be rebuilt yet",
)
payments_unfinished: Final = Gauge(
    "livesale_payments_unfinished",
    "Late payments, refunds and provider events that still have to be dealt with",
    ["kind"],
)  # retake_pending, refund_requested, refund_refused, refunded_twice, events
