"""Holds that were proved too late leave a trace: a counter, a log line, one row."""

import uuid
from typing import Any, cast

import pytest
import redis.asyncio
import structlog

from server import clock
from server.errors import RecordsUnavailable
from server.hub.hub import Hub
from server.hub.room import Room
from server.protocol import messages as m
from server.records.pool import open_pool
from server.telemetry import metrics
from server.web import app, late_releases
from server.web.late_releases import LateReleases
from tests.bookshop import eventually
from tests.hub_fakes import FakeRoom
from tests.live import Client, LiveSystem, until
from tests.web_stage import WebStage, sees_sale, web_stage

ROOM = cast(Room, FakeRoom("show1"))


def hold(n: int) -> m.ClaimState:
    return m.ClaimState(
        claim_id=str(uuid.UUID(int=n)), status="held", sale=1, quantity=2, price=990,
        price_version=1, epoch=3, seq=n,
    )  # fmt: skip


async def rows(database_url: str) -> list[dict[str, Any]]:
    pool = await open_pool(database_url, size=1)
    try:
        return [dict(row) for row in await pool.fetch("SELECT * FROM late_releases ORDER BY seq")]
    finally:
        await pool.close()


async def test_receipt_when_its_units_are_gone_then_counted_logged_and_one_row_however_often(
    hubs: tuple[WebStage, WebStage], redis_url: str, database_url: str, system: LiveSystem
) -> None:
    """From both hubs, and from whoever has no receipt of ours."""
    show = await hubs[0].show()
    sale = await hubs[0].sale(show, units=1)
    async with web_stage(redis_url, database_url) as gone:
        ann = await viewer(gone, show, sale, "ann")
        lost = (await claim(ann, sale, str(clock.new_uuid7()))).claim
    assert lost is not None
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushall()
    assert system.run("reconcile", "--show", show).returncode == 0
    cid = await viewer(hubs[0], show, sale, "cid")
    await until(lambda: cid.state[f"stock:{sale['sale']}"]["epoch"] == 2, "rebuilt")
    await claim(cid, sale, str(clock.new_uuid7()))
    counted = metrics.released_late.count("sold_out")
    proof = m.Proof(lost.receipt, lost.epoch, lost.seq, lost.price)
    forged = m.Proof("0" * 32, lost.epoch, lost.seq, lost.price)
    for attempt, hub in enumerate((*hubs, *hubs), 1):
        ann = await viewer(hub, show, sale, "ann")
        told = await claim(ann, sale, lost.claim_id, attempt=attempt, proof=proof)
        assert told.claim is not None
        assert told.claim.status == "released_by_incident"
        other = await viewer(hub, show, sale, "bob")
        for forgery in (proof, forged):
            with pytest.raises(AssertionError, match="sold_out"):
                await claim(other, sale, lost.claim_id, attempt=attempt, proof=forgery)
    await eventually(lambda: rows(database_url))
    (row,) = await rows(database_url)
    assert (row["buyer"], str(row["claim_id"])) == ("ann", lost.claim_id)
    assert (row["epoch"], row["seq"], row["refusal"]) == (lost.epoch, lost.seq, "sold_out")
    assert metrics.released_late.count("sold_out") - counted == 2  # once on each hub


async def viewer(hub: WebStage, show: str, sale: dict[str, Any], name: str) -> Client:
    client = await hub.viewer(show, name)
    await sees_sale(client, sale["sale"])
    return client


async def claim(client: Client, sale: dict[str, Any], claim_id: str, **more: Any) -> m.Accepted:
    reply = await client.ask(
        lambda ref: m.Claim(
            ref=ref, sale=sale["sale"], claim_id=claim_id, quantity=1,
            price_version=sale["price_version"], **more,
        )
    )  # fmt: skip
    assert isinstance(reply, m.Accepted), reply.name
    return reply


async def test_log_when_a_hold_was_lost_then_it_says_which_but_not_whose(
    database_url: str,
) -> None:
    pool = await open_pool(database_url, size=1)
    late = LateReleases(pool)
    with structlog.testing.capture_logs() as logs:
        late.note(ROOM, "ann", hold(1), "sold_out")
        late.note(ROOM, "ann", hold(1), "sold_out")
    (line,) = logs
    assert (line["event"], line["epoch"], line["seq"]) == ("claim_released_late", 3, 1)
    assert "ann" not in str(line)
    await pool.close()


async def test_records_when_postgresql_is_away_then_the_newest_wait_within_a_bound(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late_releases, "LATE_RELEASES_MAX", 700)
    pool = await open_pool(database_url, size=1)
    late = LateReleases(pool)
    for n in range(1, 1_001):
        late.note(ROOM, "ann", hold(n), "sold_out")
    await late.flush()
    await late.flush()
    assert [row["seq"] for row in await rows(database_url)] == list(range(301, 1_001))
    await pool.close()


async def test_process_when_it_stops_then_what_the_hub_noted_last_is_written(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Hub.stop

    async def note_last(hub: Hub) -> None:
        await stop(hub)
        desks[0].late.note(ROOM, "ann", hold(1), "sold_out")

    desks: list[app.Desks] = []
    make = app.make_desks

    def made(*given: Any) -> app.Desks:
        desks.append(make(*given))
        return desks[0]

    monkeypatch.setattr(app, "make_desks", made)
    monkeypatch.setattr(Hub, "stop", note_last)
    async with web_stage(redis_url, database_url):
        pass
    assert [row["buyer"] for row in await rows(database_url)] == ["ann"]


async def test_process_when_postgresql_is_away_at_the_stop_then_it_ends_all_the_same() -> None:
    async def flush() -> None:
        raise RecordsUnavailable("away")

    with structlog.testing.capture_logs() as logs:
        await app.close_within(1, flush)
    assert [line["event"] for line in logs] == ["close_failed"]
