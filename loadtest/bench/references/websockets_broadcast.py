"""Reference: `websockets.broadcast` on uvloop, no compression, no pings."""

import sys
from collections.abc import Awaitable, Callable

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

VIEWERS: set[ServerConnection] = set()


async def viewer(connection: ServerConnection) -> None:
    """Keep one connection; what it sends goes to all."""
    VIEWERS.add(connection)
    try:
        async for message in connection:
            broadcast(VIEWERS, message)
    finally:
        VIEWERS.discard(connection)


async def serve_forever(handler: Callable[[ServerConnection], Awaitable[None]], port: int) -> None:
    """Serve until killed."""
    async with serve(
        handler, "127.0.0.1", port, compression=None, ping_interval=None, backlog=4096
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve_forever(viewer, int(sys.argv[1])))
