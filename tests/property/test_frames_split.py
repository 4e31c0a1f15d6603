"""Any split of any frames into segments gives the same messages, as websockets itself sees them."""

import logging
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import Protocol, Side

from server import limits
from server.protocol import frames
from server.protocol.deflate import inflater
from server.protocol.frames import BrokenFrames, Inbox, client_frame, quick_frame

Message = tuple[int, bytes]

QUIET = logging.getLogger("tests.frames")
QUIET.setLevel(logging.CRITICAL)

keys = st.binary(min_size=4, max_size=4)
payloads = st.one_of(
    st.binary(max_size=20),
    st.integers(120, 130).map(lambda size: b"y" * size),
    st.just(b"z" * limits.COMMAND_BYTES_MAX),
)
whole = st.builds(client_frame, st.sampled_from([frames.TEXT, frames.BINARY]), payloads, keys)
control = st.builds(
    client_frame, st.sampled_from([frames.PING, frames.PONG]), st.binary(max_size=125), keys
)


@st.composite
def fragmented(draw: st.DrawFn) -> bytes:
    parts = draw(st.lists(st.binary(max_size=30), min_size=2, max_size=limits.FRAGMENTS_MAX))
    data = b""
    for place, part in enumerate(parts):
        opcode = frames.TEXT if place == 0 else 0
        data += client_frame(opcode, part, draw(keys), fin=place == len(parts) - 1)
        data += draw(control) if place < len(parts) - 1 and draw(st.booleans()) else b""
    return data


good = st.lists(st.one_of(whole, control, fragmented()), max_size=12).map(b"".join)
# Damage at most one byte somewhere, so that every rule of the format is broken now and then.
damaged = st.tuples(good, st.integers(0, 400), st.integers(0, 255)).map(
    lambda it: it[0][: it[1]] + bytes([it[2]]) + it[0][it[1] + 1 :]
)


def segments(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    starts = [0, *ends]
    return [data[start:end] for start, end in zip(starts, ends, strict=False) if end > start]


@st.composite
def compressed(draw: st.DrawFn) -> bytes:
    """A compressed message, whole or in two frames with a ping between."""
    deflate = zlib.compressobj(wbits=-draw(st.integers(9, 15)))
    data = deflate.compress(draw(payloads)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    data = data[:-4]
    cut = draw(st.one_of(st.none(), st.integers(0, len(data))))
    opcode = draw(st.sampled_from([frames.TEXT, frames.BINARY])) | frames.RSV1
    if cut is None:
        return client_frame(opcode, data, draw(keys))
    start = client_frame(opcode, data[:cut], draw(keys), fin=False)
    return start + draw(control) + client_frame(0, data[cut:], draw(keys))


mixed = st.lists(st.one_of(whole, control, fragmented(), compressed()), max_size=8).map(b"".join)


def read_like_a_viewer(parts: list[bytes], *, inflates: bool = False) -> tuple[list[Message], int]:
    """(messages, close code or 0) by the two ways in, as server/hub/viewer.py switches them."""
    found: list[Message] = []
    inbox: Inbox | None = None
    try:
        for data in parts:
            at = 0
            if inbox is None:
                while (quick := quick_frame(data, at)) is not None:
                    found.append(quick[:2])
                    at = quick[2]
                if at == len(data):
                    continue
                inbox = Inbox(inflates=inflates)
            inbox.feed(data[at:])
            while (message := inbox.next()) is not None:
                found.append(message)
                if message[0] == frames.CLOSE:
                    return found, 0
            if inbox.is_idle:
                inbox = None
    except BrokenFrames as broken:
        return found, broken.code
    return found, 0


def read_by_websockets(data: bytes, *, inflates: bool = False) -> tuple[list[Message], int]:
    protocol = Protocol(Side.SERVER, max_size=limits.COMMAND_BYTES_MAX, logger=QUIET)
    protocol.extensions = [inflater()] if inflates else []
    protocol.receive_data(data)
    found: list[Message] = []
    parts: list[bytes] = []
    opcode = 0
    for event in protocol.events_received():
        if event.opcode >= frames.CLOSE:  # type: ignore[union-attr]
            found.append((int(event.opcode), bytes(event.data)))  # type: ignore[union-attr]
            continue
        opcode = int(event.opcode) or opcode  # type: ignore[union-attr]
        parts.append(bytes(event.data))  # type: ignore[union-attr]
        if event.fin:  # type: ignore[union-attr]
            found.append((opcode, b"".join(parts)))
            parts.clear()
    failed = protocol.parser_exc is not None and protocol.close_sent is not None
    return found, protocol.close_sent.code if failed and protocol.close_sent else 0


@given(good, st.lists(st.integers(0, 2_000), max_size=12))
def test_frames_when_split_anyhow_then_give_the_same_messages(data: bytes, cuts: list[int]) -> None:
    assert read_like_a_viewer(segments(data, cuts)) == read_by_websockets(data)


@given(mixed, st.lists(st.integers(0, 2_000), max_size=12))
def test_frames_when_some_are_compressed_and_split_anyhow_then_give_the_same_messages(
    data: bytes, cuts: list[int]
) -> None:
    ours = read_like_a_viewer(segments(data, cuts), inflates=True)
    assert ours == read_by_websockets(data, inflates=True)


@given(good)
@settings(max_examples=30)
def test_frames_when_they_come_byte_by_byte_then_give_the_same_messages(data: bytes) -> None:
    data = data[:600]
    parts = [data[at : at + 1] for at in range(len(data))]
    assert read_like_a_viewer(parts) == read_by_websockets(data)


@given(damaged, st.lists(st.integers(0, 500), max_size=6))
@settings(max_examples=300)
def test_frames_when_a_byte_is_damaged_then_both_see_the_same_until_the_same_end(
    data: bytes, cuts: list[int]
) -> None:
    ours, our_code = read_like_a_viewer(segments(data, cuts))
    theirs, their_code = read_by_websockets(data)
    assert ours == theirs
    # A frame that is broken and incomplete may be awaited a little longer by us.
    assert our_code == their_code or our_code == 0


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=300)
def test_frames_when_bytes_are_random_then_nothing_but_broken_frames_is_raised(
    data: bytes, cuts: list[int]
) -> None:
    read_like_a_viewer(segments(data, cuts))
