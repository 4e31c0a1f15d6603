"""Viewers whose transport is a TLS one: the same reading, writing and keeping up, on both loops."""

import asyncio
import shutil
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from server.hub.direct import NO_SOCKET
from tests.hub_world import FakeTransport, Screen, from_client
from tests.unit.test_viewer_sockets import LOOPS, Served, serving, split_whole

BUFFERED_MAX = 64 * 1024
PAD = "x" * 20_000


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Contexts:
    """Both sides of TLS with a certificate for 127.0.0.1 that only they know."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(openssl, folder)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return Contexts(server, ssl.create_default_context(cafile=str(folder / "cert.pem")))


def make_certificate(openssl: str, folder: Path) -> None:
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    name = ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    command = [openssl, "req", "-x509", *key, *name, *files]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


class Watching:
    """A viewer over TLS, with what its screen shows."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.screen = Screen()
        self.replies: list[int] = []
        self._rest = b""

    @classmethod
    async def open(cls, served: Served, context: ssl.SSLContext) -> "Watching":
        """Its kernel takes little that it does not read."""
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plain.connect(("127.0.0.1", served.port))
        plain.setblocking(False)
        options = {"sock": plain, "ssl": context, "server_hostname": "127.0.0.1", "limit": 1_024}
        return cls(*await asyncio.open_connection(**options))

    async def read(self) -> None:
        """What is there, at least a byte."""
        async with asyncio.timeout(20):
            self._rest += await self.reader.read(1 << 16)
        part = FakeTransport()
        part.sent, self._rest = split_whole(self._rest)
        messages = part.take_messages()
        self.screen.show(messages)
        self.replies += [message["ref"] for message in messages if message["t"] == "accepted"]


Scenario = Callable[[Served, Contexts], Awaitable[None]]


def over_tls(test: Scenario) -> Callable[[str, Contexts], None]:
    async def serve_and_test(contexts: Contexts) -> None:
        async with serving(contexts.server) as served:
            await test(served, contexts)

    @pytest.mark.parametrize("loop", list(LOOPS))
    def run(loop: str, contexts: Contexts) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(serve_and_test(contexts))

    run.__name__ = test.__name__
    return run


@over_tls
async def test_commands_when_they_come_over_tls_then_each_is_answered_at_once(
    served: Served, contexts: Contexts
) -> None:
    client = await Watching.open(served, contexts.client)
    for ref in range(20):
        client.writer.write(from_client({"t": "time", "ref": ref}))
        while ref not in client.replies:
            await client.read()
    (viewer,) = served.viewers
    assert viewer.fd == NO_SOCKET  # what goes past the transport would not be encrypted
    assert not viewer.is_paused
    client.writer.transport.abort()


@over_tls
async def test_slow_reader_when_it_reads_again_over_tls_then_one_catch_up_and_nothing_piled_up(
    served: Served, contexts: Contexts
) -> None:
    client = await Watching.open(served, contexts.client)
    await client.read()
    (viewer,) = served.viewers
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    changes = 0
    while not viewer.is_paused:  # fill TLS' and the kernel's buffers
        served.room.offer(served.world.set("stock:1", left=changes, pad=PAD))
        changes += 1
        await asyncio.sleep(0.001)
    for _ in range(500):
        served.room.offer(served.world.set("stock:1", left=changes, pad=PAD))
        served.room.offer(served.world.happen())
        changes += 1
    assert viewer.transport.get_write_buffer_size() < BUFFERED_MAX
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    while client.screen.state.get("stock:1") != served.room.state["stock:1"]:
        await client.read()
    assert client.screen.seq == served.room.seq == 500
    assert viewer.is_open
    client.writer.transport.abort()
