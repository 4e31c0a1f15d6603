"""What breaks during a run, at the instants its scenario says."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from loadtest.loaders import Loaders
from loadtest.report.summary import Mark
from loadtest.scenario import Fault
from loadtest.swarm.pipe import Drop
from loadtest.target import Parts
from server.errors import LivesaleError

AFTERMATH_S: Final = 8.0  # the longest that clients wait before they connect again


class Done(NamedTuple):
    """A fault that was begun. `lasted_s`: until its part was ready again, or until it failed."""

    fault: Fault
    lasted_s: float = 0.0
    failed: bool = False


def name(fault: Fault) -> str:
    """How people call it; the first word says what."""
    if fault.kind == "drop":
        return f"drop {fault.share:.0%}".replace("%", " %")
    return f"{fault.kind} {fault.part}"


def mark(done: Done) -> Mark:
    """How it stands on the timeline."""
    lasted_s = 0.0 if done.fault.kind == "drop" else round(done.lasted_s, 1)
    return Mark(done.fault.at_s, name(done.fault), lasted_s)


def windows(faults: Sequence[Done], start_us: int) -> list[tuple[int, int]]:
    """(start, end) in t_us of faults with their aftermath: people are away, and processes that
    start take a core."""
    return [
        (
            start_us + round(each.fault.at_s * 1e6),
            start_us + round((each.fault.at_s + each.lasted_s + AFTERMATH_S) * 1e6),
        )
        for each in faults
    ]


def webs_lost(faults: Sequence[Fault]) -> int:
    """Web processes that are killed or restarted."""
    return sum(each.part.startswith("web-") and each.kind != "stop" for each in faults)


async def break_all(
    faults: Sequence[Fault], loaders: Loaders, parts: Parts | None, seed: int,
    *, until: Callable[[float], Awaitable[None]], note: Callable[[str], None],
    told: Callable[[Done], None],
) -> None:  # fmt: skip
    """Do each at its time; `until(at_s)` waits for a second of the measured part. Each is told when
    it is over, also when all is cancelled; one has failed when it cannot be done, or when its part
    does not come back. The run goes on."""

    async def one(number: int, fault: Fault) -> None:
        await until(fault.at_s)
        note(name(fault))
        began, failed = time.monotonic(), False
        try:
            await _break(fault, loaders, parts, seed + number)
        except (RuntimeError, OSError, KeyError, LivesaleError) as error:
            note(f"{name(fault)} failed: {error}")
            failed = True
        finally:
            told(Done(fault, time.monotonic() - began, failed))

    async with asyncio.TaskGroup() as group:
        for number, fault in enumerate(faults):
            group.create_task(one(number, fault))


async def _break(fault: Fault, loaders: Loaders, parts: Parts | None, seed: int) -> None:
    if fault.kind == "drop":
        loaders.send(Drop(fault.share, fault.within_ms, fault.jitter, seed))
        return
    if parts is None:
        raise RuntimeError("only with --up")
    if fault.kind == "stop":
        await parts.stop_for(fault.part, fault.for_s)
    elif fault.kind == "kill":
        await parts.kill_and_start(fault.part, fault.for_s)
    else:
        await parts.restart(fault.part)
