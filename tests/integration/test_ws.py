"""The WebSocket endpoint over real sockets: who may come in, who is asking, who is gone."""

import asyncio
import json
import urllib.parse
from collections.abc import Awaitable, Iterator
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from server import clock
from server.protocol import messages as m
from server.web import auth
from server.web.door import DoorHttpProtocol
from tests.json_socket import CLAIM, ask, close_code, open_json, ws_url
from tests.live import token_of, until
from tests.web_stage import WebStage, shared_stage


@pytest.fixture(scope="module")
def web(
    session_redis_url: str, session_database_url: str, template_database: str
) -> Iterator[WebStage]:
    options = {"viewers_per_user_max": 3, "allowed_origins": "https://shop.example"}
    with shared_stage(
        session_redis_url, session_database_url, template_database, **options
    ) as stage:
        yield stage


@pytest.fixture
async def show(web: WebStage) -> str:
    return await web.show()


async def refused_status(opening: Awaitable[ClientConnection]) -> int:
    try:
        socket = await opening
    except InvalidStatus as refused:
        return int(refused.response.status_code)
    await socket.close()
    return 101


# --- The short way in -------------------------------------------------------------------------


async def test_viewers_when_the_room_is_open_then_they_come_in_without_asgi(
    web: WebStage, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask_endpoint = DoorHttpProtocol._ask_endpoint

    def note(self: DoorHttpProtocol, request: Any, address: str, early: bytes) -> None:
        asked.append(request.path)
        ask_endpoint(self, request, address, early)

    monkeypatch.setattr(DoorHttpProtocol, "_ask_endpoint", note)
    first = await open_json(web, show)  # opens the room
    for _ in range(3):
        viewer = await open_json(web, show)
        await viewer.close()
    assert len(asked) == 1
    async with connect(ws_url(web, show) + "?other=1") as odd:  # the endpoint's business
        assert json.loads(await odd.recv())["t"] == "welcome"
    assert len(asked) == 2
    await first.close()


# --- Who may come in --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 101),
        ("{own}", 101),
        ("https://shop.example", 101),
        ("https://shop.example.evil.com", 403),
        ("https://evil.com", 403),
        ("http://shop.example", 403),
        ("https://SHOP.example", 403),
        ("https://shop.example:444", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1:1", 403),
    ],
)
async def test_origin_when_a_page_connects_then_only_ours_and_the_listed_may(
    web: WebStage, show: str, origin: str | None, status: int
) -> None:
    value = web.url if origin == "{own}" else origin
    headers = {} if value is None else {"Origin": value}
    opening = connect(ws_url(web, show), additional_headers=headers, compression=None)
    assert await refused_status(opening) == status


@pytest.mark.parametrize(
    "show_id", ["unknown1", "..%2f..%2fetc", "A" * 10_000, "日本", "a", "demo%00", "%7Bdemo%7D"]
)
async def test_show_when_there_is_none_then_404_and_no_room_is_made(
    web: WebStage, show_id: str
) -> None:
    quoted = urllib.parse.quote(show_id, safe="%")
    opening = connect(ws_url(web, quoted), compression=None)
    assert await refused_status(opening) in ((404,) if len(show_id) < 1_000 else (414,))
    assert show_id not in web.process.hub.rooms


async def test_subprotocol_when_several_are_offered_then_the_first_known_is_spoken(
    web: WebStage, show: str
) -> None:
    offers = ["other.v9", m.SUBPROTOCOL_MSGPACK, m.SUBPROTOCOL_JSON]
    async with connect(ws_url(web, show), subprotocols=offers, compression=None) as socket:
        assert socket.subprotocol == m.SUBPROTOCOL_MSGPACK
        assert msgpack.unpackb(await socket.recv())["t"] == "welcome"


async def test_subprotocol_when_none_is_offered_then_json_is_spoken(
    web: WebStage, show: str
) -> None:
    async with await open_json(web, show) as socket:
        assert socket.subprotocol is None
        assert json.loads(await socket.recv())["t"] == "welcome"


async def test_subprotocol_when_only_unknown_ones_are_offered_then_400(
    web: WebStage, show: str
) -> None:
    opening = connect(ws_url(web, show), subprotocols=["graphql-ws"], compression=None)
    assert await refused_status(opening) == 400


async def test_compression_when_it_is_offered_then_it_is_not_used(web: WebStage, show: str) -> None:
    async with connect(ws_url(web, show)) as socket:
        assert not socket.protocol.extensions


@pytest.mark.parametrize("resume", ["x", "1", "1.", "-1.2", "1.2.3", "9" * 16 + ".1", "１.２"])
async def test_resume_when_it_is_no_position_then_422(
    web: WebStage, show: str, resume: str
) -> None:
    query = f"?resume={urllib.parse.quote(resume)}"
    assert await refused_status(connect(ws_url(web, show, query), compression=None)) == 422


async def test_resume_when_events_were_missed_then_exactly_those_come_back(
    web: WebStage, show: str
) -> None:
    first = await web.viewer(show)
    assert first.welcome
    await web.host.ask("POST", f"/api/shows/{show}/commentary", {"text": "一"})
    await until(lambda: bool(first.events), "commentary")
    seen = first.events[-1].seq
    await first.close()
    await web.host.ask("POST", f"/api/shows/{show}/commentary", {"text": "二"})
    again = await web.viewer(show, query=f"?resume={first.welcome.epoch}.{seen}")
    await until(lambda: bool(again.events), "missed commentary")
    assert again.welcome
    assert again.welcome.recovered
    assert [getattr(event, "text", "") for event in again.events] == ["二"]
    fresh = await web.viewer(show, query="?resume=1.1")
    assert fresh.welcome
    assert not fresh.welcome.recovered
    await again.close()
    await fresh.close()


