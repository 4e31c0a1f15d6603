"""The WebSocket endpoint over real sockets: who may come in, and what bad input does."""

import asyncio
import contextlib
import json
import math
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from server import clock, limits
from server.protocol import messages as m
from server.web import auth
from tests.door_stage import handshake
from tests.live import Client, token_of, until
from tests.web_stage import WebStage, shared_stage

Reply = dict[str, Any]


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


def ws_url(web: WebStage, show: str, query: str = "") -> str:
    return f"{web.url.replace('http', 'ws', 1)}/ws/{show}{query}"


async def open_json(web: WebStage, show: str, query: str = "", **options: Any) -> ClientConnection:
    return await connect(ws_url(web, show, query), compression=None, **options)


async def reply_to(socket: ClientConnection, ref: int | None) -> Reply:
    """The next reply under this ref, other frames left aside."""
    while True:
        message: Reply = json.loads(await socket.recv())
        if message["t"] in ("accepted", "refused") and message.get("ref") == ref:
            return message


async def ask(socket: ClientConnection, command: object, ref: int | None = 1) -> Reply:
    await socket.send(command if isinstance(command, str) else json.dumps(command))
    return await reply_to(socket, ref)


async def close_code(socket: ClientConnection) -> int | None:
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return socket.close_code


async def refused_status(opening: Awaitable[ClientConnection]) -> int:
    try:
        socket = await opening
    except InvalidStatus as refused:
        return int(refused.response.status_code)
    await socket.close()
    return 101


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
    "claim": {
        "t": "claim", "ref": 1, "sale": 1, "quantity": 1, "price_version": 1,
        "claim_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    },
    "order_status": {
        "t": "order_status", "ref": 1, "claim_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    },
}  # fmt: skip


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


# --- Bad input --------------------------------------------------------------------------------

CLAIM = NEEDING_A_TOKEN["claim"]
BAD_COMMANDS: list[tuple[Any, str]] = [
    ("{", "malformed"),
    ("[]", "malformed"),
    ("1", "malformed"),
    ('"x"', "malformed"),
    ("null", "malformed"),
    ("[" * 2_000, "malformed"),
    ('{"t":"time","ref":1} trailing', "malformed"),
    ({"ref": 1}, "unknown_command"),
    ({"t": "buy", "ref": 1}, "unknown_command"),
    ({"t": 7, "ref": 1}, "unknown_command"),
    ({"t": "claim", "ref": 1}, "bad_field"),
    ({"t": "time", "ref": -1}, "bad_field"),
    ({"t": "time", "ref": 2**31}, "bad_field"),
    ({"t": "time", "ref": 1.5}, "bad_field"),
    ({"t": "time", "ref": True}, "bad_field"),
    ({"t": "time", "ref": "1"}, "bad_field"),
    *(
        ({**CLAIM, "quantity": value}, "bad_field")
        for value in (0, -5, 1.5, "1", True, None, 100, 2**53 + 1, 2**63, 2**64, 1e308, [1])
    ),
    *(
        ({**CLAIM, "claim_id": value}, "bad_field")
        for value in ("", "x", "01890A5D-AC96-774B-BCCE-B302099A8057", 1, "0" * 36, "0\n" * 18)
    ),
    ({**CLAIM, "sale": 0}, "bad_field"),
    ({**CLAIM, "sale": "1); DROP TABLE orders"}, "bad_field"),
    ({**CLAIM, "attempt": -1}, "bad_field"),
    ({"t": "like", "ref": 1, "taps": 101}, "bad_field"),
    ({"t": "chat", "ref": 1, "text": "x" * 481}, "bad_field"),
    ({"t": "hello", "ref": 1, "token": "x" * 2_049}, "bad_field"),
]


async def test_command_when_it_is_malformed_then_it_is_refused_by_name_and_the_rest_goes_on(
    web: WebStage, show: str
) -> None:
    for command, name in BAD_COMMANDS:
        client = await open_json(web, show)
        text = command if isinstance(command, str) else json.dumps(command)
        await client.send(text)
        while (reply := json.loads(await client.recv()))["t"] != "refused":
            pass
        assert reply["name"] == name, (command, reply)
        assert (await ask(client, {"t": "time", "ref": 9}, 9))["t"] == "accepted"
        await client.close()


@pytest.mark.parametrize(
    ("text", "name"),
    [("nul\0", "bad_field"), ("\x1b[31m", "bad_field"), ("   ", "text_empty"),
     ("\u200b", "text_empty"), ("买" * 121, "text_too_long")],
)  # fmt: skip
async def test_chat_when_the_text_is_not_fit_then_it_is_told_why(
    web: WebStage, show: str, text: str, name: str
) -> None:
    client = await web.viewer(show, "u1")
    reply = await client.ask(lambda ref: m.Chat(ref=ref, text=text))
    assert isinstance(reply, m.RefusedReply)
    assert reply.name == name
    assert reply.zh
    await client.close()


async def test_claim_when_the_sale_is_unknown_then_it_says_so(web: WebStage, show: str) -> None:
    client = await web.viewer(show, "u1")
    for attempt in (0, 1):
        reply = await client.ask(lambda ref, attempt=attempt: _claim(ref, 999, attempt=attempt))
        assert isinstance(reply, m.RefusedReply)
        assert reply.name == "unknown_sale"
    await client.close()


def _claim(ref: int, sale: int, **fields: Any) -> m.Claim:
    values = {"claim_id": str(clock.new_uuid7()), "quantity": 1, "price_version": 1, **fields}
    return m.Claim(ref=ref, sale=sale, **values)


async def test_commands_when_they_stay_malformed_then_the_connection_ends(
    web: WebStage, show: str
) -> None:
    async with await open_json(web, show) as socket:
        for _ in range(limits.STRIKES_MAX):
            await socket.send("{")
        assert await close_code(socket) == 4400


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x01\x02\x03", 1003),  # binary on the text subprotocol
        ("x" * (limits.COMMAND_BYTES_MAX + 1), 1009),
        (["x" * 1_000] * 5, 1009),  # fragments
        ([""] * 100, 1009),
    ],
    ids=["wrong type", "too big", "too big in parts", "too many parts"],
)
async def test_frame_when_it_breaks_the_bounds_then_the_close_code_says_which(
    web: WebStage, show: str, frame: Any, code: int
) -> None:
    async with await open_json(web, show) as socket:
        with contextlib.suppress(ConnectionClosed):  # before all of it was sent
            await socket.send(frame)
        assert await close_code(socket) == code


