"""Writing past the transport: straight to the socket where that is safe, which is nearly always.

It is safe because both uvloop and asyncio close a descriptor only after `connection_lost`, and
because an empty write buffer is exactly what "not paused" means (high-water mark 0). What a socket
does not take goes to the transport, which then pauses the viewer; errors are left for the transport
to meet.

Many frames at once leave through `_send_many.c`, with io_uring where the kernel allows it: about a
fifth less CPU per frame than one send(2) each (loadtest/RESULTS.md). Where it was not compiled,
os.write does the same, frame by frame.
"""

import asyncio
import os
from typing import Any, Final, Protocol

NO_SOCKET: Final = -1  # as `fd`: nothing can be written past the transport


class Writable(Protocol):
    """A viewer, as far as writing goes. `fd`: its socket's descriptor, or NO_SOCKET."""

    fd: int
    transport: asyncio.Transport


Taken = list[tuple[int, int]]  # place in the list of viewers, bytes that its socket took


def _send_one(fd: int, frame: bytes, /) -> int:
    try:
        return os.write(fd, frame)
    except OSError:  # full, broken, or no socket
        return 0


def _send_each(viewers: list[Any], frames: list[bytes], /) -> Taken:
    taken = [(at, _send_one(viewer.fd, frames[at])) for at, viewer in enumerate(viewers)]
    return [(at, size) for at, size in taken if size != len(frames[at])]


def _send_same(viewers: list[Any], frame: bytes, /) -> Taken:
    size = len(frame)
    taken = [(at, _send_one(viewer.fd, frame)) for at, viewer in enumerate(viewers)]
    return [(at, sent) for at, sent in taken if sent != size]


try:
    from server.hub import _send_many
except ImportError:  # no compiler at the installation
    send_one, send_each, send_same = _send_one, _send_each, _send_same
else:
    send_one = _send_many.send_one
    send_each = _send_many.send_each
    send_same = _send_many.send_same


def use_io_uring(wanted: bool) -> bool:
    """Use io_uring from now on, or not any more; whether it is in use now."""
    return send_one is not _send_one and _send_many.use_io_uring(wanted)


def fd_of(transport: asyncio.BaseTransport) -> int:
    """The descriptor below `transport` for writing past it; to be forgotten in `connection_lost`.

    NO_SOCKET for what is not a plain socket (TLS, tests).
    """
    below = transport.get_extra_info("socket")
    if below is None or transport.get_extra_info("sslcontext") is not None:
        return NO_SOCKET
    fd: int = below.fileno()
    return fd


def write_frame(viewer: Writable, frame: bytes) -> None:
    """Write to a viewer that is not paused: its transport has nothing of its own to send."""
    sent = send_one(viewer.fd, frame)
    if sent != len(frame):
        _write_rest(viewer, frame[sent:])


def write_all(viewers: list[Any], frame: bytes) -> None:
    """`write_frame` the same to each."""
    for at, sent in send_same(viewers, frame):
        _write_rest(viewers[at], frame[sent:])


def write_each(viewers: list[Any], frames: list[bytes]) -> None:
    """`write_frame` to each what is its own; nobody may be in the list twice."""
    for at, sent in send_each(viewers, frames):
        _write_rest(viewers[at], frames[at][sent:])


def _write_rest(viewer: Writable, rest: bytes) -> None:
    """Leave to the transport what the socket did not take. Never raises."""
    try:
        viewer.transport.write(rest)
    except RuntimeError:  # uvloop: the handle is closed already
        viewer.transport.abort()
