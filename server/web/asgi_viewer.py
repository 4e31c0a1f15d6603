"""A viewer on any ASGI server: the same Viewer, fed through a stand-in for its transport.

The hub writes whole frames and reads raw bytes; ASGI carries messages. `MessageTransport` takes
the frames apart again and puts messages into frames, so rooms, commands and limits are the same
code. It costs a task and a queue per viewer: for tests and small installations, the door
(server/web/door.py) is the real way.
"""

import asyncio
import contextlib
from typing import Any, Final

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import CloseCode

from server import limits
from server.hub.viewer import Viewer
from server.protocol import frames

_MASK: Final = b"\0\0\0\0"  # masking with zeros leaves the payload as it is
_END: Final = None
_FALLBACK_CLOSE: Final = int(CloseCode.NORMAL_CLOSURE)


class MessageTransport(asyncio.Transport):
    """What Viewer uses of a transport, over a queue that `pump_out` empties."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._waiting: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._bytes = 0
        self._paused = False
        self._closing = False
        self.may_read = asyncio.Event()
        self.may_read.set()

    def write(self, data: Any) -> None:
        if self._closing:
            return
        self._bytes += len(data)
        self._waiting.put_nowait(bytes(data))
        if self._bytes > limits.WRITE_BUFFER_BYTES_MAX // 2 and not self._paused:
            self._paused = True
            self._viewer.pause_writing()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._waiting.put_nowait(_END)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.may_read.clear()

    def resume_reading(self) -> None:
        self.may_read.set()

    def get_write_buffer_size(self) -> int:
        return self._bytes

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """The bounds are fixed here."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    async def pump_out(self, websocket: WebSocket) -> None:
        """Send what the hub writes until it closes; the close frame's code becomes ASGI's."""
        code = _FALLBACK_CLOSE
        while (data := await self._waiting.get()) is not _END:
            for opcode, payload in split_frames(data):
                if opcode == frames.TEXT:
                    await websocket.send_text(payload.decode())
                elif opcode == frames.BINARY:
                    await websocket.send_bytes(payload)
                elif opcode == frames.CLOSE:
                    code = int.from_bytes(payload[:2]) if payload else code
                    self.close()
            self._written(len(data))
        await websocket.close(code)

    def _written(self, count: int) -> None:
        self._bytes -= count
        if self._paused and self._bytes == 0:
            self._paused = False
            self._viewer.resume_writing()


def split_frames(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of whole server frames written in one piece."""
    found = []
    at = 0
    while at < len(data):
        length, start = data[at + 1], at + 2
        if length == 126:
            length, start = int.from_bytes(data[start : start + 2]), start + 2
        elif length == 127:
            length, start = int.from_bytes(data[start : start + 8]), start + 8
        found.append((data[at] & 0x0F, data[start : start + length]))
        at = start + length
    return found


async def serve_over_asgi(websocket: WebSocket, viewer: Viewer) -> None:
    """Serve an accepted WebSocket until either side closes it."""
    transport = MessageTransport(viewer)
    viewer.connection_made(transport)
    viewer.start()
    reading = asyncio.create_task(_pump_in(websocket, viewer, transport))
    try:
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            await transport.pump_out(websocket)
    finally:
        reading.cancel()
        viewer.connection_lost(None)


async def _pump_in(websocket: WebSocket, viewer: Viewer, transport: MessageTransport) -> None:
    while True:
        await transport.may_read.wait()
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            transport.close()
            return
        text = message.get("text")
        opcode = frames.BINARY if text is None else frames.TEXT
        payload = message["bytes"] if text is None else text.encode()
        viewer.data_received(frames.client_frame(opcode, payload, _MASK))
