"""What one run found: `summary.json`, of which every report, verdict and comparison is made.

Times inside a run are seconds since its measured part began (`t_s`; negative: the warm-up).
Latencies are milliseconds, sizes bytes, shares 0 to 1. Within one schema version fields are only
added, with a default; a reader passes over what it does not know.
"""

import json
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

SCHEMA = "livesale.loadtest/1"
FAULTS = frozenset({"drop", "stop", "kill", "restart"})  # first words of marks
SCHEMA_FILE = Path(__file__).with_name("summary.schema.json")

Verdict = Literal["pass", "threshold", "audit", "invalid", "interrupted"]


class Stat(Struct, frozen=True):
    """A distribution, in the unit of its measure. All zero when nothing was counted."""

    count: int = 0
    p50: float = 0.0
    p90: float = 0.0
    p99: float = 0.0
    p999: float = 0.0
    max: float = 0.0
    mean: float = 0.0


class Measure(Struct, frozen=True):
    """One thing measured. `rooms` is by the order of the target's URLs; empty with one room.

    `blocks` holds the p99 of each tenth of the measured part, for the noise of a comparison; a
    tenth without values has none. `spectrum` is the curve of percentiles: (share, value), rising.
    """

    name: str
    unit: str
    all: Stat
    rooms: list[Stat] = []
    blocks: list[float] = []
    spectrum: list[tuple[float, float]] = []


class Point(Struct, frozen=True):
    """One second. A value that was not measured in it is missing.

    Counted per second: joins, claims_intended, claims_sent, held, confirmed, refused, reconnects,
    likes, lines, frames, bytes, errors. Current at its end: open (viewers), left (units). Of the
    second: stale_p99, claim_held_p99 (ms), lag (ms, loop lag p99), cpu_loader, cpu_web,
    cpu_worker, cpu_valkey, cpu_postgres (cores).
    """

    t_s: float
    values: dict[str, float]


class Fairness(Struct, frozen=True):
    """Whether those who were first got the goods. Shares are of all who claimed.

    `rank_correlation` is Spearman's between the order of sending and success (1: the first won).
    `inversions` is the share of `pairs` at most 50 ms apart in which the later one won.
    `bot_bias` says how much oftener a later bot passes an earlier person than the reverse; None
    when there are too few such pairs to say.
    """

    rank_correlation: float
    inversions: float
    pairs: int
    bot_bias: float | None
    bot_wins: float
    bot_people: float
    bot_claims: float


class Timeline(Struct, frozen=True):
    """All that is known about one claim, in order: (t_s, client | redis | postgres, what)."""

    claim_id: str
    user: str
    steps: list[tuple[float, str, str]] = []


class Finding(Struct, frozen=True):
    """An invariant that did not hold: `count` times, at most 20 of them with a timeline."""

    invariant: str
    name: str
    zh: str
    en: str
    count: int
    claims: list[Timeline] = []


class Audit(Struct, frozen=True):
    """`checked` counts what each invariant ("I1" to "I10") was checked on.

    scope: full (clients against Redis and PostgreSQL), clients (only what they saw), none.
    `explained` lists what would be a finding, but for a known reason (incident, dead letter).
    """

    scope: Literal["full", "clients", "none"]
    ok: bool
    checked: dict[str, int] = {}
    findings: list[Finding] = []
    explained: list[Finding] = []


class LoaderHealth(Struct, frozen=True):
    """One loader over the measured part. `cpu_share` is its mean, in cores.

    `seconds` were looked at; in `busy_seconds` of them it used 95 % of a core or more.
    `waited_share` is the time it was ready to run and did not (another took the core).
    """

    loader: int
    cpu_share: float = 0.0
    seconds: int = 0
    busy_seconds: int = 0
    loop_lag_p99_ms: float = 0.0
    loop_lag_max_ms: float = 0.0
    schedule_lag_p99_ms: float = 0.0
    dropped: int = 0
    gc_ms: float = 0.0
    waited_share: float = 0.0
    died: str = ""


class Honesty(Struct, frozen=True):
    """Whether the load tester itself kept up. `reasons` are names (report/verdict.py) or prose.

    Lags, `acts` intended and those of them `dropped` leave out faults and their aftermath.
    """

    valid: bool
    reasons: list[str]
    loaders: list[LoaderHealth]
    schedule_lag: Stat
    loop_lag: Stat
    dropped: int
    machine: dict[str, Any]
    acts: int = 0


class Check(Struct, frozen=True):
    """A threshold and what was found; `got` None: nothing was measured, which is not ok."""

    name: str
    wanted: str
    got: float | None
    ok: bool


class Mark(Struct, frozen=True):
    """A moment on the timeline: sale_opens, sold_out, or a fault (`drop 30 %`, `kill web-1`).

    The first word says what; `for_s` how long it lasted (0: a moment).
    """

    t_s: float
    what: str
    for_s: float = 0.0


class LiveRoom(Struct, frozen=True):
    """A rehearsal beside a real show: what one real viewer felt, p99 in ms, before and during.

    It ended early when that was too much (`stopped`) or could not be seen any more (`blind`).
    """

    tick_gap_before: float
    tick_gap_during: float
    reply_before: float
    reply_during: float
    stopped: bool = False
    blind: bool = False


class Summary(Struct, frozen=True, kw_only=True):
    """One run. `scenario` is what was asked, as plain values (its own form may move on).

    counts: people, joined, acts, dropped, claims, held, confirmed, refused, given_up (claims that
    their buyers stopped sending, no order came of them), unanswered, errors, reconnects, frames,
    bytes, lines_sent, lines_delivered, lines_folded, witnessed, witness_lost, coalesced,
    and the refusals by name (`refused.sold_out`). Measures without a distribution
    (`sold_out_99`) carry their one value in every percentile.
    """

    schema: Literal["livesale.loadtest/1"] = "livesale.loadtest/1"
    livesale: str
    name: str
    run: str
    started_at: str
    scenario: dict[str, Any]
    target: dict[str, Any]
    verdict: Verdict = "pass"
    exit: int = 0
    checks: list[Check] = []
    honesty: Honesty
    audit: Audit
    measures: dict[str, Measure]
    counts: dict[str, int]
    fairness: Fairness | None = None
    series: list[Point] = []
    marks: list[Mark] = []
    live_room: LiveRoom | None = None


Phase = Literal["prepare", "join", "lead_in", "measure", "settle", "audit", "report"]


class Second(Struct, frozen=True):
    """One second of a run under way, for those who watch it: not part of `summary.json`.

    `done` is the share of the phase that is over. `values` are those of a Point; `totals` counts
    since the run began (names of Summary.counts, and people); `quick` is (p50, p99) in ms of the
    loader with the worst p99.
    """

    phase: Phase
    t_s: float
    done: float
    values: dict[str, float] = {}
    totals: dict[str, int] = {}
    quick: dict[str, tuple[float, float]] = {}


def read(data: bytes) -> Summary:
    """The summary in `data`. Raises msgspec.ValidationError saying what is wrong, and where."""
    return msgspec.json.decode(data, type=Summary)


def written(summary: Summary) -> bytes:
    """`summary.json`: readable, one line per value."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n"


def schema() -> str:
    """The JSON Schema of a summary (the text of summary.schema.json)."""
    made = msgspec.json.schema(Summary)
    return json.dumps({"$id": SCHEMA, **made}, indent=1, sort_keys=True) + "\n"
