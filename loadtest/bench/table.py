"""`bench table`: every goal of the hub in one go, beside every reference that is installed.

Runs the benchmarks of PARTS one after the other, about ten minutes, and prints one table
(in Markdown) of goal, what was measured, and how that compares with the references. `livesale is n
times` is ours divided by theirs: below 1 we need less. Where a benchmark pairs the two in bursts it
is the median of the pairs, which a busy machine moves less than either number. All figures of the
benchmarks are in the JSON form, each behind the name of its benchmark.

A benchmark that fails leaves its rows empty and a note. With `quick` some run side by side, on one
PostgreSQL.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from typing import Final

from loadtest.bench import peers, report
from loadtest.stand import sharing_books

PEERS: Final = (peers.FLOOR, *dict.fromkeys((peers.REFERENCES | peers.ECHOES).values()))
HEAD: Final = ("", "goal", "measured", "met", "livesale is n times")
TICK_MS = 100
AT_ONCE = 3  # benchmarks, where numbers mean nothing


@dataclass(frozen=True, slots=True)
class Row:
    """One goal: `figure` of a benchmark, shown in `unit`, is `most` or less.

    `bound` is the figure that must be, when it is another one (a ratio). `beside` names what it is
    compared with: figures where `{}` stands for a reference, ours divided by theirs if they are
    costs and as they are if they are called ratio_.
    """

    what: str
    figure: str
    unit: str = ""
    goal: str = ""
    most: float = float("inf")
    bound: str = ""
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of one benchmark."""

    bench: str
    rows: Sequence[Row] = field(default_factory=tuple)


def _frames(many: str, suffix: str) -> tuple[Row, ...]:
    return (
        Row(
            f"CPU per delivered frame, {many} viewers",
            f"cpu_us_per_frame{suffix}",
            "µs",
            "≤ 1.10 × floor",
            1.10,
            bound=f"ratio_to_floor{suffix}",
            beside=f"ratio_to_{{}}{suffix}",
        ),
        Row(
            f"of it outside the kernel, {many} viewers",
            f"user_cpu_us_per_frame{suffix}",
            "µs",
            "≤ 0.9 µs",
            0.9,
            beside=f"{{}}_user_cpu_us_per_frame{suffix}",
        ),
    )


PARTS: Final = (
    Part(
        "fanout",
        (
            *_frames("1,000", ""),
            *_frames("10,000", "_10k"),
            Row("memory per signed-in idle viewer", "rss_kb_per_viewer", "KB", "≤ 4 KB", 4,
                beside="{}_rss_kb_per_viewer"),
            Row("CPU per join", "cpu_us_per_join", "µs", "≤ 200 µs", 200,
                beside="{}_cpu_us_per_join"),
            Row("10,000 joins at once", "rush_s", "s", "≤ 2.5 s", 2.5, beside="{}_rush_s"),
        ),
    ),
    Part(
        "hub",
        (
            Row("CPU per claim at the hub", "hub_cpu_us_per_claim", "µs", "≤ 14 µs", 14,
                beside="ratio_to_{}_echo"),
            Row("CPU per claim answered as sold out", "hub_cpu_us_per_sold_out", "µs",
                beside="{}_echo_cpu_us"),
        ),
    ),
    Part(
        "room",
        (
            Row("busy room: age of the stock number, p99", "stale_p99_ms", "ms",
                "≤ tick + 50 ms", TICK_MS + 50),
            Row("busy room: own replies, p99", "reply_p99_ms", "ms", "≤ 20 ms", 20),
            Row("busy room: longest turn of the loop", "turn_max_ms", "ms", "≤ 10 ms", 10),
            Row("busy room: most CPU time in one turn", "turn_cpu_max_ms", "ms", "≤ 10 ms", 10),
            Row("busy room: the web process waited for its core", "web_waited_share"),
            Row("publishing by the message instead: delivered", "per_message_delivered_share"),
        ),
    ),
    Part(
        "slow",
        (
            Row("5 % do not read: change of the others' p99", "age_p99_change_percent", "%",
                "< 10 %", 10),
            Row("memory per slow viewer", "rss_growth_kb_per_slow_viewer", "KB", "bounded", 64,
                beside="{}_rss_kb_per_slow_viewer"),
            Row("until the last slow one is closed", "closed_after_s", "s"),
        ),
    ),
    Part(
        "storm",
        (
            Row("10,000 thrown out: all are back", "all_back_s", "s", "≤ 10 s", 10),
            Row("age of the others' news meanwhile, p99", "age_p99_during_ms", "ms",
                "≤ tick + 50 ms", TICK_MS + 50),
        ),
    ),
    Part(
        "processes",
        (
            Row("CPU per frame, two processes to one", "ratio_of_two_to_one", "×", "≤ 1.1 ×", 1.1),
            Row("Redis' commands per process, 2,000 viewers to 100", "redis_commands_ratio", "×",
                "≤ 1.1 ×", 1.1),
            Row("Redis' bytes to a process, the same", "redis_bytes_out_ratio", "×",
                "≤ 1.1 ×", 1.1),
            Row("Redis' bytes from a process, the same", "redis_bytes_in_ratio", "×",
                "≤ 1.1 ×", 1.1),
        ),
    ),
    Part(
        "opening",
        (
            Row("10,000 buttons open, p99 after the first", "open_spread_p99_ms", "ms",
                "≤ 60 ms", 60),
            Row("error of the clock, p99", "clock_error_p99_ms", "ms"),
            Row("error without clock sync, p99", "guess_error_p99_ms", "ms"),
        ),
    ),
    Part(
        "compression",
        (
            Row("bytes per frame without compression", "bytes_per_frame", "B"),
            Row("the same with compression", "deflate_bytes_per_frame", "B"),
            Row("CPU per frame with compression", "deflate_cpu_us_per_frame", "µs"),
        ),
    ),
)  # fmt: skip


