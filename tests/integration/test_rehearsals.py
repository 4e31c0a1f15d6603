"""Rehearsals over HTTP, with a stand-in for the load tester: who may, what becomes of it, and that
nobody and nothing of the real show meets the shadow show."""

import asyncio
import json
import os
import sys
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest
import redis.asyncio as redis
from websockets.exceptions import InvalidStatus

from server import limits
from server.acts.shows import ShowActs
from server.errors import ERRORS_BY_CODE, StoreUnavailable
from server.protocol import messages as m
from server.web import host_rehearsals
from server.web.rehearsing import rehearse
from tests.host_stage import until as until_so
from tests.live import Client, Host, call, token_of, until
from tests.web_stage import WebStage, web_stage

STAND_IN = """
import base64, gzip, json, os, signal, sys, time
order = json.load(sys.stdin)
open({told!r}, "w").write(json.dumps({{**order, "pid": os.getpid(), "nice": os.nice(0)}}))
def say(**event):
    print(json.dumps(event), flush=True)
def progress(phase, **more):
    say(event="progress", progress={{"phase": phase, **more}})
def done(**more):
    page = gzip.compress("<!doctype html><title>彩排</title>".encode())
    say(event="done", summary={{"verdict": "pass", "counts": {{"held": 3}}}},
        report_gz_b64=base64.b64encode(page).decode(), **more)
def until_stopped():
    waiting = [True]
    signal.signal(signal.SIGINT, lambda *_: waiting.clear())
    progress("measure", share=0.5, held=3, confirmed=2, left=7)
    while waiting:
        time.sleep(0.02)
    done()
{body}
"""
Books: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Play: TypeAlias = Callable[[str], Path]


@pytest.fixture
async def web(redis_url: str, database_url: str) -> AsyncIterator[WebStage]:
    async with web_stage(redis_url, database_url) as stage:
        yield stage


@pytest.fixture
async def books(database_url: str) -> AsyncIterator[Books]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """`play(body)`: that is the load tester from now on; a file has what it was told."""

    def put(body: str) -> Path:
        told, script = tmp_path / "told.json", tmp_path / "stand_in.py"
        script.write_text(STAND_IN.format(told=str(told), body=body))
        command = (sys.executable, "-I", "-S", str(script))
        monkeypatch.setattr(host_rehearsals, "rehearse", partial(rehearse, command=command))
        monkeypatch.setattr(host_rehearsals, "NEEDED", ("json",))
        return told

    return put


async def ask(
    web: WebStage, show: str, method: str, rest: str = "", body: Any = None, token: str = "host"
) -> tuple[int, Any]:
    token = web.host.token if token == "host" else token
    return await call(method, f"{web.url}/api/shows/{show}/rehearsals{rest}", token, body)


def order_of(sale: int, **more: Any) -> dict[str, Any]:
    return {"request_id": str(uuid.uuid4()), "sale": sale, "buyers": 10, **more}


async def begun(web: WebStage, show: str, sale: int, **more: Any) -> int:
    status, view = await ask(web, show, "POST", body=order_of(sale, **more))
    assert status == 202, view
    return int(view["rehearsal"])


async def until_status(web: WebStage, show: str, number: int, wanted: str) -> dict[str, Any]:
    """The rehearsal once it has this status."""
    async with asyncio.timeout(15):
        while True:
            _, view = await ask(web, show, "GET", f"/{number}")
            if view["status"] == wanted:
                return dict(view)
            assert not view["ended_at"], view
            await asyncio.sleep(0.02)


async def shown(web: WebStage) -> tuple[str, int]:
    """A live show and its sale."""
    show = await web.show()
    return show, (await web.sale(show))["sale"]


async def scheduled(host: Host) -> tuple[str, int]:
    """A show that has not begun and its sale."""
    show = (await host.ask("POST", "/api/shows", {"title": "晚八点"}))["show"]
    sku = {"title": "600 ml", "price": 12900, "inventory": 1000}
    product = {"title": "手冲壶", "skus": [sku]}
    made = await host.ask("POST", f"/api/shows/{show}/products", product)
    terms = {"sku": made["skus"][0]["sku"], "price": 9900, "units": 10, "duration_s": 300}
    sale = await host.ask("POST", f"/api/shows/{show}/sales", {**terms, "limit_per_buyer": 2})
    return str(show), int(sale["sale"])


