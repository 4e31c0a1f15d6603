"""/metrics of a whole web process while viewers come, watch, misbehave and return."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server import limits
from tests.live import Client, until_answer
from tests.scrape import Rise, value
from tests.web_stage import WebStage, web_stage

PLANTED = "planted"


@pytest.fixture
async def web(redis_url: str, database_url: str) -> AsyncIterator[WebStage]:
    async with web_stage(redis_url, database_url, ping_seconds=1) as stage:
        yield stage


async def scrape(web: WebStage) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"{web.url}/metrics", timeout=10) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(read)


async def test_metrics_when_viewers_watch_then_they_say_how_well_they_are_served(
    web: WebStage,
) -> None:
    ticks, echoes, staleness = (
        Rise(f"livesale_{name}_seconds_count")
        for name in ("tick_lateness", "feed_echo", "staleness")
    )
    joined = Rise("livesale_joins_total", kind="new")
    show = await web.show()
    clients = [await web.viewer(show, "mei"), await web.viewer(show)]
    await web.sale(show)

    async def all_measured() -> bool:
        await scrape(web)
        return bool(ticks() and echoes() and staleness())

    await until_answer(all_measured, "ticks, heartbeats and pongs")
    text = await scrape(web)
    assert joined() == 2
    assert value("livesale_viewers", text) == 2
    for lane in ("room", "own"):
        writes = value("livesale_writes_total", text, lane=lane)
        assert value("livesale_written_bytes_total", text, lane=lane) > writes > 0
    for quantile in ("0.5", "0.99"):
        seconds = value("livesale_staleness_recent_seconds", text, quantile=quantile)
        assert 0 <= seconds < 60
    for client in clients:
        await client.close()


async def test_metrics_when_clients_choose_words_then_none_becomes_a_label(web: WebStage) -> None:
    show = await web.show()
    client: Client = await web.viewer(show, PLANTED)
    address = web.url.replace("http", "ws")
    for path in (f"/ws/{PLANTED}", f"/{PLANTED}", f"/ws/{show}?resume={PLANTED}"):
        with pytest.raises(InvalidStatus):
            await connect(address + path, origin=None)
    with pytest.raises(InvalidStatus):
        await connect(f"{address}/ws/{show}", additional_headers={"Origin": f"http://{PLANTED}"})
    malformed = Rise("livesale_closes_total", reason="malformed")
    async with connect(f"{address}/ws/{show}") as socket:
        for _ in range(limits.STRIKES_MAX):
            await socket.send(f'{{"t":"{PLANTED}","ref":1,"{PLANTED}":"{PLANTED}"}}')
        await socket.wait_closed()
    assert malformed() == 1
    assert PLANTED not in await scrape(web)
    await client.close()
