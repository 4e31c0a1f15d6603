"""Frames between the coordinator and its loaders."""

import asyncio

import pytest

from loadtest.scenario import Arrivals, Crowd
from loadtest.swarm.pipe import (
    FROM_LOADER,
    TO_LOADER,
    ClaimLog,
    CrowdSlice,
    Drop,
    Failed,
    Finish,
    FromLoader,
    Go,
    Harvest,
    Health,
    Joined,
    NewSale,
    Offence,
    Pulse,
    Setup,
    ToLoader,
    Trace,
    frame,
    receive,
)

CROWD = Crowd("bot", 3, acts=Arrivals("herd", reaction="bot"), sockets=4)
SLICE = CrowdSlice(CROWD, 1, 2, ["a.b", ""], [1, 2], [5, 6, 7], [0, 1])
HEALTH = Health(0.5, 1, 2, 3, 4, 5, 0.1)
TO: list[ToLoader] = [
    Setup("r", 0, 2, 1, 99, [SLICE], ["ws://127.0.0.1:1"], "s", 7, 1, ""),
    Go(5, (-1, 9)),
    NewSale(8, 1, 2),
    Drop(0.3, 200, jitter=True, seed=4),
    Finish(77),
]
FROM: list[FromLoader] = [
    Joined(3, 1),
    Pulse(5, {"open": -2}, HEALTH, {"stale": (1.0, 2.0)}),
    Harvest(
        {"stale@0": b"x"}, {"stale": [b"x"]}, ClaimLog(0, {"user": b""}), {7: b""},
        [Trace("v", 0, 7, b"", b"", b"")], [Offence("gap", 1, "v", 0, "1.2", "1.4")], [HEALTH], {},
    ),
    Failed("no descriptors"),
]  # fmt: skip


def reader_of(*parts: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    for part in parts:
        reader.feed_data(part)
    reader.feed_eof()
    return reader


async def test_pipe_when_all_messages_go_through_then_equal() -> None:
    to, back = reader_of(*map(frame, TO)), reader_of(*map(frame, FROM))
    assert [await receive(to, TO_LOADER) for _ in TO] == TO
    assert [await receive(back, FROM_LOADER) for _ in FROM] == FROM
    assert await receive(to, TO_LOADER) is None


async def test_pipe_when_it_ends_inside_a_frame_then_says_so() -> None:
    for size in range(1, len(whole := frame(Go(5, (1, 9))))):
        with pytest.raises(EOFError):
            await receive(reader_of(whole[:size]), TO_LOADER)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", frame(Joined(1, 2))])
async def test_pipe_when_it_is_no_message_then_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (any of the decoder's)
        await receive(reader_of(data), TO_LOADER)
