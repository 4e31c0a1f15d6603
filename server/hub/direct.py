"""Writing past the transport: straight to the socket where that is safe, which is nearly always."""

import asyncio
import os
from collections.abc import Sequence
from typing import Final, Protocol

NO_SOCKET: Final = -1  # for what is not a plain socket (TLS, tests): the transport writes


class Writable(Protocol):
    """A viewer, as far as writing goes."""

    fd: int
    transport: asyncio.Transport


def write_frame(viewer: Writable, frame: bytes) -> None:
    """Write to a viewer that is not paused, so that its transport has nothing of its own to send.

    Straight to the socket where it is plain: 0.5 µs beside the kernel, against 1.4 µs through
    uvloop's `transport.write` (medians of 8 interleaved runs, 1,000 viewers, 200 bytes). It is
    safe because both uvloop and asyncio close a descriptor only after `connection_lost`, and
    because an empty write buffer is exactly what "not paused" means (high-water mark 0). What the
    socket does not take goes to the transport, which then pauses the viewer; errors are left for
    the transport to meet.
    """
    try:
        written = os.write(viewer.fd, frame)
    except OSError:  # full, broken, or NO_SOCKET
        written = 0
    if written != len(frame):
        write_rest(viewer, frame[written:])


def write_all(viewers: Sequence[Writable], frame: bytes) -> None:
    """`write_frame` to each: the loop that fan-out spends its time in, so without a call."""
    write, size = os.write, len(frame)
    for viewer in viewers:
        try:
            written = write(viewer.fd, frame)
        except OSError:
            written = 0
        if written != size:
            write_rest(viewer, frame[written:])


def write_rest(viewer: Writable, rest: bytes) -> None:
    """Leave to the transport what the socket did not take. Never raises."""
    try:
        viewer.transport.write(rest)
    except RuntimeError:  # uvloop: the handle is closed already
        viewer.transport.abort()
