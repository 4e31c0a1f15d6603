"""The failing network of the fault tests: it fails as it was told to, and only then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tests.live import until
from tests.proxy import Proxy

SHORT_S = 0.05


@dataclass
class Echo:
    """A server that says back what it hears, behind a proxy, and one client of it."""

    proxy: Proxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heard: list[bytes] = field(default_factory=list)

    async def ask(self, text: bytes, seconds: float = 5.0) -> bytes:
        """The answer; b"" when the connection ended. Raises TimeoutError when it is silent."""
        self.writer.write(text)
        return await self.answer(seconds)

    async def answer(self, seconds: float) -> bytes:
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                return await self.reader.read(100)
            return b""


@asynccontextmanager
async def open_echo() -> AsyncIterator[Echo]:
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(100):
                heard.append(data)
                writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Proxy.before(f"127.0.0.1:{port}") as proxy:
        pair = await asyncio.open_connection("127.0.0.1", proxy.port)
        yield Echo(proxy, *pair, heard)
        pair[1].transport.abort()
    server.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async with open_echo() as opened:
        yield opened


async def test_proxy_when_nothing_is_wrong_then_bytes_go_both_ways(echo: Echo) -> None:
    assert await echo.ask(b"hello") == b"hello"


async def test_proxy_when_cut_then_the_client_sees_the_end(echo: Echo) -> None:
    assert await echo.ask(b"one") == b"one"
    echo.proxy.cut()
    assert await echo.answer(5) == b""


async def test_proxy_when_stalled_then_silence_until_healed(echo: Echo) -> None:
    assert await echo.ask(b"one") == b"one"
    echo.proxy.stall()
    with pytest.raises(TimeoutError):
        await echo.ask(b"two", SHORT_S)
    assert echo.heard == [b"one"]
    echo.proxy.heal()
    assert await echo.answer(5) == b"two"


async def test_proxy_when_only_replies_stall_then_the_server_heard(echo: Echo) -> None:
    echo.proxy.stall("down")
    with pytest.raises(TimeoutError):
        await echo.ask(b"one", SHORT_S)
    assert echo.heard == [b"one"]


async def test_proxy_when_half_open_then_the_client_hears_nothing(echo: Echo) -> None:
    assert await echo.ask(b"one") == b"one"
    echo.proxy.half_open()
    with pytest.raises(TimeoutError):
        await echo.ask(b"two", SHORT_S)
    assert echo.heard == [b"one"]


async def test_proxy_when_a_reply_is_lost_then_the_server_did_it_once(echo: Echo) -> None:
    echo.proxy.lose_reply()
    assert await echo.ask(b"one") == b""
    await until(lambda: echo.heard == [b"one"], "the server heard it")
    assert echo.proxy.replies_lost == 1


async def test_proxy_when_delayed_then_everything_still_arrives_in_order(echo: Echo) -> None:
    echo.proxy.delay_s = SHORT_S
    assert await echo.ask(b"one") == b"one"
    assert await echo.ask(b"two") == b"two"
