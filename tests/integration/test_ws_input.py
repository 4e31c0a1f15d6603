"""Bad input over real sockets: refused by name or by close code, and the process lives on."""

import asyncio
import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
from websockets.exceptions import ConnectionClosed

from server import clock, limits
from server.protocol import messages as m
from tests.door_stage import handshake
from tests.json_socket import CLAIM, ask, close_code, open_json
from tests.live import until
from tests.web_stage import WebStage, shared_stage


@pytest.fixture(scope="module")
def web(
    session_redis_url: str, session_database_url: str, template_database: str
) -> Iterator[WebStage]:
    with shared_stage(session_redis_url, session_database_url, template_database) as stage:
        yield stage


@pytest.fixture
async def show(web: WebStage) -> str:
    return await web.show()


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


async def test_command_when_our_code_fails_then_it_is_answered_internal(
    web: WebStage, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_: object) -> None:
        raise RuntimeError("planted")

    client = await web.viewer(show)
    monkeypatch.setitem(_command_table(), m.Time, ("time", planted))
    reply = await client.ask(lambda ref: m.Time(ref=ref))
    assert isinstance(reply, m.RefusedReply)
    assert reply.name == "internal"
    monkeypatch.undo()
    assert isinstance(await client.ask(lambda ref: m.Time(ref=ref)), m.Accepted)
    await client.close()


def _command_table() -> dict[type, tuple[str, Callable[..., None]]]:
    from server.web.commands import COMMANDS

    assert isinstance(COMMANDS, dict)
    return COMMANDS
