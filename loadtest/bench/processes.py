"""`bench processes`: what two web processes on one port cost, and what each asks of Redis.

*CPU*: as in `bench fanout`, one livesale with one web process and one with two, as many viewers at
each, in turns (`ratio_of_two_to_one`, the median of paired bursts). The kernel deals the viewers
out (SO_REUSEPORT), and the process that looks after the two is counted too. Each of the two has a
core, as it would have in production; here one of them shares it with the loader, which may
flatter it. (With both on the server's core a frame cost 1.2 times as much as from one.)

*Redis*: commands and bytes in both directions per second and web process, by Redis' own counters,
with few signed-in viewers and with many, at rest but for two host lines a second; of the livesale
with one process (`redis_`) and of that with two (`redis_2_hubs_`). A process asks Redis about its
rooms and not about its viewers, so `..._ratio` (many to few) should be 1.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis.asyncio

from loadtest import process
from loadtest.bench import buyers, fanout, people, report, swarm
from loadtest.stand import Stand, live_show

PROCESSES = 2
HOST_LINES = 2  # per second
SETTLE_SECONDS = 3.0  # what joining costs is over
COUNTERS = {  # of INFO stats -> figure
    "total_commands_processed": "commands",
    "total_net_input_bytes": "bytes_in",
    "total_net_output_bytes": "bytes_out",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement: of the bursts, and of the look at Redis."""

    bursts: fanout.Plan
    few: int
    many: int
    window_s: float

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        if quick:
            return cls(fanout.Plan(40, 1, 2, 10, 40 - fanout.CHECKED), 5, 20, 1.0)
        return cls(fanout.Plan(4_000, 5, 10, 5, 4_000 - fanout.CHECKED), 100, 2_000, 12.0)


async def run(*, quick: bool) -> report.Result:
    """First what frames cost, then what Redis is asked, of the same two livesales."""
    plan = Plan.of(quick)
    tick_ms = str(1000 // plan.bursts.per_second)
    async with (
        live_show(LIVESALE_TICK_MS=tick_ms) as one,
        live_show(processes=PROCESSES, LIVESALE_TICK_MS=tick_ms) as two,
    ):
        _give_each_a_core(two)
        figures = await _bursts(one, two, plan.bursts, quick)
        figures |= await _redis("redis", one, plan, 1)
        figures |= await _redis(f"redis_{PROCESSES}_hubs", two, plan, PROCESSES)
    setting: dict[str, object] = {"viewers": plan.bursts.viewers, "rounds": plan.bursts.rounds}
    setting |= {"few": plan.few, "many": plan.many, "window_s": plan.window_s}
    return report.Result(figures, [], setting)


def _give_each_a_core(running: Stand) -> None:
    assert running.web is not None
    cores = itertools.cycle((process.SERVER_CORE, process.LOADER_CORE))
    for child, core in zip(psutil.Process(running.web.pid).children(), cores, strict=False):
        process.pin(child.pid, core)


async def _bursts(one: Stand, two: Stand, plan: fanout.Plan, quick: bool) -> dict[str, float]:
    """CPU per frame of two processes beside one, each with all of the viewers."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="livesale-bench-")))
        targets = [
            await stack.enter_async_context(fanout.watching(running, plan, folder, figure))
            for running, figure in ((two, "two"), (one, "one"))
        ]
        figures = await fanout.compare(plan, targets, quick=quick)
    figures["ratio_of_two_to_one"] = figures.pop("ratio_to_one")
    return figures


async def _redis(prefix: str, running: Stand, plan: Plan, processes: int) -> dict[str, float]:
    """What so many web processes ask of Redis, each, with few viewers and with many."""
    speaking = asyncio.create_task(people.speak(running, HOST_LINES))
    viewers: list[buyers.Buyer] = []
    found = []
    try:
        for count in (plan.few, plan.many):
            viewers += await _more(running, len(viewers), count)
            await asyncio.sleep(min(SETTLE_SECONDS, plan.window_s))
            found.append(await _traffic(running, plan.window_s, processes))
    finally:
        await swarm.hang_up(viewers)
        await people.ended(speaking)
    few, many = found
    figures = {f"{prefix}_{name}_per_s_few": value for name, value in few.items()}
    figures |= {f"{prefix}_{name}_per_s_many": value for name, value in many.items()}
    return figures | {f"{prefix}_{name}_ratio": many[name] / few[name] for name in few}


async def _more(running: Stand, there: int, count: int) -> list[buyers.Buyer]:
    """People who are not there yet, until there are `count`."""
    tokens = [running.token("viewer", f"viewer-{number}") for number in range(there, count)]
    requests = itertools.repeat(running.upgrade_request(), len(tokens))
    return await buyers.sign_in(running.port, requests, tokens)


async def _traffic(running: Stand, seconds: float, processes: int) -> dict[str, float]:
    """Per second and web process."""
    async with redis.asyncio.Redis.from_url(running.valkey.url) as client:
        before = await client.info("stats")
        await asyncio.sleep(seconds)
        after = await client.info("stats")
    return _per_second(before, after, seconds * processes)


def _per_second(
    before: Mapping[str, int], after: Mapping[str, int], seconds: float
) -> dict[str, float]:
    return {
        figure: (after[counter] - before[counter]) / seconds for counter, figure in COUNTERS.items()
    }
