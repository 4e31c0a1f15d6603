"""`livesale bench NAME [--json] [--quick] [--minutes N]`: the benchmarks by name.

The result goes to standard output as a table or, with `as_json`, as one object
`{"bench": NAME, "figures": {NAME: NUMBER}, "machine": {...}}`; progress goes to standard error.
`quick` shrinks every size until only "does it run" is left: its numbers mean nothing. `minutes` is
how long `soak` lasts.
"""

import argparse
import asyncio
import signal
import sys
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Protocol, TextIO

import uvloop

from loadtest import machine
from loadtest.bench import report

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 0, 1, 2, 128 + signal.SIGTERM
BENCHES = (
    "table",
    "fanout",
    "joins",
    "compression",
    "room",
    "slow",
    "storm",
    "processes",
    "opening",
    "rehearsal",
    "soak",
    "hub",
    "claim",
    "orders",
    "script",
)  # modules beside this one


class Benchmark(Protocol):
    """Measures one thing. Raises when what it saw was wrong, whatever the speed."""

    def __call__(self, *, quick: bool) -> Awaitable[report.Result]: ...


def main(arguments: Sequence[str]) -> int:
    """The command line behind `livesale bench`; the exit status (2: wrong usage)."""
    parser = argparse.ArgumentParser(prog="livesale bench", description=__doc__)
    parser.add_argument("name", choices=["list", *BENCHES], help="`list` prints the names")
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON object")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    parser.add_argument("--minutes", type=float, help="how long `soak` lasts")
    asked = parser.parse_args(arguments)
    if asked.name == "list":
        print("\n".join(BENCHES))
        return EXIT_OK
    options: dict[str, float] = {}
    if asked.minutes is not None:
        if asked.name != "soak" or asked.minutes <= 0:
            parser.error("--minutes is for soak, and above 0")
        options["minutes"] = asked.minutes
    return run(asked.name, options, as_json=asked.as_json, quick=asked.quick, out=sys.stdout)


def run(name: str, options: Mapping[str, float], *, as_json: bool, quick: bool, out: TextIO) -> int:
    """Run one of BENCHES with options of its own and print its result; the exit status."""
    try:
        benchmark: Benchmark = partial(import_module(f"loadtest.bench.{name}").run, **options)
    except ModuleNotFoundError as error:
        report.progress(f"{error.name} is missing: pip install 'livesale[bench,embedded]'")
        return EXIT_USAGE
    facts = machine.facts()  # before the benchmark itself loads the machine
    try:
        result = uvloop.run(_measure(benchmark, quick))
    except (RuntimeError, OSError) as error:  # TimeoutError and ConnectionError are OSErrors
        report.progress(f"{name} failed: {error!r}")
        return EXIT_FAILED
    except asyncio.CancelledError:
        return EXIT_STOPPED
    show = report.as_json if as_json else report.as_table
    print(show(name, result, facts), file=out, flush=True)
    return EXIT_OK


async def _measure(benchmark: Benchmark, quick: bool) -> report.Result:
    """Run it so that SIGTERM, like Ctrl-C, ends what it started."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await benchmark(quick=quick)
