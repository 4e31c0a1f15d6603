"""`livesale audit --repair`: what is safe. Redis follows the books; the books are never changed.

First what is pending is finished, as workers do all the time. If Redis still differs, the show is
reconciled: its stock in Redis is rebuilt from the books, which may cost holds that only Redis knew.
What is wrong in the books themselves is only named.
"""

import asyncio
import json
import sys
from collections.abc import Sequence

from server.acts.projector import Projector
from server.audit.audit import audit
from server.audit.command import EXIT_CANNOT_TELL, EXIT_OK, EXIT_PROBLEMS
from server.audit.report import KINDS, AuditReport, ShowReport
from server.config import Settings
from server.domain.claim import StockIncident
from server.errors import Misconfigured, RecordsUnavailable, Refused, StoreUnavailable
from server.orders.app import open_tools
from server.orders.reconcile_command import until_done
from server.orders.tools import Tools
from server.store.room import RoomStore

BY = "livesale audit --repair"


def run(settings: Settings, show: str | None, as_json: bool) -> int:
    """Audit, repair, print what was done, audit again; the exit code is the second audit's."""
    try:
        done, report = asyncio.run(_run(settings, show))
    except (Misconfigured, StoreUnavailable, RecordsUnavailable, StockIncident) as error:
        failure = json.dumps({"ok": None, "error": str(error)})
        sys.stdout.write(f"{failure if as_json else f'audit: {error}'}\n")
        return EXIT_CANNOT_TELL
    if as_json:
        printed = json.dumps({"repaired": done, **json.loads(report.to_json())}, ensure_ascii=False)
    else:
        printed = "\n".join([*(f"REPAIR {line}" for line in done), report.to_text()])
    sys.stdout.write(f"{printed}\n")
    return EXIT_OK if report.is_ok else EXIT_PROBLEMS


async def _run(settings: Settings, show: str | None) -> tuple[list[str], AuditReport]:
    async with open_tools(settings) as tools:
        return await repair(tools, show)


async def repair(tools: Tools, show: str | None) -> tuple[list[str], AuditReport]:
    """What was done, a line each, and how things are now.

    Raises Misconfigured for an unknown show; StoreUnavailable, RecordsUnavailable or StockIncident
    when it was not completed: then it may be repeated.
    """
    report = await audit(tools.clients, tools.pool, show)
    if report.is_ok:
        return [], report
    done = await _finish(tools, [each for each in report.shows if not each.is_ok])
    report = await audit(tools.clients, tools.pool, show)
    for each in report.shows:
        if kinds := _kinds(each, "reconcile"):
            done.append(await _reconcile(tools, each.show_id, kinds))
    return done, await audit(tools.clients, tools.pool, show)


async def _finish(tools: Tools, shows: Sequence[ShowReport]) -> list[str]:
    """Gives, steps of orders and host's acts that Redis has not been told yet."""
    projector = Projector(tools.pool, tools.stock, RoomStore(tools.scripts))
    done = []
    for show in shows:
        try:
            if told := await projector.orders.tell(show.show_id):
                done.append(f"{show.show_id}: told Redis of {told} gives and steps of orders")
        except Refused as refusal:  # its stock has to be reconciled before
            done.append(f"{show.show_id}: nothing told, {refusal.error.name}")
    if swept := await projector.sweep():
        done.append(f"finished {swept} acts of hosts")
    return done


async def _reconcile(tools: Tools, show_id: str, kinds: Sequence[str]) -> str:
    report = await until_done(tools, show_id, f"audit: {', '.join(kinds)}", BY)
    return (
        f"{show_id}: reconciled for {', '.join(kinds)}: epoch {report.epoch}, {report.claims}"
        f" claims written, {report.orders} recovered, {report.released} released"
    )


def _kinds(show: ShowReport, repair: str) -> list[str]:
    """Kinds of problems in `show` that this repair is for."""
    found = dict.fromkeys(problem.kind for problem in show.problems)
    return [kind for kind in found if KINDS[kind].repair == repair]
