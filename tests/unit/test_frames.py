"""RFC 6455 frames: what we build, and how odd or broken ones are judged."""

import pytest
from websockets.frames import Frame, Opcode

from server import limits
from server.protocol import frames
from server.protocol.frames import BrokenFrames, Inbox, client_frame, quick_frame

KEY = b"\x01\x02\x03\x04"


def inbox_result(data: bytes) -> tuple[int, bytes] | None:
    inbox = Inbox(data)
    return inbox.next()


def broken_code(data: bytes) -> int:
    inbox = Inbox(data)
    with pytest.raises(BrokenFrames) as caught:
        list(iter(inbox.next, None))
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4096, 65_535, 65_536])
def test_server_frame_when_built_then_equals_the_library(size: int) -> None:
    payload = b"x" * size
    expected = Frame(Opcode.BINARY, payload).serialize(mask=False)
    assert frames.server_frame(frames.BINARY, payload) == expected


def test_close_frame_when_built_then_has_code_and_reason() -> None:
    assert frames.close_frame(1012, "restart") == b"\x88\x09\x03\xf4restart"


@pytest.mark.parametrize("size", [0, 1, 125, 126, limits.COMMAND_BYTES_MAX])
def test_quick_frame_when_whole_and_small_then_takes_it(size: int) -> None:
    payload = bytes(range(256)) * 16
    data = b"??" + client_frame(frames.BINARY, payload[:size], KEY) + b"rest"
    got = quick_frame(data, 2)
    assert got is not None
    assert got == (frames.BINARY, payload[:size], len(data) - 4)


@pytest.mark.parametrize(
    "data",
    [
        client_frame(frames.BINARY, b"abc", KEY)[:-1],
        client_frame(frames.BINARY, b"abc", KEY)[:1],
        client_frame(frames.BINARY, b"abc", KEY, fin=False),
        client_frame(frames.CLOSE, b"", KEY),
        client_frame(0, b"abc", KEY),
        client_frame(frames.BINARY, b"x" * (limits.COMMAND_BYTES_MAX + 1), KEY),
        client_frame(frames.PING, b"x" * 126, KEY),
        b"\xc2" + client_frame(frames.BINARY, b"abc", KEY)[1:],
        frames.server_frame(frames.BINARY, b"abc" * 4),
    ],
    ids=[
        "cut", "one byte", "fragment", "close", "continuation", "too long", "long ping",
        "reserved bit", "unmasked",
    ],
)  # fmt: skip
def test_quick_frame_when_anything_is_unusual_then_leaves_it(data: bytes) -> None:
    assert quick_frame(data, 0) is None


def test_inbox_when_a_message_is_fragmented_then_assembles_it_around_control_frames() -> None:
    inbox = Inbox(
        client_frame(frames.TEXT, b"ab", KEY, fin=False)
        + client_frame(frames.PING, b"p", KEY)
        + client_frame(0, b"cd", KEY)
    )
    assert inbox.next() == (frames.PING, b"p")
    assert inbox.in_message
    assert inbox.next() == (frames.TEXT, b"abcd")
    assert inbox.next() is None
    assert inbox.is_idle


def test_inbox_when_a_close_arrives_then_gives_its_payload() -> None:
    assert inbox_result(client_frame(frames.CLOSE, b"\x03\xe8bye", KEY)) == (
        frames.CLOSE,
        b"\x03\xe8bye",
    )


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frames.server_frame(frames.BINARY, b"abc"), 1002),  # unmasked
        (b"\xc2" + client_frame(frames.BINARY, b"abc", KEY)[1:], 1002),  # RSV1
        (client_frame(0x3, b"abc", KEY), 1002),  # reserved opcode
        (client_frame(0xB, b"", KEY), 1002),  # reserved control opcode
        (client_frame(0, b"abc", KEY), 1002),  # continuation of nothing
        (client_frame(frames.PING, b"", KEY, fin=False), 1002),
        (client_frame(frames.PING, b"x" * 126, KEY), 1002),
        (client_frame(frames.CLOSE, b"\x03", KEY), 1002),  # half a close code
        (client_frame(frames.CLOSE, b"\x03\xed", KEY), 1002),  # 1005 may not be sent
        (client_frame(frames.CLOSE, b"\x03\xe8\xff", KEY), 1007),  # reason is not UTF-8
        (b"\x82\xff" + b"\x7f" + b"\xff" * 7 + KEY, 1009),  # 2^63 - 1 bytes announced
        (b"\x82\xff" + b"\xff" * 8 + KEY, 1009),
        (client_frame(frames.BINARY, b"x" * (limits.COMMAND_BYTES_MAX + 1), KEY)[:20], 1009),
        (
            client_frame(frames.BINARY, b"x" * limits.COMMAND_BYTES_MAX, KEY, fin=False)
            + client_frame(0, b"x", KEY),
            1009,
        ),
        (
            client_frame(frames.BINARY, b"", KEY, fin=False)
            + client_frame(0, b"", KEY, fin=False) * 20_000,
            1009,
        ),
        (
            client_frame(frames.TEXT, b"a", KEY, fin=False)
            + client_frame(frames.TEXT, b"b", KEY),
            1002,
        ),
    ],
    ids=[
        "unmasked", "rsv", "opcode 3", "opcode 11", "continuation", "fragmented ping", "long ping",
        "short close", "close 1005", "close reason", "2^63-1", "2^64-1", "limit+1",
        "sum over limit", "20000 empty fragments", "new message inside",
    ],
)  # fmt: skip
def test_inbox_when_the_rules_are_broken_then_says_the_close_code(data: bytes, code: int) -> None:
    assert broken_code(data) == code


def test_inbox_when_a_message_is_exactly_at_the_limit_then_takes_it() -> None:
    half = b"x" * (limits.COMMAND_BYTES_MAX // 2)
    whole = inbox_result(
        client_frame(frames.BINARY, half, KEY, fin=False) + client_frame(0, half, KEY)
    )
    assert whole == (frames.BINARY, half + half)
