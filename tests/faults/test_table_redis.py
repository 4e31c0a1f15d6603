"""The table of faults, rows 5-8, 16, 18 and 21: Redis loses power, data, scripts or memory.

All on one deployment with real processes: every row leaves it sound, or the next one fails.
tests/faults/test_table.py says where every row is.
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import pytest
import redis.asyncio as aioredis

from server.embedded import binaries
from server.embedded.valkey import ValkeyServer
from server.store import keys
from tests.conftest import LONG, make_valkey
from tests.crowd import Crowd
from tests.deployment import Deployment, end, freeze, only_long, standing, thaw
from tests.live import free_port, until, until_answer

UNITS: Final = 60
WAVE: Final = 20
FROZEN_S: Final = 6.0 if LONG else 2.2  # more than the hubs wait for Redis
BRIEF_S: Final = 6.0 if LONG else 0.7
ANSWER_S: Final = 60.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def standing_deployment(
    servers_directory: Path, valkey_binary: binaries.Binary, postgres_binary: binaries.Binary
) -> Iterator[Deployment]:
    with standing(servers_directory / "r", valkey_binary, postgres_binary) as deployment:
        yield deployment


@pytest.fixture
async def deployment(standing_deployment: Deployment) -> AsyncIterator[Deployment]:
    async with standing_deployment.supervised():
        yield standing_deployment


def client_of(server: ValkeyServer) -> aioredis.Redis:
    return aioredis.Redis.from_url(server.url, protocol=2)


# --- What reached the disk -----------------------------------------------------------------------


class Synced(NamedTuple):
    """The append-only file up to its last fsync, and a copy of all data at that time."""

    file: Path
    size: int
    copy: Path


def append_only_file(server: ValkeyServer) -> Path:
    return max((server.directory / "appendonlydir").glob("*.incr.aof"), key=os.path.getmtime)


async def synced(server: ValkeyServer, *, wait: bool = True) -> Synced:
    """Where the disk is now; `wait` for everything written so far to be there."""
    if wait:
        async with client_of(server) as client:
            await client.set("marker", 1)
            assert (await client.execute_command("WAITAOF", 1, 0, 5_000))[0] == 1
    file = append_only_file(server)
    copy = server.directory.with_name("older")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(server.directory, copy)
    return Synced(file, file.stat().st_size, copy)


def cut_tail(server: ValkeyServer, disk: Synced) -> None:
    """What a power cut leaves: the file ends at its last fsync."""
    assert disk.file.stat().st_size >= disk.size
    os.truncate(disk.file, disk.size)


def restore_copy(server: ValkeyServer, disk: Synced) -> None:
    shutil.rmtree(server.directory)
    shutil.copytree(disk.copy, server.directory)


def keep_all(server: ValkeyServer, disk: Synced) -> None:
    """Killing the process alone: the kernel still writes what it was given."""


def lose_all(server: ValkeyServer, disk: Synced) -> None:
    shutil.rmtree(server.directory)


# --- A confirmed wave, then a wave that is only held ---------------------------------------------


async def first_wave(deployment: Deployment, crowd: Crowd) -> None:
    """Some buyers are confirmed, then the worker is frozen."""
    await crowd.gather(WAVE)
    crowd.rush()
    await crowd.answered(ANSWER_S)
    assert crowd.count("confirmed") == WAVE
    freeze(worker_of(deployment))


async def second_wave(crowd: Crowd) -> None:
    """More buyers are told `held`."""
    late = [crowd.add(f"late-{n}") for n in range(WAVE)]
    for shopper in late:
        crowd.send(shopper)
    await until(lambda: all(shopper.hold for shopper in late), "the second wave is held")


def worker_of(deployment: Deployment) -> list[int]:
    assert deployment.worker is not None
    return [deployment.worker.pid]


async def break_valkey(
    deployment: Deployment, break_it: Callable[[ValkeyServer, Synced], None], disk: Synced
) -> None:
    deployment.valkey.kill()
    break_it(deployment.valkey, disk)
    await deployment.valkey.start()


async def sell_the_rest(deployment: Deployment, crowd: Crowd, units: int) -> None:
    """More buyers than units come: exactly the units are sold, by a stock that is sound again."""
    rest = [crowd.add(f"rest-{n}") for n in range(units + 5)]
    for shopper in rest:
        crowd.send(shopper)
    await crowd.answered(ANSWER_S)
    finals = sorted(shopper.final for shopper in rest)
    assert finals == ["confirmed"] * units + ["sold_out"] * 5


async def recover(deployment: Deployment, crowd: Crowd) -> None:
    """The worker goes on: the second wave is confirmed too, then the rest of the units is sold."""
    thaw(worker_of(deployment))
    await crowd.answered(ANSWER_S)
    assert crowd.count("confirmed") == 2 * WAVE
    await sell_the_rest(deployment, crowd, UNITS - 2 * WAVE)
    await deployment.assert_sound(crowd)


async def epoch_of(deployment: Deployment, crowd: Crowd) -> int:
    async with client_of(deployment.valkey) as client:
        return int(await client.hget(keys.meta(crowd.shop.show), "epoch"))


async def lose_and_recover(
    deployment: Deployment, break_it: Callable[[ValkeyServer, Synced], None]
) -> None:
    """Valkey dies and comes back with less; the hubs live and know what they promised."""
    async with deployment.sale(UNITS) as crowd:
        await first_wave(deployment, crowd)
        disk = await synced(deployment.valkey)
        await second_wave(crowd)
        await break_valkey(deployment, break_it, disk)
        await recover(deployment, crowd)
        assert await epoch_of(deployment, crowd) == 2


@pytest.mark.parametrize(
    "break_it", [cut_tail, pytest.param(restore_copy, marks=only_long)], ids=["cut", "older_copy"]
)
async def test_row_05_redis_loses_power_then_hubs_bring_back_every_hold(
    deployment: Deployment, break_it: Callable[[ValkeyServer, Synced], None]
) -> None:
    await lose_and_recover(deployment, break_it)


async def everything_dies(
    deployment: Deployment, crowd: Crowd, break_it: Callable[[ValkeyServer, Synced], None],
    disk: Synced,
) -> int:  # fmt: skip
    """Buyers, hubs, worker and Valkey are gone at once, as with the power of a room; the orders
    there are when all but the buyers are back."""
    await crowd.leave()
    for process in (*deployment.webs.values(), deployment.worker):
        assert process is not None
        end(process)
    await break_valkey(deployment, break_it, disk)

    async def is_reconciled() -> bool:
        async with client_of(deployment.valkey) as client:
            gate, epoch = await client.hmget(keys.meta(crowd.shop.show), "gate", "epoch")
        return (gate, epoch) == (b"open", b"2")

    await until_answer(is_reconciled, "the next epoch is open")
    await asyncio.gather(*map(deployment.ready, deployment.webs))
    return len((await deployment.books(crowd)).orders)


async def power_gone_everywhere(
    deployment: Deployment, break_it: Callable[[ValkeyServer, Synced], None], *, always: bool,
    stored: int,
) -> None:  # fmt: skip
    """After that there are `stored` orders, and the rest of the units can be sold.

    `always`: every reply waited for the disk, so what is there at the last reply is what stays.
    Else the second wave has not reached the disk yet.
    """
    async with deployment.sale(UNITS) as crowd:
        async with client_of(deployment.valkey) as client:
            await client.config_set("appendfsync", "always" if always else "everysec")
        await first_wave(deployment, crowd)
        disk = await synced(deployment.valkey)
        await second_wave(crowd)
        if always:
            disk = await synced(deployment.valkey, wait=False)
        assert await everything_dies(deployment, crowd, break_it, disk) == stored
        await sell_the_rest(deployment, crowd, UNITS - stored)
        await deployment.assert_sound(crowd, lost=stored < 2 * WAVE, unanswered=True)


async def test_row_05_power_is_gone_everywhere_then_only_holds_are_lost(
    deployment: Deployment,
) -> None:
    """Nobody is left who knows of the second wave. This also shows that the next rows could see
    a loss."""
    await power_gone_everywhere(deployment, cut_tail, always=False, stored=WAVE)


async def test_row_05_power_is_gone_at_redis_and_hubs_then_buyers_prove_their_holds(
    deployment: Deployment,
) -> None:
    """Only the buyers know of the second wave; they come back with their receipts."""
    async with deployment.sale(2 * WAVE) as crowd:
        await first_wave(deployment, crowd)
        disk = await synced(deployment.valkey)
        await second_wave(crowd)
        deployment.valkey.kill()
        for process in deployment.webs.values():
            end(process)
        await break_valkey(deployment, cut_tail, disk)
        thaw(worker_of(deployment))
        await crowd.answered(ANSWER_S)
        assert crowd.count("confirmed") == 2 * WAVE
        await deployment.assert_sound(crowd, lost=True)


@only_long
async def test_row_05b_redis_process_killed_then_nothing_acknowledged_is_lost(
    deployment: Deployment,
) -> None:
    """The page cache survives, so this proves nothing about row 5."""
    await power_gone_everywhere(deployment, keep_all, always=False, stored=2 * WAVE)


async def test_row_06_power_is_gone_with_appendfsync_always_then_no_hold_is_lost(
    deployment: Deployment,
) -> None:
    await power_gone_everywhere(deployment, cut_tail, always=True, stored=2 * WAVE)


@only_long
async def test_row_07_redis_starts_empty_then_it_is_rebuilt_from_books_and_hubs(
    deployment: Deployment,
) -> None:
    await lose_and_recover(deployment, lose_all)


async def test_row_07_flushall_then_redis_is_rebuilt_from_books_and_hubs(
    deployment: Deployment,
) -> None:
    """The process is the same, only its data are gone."""
    async with deployment.sale(UNITS) as crowd:
        await first_wave(deployment, crowd)
        await second_wave(crowd)
        async with client_of(deployment.valkey) as client:
            await client.flushall()
        await recover(deployment, crowd)


async def test_row_08_replica_promoted_without_the_newest_takes_then_none_is_sold_again(
    deployment: Deployment, servers_directory: Path, valkey_binary: binaries.Binary
) -> None:
    """The second wave is confirmed and the replica has never heard of it."""
    async with deployment.sale(UNITS) as crowd:
        replica = make_valkey(
            valkey_binary, servers_directory / "replica", appendonly="yes",
            port=str(free_port()), bind="127.0.0.1",
        )  # fmt: skip
        await replica.start()
        try:
            async with client_of(replica) as client:
                await client.replicaof("127.0.0.1", deployment.valkey.config["port"])
                await first_wave(deployment, crowd)
                thaw(worker_of(deployment))
                await until_answer(
                    lambda: in_step(deployment.valkey), "the replica has the first wave"
                )
                await client.replicaof("NO", "ONE")
            await second_wave(crowd)
            await crowd.answered(ANSWER_S)
            deployment.valkey.kill()
            replica.socket.rename(deployment.valkey.socket)  # whoever connects comes to the replica
            await sell_the_rest(deployment, crowd, UNITS - 2 * WAVE)
            await deployment.assert_sound(crowd)
            assert crowd.count("confirmed") == UNITS
        finally:
            replica.kill()
            await deployment.valkey.start()


async def in_step(server: ValkeyServer) -> bool:
    async with client_of(server) as client:
        await client.set("marker", 2)
        return int(await client.wait(1, 1_000)) == 1


# --- Redis refuses or forgets, and nothing is lost -----------------------------------------------


async def rush_through(
    deployment: Deployment, disturb: Callable[[aioredis.Redis], Any], times: int = 1
) -> None:
    """A sale is sold out while `disturb` is done to Valkey so many times."""
    async with deployment.sale(UNITS) as crowd:
        await crowd.gather(UNITS + WAVE)
        crowd.rush(over_s=1.0)
        async with client_of(deployment.valkey) as client:
            for _ in range(times):
                first = sum(shopper.hold is not None for shopper in crowd.shoppers)
                await until(
                    lambda first=first: (
                        sum(bool(s.hold) for s in crowd.shoppers) > first
                        or all(s.final for s in crowd.shoppers)
                    ),
                    "somebody was held",
                )
                await disturb(client)
        await crowd.answered(ANSWER_S)
        assert (crowd.count("confirmed"), crowd.count("sold_out")) == (UNITS, WAVE)
        await deployment.assert_sound(crowd)


async def test_row_16_memory_full_in_the_rush_then_no_batch_is_cut_in_half(
    deployment: Deployment,
) -> None:
    async def full(client: aioredis.Redis) -> None:
        await client.config_set("maxmemory", 1)
        await asyncio.sleep(0.3)
        await client.config_set("maxmemory", 0)

    await rush_through(deployment, full, times=2)


async def test_row_21_scripts_are_forgotten_in_the_rush_then_they_are_loaded_again(
    deployment: Deployment,
) -> None:
    await rush_through(deployment, lambda client: client.script_flush(), times=5)


async def test_row_readonly_in_the_rush_then_claims_wait_for_a_master(
    deployment: Deployment,
) -> None:
    async def read_only(client: aioredis.Redis) -> None:
        await client.replicaof("127.0.0.1", 1)
        await asyncio.sleep(0.3)
        await client.replicaof("NO", "ONE")

    await rush_through(deployment, read_only, times=2)


async def test_row_frozen_processes_in_the_rush_then_all_go_on_where_they_were(
    deployment: Deployment,
) -> None:
    """SIGSTOP to one after the other: a web process, the worker, Valkey, PostgreSQL."""
    frozen = [
        ([deployment.webs[deployment.ports[1]].pid], BRIEF_S),
        (worker_of(deployment), BRIEF_S),
        ([deployment.valkey.child.pid], FROZEN_S),
        (family(deployment.postgres.child.pid), BRIEF_S),
    ]

    async def stop_and_go(_: aioredis.Redis) -> None:
        pids, seconds = frozen.pop()
        freeze(pids)
        await asyncio.sleep(seconds)
        thaw(pids)

    await rush_through(deployment, stop_and_go, times=len(frozen))


def family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


async def test_row_18_entry_deleted_by_hand_then_its_claims_are_not_lost(
    deployment: Deployment,
) -> None:
    """The worker misses a seq, halts and reconciles; the hubs know who was held."""
    async with deployment.sale(UNITS) as crowd:
        await first_wave(deployment, crowd)
        await second_wave(crowd)
        async with client_of(deployment.valkey) as client:
            stream = keys.orders(crowd.shop.show)
            (oldest, _), *_ = await client.xrange(stream)
            await client.xdel(stream, oldest)
        await recover(deployment, crowd)


async def test_all_rows_when_over_then_the_audit_of_every_show_is_clean(
    deployment: Deployment,
) -> None:
    """Shows that were not looked at when Valkey failed have been reconciled by now."""

    async def is_clean() -> bool:
        return await deployment.audit() == (0, [])

    await until_answer(is_clean, "a clean audit of all shows")