def frame(first: int, payload: bytes, *, masked: bool = True, length: bytes = b"") -> bytes:
    """A raw client frame; `length` overrides the honest length bytes."""
    mask = 0x80 if masked else 0
    size = length or bytes((mask | len(payload),))
    return bytes((first,)) + size + (b"\0\0\0\0" if masked else b"") + payload


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(0x81, b"{}", masked=False), 1002),
        (frame(0xC1, b"{}"), 1002),  # RSV1 without an extension
        (frame(0x83, b"{}"), 1002),  # reserved opcode
        (frame(0x80, b"{}"), 1002),  # continuation of nothing
        (frame(0x09, b"x"), 1002),  # a ping in fragments
        (frame(0x89, b"x" * 126, length=b"\xfe\x00\x7e"), 1002),  # a ping too long
        (frame(0x81, b"", length=b"\xff\x7f" + b"\xff" * 7), 1009),  # 2^63 - 1 bytes
        (frame(0x81, b"", length=b"\xff" + b"\xff" * 8), 1009),  # more than 2^63
        (frame(0x88, b"\x03\xe8"), 1000),
        (frame(0x88, b""), 1005),
    ],
    ids=["unmasked", "rsv", "opcode", "continuation", "split ping", "long ping", "huge", "negative",
         "close", "close without code"],
)  # fmt: skip
async def test_raw_frame_when_it_breaks_the_rfc_then_the_close_code_says_how(
    web: WebStage, show: str, raw: bytes, code: int
) -> None:
    reader, writer = await asyncio.open_connection(*address_of(web))
    writer.write(handshake(f"/ws/{show}") + raw)  # in one segment with the handshake
    wanted = b"" if code == 1005 else code.to_bytes(2)
    got = b""
    async with asyncio.timeout(10):
        while not re.search(rb"\x88[\x00-\x7d]" + re.escape(wanted), got):
            more = await reader.read(65_536)
            assert more, f"closed without {code}: {got!r}"
            got += more
    writer.close()


