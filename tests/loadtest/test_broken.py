"""A load tester can be trusted when broken servers do not get past it: each is caught and named.

One server with two defects in every run; each defect alone, and a sound server, with
LIVESALE_TEST_LONG=1 (`make test-faults`).
"""

from pathlib import Path

import msgspec
import pytest

from loadtest import target
from loadtest.report.summary import Summary
from loadtest.run import run
from loadtest.scenario import Arrivals, Crowd, Fault, SaleTerms, Scenario
from tests.conftest import LONG
from tests.loadtest import breakage
from tests.loadtest.breakage import Breakage

UNITS = 30
LATE_MS = 900
TOGETHER = Arrivals("herd", reaction="uniform", spread_ms=50)
SPREAD = Arrivals("herd", reaction="uniform", spread_ms=900)

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
only_long = pytest.mark.skipif(not LONG, reason="takes a minute and a half: make test-faults")


def scenario(*, seconds: float = 3, rooms: int = 1, bots: int = 5) -> Scenario:
    """A hundred people for a few seconds. With many bots everybody comes at once, so that nobody
    is much earlier than others, and there are pairs enough to tell who passed whom."""
    many = bots > 5
    return Scenario(
        version=1,
        name="broken",
        seconds=seconds,
        warmup_s=1,
        settle_s=3,
        rooms=rooms,
        sale=SaleTerms(units=70 if many else UNITS, opens_at_s=0.5),
        thresholds={"stale.p99_ms": f"<{LATE_MS}"} | ({"fair.bot_bias": "<1.5"} if many else {}),
        crowd=[
            Crowd("watcher", 40),
            Crowd("liker", 5, acts=Arrivals("poisson", per_s=20)),
            Crowd("buyer", 80 if many else 40, acts=TOGETHER if many else SPREAD),
            Crowd("bot", bots, acts=TOGETHER),
        ],
    )


async def outcome_of(wanted: Scenario, out: Path, *defects: Breakage) -> Summary:
    """A run against a server with these defects."""
    root = breakage.broken(out / "tree", *defects) if defects else None
    async with target.started(wanted.rooms, root=root) as server:
        return await run(wanted, server, [], out)


def named(summary: Summary) -> set[str]:
    """What was found: names of findings, and of missed thresholds."""
    missed = {check.name for check in summary.checks if not check.ok}
    return {finding.name for finding in summary.audit.findings} | missed - {"audit.problems"}


@pytest.mark.parametrize("one", breakage.ALL, ids=lambda one: one.name)
def test_breakage_when_looked_for_then_all_its_texts_are_there(one: Breakage) -> None:
    for edit in one.edits:
        breakage.edited(edit, (breakage.PROJECT / edit.file).read_text(encoding="utf-8"))


async def test_run_when_the_server_oversells_and_counts_backwards_then_both_are_named(
    tmp_path: Path,
) -> None:
    summary = await outcome_of(scenario(), tmp_path, breakage.OVERSELLS, breakage.COUNTER_BACK)
    assert {"oversold", "units_found", "counter_back"} <= named(summary)
    assert (summary.verdict, summary.exit, summary.audit.scope) == ("audit", 11, "full")
    (oversold,) = (each for each in summary.audit.findings if each.name == "oversold")
    assert (oversold.count, oversold.en) == (1, f"{UNITS + 1} units sold of {UNITS}")
    (claim,) = oversold.claims
    assert {where for _, where, _ in claim.steps} == {"client", "redis", "postgres"}
    assert any(f"seq {UNITS + 1}" in what for _, _, what in claim.steps)


@only_long
async def test_run_when_the_server_is_sound_then_nothing_is_found(tmp_path: Path) -> None:
    summary = await outcome_of(scenario(seconds=6), tmp_path)
    assert (named(summary), summary.audit.explained) == (set(), [])
    assert summary.audit.checked.keys() == {f"I{n}" for n in range(1, 11)}


@only_long
async def test_run_when_the_server_oversells_by_one_then_that_is_named(tmp_path: Path) -> None:
    summary = await outcome_of(scenario(), tmp_path, breakage.OVERSELLS)
    assert named(summary) == {"oversold", "units_found", "stock_sum"}


@only_long
async def test_run_when_a_counter_goes_back_then_that_is_named(tmp_path: Path) -> None:
    summary = await outcome_of(scenario(), tmp_path, breakage.COUNTER_BACK)
    assert named(summary) == {"counter_back"}


@only_long
async def test_run_when_a_confirmation_is_dropped_then_its_claim_is_named(tmp_path: Path) -> None:
    summary = await outcome_of(scenario(seconds=6), tmp_path, breakage.DROPS_CONFIRMATION)
    assert named(summary) == {"never_told"}
    (finding,) = summary.audit.findings
    (claim,) = finding.claims
    assert any("held: seq 5" in what for _, where, what in claim.steps if where == "client")
    assert not any("confirmed" in what for _, where, what in claim.steps if where == "client")


@only_long
async def test_run_when_a_buyer_is_hung_up_on_without_a_fault_then_that_is_named(
    tmp_path: Path,
) -> None:
    summary = await outcome_of(scenario(seconds=6), tmp_path, breakage.HANGS_UP)
    assert named(summary) == {"never_told"}
    assert summary.audit.explained == []
    assert summary.exit == 11


@only_long
async def test_run_when_everybody_is_dropped_on_purpose_then_nothing_is_found(
    tmp_path: Path,
) -> None:
    wanted = msgspec.structs.replace(
        scenario(seconds=4), fault=[Fault(at_s=0.9, kind="drop", share=1.0)]
    )
    summary = await outcome_of(wanted, tmp_path)
    assert summary.audit.findings == []
    assert {each.name for each in summary.audit.explained} <= {"buyer_away"}
    assert summary.counts["reconnects"] > 0


@only_long
async def test_run_when_one_room_is_late_then_its_staleness_is_missed_and_only_its(
    tmp_path: Path,
) -> None:
    summary = await outcome_of(scenario(rooms=2), tmp_path, breakage.LATE_ROOM)
    assert named(summary) == {"stale.p99_ms"}
    late, other = summary.measures["stale"].rooms
    assert late.p50 > LATE_MS > other.p99


@only_long
async def test_run_when_bots_are_served_first_then_the_bias_is_named(tmp_path: Path) -> None:
    summary = await outcome_of(scenario(bots=60), tmp_path, breakage.BOTS_FIRST)
    assert named(summary) == {"fair.bot_bias"}


@only_long
async def test_run_when_nobody_is_served_first_then_there_is_no_bias(tmp_path: Path) -> None:
    summary = await outcome_of(scenario(bots=60), tmp_path)
    assert named(summary) == set()
