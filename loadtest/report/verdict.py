"""What a run is worth: pass, threshold, audit, invalid or interrupted, with its exit code.

A broken audit is true however slow the load tester was, so it comes before invalid; and a run
that was measured badly never passes, nor is told its thresholds.
"""

from collections.abc import Iterator, Mapping

import msgspec

from loadtest.report import thresholds
from loadtest.report.summary import FAULTS, Check, Summary, Verdict

EXIT: dict[Verdict, int] = {
    "pass": 0, "threshold": 10, "audit": 11, "invalid": 12, "interrupted": 130,
}  # fmt: skip
USAGE = 2
LAG_MS = 50.0  # schedule lag and loop lag, p99
LAG_SHARE = 0.1  # of claim_held.p99: more is felt in the figure
STALL_MS = 1_000.0  # one turn of a loader's loop, outside of faults
DROPPED_SHARE = 0.01
BUSY_SHARE = 0.2  # of the seconds a loader had its core full
WITNESS_SHARE = 0.01
JOINED_SHARE = 0.99


def lag_limit_ms(summary: Summary) -> float:
    """The schedule lag that a run may have."""
    held = summary.measures.get("claim_held")
    return max(LAG_MS, LAG_SHARE * held.all.p99 if held else 0.0)


def touched_share(summary: Summary) -> float:
    """The share of viewers whom faults before the sale opens may have kept from joining."""
    opens = [mark.t_s for mark in summary.marks if mark.what == "sale_opens"]
    until = min(opens, default=0.0)
    rooms = summary.scenario.get("rooms", 1)
    faults = [m.what for m in summary.marks if m.what.split(" ")[0] in FAULTS and m.t_s <= until]
    return min(1.0, sum(_touched(fault, rooms) for fault in faults))


def _touched(fault: str, rooms: int) -> float:
    """By one fault, as a mark tells it: those it cut off; a web process has one room's viewers, the
    order worker none, and without Redis or PostgreSQL nobody comes in."""
    kind, what = fault.split(" ", 1)
    if kind == "drop":
        return float(what.removesuffix(" %")) / 100
    if what.startswith("web-"):
        return 1 / rooms
    return 0.0 if what == "worker" else 1.0


def late(summary: Summary) -> Iterator[str]:
    """Signs that the loaders acted or read too late."""
    honesty = summary.honesty
    if honesty.schedule_lag.p99 > lag_limit_ms(summary):
        yield "schedule_lag"
    if honesty.loop_lag.p99 > LAG_MS:
        yield "loop_lag"
    if max((loader.loop_lag_max_ms for loader in honesty.loaders), default=0.0) > STALL_MS:
        yield "loop_stalled"
    if any(h.busy_seconds > max(1, BUSY_SHARE * h.seconds) for h in honesty.loaders):
        yield "loader_busy"


def lacking(summary: Summary) -> Iterator[str]:
    """Signs that part of the load or of the looking on was missing."""
    counts = summary.counts
    if any(loader.died for loader in summary.honesty.loaders):
        yield "loader_died"
    if summary.honesty.dropped > DROPPED_SHARE * summary.honesty.acts:
        yield "dropped"
    lost = counts.get("witness_lost", 0)
    if lost > WITNESS_SHARE * (counts.get("witnessed", 0) + lost):
        yield "witness_lost"
    expected = JOINED_SHARE * counts.get("people", 0) * (1 - touched_share(summary))
    if counts.get("joined", 0) < expected:
        yield "not_joined"


RULES = frozenset({
    "schedule_lag", "loop_lag", "loop_stalled", "loader_busy", "loader_died", "dropped",
    "witness_lost", "not_joined",
})  # fmt: skip


def decided(summary: Summary, checks: list[Check], *, valid: bool, interrupted: bool) -> Verdict:
    """The order of precedence."""
    if interrupted:
        return "interrupted"
    if not summary.audit.ok and summary.audit.scope != "none":
        return "audit"
    if not valid:
        return "invalid"
    return "pass" if all(check.ok for check in checks) else "threshold"


def judged(summary: Summary, wanted: Mapping[str, str], *, interrupted: bool = False) -> Summary:
    """`summary` with its reasons, checks, verdict and exit code.

    `wanted`: the scenario's thresholds. Reasons found elsewhere are kept and make it invalid too.
    """
    found = [reason for reason in summary.honesty.reasons if reason not in RULES]
    reasons = [*found, *late(summary), *lacking(summary)]
    checks = thresholds.checked(wanted, summary)
    verdict = decided(summary, checks, valid=not reasons, interrupted=interrupted)
    honesty = msgspec.structs.replace(summary.honesty, valid=not reasons, reasons=reasons)
    return msgspec.structs.replace(
        summary, honesty=honesty, checks=checks, verdict=verdict, exit=EXIT[verdict]
    )
