"""How long are the turns of a web process' loop? Python imports this at its start (site(3)).

A timer of one millisecond notes, whenever it rings, how much time went by since it rang last and
how much of that the loop's thread had on its core. What takes longer than a millisecond lies
between two rings as a whole, so the longest steps are the longest turns, at most a millisecond too
long. Four times a second the file BENCH_TURNS gets a line: monotonic time, the longest step in ms,
the most CPU time in one in ms. All this costs the process about 1 % of its core.
"""

import asyncio
import os
import sys
import time
from typing import TextIO

import uvloop

RING_SECONDS = 0.001
SPAN_NS = 250_000_000  # what a line is about

_new_event_loop = uvloop.new_event_loop


class Watch:
    """The timer of one loop. It begins with the loop and never stops."""

    def __init__(self, loop: asyncio.AbstractEventLoop, told: TextIO) -> None:
        self._loop = loop
        self._told = told
        self._span = 0
        self._rang_at = self._cpu = 0
        self._longest = self._dearest = 0  # of this span, ns
        loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._rang_at, self._cpu = time.monotonic_ns(), time.thread_time_ns()
        self._loop.call_later(RING_SECONDS, self._ring)

    def _ring(self) -> None:
        now, cpu = time.monotonic_ns(), time.thread_time_ns()
        self._longest = max(self._longest, now - self._rang_at)
        self._dearest = max(self._dearest, cpu - self._cpu)
        if now // SPAN_NS != self._span:
            self._span = now // SPAN_NS
            line = f"{now / 1e9:.6f} {self._longest / 1e6:.3f} {self._dearest / 1e6:.3f}\n"
            self._told.write(line)
            self._longest = self._dearest = 0
        self._begin()


def _watched_loop() -> asyncio.AbstractEventLoop:
    loop = _new_event_loop()
    # Line by line, so that what was told can be read while the process runs.
    Watch(loop, open(os.environ["BENCH_TURNS"], "a", buffering=1))  # noqa: SIM115
    return loop


if "BENCH_TURNS" in os.environ and "web" in sys.orig_argv:
    uvloop.new_event_loop = _watched_loop  # type: ignore[assignment]
