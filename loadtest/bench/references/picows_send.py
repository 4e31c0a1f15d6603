"""Reference: picows on uvloop, `WSTransport.send` to every connection, no pings."""

import sys

import uvloop
from picows import (
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    ws_create_server,
)

READ_BUFFER_BYTES = 2048  # its own default of 16 KiB would only cost memory here
VIEWERS: set[WSTransport] = set()


class Viewer(WSListener):
    """One connection; what it sends goes to all."""

    def on_ws_connected(self, transport: WSTransport) -> None:
        VIEWERS.add(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()
            return
        payload = frame.get_payload_as_bytes()
        for viewer in VIEWERS:
            viewer.send(WSMsgType.BINARY, payload)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        VIEWERS.discard(transport)


def viewer(_request: WSUpgradeRequest) -> Viewer:
    """The listener of a new connection."""
    return Viewer()


async def main(port: int) -> None:
    """Serve until killed."""
    server = await ws_create_server(
        viewer, "127.0.0.1", port, read_buffer_init_size=READ_BUFFER_BYTES, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
