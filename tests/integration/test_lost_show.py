"""A show that Redis has lost is not an unknown one: its viewers are asked to come again."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping

import pytest
import redis.asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from server.errors import RecordsUnavailable
from server.web.known_shows import KnownShows
from tests.bookshop import eventually
from tests.conftest import run_sql
from tests.live import LiveSystem
from tests.web_stage import WebStage, web_stage


@pytest.fixture
async def web(redis_url: str, database_url: str) -> AsyncIterator[WebStage]:
    async with web_stage(redis_url, database_url) as stage:
        yield stage


async def entering(web: WebStage, show: str) -> tuple[int, str]:
    """The HTTP status of a handshake, and the answer's body."""
    url = f"{web.url.replace('http', 'ws', 1)}/ws/{show}"
    try:
        async with connect(url, compression=None):
            return 101, ""
    except InvalidStatus as refused:
        return refused.response.status_code, (refused.response.body or b"").decode()


async def flush(redis_url: str) -> None:
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushall()


async def test_show_when_redis_was_flushed_then_come_again_and_no_such_show_only_where_it_is_true(
    web: WebStage, redis_url: str, system: LiveSystem
) -> None:
    """Also a show in which nothing was ever sold; also on a hub that never had it."""
    show = await web.show()
    assert (await entering(web, "unknown1"))[0] == 404
    await flush(redis_url)
    status, body = await entering(web, show)
    assert (status, "stock_rebuilding" in body) == (503, True)
    assert (await entering(web, "unknown1"))[0] == 404
    system.start_worker()
    seen = set()

    async def is_back() -> bool:
        seen.add((await entering(web, show))[0])
        return 101 in seen

    await eventually(is_back, 30)
    assert seen <= {101, 503}


async def test_show_when_it_was_over_long_ago_and_redis_lost_it_then_it_has_ended(
    web: WebStage, redis_url: str, database_url: str
) -> None:
    show = await web.show()
    await web.host.ask("POST", f"/api/shows/{show}/end")
    await flush(redis_url)
    assert (await entering(web, show))[0] == 503  # soon it is there again
    await run_sql(database_url, "UPDATE shows SET ended_at = now() - interval '8 days'")
    status, body = await entering(web, show)
    assert (status, "show_ended" in body) == (409, True)


async def test_show_when_neither_knows_then_postgresql_is_asked_one_question_at_a_time() -> None:
    asked: list[set[str]] = []
    answer = asyncio.Event()

    async def books(shows: Collection[str]) -> Mapping[str, bool]:
        asked.append(set(shows))
        await answer.wait()
        return {"known": False, "over": True}

    known = KnownShows(books)
    first = asyncio.create_task(known.refusal("known"))
    await asyncio.sleep(0)
    guesses = [asyncio.create_task(known.refusal(f"guess{n}")) for n in range(1_000)]
    late = asyncio.create_task(known.refusal("over"))
    await asyncio.sleep(0)
    answer.set()
    assert (await first).error.name == "stock_rebuilding"
    assert (await late).error.name == "show_ended"
    assert {(await guess).error.name for guess in guesses} == {"not_found"}
    assert [len(shows) for shows in asked] == [1, 1_001]


async def test_show_when_postgresql_is_away_too_then_unavailable_and_asked_again() -> None:
    asked = 0

    async def books(shows: Collection[str]) -> Mapping[str, bool]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RecordsUnavailable("away")
        return {"show1": False}

    known = KnownShows(books)
    assert (await known.refusal("show1")).error.name == "unavailable"
    assert (await known.refusal("show1")).error.name == "stock_rebuilding"


async def test_show_when_postgresql_is_away_then_those_who_ask_at_once_share_the_failure() -> None:
    """Else each would wait for its own time limit, one after the other."""
    asked: list[set[str]] = []

    async def books(shows: Collection[str]) -> Mapping[str, bool]:
        asked.append(set(shows))
        await asyncio.sleep(0)
        raise RecordsUnavailable("away")

    known = KnownShows(books)
    guesses = [asyncio.create_task(known.refusal(f"guess{n}")) for n in range(100)]
    assert {(await guess).error.name for guess in guesses} == {"unavailable"}
    assert sum(map(len, asked)) == 100
    assert len(asked) <= 2
