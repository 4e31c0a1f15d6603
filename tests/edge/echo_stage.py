"""The production listener as an echo server, as the Autobahn fuzzing client wants its testee.

Door, `Viewer`, `Inbox` and the writing past the transport are the ones that serve a show; only what
a message means is another thing: it comes back, compressed where that was agreed to. There is no
welcome, both opcodes are spoken on one connection, and the bounds are as wide as the cases need.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, cast

import pytest

from server import limits
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.protocol import deflate, frames
from server.protocol.codec import Codec
from server.protocol.messages import Command
from server.web.handshake import read_usual, response
from tests.door_stage import DoorStage
from tests.hub_world import SHOW, World, new_hub

# What cases 1 to 7 and 10 need: 64 KiB in frames of 1,300 bytes, hundreds of frames a second.
WIDE: Final = {
    "COMMAND_BYTES_MAX": 1 << 17,
    "FRAGMENTS_MAX": 1_000,
    "FRAMES_PER_SECOND_MAX": 10**9,
    "WRITE_BUFFER_BYTES_MAX": 1 << 20,
}


class Said(NamedTuple):
    """A message that nobody looked into."""

    payload: bytes
    ref: int | None = None


def _echoing(opcode: int) -> Codec:
    said = cast(Callable[[bytes], Command], Said)
    return Codec("echo", "", opcode, lambda message: cast(Said, message).payload, said, bytes)


CODECS: Final = {opcode: _echoing(opcode) for opcode in (frames.TEXT, frames.BINARY)}
DEFLATING: Final = {opcode: codec.deflating() for opcode, codec in CODECS.items()}


class EchoRoom(Room):
    """Nobody is welcomed or pinged, and nothing ticks.

    The fuzzing client answers a ping at once, even where it has sent half of a frame (cases 6.4.3
    and 6.4.4 do for two seconds): its pong is then part of that frame, for any server.
    """

    def join(self, viewer: Viewer, before: bytes = b"") -> None:
        self.hub.on_joined(viewer)
        self.hub.wheel.discard(viewer)
        viewer.send_frame(before)


class EchoViewer(Viewer):
    """Speaks the opcode it was spoken to in; leaves its place at the door when it is gone."""

    __slots__ = ("_codecs", "stage")

    def __init__(self, stage: "EchoStage", address: str, *, deflates: bool) -> None:
        self._codecs = DEFLATING if deflates else CODECS
        super().__init__(stage.room, self._codecs[frames.TEXT], address=address)
        self.stage = stage

    def _take(self, opcode: int, payload: bytes) -> None:
        self.codec = self._codecs.get(opcode, self.codec)
        super()._take(opcode, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.stage.admission.release(self.address)


def _say_again(viewer: Viewer, command: Command) -> None:
    viewer.send_frame(viewer.codec.shared_frame(command))


class EchoStage(DoorStage):
    """Every usual handshake for /ws/echo is let in."""

    room: Room

    async def main(self, ready: Callable[[], None]) -> None:
        hub, _ = new_hub(World())
        hub.dispatch = _say_again
        room = await hub.room(SHOW)
        assert room is not None
        self.room = EchoRoom(SHOW, hub, room.board)
        await super().main(ready)
        hub.ticker.stop()
        hub.wheel.stop()

    def _usher(  # type: ignore[override]
        self, target: bytes, headers: list[tuple[bytes, bytes]], address: str
    ) -> tuple[EchoViewer, bytes] | None:
        asked = read_usual(target, headers)
        if asked is None:
            return None
        deflates = deflate.is_acceptable(asked.extensions)
        viewer = EchoViewer(self, address, deflates=deflates)
        return viewer, response(asked, None, deflate.ANSWER if deflates else None)


def widen(patch: pytest.MonkeyPatch) -> None:
    """The bounds of WIDE instead of the protocol's."""
    for name, value in WIDE.items():
        patch.setattr(limits, name, value)
    patch.setattr(frames, "_TOO_LONG", WIDE["COMMAND_BYTES_MAX"] + 1)
