"""Host API: is every unit where it should be?

An audit reads every claim and order of the show, so it runs in a process of its own, one at a time;
whoever asks meanwhile gets the same report, and so does everybody for a while after it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from msgspec import Struct

from server import clock
from server.acts.messages import Body
from server.audit.report import PoolBalance, Problem, ShowReport
from server.errors import Refused
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW

FRESH_MS: Final = 1_000  # at least so long a report is told again,
FRESH_FACTOR: Final = 9  # and so many times as long as it took: audits use a tenth of one core
WAITING_MAX: Final = 8  # shows waiting for their audit, beyond which `busy`
KEPT_MAX: Final = 100


class AuditQuery(Body, frozen=True):
    """`short`: without the problems themselves."""

    form: Literal["short", "full"] = "short"


class AuditSummary(Struct, frozen=True):
    """Units of each pool at the instant `at` (Redis ms). `found`: problems."""

    show: str
    at: int
    ok: bool
    found: int
    pools: list[PoolBalance]


class AuditView(AuditSummary, frozen=True):
    """All that an audit says; at most 1,000 problems are listed."""

    epoch: int
    orders: int
    claims: int
    problems: list[Problem]


@dataclass(frozen=True, slots=True)
class _Known:
    report: ShowReport
    until_ms: float


class AuditDesk:
    """Makes reports and shares them. `run` audits one show."""

    def __init__(self, run: Callable[[str], Awaitable[ShowReport]]) -> None:
        self._run = run
        self._one_at_a_time = asyncio.Lock()
        self._known: dict[str, _Known] = {}
        self._making: dict[str, asyncio.Task[ShowReport]] = {}

    async def report(self, show_id: str) -> ShowReport:
        """Raises Refused(busy), StoreUnavailable."""
        known = self._known.get(show_id)
        if known is not None and clock.monotonic_ms() < known.until_ms:
            return known.report
        if show_id not in self._making:
            if len(self._making) >= WAITING_MAX:
                raise Refused("busy")
            self._making[show_id] = asyncio.create_task(self._make(show_id))
        return await asyncio.shield(self._making[show_id])

    async def _make(self, show_id: str) -> ShowReport:
        try:
            async with self._one_at_a_time:
                began = clock.monotonic_ms()
                report = await self._run(show_id)
        finally:
            del self._making[show_id]
        now = clock.monotonic_ms()
        self._known.pop(show_id, None)
        if len(self._known) >= KEPT_MAX:
            del self._known[next(iter(self._known))]
        self._known[show_id] = _Known(report, now + max(FRESH_MS, FRESH_FACTOR * (now - began)))
        return report

    async def aclose(self) -> None:
        """End what is being made."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def show_audit(self, call: Call) -> AuditSummary | AuditView:
        async with call.acts.desk.reading(call.identity, call.show):
            pass  # raises Refused unless the show is this host's
        report = await self.report(call.show)
        summary = (call.show, report.at, report.is_ok, report.found, report.pools)
        if call.query.form == "short":
            return AuditSummary(*summary)
        return AuditView(*summary, report.epoch, report.orders, report.claims, report.problems)

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                "GET", f"{SHOW}/audit", "audit",
                "Whether every unit, claim and order is where it should be",
                self.show_audit, (AuditSummary, AuditView), query=AuditQuery,
            ),
        )  # fmt: skip
