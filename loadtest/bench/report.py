"""Medians, percentiles, and the result every benchmark hands back."""

import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TextIO


@dataclass(slots=True)
class Result:
    """What one benchmark found. Units are in the names of the figures; notes are for people.

    `rows`, the first of them the head, are shown to people instead of the figures.
    """

    figures: dict[str, float]
    notes: list[str] = field(default_factory=list)
    setting: dict[str, object] = field(default_factory=dict)
    rows: Sequence[Sequence[str]] = ()


def median(values: Iterable[float]) -> float:
    """The middle value; 0 when there is none."""
    found = list(values)
    return statistics.median(found) if found else 0.0


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Median of every figure over the runs that have it, in order of appearance."""
    names = dict.fromkeys(name for run in runs for name in run)
    return {name: median(run[name] for run in runs if name in run) for name in names}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of all values do not exceed (nearest rank); 0 for none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[
        min(len(ordered) - 1, max(0, -(-int(share * 10_000) * len(ordered) // 10_000) - 1))
    ]


def slope(along: Sequence[float], values: Sequence[float]) -> float:
    """How fast `values` rise: the median slope between all pairs of points (Theil-Sen); 0 for none.

    Up to 29 % of the points may be off without moving it far. Points at the same place are no pair.
    """
    points = sorted(zip(along, values, strict=True))
    return median(
        (there - here) / (to - at)
        for (at, here), (to, there) in itertools.combinations(points, 2)
        if to > at
    )


def rounded(value: float) -> float:
    """Enough digits to compare, none to boast."""
    if abs(value) >= 1000:
        return float(round(value))
    return round(value, 1 if abs(value) >= 100 else 2)


def as_json(bench: str, result: Result, machine: Mapping[str, object]) -> str:
    """One line: {"bench", "figures": {name: number}, "machine", "setting", "notes", "rows"}."""
    return json.dumps(
        {
            "bench": bench,
            "figures": {name: rounded(value) for name, value in result.figures.items()},
            "machine": machine,
            "setting": result.setting,
            "notes": result.notes,
            "rows": result.rows,
        },
        ensure_ascii=False,
    )


def as_table(bench: str, result: Result, machine: Mapping[str, object]) -> str:
    """The same for people."""
    lines = [f"{bench}: " + ", ".join(f"{k} {v}" for k, v in result.setting.items())]
    lines += _markdown(result.rows) if result.rows else _listed(result.figures)
    lines += [f"  ({note})" for note in result.notes]
    on = "  on {cores} x {cpu}, {python}, {system}, load average {load_average} at the start"
    lines.append(on.format_map(machine))
    return "\n".join(lines)


def _listed(figures: Mapping[str, float]) -> list[str]:
    width = max(map(len, figures), default=0)
    return [f"  {name:<{width}}  {rounded(value):>12,g}" for name, value in figures.items()]


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first row is the head."""
    head, *others = ("| " + " | ".join(row) + " |" for row in rows)
    return ["", head, "|---" * len(rows[0]) + "|", *others, ""]


def progress(text: str, stream: TextIO | None = None) -> None:
    """One line to the person waiting; never on standard output."""
    print(f"bench: {text}", file=stream or sys.stderr, flush=True)
