"""What breaks during a run, at the instants its scenario says."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from loadtest.loaders import Loaders
from loadtest.report.summary import Mark
from loadtest.scenario import Fault
from loadtest.swarm.pipe import Drop
from loadtest.target import Parts
from server.errors import LivesaleError

AFTERMATH_S: Final = 8.0  # the longest that clients wait before they connect again


def mark(fault: Fault) -> Mark:
    """How it stands on the timeline."""
    if fault.kind == "drop":
        return Mark(fault.at_s, f"drop {fault.share:.0%}".replace("%", " %"))
    lasts_s = 0.0 if fault.kind == "restart" else fault.for_s
    return Mark(fault.at_s, f"{fault.kind} {fault.part}", lasts_s)


def windows(faults: Sequence[Fault], start_us: int) -> list[tuple[int, int]]:
    """(start, end) in t_us of faults with their aftermath: people are away, and processes that
    start take a core."""
    return [
        (
            start_us + round(each.at_s * 1e6),
            start_us + round((each.at_s + each.for_s + AFTERMATH_S) * 1e6),
        )
        for each in faults
    ]


def webs_lost(faults: Sequence[Fault]) -> int:
    """Web processes that are killed or restarted."""
    return sum(each.part.startswith("web-") and each.kind != "stop" for each in faults)


async def break_all(
    faults: Sequence[Fault], loaders: Loaders, parts: Parts | None, seed: int,
    *, until: Callable[[float], Awaitable[None]], note: Callable[[str], None],
    failed: Callable[[Fault], None],
) -> None:  # fmt: skip
    """Do each at its time; `until(at_s)` waits for a second of the measured part. A fault that
    cannot be done, or whose part does not come back, is told to `failed`; the run goes on."""

    async def one(number: int, fault: Fault) -> None:
        await until(fault.at_s)
        note(mark(fault).what)
        try:
            await _break(fault, loaders, parts, seed + number)
        except (RuntimeError, OSError, KeyError, LivesaleError) as error:
            note(f"{mark(fault).what} failed: {error}")
            failed(fault)

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
