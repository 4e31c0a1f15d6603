"""Writing to many sockets at once: compiled (with io_uring or without) and in Python, all alike."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.hub import direct

try:
    from server.hub import _send_many
except ImportError:
    _send_many = None  # type: ignore[assignment]

PORTION = 256  # of _send_many.c


@dataclass
class Far:
    """A viewer whose far end is ours; what the transport is left with is kept."""

    near: socket.socket
    far: socket.socket
    left: bytes = b""
    aborted: bool = False
    fd: int = field(init=False)
    transport: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.transport = self
        self.near.setblocking(False)
        self.far.setblocking(False)
        self.fd = self.near.fileno()

    @classmethod
    def new(cls, buffer: int = 0) -> "Far":
        near, far = socket.socketpair()
        if buffer:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        return cls(near, far)

    def write(self, rest: bytes) -> None:
        if self.aborted:
            raise RuntimeError("closed")
        self.left += rest

    def abort(self) -> None:
        self.aborted = True

    def received(self) -> bytes:
        parts = []
        while True:
            try:
                part = self.far.recv(1 << 20)
            except BlockingIOError:
                break
            if not part:
                break
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture(scope="session")
def compiled() -> None:
    """Skips without the compiled part; LIVESALE_TEST_COMPILED=required makes that a failure."""
    if _send_many is None:
        missing = "server/hub/_send_many.c was not compiled"
        if os.environ.get("LIVESALE_TEST_COMPILED") == "required":
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture(params=["python", "send", "io_uring"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way to send, in force for the test."""
    if request.param == "python":
        for name in ("send_one", "send_each", "send_same"):
            monkeypatch.setattr(direct, name, getattr(direct, f"_{name}"))
        assert not direct.use_io_uring(True)
    else:
        request.getfixturevalue("compiled")
        if direct.use_io_uring(request.param == "io_uring") != (request.param == "io_uring"):
            pytest.skip("this kernel has no io_uring for us")
    yield request.param
    direct.use_io_uring(False)


@pytest.fixture
def viewers() -> Iterator[Callable[..., list[Far]]]:
    made: list[Far] = []

    def make(count: int, buffer: int = 0) -> list[Far]:
        made.extend(new := [Far.new(buffer) for _ in range(count)])
        return new

    yield make
    for viewer in made:
        viewer.close()


@pytest.mark.parametrize("count", [0, 1, 2, PORTION, PORTION + 1, 3 * PORTION - 1])
@pytest.mark.usefixtures("way")
def test_write_all_when_sockets_have_room_then_each_gets_the_frame(
    viewers: Callable[..., list[Far]], count: int
) -> None:
    crowd = viewers(count)
    for frame in (b"first", b"second"):
        direct.write_all(crowd, frame)
    assert [viewer.received() for viewer in crowd] == [b"firstsecond"] * count
    assert not any(viewer.left for viewer in crowd)


@pytest.mark.usefixtures("way")
def test_write_each_when_frames_differ_then_each_gets_its_own(
    viewers: Callable[..., list[Far]],
) -> None:
    crowd = viewers(PORTION + 10)
    frames = [b"%d" % number * (number % 7 + 1) for number in range(len(crowd))]
    direct.write_each(crowd, frames)
    assert [viewer.received() for viewer in crowd] == frames


@pytest.mark.usefixtures("way")
def test_write_when_a_socket_is_full_then_only_its_rest_goes_to_the_transport(
    viewers: Callable[..., list[Far]],
) -> None:
    slow, *others = viewers(20, buffer=4096)
    frame = os.urandom(3_000)
    sent = 0
    while not slow.left:
        direct.write_all([others[0], slow, *others[1:]], frame)
        sent += 1
        assert all(viewer.received() == frame for viewer in others)
        assert sent < 1_000
    assert slow.received() + slow.left == frame * sent
    assert not any(viewer.left for viewer in others)


@pytest.mark.usefixtures("way")
def test_write_when_a_viewer_has_no_socket_then_its_transport_gets_the_frame(
    viewers: Callable[..., list[Far]],
) -> None:
    bare, other = viewers(2)
    bare.fd = direct.NO_SOCKET
    direct.write_all([bare, other], b"all")
    direct.write_each([other, bare], [b"mine", b"yours"])
    direct.write_frame(bare, b"!")
    assert (bare.left, bare.received()) == (b"allyours!", b"")
    assert (other.left, other.received()) == (b"", b"allmine")


@pytest.mark.usefixtures("way")
def test_write_when_the_peer_is_gone_then_the_others_get_theirs_and_nothing_raises(
    viewers: Callable[..., list[Far]],
) -> None:
    crowd = viewers(5)
    crowd[2].far.close()
    crowd[2].aborted = True
    direct.write_all(crowd, b"frame")
    direct.write_frame(crowd[2], b"frame")
    assert [viewer.received() for viewer in crowd if viewer is not crowd[2]] == [b"frame"] * 4


