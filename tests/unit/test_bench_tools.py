"""The tools of the benchmarks: frames as a client makes and reads them, numbers, clocks, tables."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from loadtest import wire
from loadtest.bench import clocks, fanout, looks, report, table
from loadtest.bench.turns import Turns


def parsed_by_websockets(data: bytes, *, mask: bool) -> Frame:
    """The one frame in `data`, by the reference implementation."""
    reader = StreamReader()
    reader.feed_data(data)
    steps = Frame.parse(reader.read_exact, mask=mask)
    with pytest.raises(StopIteration) as finished:
        next(steps)
    return finished.value.value


@given(st.sampled_from([0, 1, 125, 126, 65_535, 65_536]), st.binary(max_size=8))
def test_client_frame_is_read_back_by_websockets(size: int, start: bytes) -> None:
    payload = start.ljust(size, b"x")
    frame = parsed_by_websockets(wire.client_frame(payload), mask=True)
    assert (frame.opcode, frame.data, frame.fin) == (Opcode.BINARY, payload, True)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_payload_span_when_a_byte_is_missing_then_none(size: int) -> None:
    frame = wire.server_frame(b"x" * size)
    assert wire.payload_span(b"??" + frame, 2) == (2 + len(frame) - size, 2 + len(frame))
    assert all(wire.payload_span(frame[:cut], 0) is None for cut in range(min(len(frame), 12)))
    assert wire.payload_span(frame[:-1], 0) is None


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [([], 0.5, 0), ([7], 0.99, 7), (range(1, 101), 0.99, 99), (range(1, 101), 1.0, 100)],
)
def test_percentile_is_the_nearest_rank(values: list[float], share: float, found: float) -> None:
    assert report.percentile(list(values), share) == found


def test_medians_when_a_run_lacks_a_figure_then_the_others_count() -> None:
    assert report.medians([{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0}]) == {"a": 2.0, "b": 5.0}


def test_slope_of_a_line_with_spikes_is_that_of_the_line() -> None:
    along = [float(at) for at in range(20)]
    values = [3 * at + (1_000 if at % 7 == 0 else 0) for at in along]
    assert report.slope(along, values) == pytest.approx(3)


@pytest.mark.parametrize("along", [[], [5.0], [5.0, 5.0]])
def test_slope_without_two_places_is_0(along: list[float]) -> None:
    assert report.slope(along, along) == 0


class Shown:
    """A local clock that shows what it is told to."""

    def __init__(self) -> None:
        self.ms = 0.0

    def __call__(self) -> float:
        return self.ms


def test_server_clock_believes_the_quickest_reply_and_of_equals_the_newest() -> None:
    local = Shown()
    clock = clocks.ServerClock(local)
    clock.seed(1_500)
    for sent_at, came_at, server in [(0, 100, 1_040), (200, 220, 1_215), (300, 320, 1_312)]:
        local.ms = came_at
        clock.sample(sent_at, server)
    assert clock.best.round_trip == 20
    assert clock.local_at(1_312) == 310


def test_server_clock_when_the_local_clock_stood_still_then_old_samples_are_gone() -> None:
    local = Shown()
    clock = clocks.ServerClock(local)
    clock.sample(0, 1_000)
    local.ms = 50
    clock.sample(0, 61_025)
    assert clock.local_at(61_025) == 25


def test_local_clock_knows_the_truth_whatever_it_shows() -> None:
    local = clocks.LocalClock(skew_ms=12_345_678, drift=50e-6)
    assert local.wall_at(local.now()) == pytest.approx(clocks.wall_ms(), abs=50)


def test_table_row_tells_the_goal_what_was_measured_and_the_ratios() -> None:
    row = table.Row("CPU", "cpu_us", "µs", "≤ 2 µs", 2, beside="{}_cpu_us")
    figures = {"cpu_us": 3.0, "floor_cpu_us": 2.0, "picows_cpu_us": 6.0}
    told = ("CPU", "≤ 2 µs", "3 µs", "**no**", "1.5 floor, 0.5 picows")
    assert table.cells(row, figures) == told


def test_table_row_bound_by_a_ratio_is_met_when_the_ratio_is() -> None:
    row = table.Row("CPU", "us", "µs", "", 1.1, bound="ratio_to_floor", beside="ratio_to_{}")
    met = table.cells(dataclasses.replace(row, goal="≤ 1.1 ×"), {"us": 7.0, "ratio_to_floor": 0.9})
    assert met == ("CPU", "≤ 1.1 ×", "7 µs", "yes", "0.9 floor")
    assert table.cells(row, {})[2] == "not measured"


def test_looks_when_a_process_computes_then_its_user_time_is_found() -> None:
    user_us = looks.user_us(os.getpid())
    before, end = user_us(), time.process_time() + 0.2
    while time.process_time() < end:
        sum(range(10_000))
    assert 100_000 < user_us() - before < 220_000


LONG_TURN = """
import asyncio, time, uvloop

def compute():
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass

async def main():
    await asyncio.sleep(0.3)
    compute()
    await asyncio.sleep(0.6)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(main())
"""


def test_turns_when_one_takes_50_ms_of_cpu_then_it_is_the_worst(tmp_path: Path) -> None:
    turns = Turns(tmp_path / "turns")
    turns.mark()
    script = tmp_path / "long_turn.py"
    script.write_text(LONG_TURN)
    watched = os.environ | {"PYTHONPATH": turns.path, "BENCH_TURNS": str(turns.file)}
    subprocess.run([sys.executable, script, "web"], env=watched, check=True, timeout=60)
    worst = turns.worst()
    assert 50 <= worst.cpu <= 60
    assert worst.by_clock >= worst.cpu


@pytest.mark.parametrize(("failures", "raises"), [(0, False), (2, False), (3, True)])
async def test_burst_when_it_does_not_reach_everybody_then_it_is_repeated_twice(
    monkeypatch: pytest.MonkeyPatch, failures: int, raises: bool
) -> None:
    left = [fanout.Incomplete("too busy")] * failures

    async def burst(*_: Any, **__: Any) -> float:
        if left:
            raise left.pop()
        return 9.5

    monkeypatch.setattr(fanout, "_burst", burst)
    whole: Any = fanout._whole_burst(fanout.Plan.few(quick=True), None, keep=True)  # type: ignore[arg-type]
    if raises:
        with pytest.raises(fanout.Incomplete):
            await whole
    else:
        assert await whole == 9.5
