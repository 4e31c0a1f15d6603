"""How a loader fares itself: if it is late, what it measures is not the server's doing."""

import asyncio
import gc
import os
import time
from collections.abc import Callable
from typing import Final

from loadtest import process
from loadtest.swarm.pipe import Health

SAMPLE_S: Final = 0.01


class Watch:
    """Samples the loop's lag all the time; `second` tells of the time since its last call.

    `on_lag` is called with each sample, in µs.
    """

    def __init__(self, on_lag: Callable[[int], None]) -> None:
        self._on_lag = on_lag
        self._loop = asyncio.get_running_loop()
        self._lags: list[int] = []
        self._due_ns = 0
        self._gc_us = 0
        self._wall_ns = time.monotonic_ns()
        self._cpu_ns = time.process_time_ns()
        self._waited_us = process.waited_us(os.getpid())
        self._arm()

    def _arm(self) -> None:
        self._due_ns = time.monotonic_ns() + int(SAMPLE_S * 1e9)
        self._timer = self._loop.call_later(SAMPLE_S, self._sample)

    def _sample(self) -> None:
        lag_us = max(0, time.monotonic_ns() - self._due_ns) // 1000
        self._lags.append(lag_us)
        self._on_lag(lag_us)
        self._arm()

    def stop(self) -> None:
        """No more samples."""
        self._timer.cancel()

    def collect(self) -> None:
        """Collect garbage now: nothing is collected in between."""
        began = time.perf_counter_ns()
        gc.collect(1)
        self._gc_us += (time.perf_counter_ns() - began) // 1000

    def second(self, schedule_lags: list[int], *, acts: int, dropped: int) -> Health:
        """What happened since the last call."""
        wall_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
        waited_us = process.waited_us(os.getpid())
        took_ns = max(1, wall_ns - self._wall_ns)
        lags, self._lags = self._lags, []
        health = Health(
            cpu_share=(cpu_ns - self._cpu_ns) / took_ns,
            loop_lag_p99_us=percentile(lags, 0.99),
            loop_lag_max_us=max(lags, default=0),
            schedule_lag_p99_us=percentile(schedule_lags, 0.99),
            dropped=dropped,
            gc_us=self._gc_us,
            waited_share=(waited_us - self._waited_us) * 1000 / took_ns,
            acts=acts,
        )
        self._wall_ns, self._cpu_ns, self._waited_us, self._gc_us = wall_ns, cpu_ns, waited_us, 0
        return health


def percentile(values: list[int], share: float) -> int:
    """By nearest rank; 0 without values."""
    return sorted(values)[max(0, -int(-share * len(values) // 1) - 1)] if values else 0


def quiet_collector() -> None:
    """Everything made so far stays: collections pass it over, and come only when called for."""
    gc.collect()
    gc.freeze()
    gc.disable()
