"""Every metric of the processes, as Prometheus reads them at /metrics (OPERATIONS.md lists them).

Names start with `livesale_`, times are seconds, and no label ever holds something a client chose.
The hot path counts with `Tally`, `Spread` and `Lane`: plain numbers, read only when somebody
scrapes; prometheus' own take a lock and about ten times as long.
"""

import itertools
import os
import resource
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from prometheus_client import (
    PROCESS_COLLECTOR,
    REGISTRY,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

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


class Spread(Collector):
    """A histogram of seconds. `bounds` rise."""

    def __init__(self, name: str, help_text: str, bounds: Sequence[float]) -> None:
        self.name = name
        self._help = help_text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        REGISTRY.register(self)

    def observe(self, seconds: float) -> None:
        """Count one event that took `seconds`."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    @property
    def count(self) -> int:
        """How many were counted so far."""
        return sum(self._counts)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        sums = itertools.accumulate(self._counts)
        buckets = list(zip(names, sums, strict=True))
        yield HistogramMetricFamily(self.name, self._help, buckets, self._sum)


class Lane:
    """What was written to viewers in one lane. Frames that leave together are one write."""

    __slots__ = ("bytes", "writes")

    def __init__(self) -> None:
        self.writes = 0
        self.bytes = 0

    def add(self, writes: int, size: int) -> None:
        """Count `writes` of together `size` bytes."""
        self.writes += writes
        self.bytes += size


class Lanes(Collector):
    """The counters of all lanes."""

    def __init__(self, **lanes: Lane) -> None:
        self._lanes = lanes
        REGISTRY.register(self)

    def collect(self) -> Iterable[CounterMetricFamily]:
        writes = CounterMetricFamily(
            "livesale_writes",
            "Writes to viewers by lane: room (ticks and catch-ups), own (welcomes, replies, "
            "order news, pings); frames that leave together are one",
            labels=["lane"],
        )
        sizes = CounterMetricFamily(
            "livesale_written_bytes", "Bytes of livesale_writes as they leave", labels=["lane"]
        )
        for name, lane in self._lanes.items():
            writes.add_metric([name], lane.writes)
            sizes.add_metric([name], lane.bytes)
        yield writes
        yield sizes


class OwnProcess(Collector):
    """The `process_` metrics that all Prometheus clients have.

    prometheus' own lists /proc/self/fd, which takes 10 ms with 10,000 viewers, and meanwhile
    nobody is served. Since Linux 6.2 the size of that folder is the number of descriptors.
    """

    def __init__(self) -> None:
        REGISTRY.unregister(PROCESS_COLLECTOR)
        own = PROCESS_COLLECTOR.collect()
        self._started = [one for one in own if one.name == "process_start_time_seconds"]
        REGISTRY.register(self)

    def collect(self) -> Iterable[Metric]:
        yield from self._started
        seconds = time.process_time()
        yield CounterMetricFamily("process_cpu_seconds", "CPU time used.", seconds)
        virtual, resident = _memory()
        yield GaugeMetricFamily("process_virtual_memory_bytes", "Address space.", virtual)
        yield GaugeMetricFamily("process_resident_memory_bytes", "Memory in use.", resident)
        yield GaugeMetricFamily("process_open_fds", "Open descriptors.", _descriptors())
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield GaugeMetricFamily("process_max_fds", "Descriptors that may be open.", most)


def _memory() -> tuple[int, int]:
    """Bytes of the address space and in use; 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb") as pages:
            virtual, resident, *_ = map(int, pages.read().split())
    except OSError:
        return 0, 0
    return virtual * resource.getpagesize(), resident * resource.getpagesize()


def _descriptors() -> int:
    """0 where /proc does not tell."""
    try:
        return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


own_process = OwnProcess()
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
joins = Tally(
    "livesale_joins",
    "Viewers shown into a room: new, recovered (resumed without a gap), snapshot (asked to resume, "
    "and could not)",
    "kind",
)
shed = Tally(
    "livesale_shed",
    "Rungs of the ladder: paused (write buffer not empty: no frames), lagging (late pong: a "
    "catch-up a second), catch_up (one of these was written); the last rung is livesale_closes",
    "rung",
)
closes = Tally(
    "livesale_closes",
    "Viewers closed by this process, by the name in the table of close codes: too_slow and silent "
    "are the end of the ladder",
    "reason",
)
danmaku = Tally(
    "livesale_danmaku",
    "Danmaku lines: sent_on or folded by the hub where they were said, shown or left_out by a "
    "frame (each frame counts once, for however many viewers)",
    "fate",
)
room_lane = Lane()
own_lane = Lane()
lanes = Lanes(room=room_lane, own=own_lane)

tick_lateness = Spread(
    "livesale_tick_lateness_seconds",
    "From a group's instant within the tick (edges: from the change) until it was written to; "
    "its count is ticks flushed, one per group of up to 512 viewers",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
ticks_late = Counter("livesale_ticks_late", "Ticks that were more than 50 ms late")
change_wait = Spread(
    "livesale_change_wait_seconds",
    "How long a group had something new to show before it was written to: up to a tick by design",
    (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.5, 1, 2, 5),
)
feed_echo = Spread(
    "livesale_feed_echo_seconds",
    "From a heartbeat to its coming back through Redis, per second and show: how long a change is "
    "under way from Redis to this hub, at most",
    (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
staleness = Spread(
    "livesale_staleness_seconds",
    "From a regular ping, written behind the newest frame, to its pong: age at most of what this "
    "viewer had read, with the network there and back and the viewer's own reaction",
    (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20),
)
staleness_recent = Gauge(
    "livesale_staleness_recent_seconds",
    "p50 and p99 of livesale_staleness_seconds over the last minute, at most the newest 4,096; "
    "NaN without a pong",
    ["quantile"],
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
viewers_behind = Gauge(
    "livesale_viewers_behind",
    "Viewers who have not been shown the newest tick: paused, lagging, or just joined",
)
rooms = Gauge("livesale_rooms", "Rooms open on this process")
tasks = Gauge("livesale_tasks", "asyncio tasks of this process; viewers have none of their own")
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
