"""Reference: a Starlette endpoint on uvicorn and uvloop, `await send_bytes` in a loop."""

import sys
from collections.abc import Awaitable, Callable

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

VIEWERS: set[WebSocket] = set()


async def viewer(socket: WebSocket) -> None:
    """Keep one connection; what it sends goes to all."""
    await socket.accept()
    VIEWERS.add(socket)
    try:
        while True:
            message = await socket.receive_bytes()
            for other in VIEWERS:
                await other.send_bytes(message)
    except WebSocketDisconnect:
        pass
    finally:
        VIEWERS.discard(socket)


def serve(endpoint: Callable[[WebSocket], Awaitable[None]], port: int) -> None:
    """Serve until killed."""
    uvicorn.run(
        Starlette(routes=[WebSocketRoute("/{path:path}", endpoint)]),
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
    serve(viewer, int(sys.argv[1]))
