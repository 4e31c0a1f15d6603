"""`livesale up` as its users run it: ready, stopped, killed, started again."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from server.embedded import place
from server.supervision.child import until
from server.web import auth

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

READY_SECONDS = 60.0
STOP_SECONDS = 30.0
OURS = ("LIVESALE_", "REDIS_URL", "DATABASE_URL", "PORT")


class Up:
    """One run of `livesale up --json`; `events` are the objects it printed so far."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, data: Path, *args: str) -> "Up":
        environment = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "server.cli", "up", "--json", "--data", str(data), *args),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        return cls(process)

    async def ready(self) -> dict[str, Any]:
        """The ready event's fields."""
        ended = self._reading.done
        assert await until(lambda: self.has("ready") or ended(), READY_SECONDS)
        assert self.has("ready"), self.events
        return self.named("ready")[0]

    def has(self, event: str) -> bool:
        return bool(self.named(event))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for fields in self.events if fields["event"] == event]

    def states(self, part: str) -> list[str]:
        return [fields["state"] for fields in self.named("part") if fields["part"] == part]

    async def end(self, *numbers: signal.Signals) -> int:
        """Exit code after these signals."""
        for number in numbers:
            self.process.send_signal(number)
        async with asyncio.timeout(STOP_SECONDS):
            await self.process.wait()
            await self._reading
        assert self.process.returncode is not None
        return self.process.returncode

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.events.append(json.loads(line))


@pytest.fixture
async def data(servers_directory: Path) -> AsyncIterator[Path]:
    """A data directory that PostgreSQL's user can reach."""
    folder = servers_directory / f"up-{os.getpid()}"
    yield folder
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


@pytest.fixture
def remove_later() -> Iterator[Callable[[Path], None]]:
    paths: list[Path] = []
    yield paths.append
    for path in paths:
        shutil.rmtree(path)


def gone(pids: dict[str, int]) -> bool:
    return not any(psutil.pid_exists(pid) for pid in pids.values())


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def get(url: str) -> tuple[int, bytes]:
    def fetch() -> tuple[int, bytes]:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read()

    return await asyncio.to_thread(fetch)


async def orders_marker(database_url: str, *, write: bool) -> int:
    """Write, or count, a table that only the first run made."""
    connection = await asyncpg.connect(database_url)
    try:
        if write:
            await connection.execute("CREATE TABLE marker AS SELECT 1 AS n")
        count: int = await connection.fetchval("SELECT count(*) FROM marker")
        return count
    finally:
        await connection.close()


async def test_up_when_stopped_and_started_again_then_nothing_is_left_and_the_data_are_kept(
    data: Path,
) -> None:
    first = await Up.start(data, "--port", "0")
    ready = await first.ready()
    assert (await get(ready["http"] + "/livez"))[0] == 200
    secret = (data / "secret").read_text().encode()
    assert auth.verify(secret, ready["host_token"]).role == "host"
    assert auth.verify(secret, ready["viewer_token"]).show == ready["show_id"]
    await orders_marker(ready["database_url"], write=True)

    refused = await Up.start(data, "--port", "0")
    assert await refused.end() == 2
    assert ready["http"] in refused.named("error")[0]["message"]

    assert await first.end(signal.SIGTERM) == 0
    assert gone(ready["parts"])
    assert first.states("postgres") == ["ready", "stopped"]
    assert [e["part"] for e in first.named("part") if e["state"] == "stopped"] == [
        "web", "worker", "valkey", "postgres",
    ]  # fmt: skip
    assert not (data / "running.json").exists()

    second = await Up.start(data, "--port", "0")
    again = await second.ready()
    assert again["show_id"] == ready["show_id"]
    assert auth.verify(secret, again["host_token"]).role == "host"
    assert await orders_marker(again["database_url"], write=False) == 1
    assert await second.end(signal.SIGINT) == 0


async def test_up_when_parts_are_killed_then_restarted_and_when_itself_then_all_die(
    data: Path,
) -> None:
    first = await Up.start(data, "--port", "0", "--processes", "2")
    ready = await first.ready()
    await orders_marker(ready["database_url"], write=True)
    victims = ["web", "worker", "valkey", "postgres"]
    for name in victims:
        os.kill(ready["parts"][name], signal.SIGKILL)
    assert await until(
        lambda: all("restarted" in first.states(name) for name in victims), READY_SECONDS
    )
    assert (await get(ready["http"] + "/livez"))[0] == 200
    children = psutil.Process(first.process.pid).children()
    assert len(children) == len(victims)
    (web,) = (child for child in children if "web" in child.cmdline())
    serving = web.children()
    assert len(serving) == 2
    pids = {str(process.pid): process.pid for process in (*children, *serving)}
    await first.end(signal.SIGKILL)
    assert await until(lambda: gone(pids), STOP_SECONDS)

    second = await Up.start(data, "--port", "0")
    again = await second.ready()
    assert await orders_marker(again["database_url"], write=False) == 1
    assert not Path(ready["redis_url"].removeprefix("unix://").split("?")[0]).parent.exists()
    assert await second.end(signal.SIGTERM) == 0


async def test_up_when_a_part_does_not_stop_then_a_second_signal_forces_it(data: Path) -> None:
    up = await Up.start(data, "--port", "0")
    ready = await up.ready()
    os.kill(ready["parts"]["web"], signal.SIGSTOP)
    up.process.send_signal(signal.SIGINT)
    assert await until(lambda: up.has("stopping"), STOP_SECONDS)
    await up.end(signal.SIGINT)
    assert gone(ready["parts"])
    assert not (data / "running.json").exists()


async def test_up_when_its_port_is_taken_then_it_says_so_and_starts_nothing(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        up = await Up.start(data, "--port", str(port))
        assert await up.end() == 2
    assert up.named("error")[0]["message"] == f"port {port} is in use; choose another with --port"
    assert not up.named("part")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's PostgreSQL runs as somebody else")
async def test_up_when_the_data_directory_is_closed_then_the_data_are_elsewhere(
    tmp_path: Path, remove_later: Callable[[Path], None]
) -> None:
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    up = await Up.start(closed / "data", "--port", "0")
    ready = await up.ready()
    home = Path(json.loads((closed / "data" / "servers.json").read_text())["home"])
    remove_later(home)
    assert home.parent == place.SHARED
    assert str(home) in up.named("note")[0]["message"]
    assert (home / "postgres" / "PG_VERSION").exists()
    assert mode_of(closed) == 0o700
    assert await up.end(signal.SIGTERM) == 0
    assert gone(ready["parts"])
