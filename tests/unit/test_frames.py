"""RFC 6455 frames: what we build, and how odd or broken ones are judged."""

import tracemalloc
import zlib

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


# --- Compressed (RFC 7692) --------------------------------------------------------------------


def deflated(payload: bytes) -> bytes:
    """The payload of a compressed message as a client may send it."""
    deflate = zlib.compressobj(9, wbits=-15)
    data = deflate.compress(payload) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(b"\0\0\xff\xff")


def inflating(*sent: bytes) -> list[tuple[int, bytes]]:
    """All messages in these bytes from a client that may compress."""
    inbox = Inbox(b"".join(sent), inflates=True)
    return list(iter(inbox.next, None))


def inflating_breaks(*sent: bytes) -> int:
    with pytest.raises(BrokenFrames) as caught:
        inflating(*sent)
    return caught.value.code


def test_inbox_when_messages_are_compressed_then_inflates_each_by_itself() -> None:
    first, second = b"hello " * 20, b"hello " * 30
    assert inflating(
        client_frame(frames.TEXT | frames.RSV1, deflated(first), KEY),
        client_frame(frames.TEXT, b"plain", KEY),
        client_frame(frames.BINARY | frames.RSV1, deflated(second), KEY),
        client_frame(frames.BINARY | frames.RSV1, deflated(b""), KEY),
    ) == [
        (frames.TEXT, first),
        (frames.TEXT, b"plain"),
        (frames.BINARY, second),
        (frames.BINARY, b""),
    ]


def test_inbox_when_a_compressed_message_is_fragmented_then_only_its_first_frame_says_so() -> None:
    data = deflated(b"hello " * 20)
    start = client_frame(frames.TEXT | frames.RSV1, data[:5], KEY, fin=False)
    ping = client_frame(frames.PING, b"p", KEY)
    middle, end = client_frame(0, data[5:7], KEY, fin=False), client_frame(0, data[7:], KEY)
    whole = [(frames.PING, b"p"), (frames.TEXT, b"hello " * 20)]
    assert inflating(start, ping, middle, end) == whole
    assert inflating_breaks(start, client_frame(frames.RSV1, data[5:], KEY)) == 1002


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (client_frame(frames.PING | frames.RSV1, deflated(b"p"), KEY), 1002),
        (client_frame(frames.CLOSE | frames.RSV1, deflated(b"\x03\xe8"), KEY), 1002),
        (client_frame(frames.TEXT | 0x20, b"x", KEY), 1002),
        (client_frame(frames.TEXT | frames.RSV1, b"\xff\xff\xff\xff", KEY), 1002),
        (client_frame(frames.RSV1, b"x", KEY), 1002),
    ],
    ids=["ping", "close", "rsv2", "not deflate", "continuation of nothing"],
)
def test_inbox_when_compression_is_misused_then_says_the_close_code(
    frame: bytes, code: int
) -> None:
    assert inflating_breaks(frame) == code


def test_inbox_when_a_message_inflates_to_the_limit_then_takes_it_and_no_byte_more() -> None:
    limit = limits.COMMAND_BYTES_MAX
    most = client_frame(frames.TEXT | frames.RSV1, deflated(b"x" * limit), KEY)
    assert inflating(most) == [(frames.TEXT, b"x" * limit)]
    for more in (*range(1, 300), 100_000):
        data = deflated(b"x" * (limit + more))
        whole = client_frame(frames.TEXT | frames.RSV1, data, KEY)
        assert inflating_breaks(whole) == 1009, more
        start = client_frame(frames.TEXT | frames.RSV1, data, KEY, fin=False)
        assert inflating_breaks(start, client_frame(0, b"", KEY)) == 1009, more


@pytest.mark.parametrize("fin", [True, False], ids=["whole", "fragment"])
def test_inbox_when_it_is_a_bomb_then_never_more_than_the_limit_is_inflated(fin: bool) -> None:
    bomb = deflated(bytes(3 << 20))
    assert len(bomb) < limits.COMMAND_BYTES_MAX
    frame = client_frame(frames.TEXT | frames.RSV1, bomb, KEY, fin=fin)
    tracemalloc.start()
    try:
        assert inflating_breaks(frame) == 1009
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 256 << 10


def test_inbox_when_a_message_is_exactly_at_the_limit_then_takes_it() -> None:
    half = b"x" * (limits.COMMAND_BYTES_MAX // 2)
    whole = inbox_result(
        client_frame(frames.BINARY, half, KEY, fin=False) + client_frame(0, half, KEY)
    )
    assert whole == (frames.BINARY, half + half)
