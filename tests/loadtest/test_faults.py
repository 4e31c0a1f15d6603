"""What breaks in a run: a fault that did not happen never passes for one that was borne."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from loadtest import faults, outcome, process, scenario
from loadtest.faults import Done
from loadtest.measures import build
from loadtest.measures.histogram import Measured
from loadtest.report import texts, verdict
from loadtest.report.summary import Mark, Stat, read
from loadtest.scenario import Fault
from loadtest.stand import Books, Stand
from server.errors import Misconfigured
from tests.loadtest.test_measures import harvest_of

GOLDEN = Path(__file__).with_name("golden")
STOP = Fault(1, "stop", part="worker")
RESTART = Fault(2, "restart", part="valkey")
MEASURED = Stat(10, 1, 1, 1, 1, 1, 1)
NOT_MEASURED = Stat(0, 0, 0, 0, 0, 0, 0)


class Parts:
    """Parts that do, or raise `error`."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.done: list[str] = []

    def _do(self, what: str) -> None:
        if self.error is not None:
            raise self.error
        self.done.append(what)

    async def stop_for(self, name: str, seconds: float) -> None:
        self._do(f"stop {name}")

    async def restart(self, name: str) -> None:
        self._do(f"restart {name}")


async def broken(parts: Parts | None) -> tuple[list[Fault], list[str]]:
    """Faults that failed, and what was noted."""
    done: list[Done] = []
    notes: list[str] = []

    async def at_once(at_s: float) -> None:
        pass

    given: Any = parts
    nobody: Any = None
    await faults.break_all(
        [STOP, RESTART], nobody, given, 1, until=at_once, note=notes.append, told=done.append
    )
    assert [each.fault for each in done] == [STOP, RESTART]
    return [each.fault for each in done if each.failed], notes


@pytest.mark.parametrize(
    "error",
    [RuntimeError("gone"), OSError("no"), KeyError("web-9"), Misconfigured("does not start")],
)
async def test_faults_when_they_cannot_be_done_then_each_is_told_and_the_run_goes_on(
    error: Exception,
) -> None:
    failed, notes = await broken(Parts(error))
    assert failed == [STOP, RESTART]
    assert sum("failed" in note for note in notes) == 2


async def test_faults_when_done_then_none_failed() -> None:
    parts = Parts()
    failed, notes = await broken(parts)
    assert (failed, parts.done) == ([], ["stop worker", "restart valkey"])
    assert notes == ["stop worker", "restart valkey"]


async def test_faults_when_there_are_no_parts_then_they_failed() -> None:
    assert (await broken(None))[0] == [STOP, RESTART]


async def test_stop_when_the_part_has_died_then_raises(tmp_path: Path) -> None:
    nothing: Any = None
    stand = Stand(tmp_path, nothing, Books(nothing, ""), "fast")
    command = [sys.executable, "-c", "input()"]
    stand.worker = process.start("worker", command, log=tmp_path / "log")
    try:
        await stand.stop_for("worker", 0)
    finally:
        stand.worker.kill()
    with pytest.raises(RuntimeError, match="worker does not run"):
        await stand.stop_for("worker", 0)


@pytest.mark.parametrize(
    ("done", "lag", "reasons"),
    [
        (Done(STOP), MEASURED, []),
        (Done(STOP, failed=True), MEASURED, ["fault_failed"]),
        (Done(STOP), NOT_MEASURED, ["not_measured"]),
    ],
)
def test_run_when_it_does_not_show_what_was_asked_then_it_is_invalid(
    done: Done, lag: Stat, reasons: list[str]
) -> None:
    run: Any = SimpleNamespace(faults=[done])
    passed = read((GOLDEN / "pass.json").read_bytes())
    own = msgspec.structs.replace(passed.honesty, reasons=list(outcome._unproven(run, lag)))
    judged = verdict.judged(msgspec.structs.replace(passed, honesty=own), {})
    assert judged.honesty.reasons == reasons
    assert judged.verdict == ("invalid" if reasons else "pass")
    for name in reasons:
        told = texts.reason(name, judged)
        assert told.zh != told.en != name
        assert told.zh in texts.sentence(judged).zh
        assert "--loaders" not in texts.sentence(judged).en  # that would not help


@pytest.mark.parametrize("name", scenario.presets())
def test_preset_when_its_faults_are_left_out_then_lags_can_still_be_judged(name: str) -> None:
    asked = scenario.load(name)
    slow_s = 6  # as long as a web process that thousands wait for takes to come back
    lasted = {"drop": 0.0, "stop": 0.0, "kill": slow_s, "restart": slow_s}
    done = [Done(each, lasted[each.kind] + each.for_s) for each in asked.fault]
    assert lags_outside(done, asked.seconds) >= 2


def test_lags_when_faults_fill_the_measured_part_then_there_are_none() -> None:
    assert lags_outside([Done(Fault(0, "drop", share=0.1), 2)], 10) == 0


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault(10, "drop", share=0.3), Mark(10, "drop 30 %")),
        (Fault(10, "restart", part="web-1"), Mark(10, "restart web-1", 7.0)),
        (Fault(10, "kill", part="valkey", for_s=2), Mark(10, "kill valkey", 7.0)),
    ],
)
def test_fault_when_it_took_longer_than_planned_then_all_of_it_is_told_and_left_out(
    fault: Fault, told: Mark
) -> None:
    done = Done(fault, 7.0)
    assert faults.mark(done) == told
    aftermath_us = round((7 + faults.AFTERMATH_S) * 1e6)
    assert faults.windows([done], 5) == [(10_000_005, 10_000_005 + aftermath_us)]


async def test_marks_when_a_fault_failed_then_it_is_not_drawn() -> None:
    plan = SimpleNamespace(part_us=(0, 1))
    done = [Done(STOP, 2.0), Done(RESTART, 1.0, failed=True)]
    facts: Any = SimpleNamespace(
        run=SimpleNamespace(plan=plan, sales={}, faults=done), witness=None
    )
    assert [each.what for each in outcome._marks(facts)] == ["stop worker"]


def lags_outside(planned: list[Done], seconds: float) -> int:
    """Tenths of a measured part that remain to judge the loaders by."""
    part = (1_000_000, 1_000_000 + round(seconds * 1e6))
    measured = Measured(part)
    for tenth in range(10):
        measured.record("loop_lag", part[0] + round((tenth + 0.5) * seconds * 1e5), 1_000)
    windows = faults.windows(planned, part[0])
    return build.stat_outside("loop_lag", [harvest_of(measured)], part, windows).count
