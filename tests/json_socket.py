"""A viewer's socket in JSON text on which a test says whatever it likes, frame by frame.

tests/live.py has the viewer that is well behaved.
"""

import json
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.web_stage import WebStage

Reply = dict[str, Any]

# A claim as a page sends it, of a sale that need not exist.
CLAIM: dict[str, Any] = {
    "t": "claim", "ref": 1, "sale": 1, "quantity": 1, "price_version": 1,
    "claim_id": "01890a5d-ac96-774b-bcce-b302099a8057",
}  # fmt: skip


def ws_url(web: WebStage, show: str, query: str = "") -> str:
    return f"{web.url.replace('http', 'ws', 1)}/ws/{show}{query}"


async def open_json(web: WebStage, show: str) -> ClientConnection:
    return await connect(ws_url(web, show), compression=None)


async def ask(socket: ClientConnection, command: dict[str, Any], ref: int = 1) -> Reply:
    """The next reply under this ref, other frames left aside."""
    await socket.send(json.dumps(command))
    while True:
        message: Reply = json.loads(await socket.recv())
        if message["t"] in ("accepted", "refused") and message.get("ref") == ref:
            return message


async def close_code(socket: ClientConnection) -> int | None:
    """The code that the server closes with; frames before it are left aside."""
    try:
        while True:
            await socket.recv()
    except ConnectionClosed:
        return socket.close_code
