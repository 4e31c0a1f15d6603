"""Reference: websockets on uvloop, no compression, no pings; every message goes back."""

import sys

import uvloop
from websockets.asyncio.server import ServerConnection

from loadtest.bench.references.websockets_broadcast import serve_forever


async def echo(connection: ServerConnection) -> None:
    """Keep one connection."""
    async for message in connection:
        await connection.send(message)


if __name__ == "__main__":
    uvloop.run(serve_forever(echo, int(sys.argv[1])))
