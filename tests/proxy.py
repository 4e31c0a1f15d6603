"""A network that fails on command: a small proxy between a client and a server.

async with Proxy.before("unix:/run/valkey.sock") as proxy:   # or "127.0.0.1:6379"
    proxy.port          where clients connect instead, on 127.0.0.1
    proxy.stall()       black hole: nothing arrives any more, nobody is told
    proxy.heal()        what was held back arrives, as after TCP's retransmissions
    proxy.cut()         every connection is reset
    proxy.half_open()   the server's ends are reset, the clients hear nothing
    proxy.lose_reply()  the next reply is thrown away and its connection reset
    proxy.delay_s = 1   each piece arrives that much later
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal

CHUNK = 1 << 16
Direction = Literal["up", "down"]  # towards the server, towards the client


class _Pipe:
    """One client's connection and its counterpart to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.is_half_open = False

    def reset(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Listens on a free port of 127.0.0.1; see the module's text for what it can do."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.port = 0
        self.delay_s = 0.0
        self.replies_lost = 0
        self._lose_next = False
        self._open: dict[Direction, asyncio.Event] = {
            "up": asyncio.Event(),
            "down": asyncio.Event(),
        }
        self._pipes: set[_Pipe] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.heal()

    @classmethod
    @asynccontextmanager
    async def before(cls, upstream: str) -> AsyncIterator["Proxy"]:
        """A running proxy for the block; `upstream` is `unix:<path>` or `<host>:<port>`."""
        proxy = cls(upstream)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)

    def stall(self, *directions: Direction) -> None:
        """Let nothing through any more: both ways, or only the named ones."""
        for direction in directions or ("up", "down"):
            self._open[direction].clear()

    def heal(self) -> None:
        for gate in self._open.values():
            gate.set()

    def cut(self) -> None:
        for pipe in list(self._pipes):
            pipe.reset()

    def half_open(self) -> None:
        for pipe in self._pipes:
            pipe.is_half_open = True
            pipe.server.transport.abort()

    def lose_reply(self) -> None:
        self._lose_next = True

    # --- One connection ----------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            up_reader, up_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pipe = _Pipe(writer, up_writer)
        self._pipes.add(pipe)
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump("up", reader, up_writer, pipe))
                pumps.create_task(self._pump("down", up_reader, writer, pipe))
        finally:
            pipe.reset()
            self._pipes.discard(pipe)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.upstream.startswith("unix:"):
            return await asyncio.open_unix_connection(self.upstream.removeprefix("unix:"))
        host, port = self.upstream.rsplit(":", 1)
        return await asyncio.open_connection(host, int(port))

    async def _pump(
        self,
        direction: Direction,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        pipe: _Pipe,
    ) -> None:
        """Carry bytes one way until the end of it; the other way ends with it."""
        with suppress(OSError):
            while data := await source.read(CHUNK):
                await asyncio.sleep(self.delay_s)
                await self._open[direction].wait()
                if direction == "down" and self._lose_next:
                    self._lose_next = False
                    self.replies_lost += 1
                    break
                target.write(data)
                await target.drain()
        if pipe.is_half_open:  # the client is not to know: swallow what it still says
            await asyncio.Event().wait()
        pipe.reset()
