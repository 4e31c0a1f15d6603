"""Thresholds of a scenario: `"claim_held.p99_ms" = "<300"`, and whether a run kept them."""

import difflib
import operator
import re
from collections.abc import Callable, Mapping

from loadtest.report.summary import Check, Summary

IMPLIED = {"audit.problems": "==0"}
LATENCIES = (
    "join", "claim_held", "claim_held_service", "claim_confirmed", "claim_confirmed_service",
    "schedule_lag", "stale", "age", "skew", "sold_out_50", "sold_out_99", "sold_out_100",
    "reconnect", "reply",
)  # fmt: skip
OTHERS = ("bytes_per_viewer_s", "chat_delivered")  # without "_ms"
STATS = {
    "p50": "p50", "p90": "p90", "p99": "p99", "p999": "p999", "max": "max", "mean": "mean",
}  # fmt: skip
SHARES = (
    "errors.share", "given_up.share", "dropped.share", "fair.inversions", "fair.bot_bias",
    "fair.rank",
)  # fmt: skip
FORM = re.compile(r"(<=|>=|==|<|>)\s*(\d+(?:\.\d+)?)")
COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq,
}  # fmt: skip


def names() -> list[str]:
    """Every name a threshold may have."""
    timed = [f"{name}.{stat}_ms" for name in LATENCIES for stat in STATS]
    timed += [f"{name}.ms" for name in LATENCIES]
    plain = [f"{name}.{stat}" for name in OTHERS for stat in (*STATS, "share")]
    return [*timed, *plain, *SHARES, *IMPLIED]


def parsed(wanted: str) -> tuple[str, float]:
    """The operator and the limit of `wanted`. Raises ValueError: not of that form."""
    found = FORM.fullmatch(wanted.strip())
    if found is None:
        raise ValueError(f'"{wanted}" is no threshold: write "<300", "<=", ">", ">=" or "=="')
    return found[1], float(found[2])


def problem(name: str, wanted: str) -> str:
    """What is wrong with a threshold, in one line; "" when nothing is."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        return f"no such threshold: {name}" + (f" (did you mean {near[0]}?)" if near else "")
    try:
        parsed(wanted)
    except ValueError as wrong:
        return str(wrong)
    return ""


def share(part: int, whole: int) -> float | None:
    """part / whole; None when there is no whole."""
    return part / whole if whole else None


def special(name: str, summary: Summary) -> float | None:
    """The value of a name that is no measure's; None when it was not measured."""
    counts, fair = summary.counts, summary.fairness
    match name:
        case "errors.share":
            return share(counts.get("errors", 0), counts.get("acts", 0))
        case "given_up.share":
            return share(counts.get("given_up", 0), counts.get("claims", 0))
        case "dropped.share":
            return share(summary.honesty.dropped, summary.honesty.acts)
        case "audit.problems":
            return float(sum(finding.count for finding in summary.audit.findings))
        case "fair.inversions":
            return fair.inversions if fair and fair.pairs else None
        case "fair.bot_bias":
            return fair.bot_bias if fair else None
        case _:
            return fair.rank_correlation if fair else None


def value(name: str, summary: Summary) -> float | None:
    """What the run found under the threshold's name; None when nothing was measured."""
    if name in SHARES or name in IMPLIED:
        return special(name, summary)
    measure_name, _, stat = name.partition(".")
    measure = summary.measures.get(measure_name)
    if measure is None or measure.all.count == 0:
        return None
    field = STATS.get(stat.removesuffix("_ms"), "p50")  # "ms" and "share": its only value
    return float(getattr(measure.all, field))


def checked(thresholds: Mapping[str, str], summary: Summary) -> list[Check]:
    """Every threshold against the run, the implied ones last. Raises ValueError: no threshold.

    A run that was not audited has no check of the audit.
    """
    implied = {} if summary.audit.scope == "none" else IMPLIED
    made = []
    for name, wanted in ({**thresholds} | implied).items():
        sign, limit = parsed(wanted)
        got = value(name, summary)
        made.append(Check(name, wanted, got, got is not None and COMPARE[sign](got, limit)))
    return made
