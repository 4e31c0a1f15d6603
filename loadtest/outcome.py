"""The summary of a run from everything it left behind."""

from collections.abc import Iterator, Mapping
from importlib import metadata
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from loadtest import faults, machine
from loadtest.loaders import Loaders
from loadtest.measures import build
from loadtest.measures.fairness import fairness
from loadtest.measures.witness import Witness
from loadtest.report.summary import Audit, Honesty, Mark, Point, Stat, Summary
from loadtest.report.verdict import judged

if TYPE_CHECKING:
    from loadtest.run import Run

US_PER_S: Final = 1_000_000


class Facts(NamedTuple):
    """What a run leaves: its plan, its loaders' harvests, what was witnessed, the audit."""

    run: "Run"
    loaders: Loaders
    witness: Witness | None
    audit: Audit


def summary_of(facts: Facts) -> Summary:
    """Everything, judged."""
    run, harvests = facts.run, facts.loaders.harvests
    scenario = run.scenario
    found = build.measures(
        harvests,
        rooms=scenario.rooms,
        part_us=run.plan.part_us,
        sold_out_us=facts.witness.sold_out_us if facts.witness else {},
    )
    found.pop("loop_lag", None)  # of the loaders, not of the server
    summary = Summary(
        livesale=metadata.version("livesale"),
        name=scenario.name,
        run=run.run,
        started_at=run.started_at,
        scenario=msgspec.to_builtins(scenario),
        target=_target(facts),
        honesty=_honesty(facts),
        audit=facts.audit,
        measures=found,
        counts=_counts(facts),
        fairness=fairness(build.claims_of(harvests)),
        series=_series(facts),
        marks=sorted(_marks(facts), key=lambda mark: mark.t_s),
    )
    summary = judged(summary, scenario.thresholds, interrupted=run.interrupted)
    return ended_early(summary, scenario.thresholds) if run.failed else summary


def ended_early(summary: Summary, thresholds: Mapping[str, str]) -> Summary:
    """A run that was given up for lost has not passed, whatever its figures say in the end."""
    if summary.verdict != "pass":
        return summary
    honesty = msgspec.structs.replace(summary.honesty, reasons=["ended_early"])
    return judged(msgspec.structs.replace(summary, honesty=honesty), thresholds)


def _target(facts: Facts) -> dict[str, Any]:
    staleness = "first_seen" if facts.witness is None else "witness"
    error_ms = facts.run.clock_error_us / 1000
    return {**facts.run.target.facts(), "staleness": staleness, "clock_error_ms": error_ms}


def _honesty(facts: Facts) -> Honesty:
    """How the loaders fared. Lags are those outside of faults: whoever was cut off acts late
    because nobody can act, not because the loader is slow."""
    run, loaders = facts.run, facts.loaders
    part_us = run.plan.part_us
    health = [
        build.loader_health(each.number, each.harvest.health if each.harvest else (), each.died)
        for each in loaders.all
    ]
    windows = faults.windows(run.faults, part_us[0])
    loop_lag = build.stat_outside("loop_lag", loaders.harvests, part_us, windows)
    acts, dropped = build.acts_outside(loaders.harvests, part_us[0], windows)
    return Honesty(
        valid=True,
        reasons=list(_unproven(run, loop_lag)),
        loaders=health,
        schedule_lag=build.stat_outside("schedule_lag", loaders.harvests, part_us, windows),
        loop_lag=loop_lag,
        acts=acts,
        dropped=dropped,
        machine=machine.facts(),
    )


def _unproven(run: "Run", loop_lag: Stat) -> Iterator[str]:
    """Reasons why the run does not show what its scenario asks for."""
    if any(each.failed for each in run.faults):
        yield "fault_failed"
    if run.faults and not loop_lag.count:  # faults and their aftermath are all there is
        yield "not_measured"


def _counts(facts: Facts) -> dict[str, int]:
    counts = build.counts(facts.loaders.harvests)
    counts["people"] = facts.run.scenario.sockets
    counts["joined"] = facts.loaders.joined
    counts["witnessed"] = counts.pop("levels_witnessed", 0)
    counts["witness_lost"] = counts.pop("levels_lost", 0)
    return counts


def _series(facts: Facts) -> list[Point]:
    """One point per second, with what the server's parts used in it."""
    start_us = facts.run.plan.part_us[0]
    points = build.series(facts.loaders.pulses, start_us, _curve(facts))
    by_second = {point.t_s: point.values for point in points}
    for t_us, cores in facts.run.cpu:
        if (values := by_second.get(float((t_us - start_us) // US_PER_S))) is not None:
            values.update(cores)
    return points


def _curve(facts: Facts) -> list[tuple[int, int]]:
    """Units left of the newest sale, as witnessed: a sale gives way to the next when that opens."""
    if facts.witness is None:
        return []
    opened = [*facts.run.sales.items(), (0, 1 << 62)]
    return [
        (t_us, left)
        for (sale, _), (_, until_us) in pairwise(opened)
        for t_us, left in facts.witness.curve(sale)
        if t_us < until_us
    ]


def _marks(facts: Facts) -> Iterator[Mark]:
    start_us = facts.run.plan.part_us[0]
    for opens_us in facts.run.sales.values():
        yield Mark((opens_us - start_us) / US_PER_S, "sale_opens")
    for sold_out_us in facts.witness.sold_out_us.values() if facts.witness else ():
        yield Mark((sold_out_us - start_us) / US_PER_S, "sold_out")
    for fault in facts.run.faults:
        if not fault.failed:
            yield faults.mark(fault)
