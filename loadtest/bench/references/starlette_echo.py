"""Reference: a Starlette endpoint on uvicorn and uvloop; every message goes back to its sender."""

import sys
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from loadtest.bench.references.starlette_loop import serve


async def echo(socket: WebSocket) -> None:
    """Keep one connection."""
    await socket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            await socket.send_bytes(await socket.receive_bytes())


if __name__ == "__main__":
    serve(echo, int(sys.argv[1]))