# --- Who is asking ----------------------------------------------------------------------------

NEEDING_A_TOKEN: dict[str, dict[str, Any]] = {
    "chat": {"t": "chat", "ref": 1, "text": "hi"},
    "like": {"t": "like", "ref": 1, "taps": 1},
    "claim": CLAIM,
    "order_status": {"t": "order_status", "ref": 1, "claim_id": CLAIM["claim_id"]},
}


@pytest.mark.parametrize("name", NEEDING_A_TOKEN)
async def test_command_when_it_comes_before_hello_then_token_required(
    web: WebStage, show: str, name: str
) -> None:
    async with await open_json(web, show) as socket:
        assert (await ask(socket, NEEDING_A_TOKEN[name]))["name"] == "token_required"
        assert (await ask(socket, {"t": "time", "ref": 2}, 2))["t"] == "accepted"


def foreign(**claims: Any) -> str:
    values = {"user": "u1", "role": "viewer", "show": "show1", "name": "x", "ttl_s": 60, **claims}
    return auth.issue(b"another secret that is long enough!", **values)


async def test_hello_when_the_token_is_not_ours_then_it_is_refused_and_repeats_end_it(
    web: WebStage, show: str
) -> None:
    async with await open_json(web, show) as socket:
        for ref in (1, 2, 3):
            hello = {"t": "hello", "ref": ref, "token": foreign(show=show)}
            assert (await ask(socket, hello, ref))["name"] == "token_invalid"
        assert await close_code(socket) == 4401


async def test_hello_when_the_token_is_for_another_show_then_forbidden(
    web: WebStage, show: str
) -> None:
    async with await open_json(web, show) as socket:
        hello = {"t": "hello", "ref": 1, "token": token_of("u1", "another")}
        assert (await ask(socket, hello))["name"] == "forbidden"


async def test_hello_when_it_is_repeated_then_the_user_stays_and_the_token_is_refreshed(
    web: WebStage, show: str
) -> None:
    client = await web.viewer(show, "u1")
    fresh = await client.ask(lambda ref: m.Hello(ref=ref, token=token_of("u1", show)))
    assert isinstance(fresh, m.Accepted)
    assert fresh.hello
    assert fresh.hello.user == "u1"
    other = await client.ask(lambda ref: m.Hello(ref=ref, token=token_of("u2", show)))
    assert isinstance(other, m.RefusedReply)
    assert other.name == "other_user"
    await client.close()


async def test_token_when_it_expires_then_commands_say_so_until_it_is_refreshed(
    web: WebStage, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await web.viewer(show, "u1")
    now = clock.now_ms()
    monkeypatch.setattr(clock, "now_ms", lambda: now + 3_700_000)
    reply = await client.ask(lambda ref: m.Chat(ref=ref, text="hi"))
    assert isinstance(reply, m.RefusedReply)
    assert (reply.name, reply.retryable) == ("token_expired", True)
    monkeypatch.undo()
    await client.sign_in("u1", show)
    assert isinstance(await client.ask(lambda ref: m.Chat(ref=ref, text="hi")), m.Accepted)
    await client.close()


async def test_user_when_they_have_too_many_connections_then_the_next_hello_is_refused(
    web: WebStage, show: str
) -> None:
    clients = [await web.viewer(show, "u1") for _ in range(3)]
    extra = await web.viewer(show)
    refused = await extra.ask(lambda ref: m.Hello(ref=ref, token=token_of("u1", show)))
    assert isinstance(refused, m.RefusedReply)
    assert refused.name == "too_many_connections"
    await clients.pop().close()

    async def signs_in() -> bool:
        reply = await extra.ask(lambda ref: m.Hello(ref=ref, token=token_of("u1", show)))
        return isinstance(reply, m.Accepted)

    end = clock.monotonic_ms() + 10_000
    while not await signs_in():
        assert clock.monotonic_ms() < end
        await asyncio.sleep(0.5)
    for client in (extra, *clients):
        await client.close()


async def test_role_when_a_host_of_another_show_enters_then_they_are_a_viewer(
    web: WebStage, show: str
) -> None:
    roles = {}
    for user, scope in (("ming", "*"), ("other", "*"), ("helper", show)):
        client = await web.viewer(show)
        role = "moderator" if scope == show else "host"
        token = token_of(user, scope, role)
        reply = await client.ask(lambda ref, token=token: m.Hello(ref=ref, token=token))
        assert isinstance(reply, m.Accepted)
        assert reply.hello
        roles[user] = reply.hello.role
        await client.close()
    assert roles == {"ming": "host", "other": "viewer", "helper": "moderator"}


async def test_client_when_it_is_anonymous_then_it_may_watch(web: WebStage, show: str) -> None:
    client = await web.viewer(show)
    assert client.welcome
    assert client.welcome.state["show"]["phase"] == "live"
    await client.close()


# --- Who leaves ------------------------------------------------------------------------------


async def test_viewer_when_the_connection_is_gone_then_nothing_is_left(
    web: WebStage, show: str
) -> None:
    clients = [await web.viewer(show, f"u{n}") for n in range(20)]
    for client in clients[::2]:
        client.cut()
    for client in clients[1::2]:
        await client.close()
    await until(lambda: web.process.hub.viewers == 0, "all gone")
    assert web.process.admission.viewers == 0
