"""permessage-deflate over real sockets: who takes it sees what all the others see."""

import asyncio
import json
import zlib
from collections.abc import Iterator
from typing import Any, Final

import msgpack
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.typing import Subprotocol

from server.protocol import frames
from server.protocol.deflate import ANSWER
from server.protocol.messages import SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK
from tests.edge.raw import RawViewer
from tests.json_socket import ask, ws_url
from tests.web_stage import WebStage, shared_stage

OFFER: Final = "Sec-WebSocket-Extensions: permessage-deflate"
SAYINGS: Final = 5
READ: Final = {SUBPROTOCOL_JSON: json.loads, SUBPROTOCOL_MSGPACK: msgpack.unpackb}


@pytest.fixture(scope="module")
def web(
    session_redis_url: str, session_database_url: str, template_database: str
) -> Iterator[WebStage]:
    with shared_stage(
        session_redis_url, session_database_url, template_database, compression=True
    ) as stage:
        yield stage


@pytest.fixture
async def show(web: WebStage) -> str:
    return await web.show()


def watch_compressed(socket: ClientConnection) -> list[int]:
    """Sizes of the compressed messages that `socket` gets from now on."""
    sizes: list[int] = []
    [extension] = socket.protocol.extensions
    assert isinstance(extension, PerMessageDeflate)
    decode = extension.decode

    def noted(frame: Frame, **bounds: Any) -> Frame:
        if frame.rsv1:
            sizes.append(len(frame.data))
        return decode(frame, **bounds)

    extension.decode = noted  # type: ignore[method-assign]
    return sizes


async def heard(socket: ClientConnection, subprotocol: str) -> list[dict[str, Any]]:
    """The events in what comes until there are SAYINGS of them."""
    events: list[dict[str, Any]] = []
    while len(events) < SAYINGS:
        events += READ[subprotocol](await socket.recv()).get("events", [])
    return events


@pytest.mark.parametrize("subprotocol", [SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK])
async def test_room_when_some_took_compression_then_all_see_the_same(
    web: WebStage, show: str, subprotocol: str
) -> None:
    spoken = [Subprotocol(subprotocol)]
    async with (
        connect(ws_url(web, show), subprotocols=spoken) as small,
        connect(ws_url(web, show), subprotocols=spoken, compression=None) as plain,
    ):
        assert small.response is not None
        assert small.response.headers["Sec-WebSocket-Extensions"] == ANSWER
        assert not plain.protocol.extensions
        compressed = watch_compressed(small)
        for number in range(SAYINGS):
            text = {"text": f"第 {number} 句 " + "这款手冲壶 " * 60}
            await web.host.ask("POST", f"/api/shows/{show}/commentary", text)
        theirs = await heard(plain, subprotocol)
        assert await heard(small, subprotocol) == theirs
    assert len(compressed) > 0
    assert max(compressed) < len(theirs[0]["text"])


@pytest.mark.parametrize("query", ["", "?other=1"], ids=["usher", "endpoint"])
async def test_commands_when_they_are_compressed_then_answered_without_compression(
    web: WebStage, show: str, query: str
) -> None:
    async with (
        connect(ws_url(web, show)),  # the room is open
        connect(ws_url(web, show, query)) as viewer,
    ):
        assert viewer.response is not None
        assert viewer.response.headers["Sec-WebSocket-Extensions"] == ANSWER
        await viewer.recv()
        compressed = watch_compressed(viewer)
        for ref in range(1, 20):
            reply = await ask(viewer, {"t": "time", "ref": ref, "sent_at": 1}, ref)
            assert reply["t"] == "accepted"
        assert compressed == []


@pytest.mark.parametrize(
    "offers",
    [
        ["x-webkit-deflate-frame"],
        ["permessage-deflate; server_max_window_bits=8"],
        ["permessage-deflate; colour=blue"],
        ["permessage-deflate; client_max_window_bits; client_max_window_bits"],
        ["=;,"],
        ["x" * 4_000],
    ],
)
@pytest.mark.parametrize("query", ["", "?other=1"], ids=["usher", "endpoint"])
async def test_offer_when_it_cannot_be_taken_then_the_viewer_comes_in_without(
    web: WebStage, show: str, query: str, offers: list[str]
) -> None:
    async with connect(ws_url(web, show)):
        headers = [f"Sec-WebSocket-Extensions: {offer}" for offer in offers]
        raw = await asyncio.to_thread(RawViewer, web.url, show + query, *headers)
        with raw:
            assert b"extensions" not in raw.head.lower()
            assert (await asyncio.to_thread(raw.message))["t"] == "welcome"


async def test_offers_when_they_are_in_two_headers_then_the_first_that_suits_is_taken(
    web: WebStage, show: str
) -> None:
    async with connect(ws_url(web, show)):
        raw = await asyncio.to_thread(RawViewer, web.url, show, OFFER + "; colour=blue", OFFER)
        with raw:
            assert ANSWER.encode() in raw.head


async def test_bomb_when_compression_was_agreed_then_1009(web: WebStage, show: str) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(bytes(3 << 20)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    async with connect(ws_url(web, show)) as other:
        raw = await asyncio.to_thread(RawViewer, web.url, show, OFFER)
        with raw:
            raw.send(frames.TEXT | frames.RSV1, bomb)
            assert await asyncio.to_thread(raw.close_code) == 1009
        assert (await ask(other, {"t": "time", "ref": 1}))["t"] == "accepted"
