"""The launchers with real servers: start, stop, kill, what is left behind, data kept."""

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from server.embedded import binaries, place, remains
from server.embedded.binaries import Binary
from server.embedded.postgres import PostgresServer, answers_select
from server.embedded.valkey import DURABLE, ValkeyServer, answers_ping
from server.errors import Misconfigured
from server.supervision import child
from server.supervision.child import Child, until

SYSTEM_POSTGRES = [
    found
    for found in binaries.usable(binaries.postgres_candidates(os.get_exec_path()))
    if isinstance(found, Binary) and found.source == "system"
]

ValkeyFactory = Callable[..., Awaitable[ValkeyServer]]


async def get(server: ValkeyServer, key: str) -> bytes | None:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        value = await client.get(key)
    assert value is None or isinstance(value, bytes)
    return value


async def put(server: ValkeyServer, key: str, value: str) -> None:
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.set(key, value)


async def test_valkey_when_stopped_and_started_then_data_are_kept(
    valkey_factory: ValkeyFactory,
) -> None:
    server = await valkey_factory(**DURABLE)
    await put(server, "shown", "1")
    await server.stop()
    assert not await answers_ping(server.socket)
    await server.start()
    assert await get(server, "shown") == b"1"


async def test_valkey_when_killed_after_a_synced_write_then_data_are_kept(
    valkey_factory: ValkeyFactory,
) -> None:
    server = await valkey_factory(**{**DURABLE, "appendfsync": "always"})
    await put(server, "shown", "1")
    server.kill()
    assert server.child.status == -signal.SIGKILL
    await server.start()
    assert await get(server, "shown") == b"1"


async def test_valkey_when_durable_then_nothing_is_ever_evicted(
    valkey_factory: ValkeyFactory,
) -> None:
    server = await valkey_factory(**DURABLE)
    async with redis.asyncio.Redis.from_url(server.url) as client:
        policy = await client.config_get("maxmemory-policy")
        sync = await client.config_get("append*")
    assert policy == {"maxmemory-policy": "noeviction"}
    assert (sync["appendonly"], sync["appendfsync"]) == ("yes", "everysec")


async def test_valkey_when_a_killed_supervisor_left_one_then_it_is_stopped_first(
    valkey_factory: ValkeyFactory,
) -> None:
    first = await valkey_factory(**DURABLE)
    await put(first, "shown", "1")
    second = ValkeyServer(first.binary, first.directory, first.socket.parent)
    await second.start()
    assert first.child.status == 0
    assert await get(second, "shown") == b"1"
    await second.stop()


async def test_valkey_when_its_configuration_is_wrong_then_its_own_words_are_told(
    valkey_factory: ValkeyFactory,
) -> None:
    with pytest.raises(Misconfigured, match=r"did not start:\n(.|\n)*appendfsync"):
        await valkey_factory(appendfsync="sometimes")


async def test_postgres_when_killed_and_started_then_committed_rows_are_kept(
    postgres_server: PostgresServer,
) -> None:
    connection = await asyncpg.connect(postgres_server.url())
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    postgres_server.kill()
    connection.terminate()
    assert not await answers_select(postgres_server.url())
    await postgres_server.start()
    connection = await asyncpg.connect(postgres_server.url())
    assert await connection.fetchval("SELECT n FROM kept") == 7
    await connection.close()


async def test_postgres_when_stopped_with_open_sessions_then_it_ends_at_once(
    postgres_server: PostgresServer,
) -> None:
    connection = await asyncpg.connect(postgres_server.url())
    await postgres_server.stop()
    connection.terminate()
    assert postgres_server.child.status == 0


async def test_postgres_when_initdb_was_interrupted_then_the_next_start_begins_anew(
    postgres_server: PostgresServer,
) -> None:
    await postgres_server.stop()
    half = postgres_server.directory.with_name("half.new")
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    postgres_server.directory = postgres_server.directory.with_name("half")
    await postgres_server.start()
    assert await answers_select(postgres_server.url())


@pytest.mark.parametrize("binary", SYSTEM_POSTGRES, ids=lambda binary: binary.label)
async def test_postgres_when_the_machine_has_its_own_then_that_starts_too(
    binary: Binary, servers_directory: Path
) -> None:
    folder = servers_directory / "system"
    folder.mkdir()
    server = PostgresServer(
        binary,
        folder / "data",
        folder / "postgres",
        log=folder / "postgres.log",
        account=place.account_for_postgres(),
    )
    await server.start()
    await server.stop()
    assert server.child.status == 0
    shutil.rmtree(folder)


async def test_postgres_when_run_by_root_then_it_belongs_to_nobody(
    postgres_server: PostgresServer,
) -> None:
    owner = postgres_server.directory.stat()
    expected = postgres_server.account.uid if postgres_server.account else os.geteuid()
    assert (owner.st_uid, owner.st_mode & 0o777) == (expected, 0o700)
    assert psutil.Process(postgres_server.child.pid).uids().real == expected


async def test_pid_file_when_its_number_belongs_to_another_program_then_that_one_is_left_alone(
    tmp_path: Path,
) -> None:
    other = Child.spawn("other", ["sleep", "60"])
    assert await until(lambda: "sleep" in remains.command_of(other.pid), 5)
    pid_file = tmp_path / "valkey.pid"
    pid_file.write_text(f"{other.pid}\n")
    await remains.stop_remains(pid_file, "valkey-server", signal.SIGTERM)
    assert other.alive
    assert not pid_file.exists()
    other.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="the tie to the parent is Linux's")
async def test_child_when_its_parent_is_killed_then_it_dies() -> None:
    script = (
        "import time; from server.supervision.child import Child;"
        "print(Child.spawn('c', ['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert await until(lambda: "sleep" in remains.command_of(pid), 5)
    parent.kill()
    await parent.wait()
    assert await until(lambda: not remains.command_of(pid), 5)


async def test_child_when_told_to_stop_but_deaf_then_killed_in_time(tmp_path: Path) -> None:
    deaf = Child.spawn("deaf", ["sh", "-c", "trap '' TERM; echo deaf; sleep 60; sleep 60"],
                       log=tmp_path / "log")  # fmt: skip
    assert await until(lambda: "deaf" in deaf.last_words(), 5)
    assert await deaf.stop(signal.SIGTERM, 0.1) == -signal.SIGKILL


async def test_child_when_the_program_is_missing_then_its_last_words_say_so(
    tmp_path: Path,
) -> None:
    broken = Child.spawn("broken", ["/nonexistent/program"], log=tmp_path / "log")
    assert await broken.wait(5)
    assert broken.status == 127
    assert broken.last_words() == "/nonexistent/program: No such file or directory"


def test_log_when_overgrown_then_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOG_BYTES_MAX", 10)
    log = tmp_path / "part.log"
    log.write_text("x" * 11)
    child.open_log(log).close()
    assert log.read_text() == ""
    assert (tmp_path / "part.log.1").read_text() == "x" * 11
