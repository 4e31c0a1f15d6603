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

from server import limits
from server.config import Settings
from server.hub.direct import NO_SOCKET
from server.web.listeners import INTERNAL, PUBLIC
from server.web.processes import open_slots
from tests.door_stage import DoorStage, door_stage, handshake, read_all, read_until
from tests.hub_world import FakeTransport, Screen, from_client
from tests.unit.test_viewer_sockets import LOOPS, Served, serving, split_whole

BUFFERED_MAX = 64 * 1024
PAD = "x" * 20_000
FILES = ("tls_cert", "tls_key")


class Contexts(NamedTuple):
    server: ssl.SSLContext
    client: ssl.SSLContext
    settings: dict[str, str]  # for a server with the same certificate


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
    files = {name: str(folder / f"{name.removeprefix('tls_')}.pem") for name in FILES}
    return Contexts(server, ssl.create_default_context(cafile=files["tls_cert"]), files)


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


# --- The listener -------------------------------------------------------------------------------


def secured(stage: DoorStage, contexts: Contexts) -> ssl.SSLSocket:
    return contexts.client.wrap_socket(stage.connect(), server_hostname="127.0.0.1")


def test_listener_when_it_has_a_certificate_then_pages_and_viewers_come_over_tls(
    contexts: Contexts,
) -> None:
    with door_stage(**contexts.settings) as stage:
        with secured(stage, contexts) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_until(client, b"127.0.0.1:0").startswith(b"HTTP/1.1 200 ")
        with secured(stage, contexts) as client:
            client.sendall(handshake("/ws/usual") + b"early")
            assert read_until(client, b"HELLO:early").startswith(b"HTTP/1.1 101 ")


def test_listener_when_a_peer_does_not_finish_the_tls_handshake_then_it_is_closed(
    contexts: Contexts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TLS_HANDSHAKE_SECONDS", 0.2)
    with door_stage(**contexts.settings) as stage:
        for first in (b"", b"\x16\x03\x01\x02\x00\x01"):  # of a ClientHello
            with stage.connect() as client:
                client.sendall(first)
                assert read_all(client) == b""
        with secured(stage, contexts) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            assert read_until(client, b"127.0.0.1:0")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_listener_when_a_peer_speaks_an_old_tls_then_it_is_refused(contexts: Contexts) -> None:
    old = ssl.create_default_context(cafile=contexts.settings["tls_cert"])
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with door_stage(**contexts.settings) as stage:
        client = stage.connect()
        with pytest.raises(ssl.SSLError, match=r"EOF|PROTOCOL_VERSION"):
            old.wrap_socket(client, server_hostname="127.0.0.1")


async def test_caller_when_no_process_serves_then_he_hears_over_tls_when_to_come_again(
    contexts: Contexts, tmp_path: Path
) -> None:
    settings = Settings(port=0, **contexts.settings)
    (slot,) = open_slots(settings, 1, tmp_path)
    with slot.sockets[PUBLIC], slot.sockets[INTERNAL]:
        async with slot.standing_in():
            where = slot.sockets[PUBLIC].getsockname()
            reader, writer = await asyncio.open_connection(*where, ssl=contexts.client)
            writer.write(b"GET / HTTP/1.1\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
            writer.close()
