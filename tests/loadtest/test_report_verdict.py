"""What a run is worth, and whether two differ."""

import random
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.report import compare, summary, verdict
from loadtest.report.summary import Audit, Finding, LoaderHealth, Mark, Measure, Stat, Summary

GOLDEN = Path(__file__).with_name("golden")
KEPT = {"stale.p99_ms": "<500"}
MISSED = {"stale.p99_ms": "<1"}
replace = msgspec.structs.replace


def run(**changed: Any) -> Summary:
    return replace(summary.read((GOLDEN / "pass.json").read_bytes()), **changed)


def honesty(**changed: Any) -> dict[str, Any]:
    return {"honesty": replace(run().honesty, **changed)}


def counts(**changed: int) -> dict[str, Any]:
    return {"counts": run().counts | changed}


BROKEN = {"audit": Audit("full", False, {}, [Finding("I1", "oversold", "超卖", "oversold", 1)])}
SLOW = honesty(schedule_lag=Stat(10, 500, 500, 500, 500, 500, 500))


@pytest.mark.parametrize(
    ("changed", "wanted", "interrupted", "told"),
    [
        ({}, KEPT, False, ("pass", 0)),
        ({}, MISSED, False, ("threshold", 10)),
        (SLOW, KEPT, False, ("invalid", 12)),
        (SLOW, MISSED, False, ("invalid", 12)),
        (BROKEN, KEPT, False, ("audit", 11)),
        (BROKEN | SLOW, MISSED, False, ("audit", 11)),
        (BROKEN | SLOW, MISSED, True, ("interrupted", 130)),
        ({"audit": Audit("none", False)}, KEPT, False, ("pass", 0)),
        ({"audit": Audit("clients", True)}, KEPT, False, ("pass", 0)),
    ],
)
def test_verdict_when_several_hold_then_the_gravest_is_told(
    changed: dict[str, Any], wanted: dict[str, str], interrupted: bool, told: tuple[str, int]
) -> None:
    found = verdict.judged(run(**changed), wanted, interrupted=interrupted)
    assert (found.verdict, found.exit) == told


def broken(what: str, at_s: float = 1) -> dict[str, Any]:
    """A fault in a show of two rooms whose sale opens after 5 s."""
    scenario = run().scenario | {"rooms": 2}
    return {"scenario": scenario, "marks": [Mark(at_s, what), Mark(5, "sale_opens")]}


HEALTHY = LoaderHealth(0, 0.4, 30, 0, 5, 40, 5)


@pytest.mark.parametrize(
    ("changed", "reasons"),
    [
        (SLOW, ["schedule_lag"]),
        (honesty(loop_lag=Stat(9, 60, 60, 60, 60, 60, 60)), ["loop_lag"]),
        (honesty(loaders=[replace(HEALTHY, loop_lag_max_ms=1_001.0)]), ["loop_stalled"]),
        (honesty(loaders=[replace(HEALTHY, busy_seconds=7)]), ["loader_busy"]),
        (honesty(loaders=[replace(HEALTHY, busy_seconds=6)]), []),
        (honesty(loaders=[replace(HEALTHY, seconds=2, busy_seconds=1)]), []),
        (honesty(loaders=[replace(HEALTHY, died="exit 1")]), ["loader_died"]),
        (honesty(dropped=80), ["dropped"]),
        (honesty(dropped=79), []),
        (counts(witness_lost=6), ["witness_lost"]),
        (counts(witness_lost=5), []),
        (counts(joined=2_140), ["not_joined"]),
        (counts(joined=2_150), []),
        (counts(joined=2_140) | broken("drop 30 %"), []),
        (counts(joined=1_500) | broken("drop 30 %"), ["not_joined"]),
        (counts(joined=1_100) | broken("kill web-1"), []),
        (counts(joined=1_000) | broken("kill web-1"), ["not_joined"]),
        (counts(joined=0) | broken("restart valkey"), []),
        (counts(joined=2_140) | broken("stop worker"), ["not_joined"]),
        (counts(joined=2_140) | broken("drop 30 %", at_s=6), ["not_joined"]),
        (honesty(reasons=["the host was suspended"]), ["the host was suspended"]),
    ],
)
def test_honesty_when_a_limit_is_passed_then_invalid_for_that_reason(
    changed: dict[str, Any], reasons: list[str]
) -> None:
    found = verdict.judged(run(**changed), KEPT)
    assert found.honesty.reasons == reasons
    assert found.verdict == ("invalid" if reasons else "pass")


