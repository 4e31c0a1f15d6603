"""Every metric of the processes, as Prometheus reads them at /metrics (OPERATIONS.md lists them).

Names start with `livesale_`, times are seconds, and no label ever holds something a client chose.
The hot path counts with `Tally`, a dict of ints read only when somebody scrapes; prometheus'
own counters take a lock and about ten times as long.
"""

from collections.abc import Callable, Iterable

from prometheus_client import (
    REGISTRY,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # the `_created` twin of every family says nothing here

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Tally(Collector):
    """Counters of one family, told apart by one label. `tally.add("held", 3)` on the hot path."""

    def __init__(self, name: str, help_text: str, label: str) -> None:
        self.name = name
        self._help = help_text
        self._label = label
        self._counts: dict[str, int] = {}
        REGISTRY.register(self)

    def add(self, value: str, count: int = 1) -> None:
        """Count `count` more of `value`, which must come from a fixed set."""
        counts = self._counts
        counts[value] = counts.get(value, 0) + count

    def count(self, value: str) -> int:
        """What was counted under `value` so far."""
        return self._counts.get(value, 0)

    def collect(self) -> Iterable[CounterMetricFamily]:
        family = CounterMetricFamily(self.name, self._help, labels=[self._label])
        for value, count in self._counts.items():
            family.add_metric([value], count)
        yield family


handshakes = Tally(
    "livesale_handshakes",
    "WebSocket handshakes by outcome: accepted, or why they were refused",
    "outcome",
)
http_refused = Tally(
    "livesale_http_refused",
    "Connections and requests refused before any handler ran, by HTTP status",
    "status",
)
commands = Tally("livesale_commands", "Commands from viewers by type", "command")
refusals = Tally("livesale_refusals", "Commands refused, by the name in the error table", "error")
claims = Tally(
    "livesale_claims",
    "Claims answered by outcome: held, repeated (known id), or the name in the error table",
    "outcome",
)
released_late = Tally(
    "livesale_claims_released_late",
    "Holds that were lost with Redis and proved when their units were gone, by why they were",
    "refusal",
)
order_events = Tally(
    "livesale_order_events", "Claims that moved on, as told to this hub's buyers", "status"
)
hold_lookups = Tally(
    "livesale_hold_lookups",
    "Holds looked up because no confirmation came, by status found",
    "status",
)

claim_batch_claims = Histogram(
    "livesale_claim_batch_claims",
    "Claims per script call",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
)
claim_batch_seconds = Histogram(
    "livesale_claim_batch_seconds",
    "Round trip of one claim script call",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
viewers = Gauge("livesale_viewers", "Connections served by this process")
rooms = Gauge("livesale_rooms", "Rooms open on this process")
claims_waiting = Gauge("livesale_claims_waiting", "Claims not answered yet on this process")
holds_open = Gauge("livesale_holds_open", "Holds of connected buyers waiting for confirmation")
loop_lag_seconds = Gauge(
    "livesale_loop_lag_seconds", "Longest delay of the event loop in the last second"
)


def watch_gauge(gauge: Gauge, read: Callable[[], float]) -> None:
    """From now on `gauge` is whatever `read()` says when somebody scrapes."""
    gauge.set_function(read)


def exposition() -> bytes:
    """All metrics of this process in the text format 0.0.4."""
    return generate_latest(REGISTRY)
