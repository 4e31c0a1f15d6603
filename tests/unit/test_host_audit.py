"""Who shares whose audit, and how many are made."""

import asyncio
from collections.abc import Callable

import pytest

from server import clock
from server.audit.report import ShowReport
from server.errors import Refused, StoreUnavailable
from server.web import host_audit
from server.web.host_audit import AuditDesk


class Audits:
    """Audits that end when they are told to."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.running = self.most_running = 0
        self.may_end = asyncio.Event()
        self.fails = False

    async def run(self, show_id: str) -> ShowReport:
        self.begun.append(show_id)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await self.may_end.wait()
        finally:
            self.running -= 1
        if self.fails:
            raise StoreUnavailable("no report")
        return ShowReport(show_id)


@pytest.fixture
def audits() -> Audits:
    return Audits()


async def later(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_report_when_many_ask_at_once_then_one_audit_is_made_for_all(audits: Audits) -> None:
    desk = AuditDesk(audits.run)
    asked = [asyncio.create_task(desk.report("show1")) for _ in range(5)]
    asked[0].cancel()  # one who leaves takes nothing from the others
    await later(lambda: bool(audits.begun))
    audits.may_end.set()
    reports = await asyncio.gather(*asked[1:])
    assert len({id(report) for report in reports}) == 1
    assert audits.begun == ["show1"]


async def test_report_when_it_is_fresh_then_it_is_told_again_and_later_made_anew(
    audits: Audits, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(clock, "monotonic_ms", lambda: now)
    audits.may_end.set()
    desk = AuditDesk(audits.run)
    first = await desk.report("show1")
    now += host_audit.FRESH_MS - 1
    assert await desk.report("show1") is first
    now += 1
    assert await desk.report("show1") is not first


async def test_report_when_shows_differ_then_one_audit_runs_at_a_time(audits: Audits) -> None:
    desk = AuditDesk(audits.run)
    shows = [f"show{n}" for n in range(host_audit.WAITING_MAX)]
    asked = [asyncio.create_task(desk.report(show)) for show in shows]
    await later(lambda: bool(audits.begun))
    with pytest.raises(Refused, match="busy"):
        await desk.report("one-too-many")
    audits.may_end.set()
    assert [report.show_id for report in await asyncio.gather(*asked)] == shows
    assert audits.most_running == 1


async def test_report_when_the_audit_fails_then_the_next_one_is_made_anew(audits: Audits) -> None:
    audits.fails = True
    audits.may_end.set()
    desk = AuditDesk(audits.run)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await desk.report("show1")
    assert audits.begun == ["show1", "show1"]


async def test_aclose_when_an_audit_is_being_made_then_it_is_ended(audits: Audits) -> None:
    desk = AuditDesk(audits.run)
    asked = asyncio.create_task(desk.report("show1"))
    await later(lambda: bool(audits.begun))
    await desk.aclose()
    assert audits.running == 0
    with pytest.raises(asyncio.CancelledError):
        await asked