# --- What becomes of one ------------------------------------------------------------------------


async def test_rehearsal_when_it_is_done_then_its_report_is_there(
    web: WebStage, play: Play, books: Books
) -> None:
    told = play('progress("measure")\ndone()')
    show, sale = await shown(web)
    number = await begun(web, show, sale)
    view = await until_status(web, show, number, "done")
    assert (view["verdict"], view["reason"], view["summary"]["counts"]) == ("pass", "", {"held": 3})
    order = json.loads(told.read_text())
    assert (order["units"], order["limit"], order["live_show"]) == (10, 2, show)
    assert order["nice"] >= 10
    url = f"{web.url}/api/shows/{show}/rehearsals/{number}/report"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {web.host.token}"})
    with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
        assert "彩排" in answer.read().decode()
        assert answer.headers["Content-Security-Policy"].endswith("sandbox")
        assert answer.headers["Content-Disposition"].startswith("attachment")
    _, listed = await ask(web, show, "GET")
    assert [each["rehearsal"] for each in listed["rehearsals"]] == [number]

    async def shadow_has_ended() -> bool:
        status = await books.fetchval("SELECT status FROM shows WHERE show_id = $1", order["show"])
        return bool(status == "ended")

    await until_so(shadow_has_ended)  # what is over is told first


async def test_rehearsals_when_there_are_many_then_reports_of_old_ones_are_not_kept(
    web: WebStage, play: Play, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REHEARSALS_LISTED", 2)
    play("done()")
    show, sale = await shown(web)
    other, its_sale = await shown(web)
    numbers = [await finished(web, other, its_sale)]
    numbers += [await finished(web, show, sale) for _ in range(3)]
    kept = await books.fetch(
        "SELECT summary IS NOT NULL AND report IS NOT NULL FROM rehearsals ORDER BY rehearsal_id"
    )
    assert [row[0] for row in kept] == [True, False, True, True]
    assert (await ask(web, show, "GET", f"/{numbers[1]}/report"))[0] == 404
    assert (await ask(web, show, "GET", f"/{numbers[1]}"))[1]["summary"] is None
    assert await shadows_open(books) == 0  # they are still told from real shows


async def finished(web: WebStage, show: str, sale: int) -> int:
    number = await begun(web, show, sale)
    await until_status(web, show, number, "done")
    return number


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("sys.exit(1)", "failed", "load_test_failed"),
        ("print('no event', flush=True)\ntime.sleep(30)", "failed", "load_test_failed"),
        ('done(reason="live_room_felt_it")', "stopped", "live_room_felt_it"),
    ],
)
async def test_rehearsal_when_it_does_not_end_well_then_the_reason_is_told(
    web: WebStage, play: Play, body: str, status: str, reason: str
) -> None:
    play(body)
    show, sale = await shown(web)
    view = await until_status(web, show, await begun(web, show, sale), status)
    assert view["reason"] == reason


async def test_rehearsal_when_stopped_then_it_still_reports(web: WebStage, play: Play) -> None:
    play("until_stopped()")
    show, sale = await shown(web)
    number = await begun(web, show, sale)
    await until_progress(web, show, number)
    status, _ = await ask(web, show, "POST", f"/{number}/stop")
    assert status == 200
    view = await until_status(web, show, number, "stopped")
    assert (view["reason"], view["verdict"]) == ("host", "pass")
    progress = {"phase": "measure", "share": 0.5, "held": 3, "confirmed": 2, "left": 7}
    assert view["progress"] == progress


async def until_progress(web: WebStage, show: str, number: int) -> None:
    """Until it is measured, as the books have it."""
    async with asyncio.timeout(15):
        while True:
            _, view = await ask(web, show, "GET", f"/{number}")
            if view["progress"]["phase"] == "measure":
                return
            await asyncio.sleep(0.02)


