"""`livesale reconcile`: have the stock of shows rebuilt in Redis, whatever the workers do."""

import asyncio
import json
import sys
from typing import Final

from server import clock
from server.config import Settings
from server.domain.claim import StockIncident
from server.errors import Misconfigured, RecordsUnavailable, StoreUnavailable
from server.orders.app import open_tools
from server.orders.reconcile import Report, diagnose_all, reconcile
from server.orders.tools import Tools
from server.records import rebuild as books
from server.store.rebuild import Superseded

EXIT_OK, EXIT_FAILED = 0, 2
BY: Final = "livesale reconcile"
TRY_MS: Final = 30_000  # while a worker reconciles the same show, or Redis restarts meanwhile
RETRY_SECONDS: Final = 0.5


def run(settings: Settings, show: str | None, as_json: bool) -> int:
    """Reconcile `show`, or every show that needs it, and print what was done.

    The exit code: 0 all is well now, 2 something was not completed.
    """
    try:
        reports = asyncio.run(reconcile_shows(settings, show))
    except (Misconfigured, StoreUnavailable, RecordsUnavailable, StockIncident) as error:
        failure = {"ok": False, "error": str(error)}
        sys.stdout.write(f"{json.dumps(failure) if as_json else f'reconcile: {error}'}\n")
        return EXIT_FAILED
    if as_json:
        shows = [report.as_dict() for report in reports]
        sys.stdout.write(f"{json.dumps({'ok': True, 'shows': shows})}\n")
    else:
        sys.stdout.write("".join(f"{_line(report)}\n" for report in reports))
        sys.stdout.write(f"{len(reports)} shows reconciled\n")
    return EXIT_OK


async def reconcile_shows(settings: Settings, show: str | None = None) -> list[Report]:
    """Reconcile `show`, or every show that needs it. Raises Misconfigured, StoreUnavailable,
    RecordsUnavailable or StockIncident: something was not completed."""
    async with open_tools(settings) as tools:
        if show is not None:
            return [await until_done(tools, show, "asked: by hand", BY)]
        found = await diagnose_all(await books.projected_shows(tools.pool), tools)
        return [
            await until_done(tools, show_id, each.complaint, BY)
            for show_id, each in found.items()
            if each.complaint
        ]


async def until_done(tools: Tools, show_id: str, reason: str, by: str) -> Report:
    """Reconcile a show, or wait for who is at it. Raises StoreUnavailable after TRY_MS, and what
    `reconcile` raises."""
    until_ms = clock.monotonic_ms() + TRY_MS
    while clock.monotonic_ms() < until_ms:
        try:
            report = await reconcile(show_id, tools, reason, by)
        except Superseded:
            continue
        if report.outcome == "done":
            return report
        await asyncio.sleep(RETRY_SECONDS)
    raise StoreUnavailable(f"{show_id} is being reconciled by somebody else")


def _line(report: Report) -> str:
    return (
        f"{report.show_id}: epoch {report.epoch} ({report.reason}); {report.claims} claims written,"
        f" {report.orders} recovered, {report.released} released, {report.dead} dead;"
        f" closed for {report.ms_closed} ms"
    )
