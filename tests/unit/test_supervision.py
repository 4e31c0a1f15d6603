"""What a supervisor and its children tell and hand each other."""

import asyncio
import json
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from server import config
from server.supervision import notices
from server.supervision.child import Child
from server.supervision.notices import Notices
from server.supervision.parts import says
from server.supervision.signals import Signals

# What a child finds: sockets, their names and numbers, and whether they are meant for it.
TELL = """
import json, os, socket
open_ones = [n for n in range(3, 64) if os.path.exists(f"/proc/self/fd/{n}")]
names = {name: socket.socket(fileno=number).getsockname()[1] for number, name
         in enumerate(os.environ["LISTEN_FDNAMES"].split(":"), 3)}
mine = os.environ["LISTEN_PID"] == str(os.getpid()) and os.environ["LISTEN_FDS"] == "2"
print(json.dumps([names, open_ones, mine]))
"""


@pytest.fixture
def folder(servers_directory: Path) -> Path:
    """A short directory: a socket's path has 103 bytes at most."""
    return servers_directory


async def test_child_when_it_is_handed_sockets_then_they_are_3_and_4_and_nothing_else_is_open(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("", 0)) as two:
        ports = {"public": two.getsockname()[1], "internal": one.getsockname()[1]}
        child = Child.spawn(
            "tells", [sys.executable, "-c", TELL], log=log, sockets={"public": two, "internal": one}
        )
        assert await child.wait(20)
    found, open_ones, is_mine = json.loads(log.read_text())
    assert found == ports
    assert is_mine
    if sys.platform == "linux":
        assert open_ones == [3, 4]


def test_sockets_when_they_are_for_another_process_then_they_are_not_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "2")
    monkeypatch.setenv("LISTEN_FDNAMES", "public")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert config.handed_sockets() == {}
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    assert config.handed_sockets() == {"public": 3, "1": 4}


async def test_child_when_it_says_that_it_is_ready_then_it_is_heard(folder: Path) -> None:
    heard = Notices(folder / "notices-1")
    assert not heard.has(notices.READY)
    notices.say("READY=1\nSTATUS=ok", str(heard.path))
    assert heard.has(notices.READY)
    assert not heard.has(notices.STOPPING)
    heard.close()
    assert heard.has(notices.READY)
    notices.say(notices.READY, str(heard.path))  # nobody is there any more
    notices.say(notices.READY, "")


async def test_child_when_it_ends_without_a_word_then_nobody_waits_for_it(folder: Path) -> None:
    heard = Notices(folder / "notices-2")
    assert not await says(notices.READY, heard, Child.spawn("mute", ["true"]), 60)
    heard.close()


async def test_stop_when_it_is_insisted_on_then_it_is_cut_short() -> None:
    signals, killed = Signals(), asyncio.Event()
    signals.install()
    stopping = asyncio.create_task(signals.unless_forced(_until(killed), killed.set))
    for expected in (signals.stop, signals.force):
        assert not killed.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        await expected.wait()
    await stopping
    assert killed.is_set()


async def _until(event: asyncio.Event) -> None:
    await event.wait()