async def run(*, quick: bool) -> report.Result:
    """All benchmarks; `rows` of the result are the table."""
    gate = asyncio.Semaphore(AT_ONCE if quick else 1)
    async with sharing_books() if quick else nullcontext():
        found = await asyncio.gather(*(_tried(part.bench, gate, quick=quick) for part in PARTS))
    figures = {
        f"{part.bench}.{name}": value
        for part, result in zip(PARTS, found, strict=True)
        for name, value in result.figures.items()
    }
    rows = [
        cells(row, result.figures)
        for part, result in zip(PARTS, found, strict=True)
        for row in part.rows
    ]
    notes = list(dict.fromkeys(note for result in found for note in result.notes))
    notes.append(f"load average {os.getloadavg()[0]:.2f} at the end")
    return report.Result(figures, notes, rows=[HEAD, *rows])


async def _tried(bench: str, gate: asyncio.Semaphore, *, quick: bool) -> report.Result:
    """The result of one benchmark in its turn; without figures when it failed."""
    async with gate:
        report.progress(f"{bench} begins")
        try:
            result: report.Result = await import_module(f"loadtest.bench.{bench}").run(quick=quick)
        except (RuntimeError, OSError) as error:  # TimeoutError and ConnectionError are OSErrors
            report.progress(f"{bench} failed: {error!r}")
            return report.Result({}, [f"{bench} failed: {error!r}"])
        return result


def cells(row: Row, figures: Mapping[str, float]) -> tuple[str, ...]:
    """One line of the table."""
    if row.figure not in figures:
        return row.what, row.goal, "not measured", "", ""
    value = figures[row.figure]
    measured = f"{report.rounded(value):,g} {row.unit}".strip()
    bound = figures.get(row.bound or row.figure)
    met = "" if not row.goal or bound is None else "yes" if bound <= row.most else "**no**"
    return row.what, row.goal, measured, met, ", ".join(_beside(row, value, figures))


def _beside(row: Row, value: float, figures: Mapping[str, float]) -> list[str]:
    """How it compares with each reference that was measured."""
    compared = []
    for peer in PEERS:
        figure = row.beside.format(peer)
        if row.beside and (theirs := figures.get(figure)):
            ratio = theirs if figure.startswith("ratio_") else value / theirs
            compared.append(f"{ratio:.3g} {peer}")
    return compared