async def test_rehearsal_when_the_web_process_stops_then_it_and_its_people_end(
    redis_url: str, database_url: str, play: Play, books: Books
) -> None:
    told = play("until_stopped()")
    async with web_stage(redis_url, database_url) as web:
        show, sale = await shown(web)
        await until_progress(web, show, await begun(web, show, sale))
    (row,) = await books.fetch("SELECT status, reason FROM rehearsals")
    assert tuple(row) == ("failed", "server_stopped")
    with pytest.raises(ProcessLookupError):
        os.kill(json.loads(told.read_text())["pid"], 0)


async def test_rehearsal_when_its_web_process_was_lost_then_the_next_may_begin(
    web: WebStage, play: Play, books: Books
) -> None:
    play("done()")
    show, sale = await shown(web)
    first = await begun(web, show, sale)
    await until_status(web, show, first, "done")
    await books.execute(
        "UPDATE rehearsals SET status = 'running', ended_at = NULL, "
        "seen_at = now() - interval '14 seconds'"
    )
    assert (await ask(web, show, "POST", body=order_of(sale)))[0] == 409
    await books.execute("UPDATE rehearsals SET seen_at = now() - interval '16 seconds'")
    second = await begun(web, show, sale)
    _, view = await ask(web, show, "GET", f"/{first}")
    assert (view["status"], view["reason"]) == ("failed", "lost")
    await until_status(web, show, second, "done")


