"""Reference: a Starlette endpoint on uvicorn and uvloop; every message goes back to its sender."""

import sys
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect


async def echo(socket: WebSocket) -> None:
    """Keep one connection."""
    await socket.accept()
    with suppress(WebSocketDisconnect):
        while True:
            await socket.send_bytes(await socket.receive_bytes())


def main(port: int) -> None:
    """Serve until killed."""
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/{path:path}", echo)]),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_level="error",
        backlog=4096,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
