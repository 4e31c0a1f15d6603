"""What the order worker counts. No label ever holds something a client chose."""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

stored: Final = Counter("livesale_orders_stored", "Orders committed")
repeated: Final = Counter(
    "livesale_takes_repeated", "Takes that came again and were in the books already"
)
released: Final = Counter(
    "livesale_claims_released", "Claims that Redis accepted and PostgreSQL could not keep"
)
dead: Final = Counter("livesale_dead_letters", "Takes parked because their data cannot be stored")
incidents: Final = Counter(
    "livesale_stock_incidents", "Contradictions between Redis and PostgreSQL", ["kind"]
)
outages: Final = Counter(
    "livesale_worker_outages", "Times the worker backed off", ["part"]
)  # redis, postgres
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
