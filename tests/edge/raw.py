"""A viewer's socket on which a test sends whatever bytes it likes, and reads frames one by one."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any, Final

from server.protocol import frames
from server.protocol.frames import client_frame
from tests.door_stage import handshake, status_of
from tests.live import until

KEY: Final = b"\x0a\x0b\x0c\x0d"
PATIENCE_S: Final = 10.0


def connect(url: str, source: str = "127.0.0.1") -> socket.socket:
    """A TCP connection to the listener of `url`, from a loopback address."""
    host, port = url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), PATIENCE_S, (source, 0))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def cut_off(client: socket.socket) -> None:
    """Close with a reset, as a crashed peer does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """`until` for tests without a loop: the listener runs in another thread or process."""
    asyncio.run(until(condition, what))


class RawViewer:
    """A viewer in JSON text that has had its handshake. `head`: the server's answer to it."""

    def __init__(self, url: str, show: str, *headers: str, source: str = "127.0.0.1") -> None:
        self.socket = connect(url, source)
        self._got = b""
        try:
            self.head = self._shake_hands(handshake(f"/ws/{show}", *headers))
        except BaseException:
            self.socket.close()
            raise

    def _shake_hands(self, request: bytes) -> bytes:
        self.socket.sendall(request)
        while b"\r\n\r\n" not in self._got:
            self._more()
        head, _, self._got = self._got.partition(b"\r\n\r\n")
        assert status_of(head) == 101, head
        return head

    def __enter__(self) -> "RawViewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, opcode: int, payload: bytes, *, fin: bool = True) -> None:
        self.socket.sendall(client_frame(opcode, payload, KEY, fin=fin))

    def say(self, command: dict[str, Any]) -> None:
        self.send(frames.TEXT, json.dumps(command).encode())

    def ask(self, command: dict[str, Any]) -> dict[str, Any]:
        """The reply to `command`, other messages left aside."""
        self.say(command)
        while True:
            message = self.message()
            if message.get("ref") == command["ref"]:
                return message

    def message(self) -> dict[str, Any]:
        """The next message; control frames are left aside."""
        while True:
            opcode, payload = self.frame()
            if opcode == frames.TEXT:
                found: dict[str, Any] = json.loads(payload)
                return found

    def frame(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        size = self._need(2)[1]
        head = 2
        if size == 126:
            head, size = 4, int.from_bytes(self._need(4)[2:])
        elif size == 127:
            head, size = 10, int.from_bytes(self._need(10)[2:])
        whole = self._need(head + size)
        self._got = self._got[head + size :]
        return whole[0] & 0x0F, whole[head:]

    def close_code(self) -> int:
        """The code of the close frame; frames before it are left aside."""
        while True:
            opcode, payload = self.frame()
            if opcode == frames.CLOSE:
                return int.from_bytes(payload[:2])

    def _need(self, size: int) -> bytes:
        while len(self._got) < size:
            self._more()
        return self._got[:size]

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionAbortedError(f"closed by the server after {self._got!r}")
        self._got += data