def test_honesty_when_claims_take_long_then_lag_up_to_a_tenth_of_it_is_allowed() -> None:
    lag = Stat(10, 90, 90, 90, 90, 90, 90)
    held = Measure("claim_held", "ms", Stat(10, 1000, 1000, 1000, 1000, 1000, 1000))
    slow = run(**honesty(schedule_lag=lag))
    assert verdict.judged(slow, {}).verdict == "invalid"
    patient = replace(slow, measures=slow.measures | {"claim_held": held})
    assert verdict.judged(patient, {}).verdict == "pass"


def stale(level: float, noise: float, seed: int) -> Summary:
    """A run with one measure: ten blocks around `level`."""
    rng = random.Random(seed)
    blocks = [level * (1 + rng.uniform(-noise, noise)) for _ in range(10)]
    stat = Stat(1000, level / 2, level, level, level, level, level / 2)
    return run(measures={"stale": Measure("stale", "ms", stat, [], blocks)})


@pytest.mark.parametrize(
    ("b", "change", "code"),
    [
        (stale(100, 0.03, 2), "same", 0),
        (stale(120, 0.03, 3), "worse", 10),
        (stale(80, 0.03, 4), "better", 0),
        (stale(107, 0.01, 5), "same", 0),  # for certain, but less than runs differ by themselves
        (stale(125, 0.9, 6), "same", 0),  # much, but within the noise of its own blocks
    ],
)
def test_compare_when_single_runs_then_only_a_large_certain_change_counts(
    b: Summary, change: str, code: int
) -> None:
    found = compare.compared([stale(100, 0.03, 1)], [b])
    assert [row.change for row in found.rows] == [change]
    assert found.exit == code


def test_compare_when_several_runs_each_then_a_smaller_change_counts() -> None:
    a = [stale(level, 0.03, 1) for level in (99, 100, 101)]
    b = [stale(level, 0.03, 1) for level in (106, 107, 108)]
    assert [row.change for row in compare.compared(a, b).rows] == ["worse"]
    assert [row.change for row in compare.compared(a[:1], b[:1]).rows] == ["same"]


def test_compare_when_a_measure_has_one_value_per_run_then_no_verdict_on_it() -> None:
    def known(ms: float) -> Summary:
        stat = Stat(1, ms, ms, ms, ms, ms, ms)
        return run(measures={"sold_out_99": Measure("sold_out_99", "ms", stat)})

    once = compare.compared([known(100)], [known(300)])
    assert ([row.change for row in once.rows], once.exit) == (["unknown"], 0)
    often = compare.compared(
        [known(v) for v in (99, 100, 103)], [known(v) for v in (297, 300, 301)]
    )
    assert ([row.change for row in often.rows], often.exit) == (["worse"], 10)


def test_compare_when_one_side_has_a_single_run_then_blocks_are_held_against_blocks() -> None:
    a, b = [stale(100, 0.3, seed) for seed in (1, 2, 3)], [stale(107, 0.3, 4)]
    assert [row.change for row in compare.compared(a, b).rows] == ["same"]


def test_compare_when_repeated_then_the_same_interval() -> None:
    a, b = [100.0, 101, 99, 104, 97], [110.0, 120, 100, 130, 111]
    assert compare.interval(a, b) == compare.interval(a, b)


MACHINE = run().honesty.machine


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (honesty(machine=MACHINE | {"cores": 64}), "cores"),
        (honesty(machine=MACHINE | {"cpu": "another"}), "cpu"),
        ({"scenario": run().scenario | {"seconds": 60.0}}, "scenarios differ"),
        ({"verdict": "invalid"}, "invalid"),
        ({"verdict": "interrupted"}, "interrupted"),
        ({"target": run().target | {"staleness": "first_seen"}}, "staleness"),
        ({"measures": {}}, "no measure in common"),
    ],
)
def test_compare_when_not_the_same_thing_then_says_so(changed: dict[str, Any], told: str) -> None:
    found = compare.compared([run()], [run(**changed)])
    assert found.exit == 12
    assert told in found.reasons[0]


def test_compare_when_only_thresholds_differ_then_comparable() -> None:
    other = run(scenario=run().scenario | {"thresholds": {}, "title": {}})
    assert compare.compared([run()], [other]).exit == 0


def test_compare_when_called_then_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_bytes(
            summary.written(stale(100 + 50 * n, 0.02, n))
        )
    assert compare.main(str(tmp_path / "a"), str(tmp_path / "b")) == 10
    assert "WORSE" in capsys.readouterr().out
    assert compare.main(str(tmp_path / "a"), str(tmp_path / "a" / "summary.json")) == 0
    assert compare.main(str(tmp_path / "a"), str(tmp_path / "none")) == 2


def test_compare_when_a_file_is_no_summary_then_usage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert compare.main(str(GOLDEN / "pass.json"), str(tmp_path / "x.json")) == 2