@pytest.mark.usefixtures("compiled")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rounds=st.lists(
        st.lists(st.tuples(st.integers(0, 7), st.binary(max_size=9_000)), max_size=8),
        max_size=12,
    ),
    reads=st.lists(st.booleans(), min_size=12, max_size=12),
    uring=st.booleans(),
)
def test_frames_when_sockets_fill_and_empty_then_no_byte_is_lost_moved_or_doubled(
    rounds: list[list[tuple[int, bytes]]], reads: list[bool], uring: bool
) -> None:
    direct.use_io_uring(uring)
    crowd = [Far.new(buffer=2_048) for _ in range(8)]
    expected = [b""] * len(crowd)
    got = [b""] * len(crowd)
    try:
        for frames, read in zip(rounds, reads, strict=False):
            mail = {who: frame for who, frame in frames if not crowd[who].left}
            direct.write_each([crowd[who] for who in mail], list(mail.values()))
            for who, frame in mail.items():
                expected[who] += frame
            if read:
                for who, viewer in enumerate(crowd):
                    got[who] += viewer.received()
        whole = [had + v.received() + v.left for had, v in zip(got, crowd, strict=True)]
        assert whole == expected
    finally:
        direct.use_io_uring(False)
        for viewer in crowd:
            viewer.close()


SOMEBODY = SimpleNamespace(fd=-1)


class Meddler:
    """Looking at its `fd` empties a list."""

    def __init__(self, victim: list[Any]) -> None:
        self.victim = victim

    @property
    def fd(self) -> int:
        self.victim.clear()
        return -1


@pytest.mark.usefixtures("compiled")
def test_send_many_when_a_list_changes_meanwhile_then_an_error_and_nothing_is_sent() -> None:
    frames: list[Any] = [b"frame"]
    with pytest.raises(RuntimeError, match="lists changed"):
        _send_many.send_each([Meddler(frames)], frames)
    viewers: list[Any] = []
    viewers.extend([Meddler(viewers), SOMEBODY])
    with pytest.raises(RuntimeError, match="lists changed"):
        _send_many.send_same(viewers, b"frame")


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize(
    "call",
    [
        lambda: _send_many.send_one("x", b""),  # type: ignore[arg-type]
        lambda: _send_many.send_one(1),  # type: ignore[call-arg]
        lambda: _send_many.send_same((), b""),  # type: ignore[arg-type]
        lambda: _send_many.send_same([SOMEBODY], "text"),  # type: ignore[arg-type]
        lambda: _send_many.send_each([SOMEBODY], ["text"]),  # type: ignore[list-item]
    ],
)
def test_send_many_when_called_with_wrong_types_then_a_type_error(call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError):
        call()


@pytest.mark.usefixtures("compiled")
def test_send_many_when_lists_do_not_match_or_an_object_has_no_fd_then_it_says_so() -> None:
    with pytest.raises(ValueError, match="as many frames"):
        _send_many.send_each([object()], [])
    with pytest.raises(AttributeError, match="fd"):
        _send_many.send_same([object()], b"frame")


FORKING = """
import os, socket, sys
from server.hub import direct

class Pair:
    def __init__(self):
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.fd = self.near.fileno()

assert direct.use_io_uring(True)
ours, theirs = ([Pair() for _ in range(100)] for _ in range(2))
child = os.fork()
mine, byte = (theirs, b"c") if child == 0 else (ours, b"p")
ok = True
for _ in range(300):
    ok = direct.send_same(mine, byte * 20) == [] and ok
    ok = all(pair.far.recv(1000) == byte * 20 for pair in mine) and ok
if child == 0:
    os._exit(not ok)
sys.exit(not ok or os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.usefixtures("compiled")
def test_send_many_when_a_process_forks_then_the_child_leaves_the_ring_to_its_parent() -> None:
    if not direct.use_io_uring(True):
        pytest.skip("this kernel has no io_uring for us")
    direct.use_io_uring(False)
    subprocess.run([sys.executable, "-c", FORKING], check=True, timeout=60)


def test_reference_counts_when_frames_are_sent_then_none_leaks() -> None:
    crowd = [Far.new() for _ in range(4)]
    crowd[1].fd = direct.NO_SOCKET
    frame = os.urandom(50)
    before = sys.getrefcount(frame), sys.getrefcount(crowd[0])
    for _ in range(100):
        direct.send_same(crowd, frame)
        direct.send_each(crowd, [frame] * 4)
        for viewer in crowd:
            viewer.received()
    assert (sys.getrefcount(frame), sys.getrefcount(crowd[0])) == before
    for viewer in crowd:
        viewer.close()
