"""`livesale audit`: every unit, every claim and every order accounted for, also while selling.

Reads Redis and PostgreSQL, writes nothing. The order of reading is what makes it exact
(server/audit/conservation.py): what Redis must have, what viewers see, one cut of Redis, one
snapshot of the books, then what Redis remembers of each claim.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from server.audit.conservation import ClaimKey, Comparison, ShowReport
from server.config import Settings
from server.errors import Misconfigured, RecordsUnavailable, StoreUnavailable
from server.records.audit import TakeBook, read_books, read_promised, shows_to_audit
from server.records.pool import Pool, open_pool
from server.store.client import RedisClients
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock

EXIT_OK: Final = 0
EXIT_CANNOT_TELL: Final = 2  # wrong use, or a server does not answer
EXIT_PROBLEMS: Final = 11
LOOKUP_CLAIMS: Final = 1_000


@dataclass(slots=True)
class AuditReport:
    """What was found in all shows."""

    shows: list[ShowReport] = field(default_factory=list)

    @property
    def is_ok(self) -> bool:
        return not any(show.problems for show in self.shows)

    def to_json(self) -> str:
        shows = [show.as_dict() for show in self.shows]
        return json.dumps({"ok": self.is_ok, "shows": shows}, ensure_ascii=False)

    def to_text(self) -> str:
        """For people: one line per pool, one per problem."""
        lines = [line for show in self.shows for line in _lines(show)]
        problems = sum(len(show.problems) for show in self.shows)
        verdict = "every unit is where it should be" if self.is_ok else f"{problems} problems"
        return "\n".join([*lines, f"{len(self.shows)} shows: {verdict}"])


def _lines(show: ShowReport) -> list[str]:
    return [
        f"{show.show_id}: epoch {show.epoch}, {show.orders} orders, {show.claims} claims",
        *(
            f"  pool {p.pool}: available {p.available} + backlog {p.backlog} + reserved"
            f" {p.reserved} + sold {p.sold} + dead {p.dead} + pending give {p.pending_give}"
            f" = initial {p.initial} + restocked {p.restocked} - lowered {p.lowered}"
            + (f" {p.difference:+d}" if p.difference else "")
            for p in show.pools
        ),
        *(f"  PROBLEM {problem.kind}: {problem.detail}" for problem in show.problems),
    ]


async def audit(clients: RedisClients, pool: Pool, show_id: str | None) -> AuditReport:
    """Audit one show, or all that ever started a sale.

    Raises Misconfigured for an unknown show, StoreUnavailable, RecordsUnavailable.
    """
    show_ids = await shows_to_audit(pool, show_id)
    if show_id is not None and not show_ids:
        raise Misconfigured(f"there is no show {show_id}")
    return AuditReport([await audit_show(clients, pool, each) for each in show_ids])


async def audit_show(clients: RedisClients, pool: Pool, show_id: str) -> ShowReport:
    """Audit one show."""
    scripts = Scripts(clients.commands)
    stock, room = Stock(scripts), RoomStore(scripts)
    report = ShowReport(show_id)
    promised = await read_promised(pool, show_id)
    before = await room.snapshot(show_id)
    cut = await stock.audit_cut(show_id, list(promised.pools))
    after = await room.snapshot(show_id)
    books = await read_books(pool, show_id)
    if cut is None or before is None or after is None:
        if promised.pools:
            report.add("show_missing", "Redis has lost the show")
        return report
    comparison = Comparison(report, cut, books)
    comparison.check_show()
    comparison.check_promised(promised)
    comparison.check_pools()
    comparison.check_viewers(before.state, after.state)
    await _check_claims(stock, show_id, comparison)
    return report


async def _check_claims(stock: Stock, show_id: str, comparison: Comparison) -> None:
    """Each claim's fate, and each order's origin."""
    remembered: set[ClaimKey] = set()
    async for claim in stock.remembered_claims(show_id):
        key = (claim.buyer, claim.claim_id)
        if key not in remembered:  # a scan may name a claim twice
            remembered.add(key)
            comparison.check_claim(claim)
    comparison.report.claims = len(remembered)
    rows = [row for row in comparison.books.takes if row.kind in ("order", "released")]
    unseen = [row for row in rows if (row.buyer, row.claim_id) not in remembered]
    for start in range(0, len(unseen), LOOKUP_CLAIMS):
        await _check_origins(stock, show_id, comparison, unseen[start : start + LOOKUP_CLAIMS])


async def _check_origins(
    stock: Stock, show_id: str, comparison: Comparison, rows: Sequence[TakeBook]
) -> None:
    """The scan may have missed claims made during it: ask for each."""
    states = await stock.lookup(show_id, [(row.buyer, row.claim_id) for row in rows])
    for row, state in zip(rows, states, strict=True):
        if state is None:
            comparison.check_origin(row)


def run(settings: Settings, show: str | None, as_json: bool) -> int:
    """Audit and print; the exit code: 0 all well, 11 problems, 2 cannot tell."""
    try:
        report = asyncio.run(_run(settings, show))
    except (Misconfigured, StoreUnavailable, RecordsUnavailable) as error:
        _print(json.dumps({"ok": None, "error": str(error)}) if as_json else f"audit: {error}")
        return EXIT_CANNOT_TELL
    _print(report.to_json() if as_json else report.to_text())
    return EXIT_OK if report.is_ok else EXIT_PROBLEMS


async def _run(settings: Settings, show: str | None) -> AuditReport:
    clients = await RedisClients.open(settings.redis_url)
    try:
        pool = await open_pool(settings.database_url, size=1)
        try:
            return await audit(clients, pool, show)
        finally:
            pool.terminate()
    finally:
        await clients.aclose()


def _print(text: Any) -> None:
    sys.stdout.write(f"{text}\n")
