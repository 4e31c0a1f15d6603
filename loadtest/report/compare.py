"""Two runs, or two folders of runs: better, worse or the same, with the noise taken into account.

One run's p99 is one number; its ten blocks say how far it wanders within the run. Runs at other
moments differ more than that, so a verdict also needs a difference of at least `SINGLE_MIN`, or
`MANY_MIN` between folders of at least three runs each.
"""

import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from loadtest.report import summary as summaries
from loadtest.report import texts
from loadtest.report.summary import Summary

Change = Literal["same", "better", "worse", "unknown"]
RESAMPLES = 10_000
SINGLE_MIN, MANY_MIN, MANY, VALUES_MIN = 0.10, 0.05, 3, 3
SAME, WORSE, USAGE, NOT_COMPARABLE = 0, 10, 2, 12
MEASURES = (
    "join", "claim_held", "claim_confirmed", "stale", "age", "skew", "sold_out_50", "sold_out_99",
    "sold_out_100", "reconnect", "reply", "bytes_per_viewer_s",
)  # fmt: skip
MACHINE = ("cores", "cpu")
ABOUT_RESULTS = ("title", "thresholds")  # parts of a scenario that change nothing in a run


class Row(Struct, frozen=True):
    """One measure: its p99 in both, B / A, and where that ratio lies with 95 % confidence."""

    name: str
    unit: str
    a: float
    b: float
    ratio: float
    low: float
    high: float
    change: Change


class Comparison(Struct, frozen=True):
    """`reasons` why the two cannot be compared; then there are no rows."""

    rows: list[Row]
    reasons: list[str]

    @property
    def exit(self) -> int:
        """0 the same or better, 10 worse, 12 not comparable."""
        if self.reasons:
            return NOT_COMPARABLE
        return WORSE if any(row.change == "worse" for row in self.rows) else SAME


def asked(run: Summary) -> dict[str, object]:
    """The part of the scenario that shapes a run."""
    return {key: part for key, part in run.scenario.items() if key not in ABOUT_RESULTS}


def obstacles(a: Sequence[Summary], b: Sequence[Summary]) -> list[str]:
    """Why the runs cannot be compared."""
    runs, first = [*a, *b], a[0]
    made = [
        f"run {run.run} is {run.verdict}"
        for run in runs
        if run.verdict in ("invalid", "interrupted")
    ]
    if any(asked(run) != asked(first) for run in runs):
        made.append("the scenarios differ")
    for key in MACHINE:
        found = {str(run.honesty.machine.get(key)) for run in runs}
        if len(found) > 1:
            made.append(f"machines differ in {key}: {', '.join(sorted(found))}")
    if len({run.target.get("staleness") for run in runs}) > 1:
        made.append("staleness was counted from different moments: one run had no Redis")
    return made


def values(runs: Sequence[Summary], name: str, *, many: bool) -> list[float]:
    """What to resample: the p99 of each run when there are many, else the blocks of all."""
    found = [run.measures[name] for run in runs if name in run.measures]
    found = [measure for measure in found if measure.all.count]
    if many:
        return [measure.all.p99 for measure in found]
    return [block for measure in found for block in measure.blocks or [measure.all.p99]]


def interval(a: Sequence[float], b: Sequence[float], seed: int = 1) -> tuple[float, float]:
    """The 95 % bootstrap interval of median(b) / median(a), the same for the same seed."""
    rng = random.Random(seed)
    ratios = sorted(
        statistics.median(rng.choices(b, k=len(b))) / statistics.median(rng.choices(a, k=len(a)))
        for _ in range(RESAMPLES)
    )
    return ratios[int(0.025 * RESAMPLES)], ratios[int(0.975 * RESAMPLES) - 1]


def judged(ratio: float, low: float, high: float, least: float) -> Change:
    """A change counts when it is certain and large enough."""
    if abs(ratio - 1) < least or low <= 1 <= high:
        return "same"
    return "worse" if ratio > 1 else "better"


def row(a: Sequence[Summary], b: Sequence[Summary], name: str) -> Row | None:
    """One measure of both; None when one of them lacks it.

    Of fewer than `VALUES_MIN` values on a side nobody can tell noise from change: unknown.
    """
    many = min(len(a), len(b)) >= MANY
    here, there = ([v for v in values(runs, name, many=many) if v > 0] for runs in (a, b))
    if not here or not there:
        return None
    low, high = interval(here, there)
    before, after = statistics.median(here), statistics.median(there)
    change: Change = "unknown"
    if min(len(here), len(there)) >= VALUES_MIN:
        change = judged(after / before, low, high, MANY_MIN if many else SINGLE_MIN)
    unit = next(run.measures[name].unit for run in a if name in run.measures)
    return Row(name, unit, before, after, after / before, low, high, change)


def compared(a: Sequence[Summary], b: Sequence[Summary]) -> Comparison:
    """B against A; both with at least one run."""
    if reasons := obstacles(a, b):
        return Comparison([], reasons)
    rows = [made for name in MEASURES if (made := row(a, b, name))]
    if not rows:
        return Comparison([], ["the runs have no measure in common"])
    return Comparison(rows, [])


def runs_at(path: Path) -> list[Summary]:
    """The run at `path`: a summary.json, the folder of one run, or a folder of such folders.

    Raises ValueError, with a line for people, when there is none or one cannot be read.
    """
    if path.is_dir():
        own = path / "summary.json"
        files = [own] if own.is_file() else sorted(path.glob("*/summary.json"))
        files = files or sorted(path.glob("*.json"))
    else:
        files = [path]
    try:
        runs = [summaries.read(file.read_bytes()) for file in files]
    except OSError as missing:
        raise ValueError(f"cannot read {path}: {missing.strerror}") from missing
    except msgspec.DecodeError as broken:
        raise ValueError(f"{path}: not a summary of a load test: {broken}") from broken
    if not runs:
        raise ValueError(f"{path}: no summary.json there")
    return runs


CHANGES = {"same": "=", "better": "↓ better", "worse": "↑ WORSE", "unknown": "? single value"}


def lines(found: Comparison) -> list[str]:
    """The comparison as a table for a terminal."""
    if found.reasons:
        return ["not comparable:", *(f"  {reason}" for reason in found.reasons)]
    made = [f"{'p99':<22}{'A':>12}{'B':>12}{'B / A':>9}   95 % interval"]
    for one in found.rows:
        before, after = (texts.amount(value, one.unit).en for value in (one.a, one.b))
        span = f"{one.low:.2f} – {one.high:.2f}"
        figures = f"{before:>12}{after:>12}{one.ratio:>9.2f}"
        made.append(f"{one.name:<22}{figures}   {span:<15}{CHANGES[one.change]}")
    return made


def main(a: str, b: str) -> int:
    """`livesale loadtest compare A B`: prints the table, returns the exit code."""
    try:
        found = compared(runs_at(Path(a)), runs_at(Path(b)))
    except ValueError as wrong:
        print(f"error: {wrong}")
        return USAGE
    print("\n".join(lines(found)))
    return found.exit
