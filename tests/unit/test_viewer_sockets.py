"""Viewers on real sockets, on both event loops: slow readers, torn connections, flow control."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import msgpack
import pytest
import uvloop

from server import limits
from server.hub.hub import Hub
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol.codec import MSGPACK
from server.protocol.messages import Accepted, Command
from tests.hub_world import SHOW, FakeTransport, Screen, World, from_client, new_hub, until

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
PAD = "x" * 2_000


class Served:
    """A room behind a listening socket (without the door: connections begin as viewers)."""

    def __init__(self, world: World, hub: Hub, room: Room, port: int) -> None:
        self.world = world
        self.hub = hub
        self.room = room
        self.port = port
        self.viewers: list[Viewer] = []

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        client = socket.socket()
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        client.setblocking(False)
        return client


class Door(asyncio.Protocol):
    """Hands every connection over at once."""

    def __init__(self, served: Callable[[], Served]) -> None:
        self.served = served()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        viewer = Viewer(self.served.room, MSGPACK, address="127.0.0.1")
        cast(asyncio.Transport, transport).set_protocol(viewer)
        viewer.connection_made(transport)
        viewer.start()
        self.served.viewers.append(viewer)


@contextlib.asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    world = World()
    world.set("stock:1", left=9)
    hub, _commands = new_hub(world, tick_ms=20)
    hub.dispatch = answer
    room = await hub.room(SHOW)
    assert room is not None
    holder: list[Served] = []
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Door(lambda: holder[0]), "127.0.0.1", 0, ssl=tls)
    holder.append(Served(world, hub, room, server.sockets[0].getsockname()[1]))
    try:
        yield holder[0]
    finally:
        server.close()
        for viewer in holder[0].viewers:
            viewer.transport.abort()
        await until(lambda: not hub.viewers)
        hub.ticker.stop()
        hub.wheel.stop()


def answer(viewer: Viewer, command: Command) -> None:
    if command.ref is not None:
        viewer.send(Accepted(ref=command.ref))


async def read_some(client: socket.socket, transport: FakeTransport) -> None:
    """Read what is there into a transport that can take frames apart."""
    async with asyncio.timeout(20):
        transport.sent += await asyncio.get_running_loop().sock_recv(client, 1 << 16)


def on_both_loops(
    test: Callable[[Served], Awaitable[None]],
) -> Callable[[str], None]:
    async def serve_and_test() -> None:
        async with serving() as served:
            await test(served)

    @pytest.mark.parametrize("loop", list(LOOPS))
    def run(loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(serve_and_test())

    run.__name__ = test.__name__
    return run


@on_both_loops
async def test_slow_reader_when_it_reads_again_then_one_catch_up_and_nothing_piled_up(
    served: Served,
) -> None:
    slow = served.connect(receive_buffer=4_096)
    await until(lambda: served.viewers)
    (viewer,) = served.viewers
    changes = 0
    while not viewer.is_paused:  # fill the kernel's buffers
        served.room.offer(served.world.set("stock:1", left=changes, pad=PAD))
        changes += 1
        await asyncio.sleep(0.001)
    for _ in range(500):
        served.room.offer(served.world.set("stock:1", left=changes, pad=PAD))
        served.room.offer(served.world.happen())
        changes += 1
    assert viewer.transport.get_write_buffer_size() < 64 * 1024
    screen, wire = Screen(), FakeTransport()
    ticks = 0
    with slow:
        while screen.state.get("stock:1") != served.room.state["stock:1"]:
            await read_some(slow, wire)
            whole, wire.sent = split_whole(wire.sent)
            part = FakeTransport()
            part.sent = whole
            messages = part.take_messages()
            ticks += len(messages)
            screen.show(messages)
    assert screen.seq == served.room.seq == 500
    assert ticks < changes


def split_whole(data: bytes) -> tuple[bytes, bytes]:
    """(whole frames, the beginning of the next one)."""
    at = 0
    while at + 10 <= len(data):
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
        elif length == 127:
            length, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
        if start + length > len(data):
            break
        at = start + length
    return data[:at], data[at:]


@on_both_loops
async def test_torn_connections_when_frames_are_being_sent_then_nothing_is_left(
    served: Served,
) -> None:
    for _ in range(5):
        clients = [served.connect() for _ in range(20)]
        await until(lambda: served.room.viewers == 20)
        for number, client in enumerate(clients):
            served.room.offer(served.world.set("likes", total=number))
            if number % 2:  # RST instead of FIN
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            client.close()
            await asyncio.sleep(0.001)
        await until(lambda: not served.hub.viewers)
    assert served.room.viewers == 0
    assert len(served.hub.wheel) == 0
    assert served.room._groups[MSGPACK] == []


@on_both_loops
async def test_flood_of_commands_when_the_sender_does_not_read_then_we_stop_reading(
    served: Served,
) -> None:
    client = served.connect(receive_buffer=4_096)
    await until(lambda: served.viewers)
    (viewer,) = served.viewers
    flood = b"".join(from_client({"t": "time", "ref": ref}) for ref in range(2_000))
    loop = asyncio.get_running_loop()
    with client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "FRAMES_PER_SECOND_MAX", 10**9)
        sending = asyncio.create_task(loop.sock_sendall(client, flood * 50))
        await until(lambda: viewer.is_paused)
        assert not viewer.transport.is_reading()
        assert viewer.transport.get_write_buffer_size() < 64 * 1024
        assert viewer.is_open
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@on_both_loops
async def test_frames_when_everybody_reads_then_all_see_the_same_at_the_end(
    served: Served,
) -> None:
    clients = [served.connect() for _ in range(10)]
    wires = [FakeTransport() for _ in clients]
    screens = [Screen() for _ in clients]
    await until(lambda: served.room.viewers == 10)
    for left in range(50):
        served.room.offer(served.world.set("stock:1", left=left))
        served.room.offer(served.world.happen())
        await asyncio.sleep(0.002)
    for client, wire, screen in zip(clients, wires, screens, strict=True):
        with client:
            while screen.seq != 50 or screen.state["stock:1"]["left"] != 49:
                await read_some(client, wire)
                whole, wire.sent = split_whole(wire.sent)
                part = FakeTransport()
                part.sent = whole
                screen.show(part.take_messages())


@on_both_loops
async def test_reply_when_a_command_comes_then_it_is_written_in_the_same_turn(
    served: Served,
) -> None:
    client = served.connect()
    await until(lambda: served.viewers)
    wire = FakeTransport()
    with client:
        await read_some(client, wire)
        wire.take_frames()
        await asyncio.get_running_loop().sock_sendall(client, from_client({"t": "time", "ref": 9}))
        await read_some(client, wire)
    ((opcode, payload),) = wire.take_frames()
    assert (opcode, msgpack.unpackb(payload)) == (2, {"t": "accepted", "ref": 9})
