"""`bench storm`: a web process is stopped, and all its 10,000 viewers come back to another one.

The process that stops (SIGTERM, no time to drain) throws its viewers out at once, each with a
`bye` that says when to return, jittered by the server. As clients are asked to, they come back
then, to the other process, which already has viewers of its own and takes as many joins per second
as in production; who is refused there (503) tries again within 1 to 3 s. Measured: how long until
all are back, and the age of what the other process's own viewers see meanwhile (`age_p99_`), from
publishing until the tick with it arrives.

The process that stays has one core. The other is shared by the one that stops, Redis and the
crowd; `web_waited_share` says how long the process that stays had to wait for its core.
"""

import asyncio
import signal
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from loadtest import process
from loadtest.bench import ages, report
from loadtest.bench.crowd import Crowd, crowd
from loadtest.stand import live_show

PER_SECOND = 5  # publishes
JOINS_PER_SECOND = 5_000  # the setting's default
POLL_SECONDS = 0.02
BACK_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement. `sampled` of the viewers who stay are looked at."""

    thrown_out: int
    staying: int
    sampled: int
    window_s: float  # before, and after

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(60, 20, 5, 1.0) if quick else cls(10_000, 1_000, 50, 8.0)


async def run(*, quick: bool) -> report.Result:
    """One storm."""
    plan = Plan.of(quick)
    async with AsyncExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="livesale-bench-")
        folder = Path(stack.enter_context(directory))
        joins = str(JOINS_PER_SECOND)
        running = await stack.enter_async_context(live_show(LIVESALE_JOINS_PER_SECOND_MAX=joins))
        stops, port = await running.start_another_web(core=process.LOADER_CORE)
        feeding = ages.feeding(running, folder, plan.staying, plan.sampled, PER_SECOND)
        feed = await stack.enter_async_context(feeding)
        leaving = crowd(
            folder, port, running.upgrade_request(), plan.thrown_out, next_port=running.port
        )
        many = await stack.enter_async_context(leaving)
        assert running.web is not None
        stays = running.web.pid
        await feed.window(plan.window_s / 4)  # warms up
        figures = {"age_p99_before_ms": await feed.window(plan.window_s)}
        feed.ages = []
        used, waited = process.cpu(stays), process.waited_us(stays)
        stops.send(signal.SIGTERM)
        figures |= await _return(many, plan.thrown_out)
        seconds = figures["all_back_s"]
        figures["age_p99_during_ms"] = feed.p99_ms()
        figures["web_cpu_share"] = process.cpu(stays).since(used).total / seconds / 1e6
        figures["web_waited_share"] = (process.waited_us(stays) - waited) / seconds / 1e6
        figures["age_p99_after_ms"] = await feed.window(plan.window_s)
    setting: dict[str, object] = {"thrown_out": plan.thrown_out, "staying": plan.staying}
    return report.Result(figures, [], setting | {"publishes_per_s": PER_SECOND})


async def _return(many: Crowd, count: int) -> dict[str, float]:
    """Wait until all were thrown out and are back, and say when. Raises TimeoutError."""
    start, half, out = time.perf_counter(), 0.0, 0.0
    async with asyncio.timeout(BACK_SECONDS):
        while True:
            counts = await many.counts()
            elapsed = time.perf_counter() - start
            if not out and counts.lost >= count:
                out = elapsed
            if out and not half and counts.open >= count / 2:
                half = elapsed
            if out and counts.open == count:
                break
            await asyncio.sleep(POLL_SECONDS)
    return {
        "all_out_s": out,
        "half_back_s": half,
        "all_back_s": elapsed,
        "refused": float(counts.refused),
    }
