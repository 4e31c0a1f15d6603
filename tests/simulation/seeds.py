"""Simulate seeds in a process of its own: `python -m tests.simulation.seeds URL FIRST COUNT STEP`.

Prints one JSON object per seed: seed, failures, numbers and, when it failed, the trace.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from tests.simulation.postgres import Server
from tests.simulation.run import Outcome, run_seed

TRACE_LINES: Final = 120  # of a failing seed, the newest


def report(outcome: Outcome) -> dict[str, Any]:
    """What is told of a seed."""
    told: dict[str, Any] = {"seed": outcome.seed, "numbers": outcome.numbers}
    told["failures"] = outcome.failures
    if outcome.failures:
        told["trace"] = outcome.trace[-TRACE_LINES:]
    return told


def simulate(url: str, first: int, count: int, step: int) -> Iterator[dict[str, Any]]:
    server = Server(url)
    try:
        for seed in range(first, first + count * step, step):
            yield report(run_seed(seed, server))
    finally:
        server.close()


if __name__ == "__main__":
    for told in simulate(sys.argv[1], *map(int, sys.argv[2:5])):
        sys.stdout.write(json.dumps(told) + "\n")
