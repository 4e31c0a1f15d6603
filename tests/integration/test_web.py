"""The web process around the WebSocket: pages, health, metrics, API, other servers, the stop."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server import limits
from server.config import Settings
from server.embedded.postgres import PostgresServer
from server.errors import Misconfigured, RecordsUnavailable, StoreUnavailable
from server.protocol import messages as m
from server.records.front import LiveShow
from server.web import auth
from server.web.app import web_process
from server.web.health import Health
from server.web.pages import DIST, Pages
from tests.conftest import ValkeyFactory
from tests.door_stage import handshake, read_all, status_of
from tests.live import SECRET, Client, LiveSystem, call, free_port, token_of, until
from tests.web_stage import WebStage, sees_sale, shared_stage, web_stage


@pytest.fixture(scope="module")
def web(
    session_redis_url: str, session_database_url: str, template_database: str
) -> Iterator[WebStage]:
    with shared_stage(
        session_redis_url, session_database_url, template_database, demo=True
    ) as stage:
        yield stage


def _get(url: str, **headers: str) -> tuple[int, Message, bytes]:
    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    opener = urllib.request.build_opener(NoRedirect)
    request = urllib.request.Request(
        url, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    try:
        with opener.open(request, timeout=10) as response:
            return response.status, response.headers, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


async def get(url: str, **headers: str) -> tuple[int, Message, bytes]:
    return await asyncio.to_thread(_get, url, **headers)


# --- Pages ------------------------------------------------------------------------------------

PLANTED = b"<!doctype html><title>planted</title>"


@pytest.fixture
async def built(tmp_path: Path) -> AsyncIterator[str]:
    """The pages alone, of a client build that is planted; URL of the server."""
    for name in ("viewer.html", "host.html", "assets/a-123.js", "demo/cup.svg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PLANTED)
    async with served_pages([], tmp_path) as url:
        yield url


def served_pages(shows: list[LiveShow] | Exception, dist: Path) -> Any:
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette
    from starlette.middleware import Middleware

    from server.web.content_policy import SecurityHeaders

    async def live() -> list[LiveShow]:
        if isinstance(shows, Exception):
            raise shows
        return shows

    @asynccontextmanager
    async def running() -> AsyncIterator[str]:
        app = Starlette(routes=Pages(live, dist).routes(), middleware=[Middleware(SecurityHeaders)])
        async with plain_uvicorn(app) as url:
            yield url

    return running()


def plain_uvicorn(app: Any) -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def running() -> AsyncIterator[str]:
        bound = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, lifespan="off", ws="websockets-sansio")
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([bound]))
        await until(lambda: server.started, "uvicorn started")
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = server.force_exit = True
        await task
        bound.close()

    return running()


@pytest.mark.parametrize("path", ["/watch/demo", "/host", "/host/demo"])
async def test_page_when_it_is_built_then_it_is_served_uncached_under_a_strict_policy(
    built: str, path: str
) -> None:
    status, headers, body = await get(built + path)
    assert (status, body) == (200, PLANTED)
    assert headers["cache-control"] == "no-store"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"


async def test_assets_when_they_are_asked_for_then_they_may_be_kept(built: str) -> None:
    status, headers, _ = await get(built + "/assets/a-123.js")
    assert status == 200
    assert "immutable" in headers["cache-control"]
    assert (await get(built + "/demo/cup.svg"))[0] == 200


@pytest.mark.parametrize("path", ["/assets/../viewer.html", "/assets/%2e%2e/viewer.html",
                                  "/assets/nothing.js", "/nothing", "/watch/"])  # fmt: skip
async def test_path_when_nothing_is_there_then_404(built: str, path: str) -> None:
    assert (await get(built + path))[0] == 404


async def test_page_when_it_is_not_built_then_it_says_what_to_run(tmp_path: Path) -> None:
    async with served_pages([], tmp_path / "missing") as url:
        status, _, body = await get(url + "/watch/demo")
        assert status == 503
        assert b"make client" in body
        assert (await get(url + "/assets/x.js"))[0] == 404


async def test_front_when_one_show_is_live_then_there_else_a_list(tmp_path: Path) -> None:
    one, other = LiveShow("show1", "一"), LiveShow("show2", "<script>alert(1)</script>")
    async with served_pages([one], tmp_path) as url:
        status, headers, _ = await get(url + "/")
        assert (status, headers["location"]) == (307, "/watch/show1")
    async with served_pages([one, other], tmp_path) as url:
        status, _, body = await get(url + "/")
        assert status == 200
        assert b'href="/watch/show2"' in body
        assert b"<script>" not in body
    async with served_pages([], tmp_path) as url:
        assert b'href="/host"' in (await get(url + "/"))[2]
    async with served_pages(RecordsUnavailable("away"), tmp_path) as url:
        assert (await get(url + "/"))[0] == 503


@pytest.mark.skipif(not (DIST / "viewer.html").is_file(), reason="the client is not built")
async def test_built_page_when_read_then_it_needs_nothing_that_the_policy_forbids() -> None:
    for name in ("viewer.html", "host.html"):
        html = (DIST / name).read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)", html)
        assert not re.search(r"<style|\sstyle=|\son\w+=", html)
        assert not re.search(r'(?:src|href)="(?:https?:)?//', html)


# --- Health and metrics -----------------------------------------------------------------------


async def test_health_when_all_is_well_then_ready_and_alive(web: WebStage) -> None:
    assert await call("GET", f"{web.url}/livez") == (200, "ok\n")
    status, parts = await call("GET", f"{web.url}/readyz")
    assert status == 200
    names = ("redis", "postgresql", "feed", "door")
    assert parts == {"ready": True, "parts": dict.fromkeys(names, "ok")}


async def test_ready_when_a_part_fails_or_hangs_then_503_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from starlette.applications import Starlette

    monkeypatch.setattr("server.web.health.PROBE_SECONDS", 0.05)

    async def works() -> None: ...

    async def fails() -> None:
        raise StoreUnavailable("planted")

    health = Health({"good": works, "bad": fails, "stuck": asyncio.Event().wait})
    async with plain_uvicorn(Starlette(routes=health.internal_routes())) as url:
        status, body = await call("GET", f"{url}/readyz")
        assert status == 503
        assert body["parts"] == {"good": "ok", "bad": "failed", "stuck": "failed"}
        assert "planted" not in json.dumps(body)


async def test_internal_metrics_when_there_is_a_token_then_only_with_it() -> None:
    from starlette.applications import Starlette

    async with plain_uvicorn(Starlette(routes=Health({}, "token").internal_routes())) as url:
        assert (await call("GET", f"{url}/metrics"))[0] == 404
        assert (await call("GET", f"{url}/metrics", "token"))[0] == 200


async def test_metrics_when_there_is_no_token_then_only_for_this_machine(web: WebStage) -> None:
    status, headers, body = await get(f"{web.url}/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert b"livesale_viewers " in body


async def test_metrics_when_there_is_a_token_then_only_with_it(
    redis_url: str, database_url: str
) -> None:
    async with web_stage(redis_url, database_url, metrics_token="m" * 20) as web:
        assert (await get(f"{web.url}/metrics"))[0] == 404
        assert (await get(f"{web.url}/metrics", authorization="Bearer wrong"))[0] == 404
        assert (await get(f"{web.url}/metrics", authorization="Bearer " + "m" * 20))[0] == 200


async def test_metrics_when_the_client_is_behind_a_proxy_then_loopback_is_not_enough(
    redis_url: str, database_url: str
) -> None:
    async with web_stage(redis_url, database_url, trusted_proxies="127.0.0.1") as web:
        assert (await get(f"{web.url}/metrics", x_forwarded_for="198.51.100.7"))[0] == 404
        assert (await get(f"{web.url}/metrics"))[0] == 200


# --- API for viewers --------------------------------------------------------------------------


async def test_demo_token_when_asked_for_then_it_opens_the_room(web: WebStage) -> None:
    show = await web.show()
    body = {"name": " 小明 ", "show": show}
    status, answer = await call("POST", f"{web.url}/api/demo/token", None, body)
    assert status == 201
    assert answer["name"] == "小明"
    identity = auth.verify(SECRET.encode(), answer["token"])
    assert (identity.user, identity.role, identity.show) == (answer["user"], "viewer", show)
    client = await web.viewer(show)
    reply = await client.ask(lambda ref: m.Hello(ref=ref, token=answer["token"]))
    assert isinstance(reply, m.Accepted)
    await client.close()


@pytest.mark.parametrize(
    ("body", "status", "name"),
    [
        ({"name": "官方客服"}, 403, "forbidden"),
        ({"name": "x" * 25}, 422, "text_too_long"),
        ({"name": "\u200b"}, 422, "text_empty"),
        ({"name": "x", "role": "host"}, 422, "bad_field"),
        ({}, 422, "bad_field"),
        ({"name": 5}, 422, "bad_field"),
        ({"name": "x", "show": "*"}, 422, "bad_field"),
    ],
)
async def test_demo_token_when_the_wish_is_not_granted_then_it_says_why(
    web: WebStage, body: object, status: int, name: str
) -> None:
    got, answer = await call("POST", f"{web.url}/api/demo/token", None, body)
    assert (got, answer["error"]["name"]) == (status, name)


async def test_demo_token_when_it_is_no_demo_then_there_is_none(
    valkey_factory: ValkeyFactory, durable_books: PostgresServer
) -> None:
    valkey = await valkey_factory(appendonly="yes")
    async with web_stage(valkey.url, durable_books.url(), demo=False, durability="fast") as web:
        assert (await call("POST", f"{web.url}/api/demo/token", None, {"name": "x"}))[0] == 404


async def test_my_orders_when_the_token_is_for_another_show_then_forbidden(web: WebStage) -> None:
    show = await web.show()
    url = f"{web.url}/api/shows/{show}/my-orders"
    assert (await call("GET", url))[0] == 401
    assert (await call("GET", url, token_of("u1", "another")))[0] == 403
    assert await call("GET", url, token_of("u1", show)) == (200, {"orders": []})


async def test_body_when_it_is_too_large_then_413(web: WebStage) -> None:
    body = {"name": "x" * 70_000}
    status, _ = await call("POST", f"{web.url}/api/demo/token", None, body)
    assert status == 413


async def test_word_list_when_it_is_as_long_as_it_may_be_then_the_door_lets_it_in(
    web: WebStage,
) -> None:
    show = await web.show()
    words = [f"{number:04}" + "词" * (limits.WORD_CHARS_MAX - 4) for number in range(2_000)]
    body = {"slow_mode_s": 0, "words": words}
    policy = await web.host.ask("PUT", f"/api/shows/{show}/chat-policy", body)
    assert policy["words"] == words


# --- Other ASGI servers -----------------------------------------------------------------------


async def test_app_when_another_server_runs_it_then_viewers_are_served_all_the_same(
    redis_url: str, database_url: str
) -> None:
    settings = Settings(
        redis_url=redis_url, database_url=database_url, secret=SECRET, viewers_max=2, tick_ms=20,
        demo=True, durability="none", compression=True,
    )  # fmt: skip
    async with web_process(settings) as process, plain_uvicorn(process.app) as url:
        web = WebStage(url, process, None, asyncio.get_running_loop())  # type: ignore[arg-type]
        show = await web.show()
        sale = await web.sale(show)
        client = await web.viewer(show, "u1")
        await sees_sale(client, sale["sale"])
        reply = await client.ask(lambda ref: m.Chat(ref=ref, text="你好"))
        assert isinstance(reply, m.Accepted)
        await until(lambda: bool(client.chat), "line")
        async with connect(f"{url.replace('http', 'ws')}/ws/{show}") as text:
            assert text.protocol.extensions  # compression is that server's own affair
            assert json.loads(await text.recv())["t"] == "welcome"
            await text.send('{"t":"time","ref":1}')
            assert '"accepted"' in str(await text.recv())
            await text.send("[")
            assert '"malformed"' in str(await text.recv())
            async with connect(f"{url.replace('http', 'ws')}/ws/{show}") as third:
                with pytest.raises(ConnectionClosed):
                    await third.recv()
                assert third.close_code == 1013
        for _ in range(10):
            await client.socket.send(b"\xc1")
        await until(lambda: client.closed is not None, "closed after strikes")
        assert client.closed
        assert client.closed[0] == 4400
        await until(lambda: process.hub.viewers == 0, "all gone")
        assert process.admission.viewers == 0
        with pytest.raises(InvalidStatus):
            await connect(f"{url.replace('http', 'ws')}/ws/unknown1")


# --- Start and stop ---------------------------------------------------------------------------


async def test_start_when_the_secret_is_short_then_it_says_how_to_make_one(
    redis_url: str, database_url: str
) -> None:
    with pytest.raises(Misconfigured, match="token_urlsafe"):
        async with web_process(
            Settings(redis_url=redis_url, database_url=database_url, secret="short")
        ):
            pass


async def test_start_when_redis_may_evict_then_it_refuses(
    valkey_factory: ValkeyFactory, database_url: str
) -> None:
    valkey = await valkey_factory(maxmemory_policy="allkeys-lru")
    with pytest.raises(Misconfigured, match="noeviction"):
        async with web_process(
            Settings(redis_url=valkey.url, database_url=database_url, secret=SECRET)
        ):
            pass


@pytest.fixture
def system(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[LiveSystem]:
    running = LiveSystem(redis_url, database_url, tmp_path, {"drain_seconds": "1"})
    yield running
    for process in running.processes:
        process.kill()
        process.wait()


async def start(system: LiveSystem, port: int) -> subprocess.Popen[bytes]:
    system.settings["port"] = str(port)
    process = system.start("web")
    await until(lambda: b"listening" in _log(system, process) or process.poll() is not None, "up")
    assert process.poll() is None, system.logs()
    return process


def _log(system: LiveSystem, process: subprocess.Popen[bytes]) -> bytes:
    number = system.processes.index(process)
    return (system.log_dir / f"{number}-web.log").read_bytes()


async def live_show(url: str) -> str:
    status, made = await call(
        "POST", f"{url}/api/shows", token_of("h", "*", "host"), {"title": "t"}
    )
    assert status == 201
    return str(made["show"])


async def exit_code(process: subprocess.Popen[bytes], seconds: float = 12) -> int:
    return await asyncio.to_thread(process.wait, seconds)


async def test_stop_when_asked_then_viewers_hear_bye_spread_and_the_exit_code_is_0(
    system: LiveSystem,
) -> None:
    port = free_port()
    process = await start(system, port)
    url = f"http://127.0.0.1:{port}"
    show = await live_show(url)
    clients = [await Client.open(url, show) for _ in range(8)]
    process.send_signal(signal.SIGTERM)
    for client in clients:
        await until(lambda c=client: c.closed is not None, "closed")
        assert client.closed
        assert client.closed[0] == 1012
    assert await exit_code(process) == 0
    assert b"Traceback" not in _log(system, process)


async def test_stop_when_peers_are_stuck_then_it_still_ends_in_time(system: LiveSystem) -> None:
    port = free_port()
    process = await start(system, port)
    show = await live_show(f"http://127.0.0.1:{port}")
    stuck = []
    for first in (handshake(f"/ws/{show}"), b"GET / HT", b"", b"GET /readyz HTTP/1.1\r\n\r\n"):
        peer = socket.create_connection(("127.0.0.1", port))
        peer.sendall(first)
        stuck.append(peer)
    await asyncio.to_thread(stuck[0].recv, 10)
    process.send_signal(signal.SIGTERM)
    assert await exit_code(process) == 0
    for peer in stuck:
        peer.close()


async def test_stop_when_asked_twice_then_it_ends_at_once(system: LiveSystem) -> None:
    system.settings["drain_seconds"] = "60"
    port = free_port()
    process = await start(system, port)
    url = f"http://127.0.0.1:{port}"
    client = await Client.open(url, await live_show(url))
    process.send_signal(signal.SIGINT)
    await until(lambda: b"drain_started" in _log(system, process), "draining")
    process.send_signal(signal.SIGINT)
    assert await exit_code(process, 5) == 0
    client.cut()


async def test_port_when_two_processes_share_it_then_both_serve_and_one_may_go(
    system: LiveSystem,
) -> None:
    port = free_port()
    first, second = await start(system, port), await start(system, port)
    first.send_signal(signal.SIGTERM)
    assert await exit_code(first) == 0
    assert (await call("GET", f"http://127.0.0.1:{port}/livez"))[0] == 200
    second.send_signal(signal.SIGTERM)
    assert await exit_code(second) == 0


async def test_start_when_the_port_is_taken_by_others_then_one_line_says_so(
    system: LiveSystem,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        system.settings["port"] = str(taken.getsockname()[1])
        process = system.start("web")
        assert await exit_code(process) != 0
    assert b"Traceback" not in _log(system, process)


async def test_drain_when_it_has_begun_then_new_viewers_get_503_and_pages_still_come(
    redis_url: str, database_url: str
) -> None:
    async with web_stage(redis_url, database_url) as web:
        web.process.admission.draining = True
        host, port = web.url.removeprefix("http://").split(":")

        def attempt() -> int:
            with socket.create_connection((host, int(port)), timeout=10) as client:
                client.sendall(handshake("/ws/demo"))
                return status_of(read_all(client))

        assert await asyncio.to_thread(attempt) == 503
        status, body = await call("GET", f"{web.url}/readyz")
        assert (status, body["parts"]["door"]) == (503, "failed")
        assert (await call("GET", f"{web.url}/livez"))[0] == 200
