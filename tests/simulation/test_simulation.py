"""Many seeds of the simulated world: whatever fails in whatever order, every promise is kept.

A failing seed is printed with the line that runs it again. README.md tells how it works.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.postgres import Server
from tests.simulation.run import run_seed

ROOT = Path(__file__).resolve().parents[2]
SHOWN = 3  # failing seeds told in full


@pytest.mark.timeout(1_800)
def test_simulation_when_anything_fails_at_any_time_then_every_invariant_holds(
    seed_count: int, simulation_database: Callable[[int], str]
) -> None:
    processes = min(os.cpu_count() or 1, 4)
    each = -(-seed_count // processes)
    databases = [simulation_database(n + 1) for n in range(processes)]

    def simulate(number: int) -> subprocess.CompletedProcess[str]:
        where = (databases[number], str(number), str(each), str(processes))
        command = [sys.executable, "-m", "tests.simulation.seeds", *where]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    told: list[dict[str, Any]] = []
    with ThreadPoolExecutor(processes) as threads:  # each reads its process, or that would wait
        for done in threads.map(simulate, range(processes)):
            assert done.returncode == 0, done.stderr
            told += map(json.loads, done.stdout.splitlines())
    failed = [report for report in told if report["failures"]]
    assert not failed, "\n\n".join(map(_told, failed[:SHOWN])) + f"\n{len(failed)} seeds failed"
    assert len(told) >= seed_count
    _require_events(told)


def _require_events(told: list[dict[str, Any]]) -> None:
    """A simulation in which nothing happens proves nothing."""
    numbers: Counter[str] = Counter()
    for report in told:
        numbers.update(report["numbers"])
    for name in ("orders", "gives", "moves", "payments", "claims"):
        assert numbers[name] >= len(told), (name, numbers)
    if len(told) >= 100:
        assert numbers["retakes"] > 0, numbers
        assert numbers["epoch"] > len(told), numbers  # stocks were rebuilt


def _told(report: dict[str, Any]) -> str:
    seed = report["seed"]
    lines = [f"seed {seed}: {failure}" for failure in report["failures"][:5]]
    again = f"again: .venv/bin/pytest tests/simulation --seed {seed}"
    return "\n".join([*lines, again, *report["trace"]])


def test_simulation_when_a_seed_runs_twice_then_everything_happens_the_same(
    one_seed: int | None, simulation_server: Server
) -> None:
    seed = 7 if one_seed is None else one_seed
    first, second = (run_seed(seed, simulation_server) for _ in range(2))
    assert first.trace == second.trace
    assert not first.failures, _told(
        {"seed": seed, "failures": first.failures, "trace": first.trace}
    )