async def test_shadow_shows_when_lost_then_a_look_ends_them_but_the_one_that_cannot_be(
    web: WebStage, play: Play, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    play("done()")
    show, sale = await shown(web)
    for _ in range(2):
        await until_status(web, show, number := await begun(web, show, sale), "done")
    await books.execute(
        "UPDATE shows SET status = 'live', ended_at = NULL "
        "WHERE show_id IN (SELECT shadow_id FROM rehearsals)"
    )
    await books.execute(
        "UPDATE rehearsals SET status = 'running', ended_at = NULL, "
        "seen_at = now() - interval '16 seconds' WHERE rehearsal_id = $1",
        number,
    )
    move, tried = ShowActs.move, []

    async def move_but_the_first(self: ShowActs, *how: Any) -> Any:
        tried.append(how)
        if len(tried) == 1:
            raise StoreUnavailable("as if")
        return await move(self, *how)

    monkeypatch.setattr(ShowActs, "move", move_but_the_first)
    assert (await ask(web, show, "GET"))[0] == 200
    assert await shadows_open(books) == 1
    await until_status(web, show, await begun(web, show, sale), "done")

    async def all_ended() -> bool:
        return await shadows_open(books) == 0

    await until_so(all_ended)


async def shadows_open(books: Books) -> int:
    return int(
        await books.fetchval(
            "SELECT count(*) FROM rehearsals JOIN shows s ON s.show_id = shadow_id "
            "WHERE s.status <> 'ended'"
        )
    )


# --- Who may, and when --------------------------------------------------------------------------


async def test_rehearsals_when_asked_by_others_then_refused(web: WebStage, play: Play) -> None:
    play("done()")
    show, sale = await shown(web)
    calls = (
        ("POST", "", order_of(sale)), ("GET", "", None), ("GET", "/1", None),
        ("POST", "/1/stop", None), ("GET", "/1/report", None),
    )  # fmt: skip
    strangers = (
        ("", 401),
        (token_of("v1", show), 403),
        (token_of("m1", show, "moderator"), 403),
        (token_of("someone-else", "*", "host"), 403),
    )
    for method, rest, body in calls:
        for token, status in strangers:
            assert (await ask(web, show, method, rest, body, token))[0] == status, (method, rest)
    for method, rest in (("GET", "/1"), ("POST", "/1/stop"), ("GET", "/1/report")):
        assert (await ask(web, show, method, rest))[0] == 404


async def test_rehearsal_when_badly_asked_then_refused(web: WebStage, play: Play) -> None:
    play("done()")
    show, sale = await shown(web)
    _, elsewhere = await shown(web)
    for body, status, name, field in (
        (order_of(sale, buyers=9), 422, "bad_field", "buyers"),
        (order_of(sale, buyers=2001), 422, "bad_field", "buyers"),
        (order_of(sale, buyers=501), 422, "bad_field", "buyers"),  # the show is on
        (order_of(sale, watchers=501), 422, "bad_field", "watchers"),
        (order_of(sale, bots=51), 422, "bad_field", "bots"),
        (order_of(sale, seconds=61), 422, "bad_field", "seconds"),
        (order_of(sale, reaction="bot"), 422, "bad_field", "reaction"),
        (order_of(elsewhere), 404, "unknown_sale", "sale"),
        (order_of(sale + 1000), 404, "unknown_sale", "sale"),
    ):
        found, answer = await ask(web, show, "POST", body=body)
        assert (found, answer["error"]["name"], answer["error"]["field"]) == (status, name, field)


async def test_rehearsal_when_the_show_of_another_host_is_on_then_that_one_is_spared(
    web: WebStage, play: Play
) -> None:
    told = play("done()")
    live = await web.show()
    other = Host(web.url, token_of("hong", "*", "host"))
    show, sale = await scheduled(other)
    status, answer = await ask(web, show, "POST", "", order_of(sale, buyers=501), other.token)
    assert (status, answer["error"]["field"]) == (422, "buyers")
    status, _ = await ask(web, show, "POST", "", order_of(sale), other.token)
    assert status == 202
    await until(lambda: told.exists() and told.read_text() != "", "the order")
    assert json.loads(told.read_text())["live_show"] == live


async def test_rehearsal_when_a_real_show_begins_meanwhile_then_it_makes_way(
    web: WebStage, play: Play
) -> None:
    told = play("until_stopped()")
    show, sale = await scheduled(web.host)
    number = await begun(web, show, sale, buyers=501)
    await until_progress(web, show, number)
    assert json.loads(told.read_text())["live_show"] == ""
    await web.host.ask("POST", f"/api/shows/{show}/start")
    view = await until_status(web, show, number, "stopped")
    assert (view["reason"], view["verdict"]) == ("live_show_began", "pass")


async def test_rehearsal_when_asked_again_without_room_then_it_is_the_same_one(
    redis_url: str, database_url: str, play: Play
) -> None:
    play("until_stopped()")
    async with web_stage(redis_url, database_url, viewers_max=100) as web:
        show, sale = await shown(web)
        order = order_of(sale, buyers=50)
        _, first = await ask(web, show, "POST", body=order)
        viewer = await web.viewer(show)
        _, refused = await ask(web, show, "POST", body=order_of(sale, buyers=50))
        assert refused["error"]["name"] == "busy"
        status, again = await ask(web, show, "POST", body=order)
        assert (status, again["rehearsal"]) == (202, first["rehearsal"])
        await viewer.close()


async def test_rehearsal_when_one_is_under_way_then_no_second_begins(
    web: WebStage, play: Play
) -> None:
    play("until_stopped()")
    show, sale = await shown(web)
    order = order_of(sale)
    (_, first), (_, again) = [await ask(web, show, "POST", body=order) for _ in range(2)]
    assert first["rehearsal"] == again["rehearsal"]
    assert (await ask(web, show, "POST", body={**order, "buyers": 11}))[0] == 409
    other, its_sale = await shown(web)
    assert (await ask(web, other, "POST", body=order_of(its_sale)))[0] == 409
    await ask(web, show, "POST", f"/{first['rehearsal']}/stop")


async def test_rehearsal_when_places_could_run_short_or_the_extra_is_missing_then_refused(
    redis_url: str, database_url: str, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    play("done()")
    async with web_stage(redis_url, database_url, viewers_max=100) as web:
        show, sale = await shown(web)
        _, answer = await ask(web, show, "POST", body=order_of(sale, buyers=51))
        assert answer["error"]["name"] == "busy"
        monkeypatch.setattr(host_rehearsals, "NEEDED", ("nosuchmodule",))
        _, answer = await ask(web, show, "POST", body=order_of(sale))
        assert answer["error"]["name"] == "unavailable"


# --- Nothing of it meets the real show ----------------------------------------------------------


async def rows_of(books: Books, show: str) -> list[Any]:
    """Every row that belongs to the show by its id."""
    tables = await books.fetch(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND column_name = 'show_id' AND table_name NOT IN ('rehearsals', 'host_acts') ORDER BY 1"
    )
    names = [row[0] for row in tables]
    assert {"shows", "skus", "pools", "sales", "orders", "gives"} <= set(names)
    return [
        sorted(
            row[0]
            for row in await books.fetch(f"SELECT t::text FROM {name} t WHERE show_id = $1", show)
        )
        for name in names
    ]


async def keys_of(redis_url: str, show: str) -> dict[Any, Any]:
    """All keys of the show in Redis, bit by bit."""
    async with redis.Redis.from_url(redis_url) as client:
        names = await client.keys("*{" + show + "}*")
        return {name: await client.dump(name) for name in sorted(names)}


async def refused_at_the_door(web: WebStage, show: str, query: str = "") -> int:
    with pytest.raises(InvalidStatus) as refusal:
        await Client.open(web.url, show, query=query)
    return int(refusal.value.response.status_code)


async def hello_refused(client: Client, token: str) -> str:
    """Why the token does not sign in."""
    reply = await client.ask(lambda ref: m.Hello(ref=ref, token=token))
    assert isinstance(reply, m.RefusedReply)
    return ERRORS_BY_CODE[reply.code].name


async def test_shadow_show_when_anybody_looks_then_it_is_not_there(
    web: WebStage, play: Play
) -> None:
    told = play("until_stopped()")
    show, sale = await shown(web)
    number = await begun(web, show, sale)
    await until_progress(web, show, number)
    order = json.loads(told.read_text())
    shadow, ticket = order["show"], f"?rehearsal={order['ticket']}"
    for query in ("", "?rehearsal=", f"?rehearsal={'0' * 32}", "?resume=1.1"):
        assert await refused_at_the_door(web, shadow, query) == 404
    client = await Client.open(web.url, shadow, query=ticket)
    for query in ("", "?resume=1.1"):  # the room is open here now: this is the short way in
        assert await refused_at_the_door(web, shadow, query) == 404
    for token in (token_of("v1", show), web.host.token):
        assert await hello_refused(client, token) == "forbidden"
    await client.sign_in("rehearsal-1", shadow)
    await client.close()
    real = await Client.open(web.url, show)
    assert await hello_refused(real, token_of("rehearsal-1", shadow)) == "forbidden"
    await real.close()
    url = f"{web.url}/api/shows/{shadow}"
    assert (await call("GET", url, ""))[0] == 404
    assert (await call("GET", url, web.host.token))[0] == 404
    assert (await call("GET", f"{url}/orders.csv", web.host.token))[0] in (403, 404)
    hook = {"url": "https://shop.example/hook"}
    assert (await call("POST", f"{url}/webhooks", web.host.token, hook))[0] == 403
    name = {"name": "小明", "show": shadow}
    assert (await call("POST", f"{web.url}/api/demo/token", "", name))[0] == 404
    listed = await web.host.ask("GET", "/api/shows")
    assert [each["show"] for each in listed["shows"]] == [show]
    page = await asyncio.to_thread(urllib.request.urlopen, f"{web.url}/")
    assert page.url.endswith(f"/watch/{show}") or shadow not in page.read().decode()
    await ask(web, show, "POST", f"/{number}/stop")
    await until_status(web, show, number, "stopped")


async def test_real_show_when_a_rehearsal_sells_then_nothing_of_it_has_changed(
    web: WebStage, play: Play, books: Books, redis_url: str
) -> None:
    told = play("until_stopped()")
    show, sale = await shown(web)
    before = await rows_of(books, show), await keys_of(redis_url, show)
    number = await begun(web, show, sale)
    await until_progress(web, show, number)
    order = json.loads(told.read_text())
    path = f"/api/shows/{order['show']}/sales/{order['sale']}/start"
    status, _ = await call("POST", f"{web.url}{path}", order["host_token"], {})
    assert status == 200
    client = await Client.open(web.url, order["show"], query=f"?rehearsal={order['ticket']}")
    await client.sign_in("rehearsal-1", order["show"])
    claim = {"claim_id": str(uuid.uuid4()), "sale": order["sale"], "quantity": 1}
    reply = await client.ask(lambda ref: m.Claim(ref=ref, price_version=1, **claim))
    assert isinstance(reply, m.Accepted)
    await client.close()
    await ask(web, show, "POST", f"/{number}/stop")
    await until_status(web, show, number, "stopped")
    assert (await rows_of(books, show), await keys_of(redis_url, show)) == before
