"""`bench rehearsal`: does a live room feel a rehearsal beside it?

500 viewers and 20 buyers are in a live room (a sale of which 20 units a second are claimed), once
alone and once while the host rehearses the same sale with 300 synthetic buyers, in the same web
process. Server, viewers and rehearsal share the machine, so part of the difference is the people's
own. `reply_p99_ms`: claim sent to claim held; `stale_p99_ms`: published to seen. The lags of the
rehearsal's own loader say how near it was to being invalid (50 ms).
"""

import asyncio
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtest import run as runs
from loadtest import target as targets
from loadtest.bench import report
from loadtest.report.summary import Second, Summary
from loadtest.scenario import Arrivals, Crowd, SaleTerms, Scenario

POLL_S = 1.0
REHEARSED_S = 15  # the shortest there is


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one run; `rehearsed` are the buyers of the rehearsal."""

    viewers: int
    buyers: int
    per_s: float
    rehearsed: int
    seconds: float

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(20, 5, 2, 10, 30) if quick else cls(500, 20, 20, 300, 40)


async def run(*, quick: bool) -> report.Result:
    """Alone, then beside a rehearsal."""
    plan = Plan.of(quick)
    async with targets.started(1) as server:
        alone, _ = await _live(server, plan, rehearses=False)
        beside, rehearsed = await _live(server, plan, rehearses=True)
    figures = {
        "reply_p99_ms_alone": _p99(alone, "claim_held"),
        "reply_p99_ms": _p99(beside, "claim_held"),
        "stale_p99_ms_alone": _p99(alone, "stale"),
        "stale_p99_ms": _p99(beside, "stale"),
    }
    honesty = (rehearsed.get("summary") or {}).get("honesty", {})
    for lag in ("schedule_lag", "loop_lag"):
        if lag in honesty:
            figures[f"rehearsal_{lag}_p99_ms"] = honesty[lag]["p99"]
    said = [rehearsed["status"], rehearsed["verdict"], rehearsed["reason"]]
    words = " ".join(filter(None, [*said, *honesty.get("reasons", ())]))
    return report.Result(figures, [f"the rehearsal: {words}"])


async def _live(
    server: targets.Server, plan: Plan, *, rehearses: bool
) -> tuple[Summary, dict[str, Any]]:
    """One live room from its first viewer to its end; the rehearsal begins when it is measured."""
    server.show = ""  # a new one each time
    rehearsing = Rehearsing(server, plan) if rehearses else None
    with tempfile.TemporaryDirectory() as folder:
        views = [rehearsing] if rehearsing else []
        summary = await runs.run(_scenario(plan), server, views, Path(folder))
    return summary, rehearsing.told if rehearsing else {}


def _scenario(plan: Plan) -> Scenario:
    claims = Arrivals("poisson", per_s=plan.per_s)
    return Scenario(
        version=1,
        name="live",
        seconds=plan.seconds,
        crowd=[
            Crowd("watcher", plan.viewers),
            Crowd("buyer", plan.buyers, acts=claims, claims_each=10_000),
        ],
        sale=SaleTerms(units=100_000, limit=100_000, opens_at_s=0.5),
        loaders=1,
    )


def _p99(summary: Summary, name: str) -> float:
    return summary.measures[name].all.p99


class Rehearsing:
    """Watches a run, and has its sale rehearsed as soon as it is measured; `told`: what came of
    it."""

    def __init__(self, server: targets.Server, plan: Plan) -> None:
        self._server = server
        self._plan = plan
        self._task: asyncio.Task[None] | None = None
        self.told: dict[str, Any] = {"status": "not over", "verdict": "", "reason": ""}

    def pulse(self, second: Second) -> None:
        if second.phase == "measure" and self._task is None:
            self._task = asyncio.create_task(self._rehearse())

    async def _rehearse(self) -> None:
        show = f"/api/shows/{self._server.show}"
        sales = (await self._server.call("GET", f"{show}/sales"))["sales"]
        order = {"request_id": str(uuid.uuid4()), "sale": sales[0]["sale"]}
        size = {"buyers": self._plan.rehearsed, "seconds": REHEARSED_S}
        made = await self._server.call("POST", f"{show}/rehearsals", {**order, **size})
        while not self.told.get("ended_at"):
            await asyncio.sleep(POLL_S)
            place = f"{show}/rehearsals/{made['rehearsal']}"
            self.told = await self._server.call("GET", place)

    def note(self, text: str) -> None:
        """Nobody reads."""

    def done(self, summary: Summary) -> None:
        """The room is over; what is not over by then counts as it stands."""
        if self._task is not None:
            self._task.cancel()