def address_of(web: WebStage) -> tuple[str, int]:
    host, port = web.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.mark.parametrize("cut", [0, 1, 5, 9, 10_000])
async def test_command_when_it_comes_with_the_handshake_then_it_is_answered_after_the_welcome(
    web: WebStage, show: str, cut: int
) -> None:
    reader, writer = await asyncio.open_connection(*address_of(web))
    command = frame(0x81, b'{"t":"time","ref":7}')
    writer.write(handshake(f"/ws/{show}") + command[:cut])
    await writer.drain()
    await asyncio.sleep(0.02)  # a segment of its own
    writer.write(command[cut:])
    got = b""
    async with asyncio.timeout(10):
        while b'"ref":7' not in got:
            got += await reader.read(65_536)
    assert got.index(b'"t":"welcome"') < got.index(b'"ref":7')
    writer.close()


async def test_frame_when_the_text_is_not_utf8_then_1007(web: WebStage, show: str) -> None:
    async with await open_json(web, show) as socket:
        await socket.send(b"\xff\xfe{}", text=True)
        assert await close_code(socket) == 1007


@pytest.mark.parametrize(
    "payload",
    [
        b"\xc1",
        b"\x91" * 3_000,
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        msgpack.packb({"t": "time", "ref": 1}) + b"\x00",
        msgpack.packb(msgpack.ExtType(5, b"x")),
        b"\x82\xa1t\xa4time\xa3ref\xc7\x0c\xff" + b"\xff" * 12,
        b"",
        b"\x82\xa1t\xa4time\xa1t\xa4like",
    ],
    ids=["reserved", "nesting", "array32", "map32", "bin32", "trailing", "ext", "timestamp",
         "empty", "keys twice"],
)  # fmt: skip
async def test_msgpack_when_it_is_hostile_then_it_is_refused_and_the_process_lives(
    web: WebStage, show: str, payload: bytes
) -> None:
    client = await web.viewer(show)
    await client.socket.send(payload)
    await until(lambda: bool(client.replies), "refusal")
    assert isinstance(next(iter(client.replies.values())), m.RefusedReply)
    assert isinstance(await client.ask(lambda ref: m.Time(ref=ref)), m.Accepted)
    await client.close()


async def test_time_when_numbers_are_odd_then_they_are_bounded(web: WebStage, show: str) -> None:
    client = await web.viewer(show)
    for odd in (math.nan, math.inf, -1.0, 1e300):
        await client.socket.send(msgpack.packb({"t": "time", "ref": 50, "sent_at": odd}))
        await until(lambda: 50 in client.replies, "reply")
        reply = client.replies.pop(50)
        assert isinstance(reply, m.RefusedReply), odd
        assert reply.field == "sent_at"
    await client.close()


async def test_command_when_it_has_unknown_fields_then_they_are_ignored(
    web: WebStage, show: str
) -> None:
    async with await open_json(web, show) as socket:
        command = {"t": "time", "ref": 1, "role": "host", "price": 0, "__proto__": {"x": 1}}
        assert (await ask(socket, command))["t"] == "accepted"


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


async def test_command_when_our_code_fails_then_it_is_answered_internal(
    web: WebStage, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise RuntimeError("planted")

    client = await web.viewer(show)
    commands: dict[type, Callable[..., None]] = _command_table()
    monkeypatch.setitem(commands, m.Time, planted)
    reply = await client.ask(lambda ref: m.Time(ref=ref))
    assert isinstance(reply, m.RefusedReply)
    assert reply.name == "internal"
    monkeypatch.undo()
    assert isinstance(await client.ask(lambda ref: m.Time(ref=ref)), m.Accepted)
    await client.close()


def _command_table() -> dict[type, Callable[..., None]]:
    from server.web.commands import COMMANDS

    assert isinstance(COMMANDS, dict)
    return COMMANDS


async def test_client_when_it_is_anonymous_then_it_may_watch(web: WebStage, show: str) -> None:
    client: Client = await web.viewer(show)
    assert client.welcome
    assert client.welcome.state["show"]["phase"] == "live"
    await client.close()
