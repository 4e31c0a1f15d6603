"""What breaks in a run: a fault that did not happen never passes for one that was borne."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from loadtest import faults, outcome, process, scenario
from loadtest.measures import build
from loadtest.measures.histogram import Measured
from loadtest.report import texts, verdict
from loadtest.report.summary import Stat, read
from loadtest.scenario import Fault
from loadtest.stand import Stand
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
    failed: list[Fault] = []
    notes: list[str] = []

    async def at_once(at_s: float) -> None:
        pass

    given: Any = parts
    nobody: Any = None
    await faults.break_all(
        [STOP, RESTART], nobody, given, 1, until=at_once, note=notes.append, failed=failed.append
    )
    return failed, notes


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
    stand = Stand(tmp_path, nothing, nothing, "fast")
    command = [sys.executable, "-c", "input()"]
    stand.worker = process.start("worker", command, log=tmp_path / "log")
    try:
        await stand.stop_for("worker", 0)
    finally:
        stand.worker.kill()
    with pytest.raises(RuntimeError, match="worker does not run"):
        await stand.stop_for("worker", 0)


@pytest.mark.parametrize(
    ("failed", "planned", "lag", "reasons"),
    [
        ([], [STOP], MEASURED, []),
        ([STOP], [STOP], MEASURED, ["fault_failed"]),
        ([], [STOP], NOT_MEASURED, ["not_measured"]),
    ],
)
def test_run_when_it_does_not_show_what_was_asked_then_it_is_invalid(
    failed: list[Fault], planned: list[Fault], lag: Stat, reasons: list[str]
) -> None:
    run: Any = SimpleNamespace(faults_failed=failed, scenario=SimpleNamespace(fault=planned))
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
    assert lags_outside(asked.fault, asked.seconds) >= 2


def test_lags_when_faults_fill_the_measured_part_then_there_are_none() -> None:
    assert lags_outside([Fault(0, "drop", share=0.1, for_s=2)], 10) == 0


def lags_outside(planned: list[Fault], seconds: float) -> int:
    """Tenths of a measured part that remain to judge the loaders by."""
    part = (1_000_000, 1_000_000 + round(seconds * 1e6))
    measured = Measured(part)
    for tenth in range(10):
        measured.record("loop_lag", part[0] + round((tenth + 0.5) * seconds * 1e5), 1_000)
    windows = faults.windows(planned, part[0])
    return build.stat_outside("loop_lag", [harvest_of(measured)], part, windows).count
