"""Frames that attack the listener; test_rows.py says where the other rows are tested."""

import asyncio
import contextlib
import gc
import json
import threading
import zlib

import pytest
from structlog.testing import capture_logs

from server import limits
from server.hub.viewer import Viewer
from server.protocol import frames
from server.protocol.frames import Inbox
from tests.door_stage import read_all
from tests.edge.raw import KEY, RawViewer, cut_off, wait_until
from tests.live import token_of
from tests.web_stage import WebStage

PINGS = 20_000
TORN = 1_000
AT_ONCE = 50


def padded(size: int) -> bytes:
    """A `time` command of exactly `size` bytes."""
    command = json.dumps({"t": "time", "ref": 1}).encode()
    return command.ljust(size)


def wait_until_nobody_is_left(web: WebStage) -> None:
    wait_until(lambda: web.process.admission.viewers == 0, "the last viewer is gone")
    assert web.process.hub.viewers == 0


def test_f04_message_at_the_limit_then_it_is_taken_and_one_byte_more_then_1009(
    web: WebStage, show: str
) -> None:
    with RawViewer(web.url, show) as viewer:
        viewer.send(frames.TEXT, padded(limits.COMMAND_BYTES_MAX))
        while (message := viewer.message()).get("ref") != 1:
            pass
        assert message["t"] == "accepted"
        viewer.send(frames.TEXT, padded(limits.COMMAND_BYTES_MAX + 1))
        assert viewer.close_code() == 1009


@pytest.mark.parametrize(("inflated", "code"), [(3 << 20, 1002), (64 << 20, 1009)])
def test_f05_deflate_bomb_then_closed_and_never_inflated(
    web: WebStage, show: str, inflated: int, code: int
) -> None:
    deflate = zlib.compressobj(9, wbits=-15)
    bomb = deflate.compress(bytes(inflated)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    assert (len(bomb) > limits.COMMAND_BYTES_MAX) == (code == 1009)
    with RawViewer(web.url, show, "Sec-WebSocket-Extensions: permessage-deflate") as viewer:
        assert b"extensions" not in viewer.head.lower()
        frame = frames.client_frame(frames.TEXT, bomb, KEY)
        viewer.socket.sendall(bytes((frame[0] | 0x40,)) + frame[1:])  # RSV1: compressed
        assert viewer.close_code() == code


def test_f07_fragments_drip_with_pings_between_then_the_deadline_of_the_message_stands(
    web: WebStage, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web.process.hub, "message_ticks", web.process.hub.ticker.ticks(1.5))
    with RawViewer(web.url, show) as viewer:
        viewer.send(frames.TEXT, b'{"t":', fin=False)
        for _ in range(20):  # all it may do meanwhile: its own pings, and answers to ours
            opcode, payload = viewer.frame()
            if opcode == frames.CLOSE:
                break
            if opcode == frames.PING:
                viewer.send(frames.PONG, payload)
                viewer.send(frames.PING, b"still here")
    assert int.from_bytes(payload[:2]) == 1002


def test_f08_flood_of_pings_then_4429_and_others_are_answered_meanwhile(
    web: WebStage, show: str
) -> None:
    flood = frames.client_frame(frames.PING, b"x" * 100, KEY) * PINGS
    with RawViewer(web.url, show) as flooder, RawViewer(web.url, show) as other:
        sending = threading.Thread(target=send_what_is_taken, args=(flooder, flood))
        sending.start()
        for ref in range(1, limits.FRAMES_PER_SECOND_MAX // 2):
            assert other.ask({"t": "time", "ref": ref})["t"] == "accepted"
        assert flooder.close_code() == 4429
        sending.join()


def send_what_is_taken(viewer: RawViewer, data: bytes) -> None:
    with contextlib.suppress(OSError):  # closed meanwhile
        viewer.socket.sendall(data)


def test_f09_text_that_is_not_utf8_then_1007_and_at_most_one_line_in_the_log(
    web: WebStage, show: str
) -> None:
    with RawViewer(web.url, show) as viewer, capture_logs() as lines:
        assert viewer.message()["t"] == "welcome"
        viewer.send(frames.TEXT, b'{"t":"chat","text":"\xed\xa0\x80\xff"}')
        assert viewer.close_code() == 1007
        viewer.socket.close()
        wait_until_nobody_is_left(web)
    assert len(lines) <= 1
    assert not any(line.get("exc_info") for line in lines)


def test_f11_no_pong_then_4409_and_the_user_is_gone(
    web: WebStage, show: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLOSE_SECONDS", 1.0)
    room = web.process.hub.rooms
    with RawViewer(web.url, show) as viewer:
        hello = {"t": "hello", "ref": 1, "token": token_of("silent", show)}
        assert viewer.ask(hello)["t"] == "accepted"
        assert room[show].viewers_of("silent")
        pings = 0
        while (frame := viewer.frame())[0] != frames.CLOSE:
            pings += frame[0] == frames.PING
        assert (pings, int.from_bytes(frame[1][:2])) == (1, 4409)
        assert room[show].viewers_of("silent") == ()
        read_all(viewer.socket)  # nor does it answer the close: the server hangs up all the same
    wait_until_nobody_is_left(web)


def test_f12_connections_torn_in_every_way_then_nothing_is_left(web: WebStage, show: str) -> None:
    """Closed or reset: before the answer, in the welcome, in the middle of frames."""
    leave_traces(web, show, AT_ONCE)  # what is made once is there now
    before = traces(web)
    leave_traces(web, show, TORN)

    def nothing_is_left() -> bool:
        return all(count <= before[kind] for kind, count in traces(web).items())

    wait_until(nothing_is_left, f"no more than {before}")  # tasks of the room come and go


def leave_traces(web: WebStage, show: str, count: int) -> None:
    for first in range(0, count, AT_ONCE):
        viewers = [RawViewer(web.url, show) for _ in range(AT_ONCE)]
        for number, viewer in enumerate(viewers, first):
            if number % 3 == 0:
                viewer.say({"t": "hello", "ref": 1, "token": token_of(f"u{number % 5}", show)})
            if number % 3 == 1:
                viewer.socket.sendall(b"\x81\xfe\x01")  # half a head
            if number % 2:
                cut_off(viewer.socket)
            else:
                viewer.socket.close()
        wait_until_nobody_is_left(web)


def traces(web: WebStage) -> dict[str, int]:
    """What a viewer is made of, as far as it is still there."""
    gc.collect()
    hub = web.process.hub
    kinds = [type(thing) for thing in gc.get_objects()]
    return {
        "viewers": kinds.count(Viewer),
        "inboxes": kinds.count(Inbox),
        "wheel": len(hub.wheel),
        "users": len(hub._users),
        "groups": sum(map(len, next(iter(hub.rooms.values()))._groups.values())),
        "addresses": len(web.process.admission._by_address),
        "counted": sum(web.process.admission._open.values()),
        "connections": len(web.server.server_state.connections),
        "request tasks": len(web.server.server_state.tasks),
        "tasks": len(asyncio.all_tasks(web.loop)),
    }
