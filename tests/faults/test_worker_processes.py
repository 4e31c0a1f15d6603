"""The worker as real processes: killed, frozen and doubled in the middle of a rush.

Whatever is done to them: every accepted claim becomes exactly one order, and the audit agrees.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.embedded.postgres import PostgresServer
from tests.bookshop import Bookshop, eventually, open_bookshop

pytestmark = pytest.mark.faults

RUN = "from server import config; from server.orders import app; exit(app.run(config.load()))"


class Worker:
    """One `livesale worker` process, less the migrations."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        urls = {"LIVESALE_REDIS_URL": redis_url, "LIVESALE_DATABASE_URL": database_url}
        sizes = {"LIVESALE_WORKER_BATCH_CLAIMS": "64"}
        quick = {
            "LIVESALE_DURABILITY": "none",  # the tests' Redis keeps nothing
            "LIVESALE_DEMO": "true",
            "LIVESALE_SECRET": "x" * 32,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN],
            env={**os.environ, **urls, **sizes, **quick},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def end(self, number: signal.Signals) -> int:
        self.send(number)
        return await asyncio.to_thread(self.process.wait, 15)


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


@pytest.fixture
async def workers() -> AsyncIterator[list[Worker]]:
    started: list[Worker] = []
    yield started
    for worker in started:
        worker.process.kill()
        worker.process.wait()


async def rush(shop: Bookshop, sale: int, buyers: int) -> None:
    """Claims for one unit each, in small calls, for a second or so."""
    for start in range(0, buyers, 10):
        await shop.claim_many(sale, [f"b{start + i}" for i in range(10)])
        await asyncio.sleep(0.005)


async def assert_all_stored(shop: Bookshop, units: int) -> None:
    await shop.assert_all_stored(units)
    assert [order["seq"] for order in await shop.orders()] == list(range(1, units + 1))


async def test_workers_when_killed_again_and_again_then_every_claim_is_stored_once(
    shop: Bookshop, workers: list[Worker], redis_url: str, database_url: str
) -> None:
    sale = await shop.add_sale(units=2_001)
    rushing = asyncio.create_task(rush(shop, sale, 2_000))
    chance = random.Random(7)
    for _ in range(4):
        workers.append(Worker(redis_url, database_url))
        before = len(await shop.orders())
        await eventually(lambda before=before: progress(shop, before), 30)
        await asyncio.sleep(chance.random() * 0.05)
        await workers[-1].end(signal.SIGKILL)
    await rushing
    workers.append(Worker(redis_url, database_url))
    await shop.claim_many(sale, ["last"])  # for this worker alone, which is up then
    await assert_all_stored(shop, 2_001)
    assert await workers[-1].end(signal.SIGTERM) == 0


async def progress(shop: Bookshop, before: int) -> bool:
    """More orders than before, or nothing left to store."""
    found = len(await shop.orders())
    return found > before or (found > 0 and await shop.stream_length() == 0)


async def test_worker_when_frozen_and_woken_after_takeover_then_nothing_is_stored_twice(
    shop: Bookshop, workers: list[Worker], redis_url: str, database_url: str
) -> None:
    sale = await shop.add_sale(units=1_500)
    workers.append(Worker(redis_url, database_url))
    await shop.claim_many(sale, ["first"])
    await shop.settled()
    rushing = asyncio.create_task(rush(shop, sale, 1_000))
    await eventually(lambda: progress(shop, 50), 30)
    workers[0].send(signal.SIGSTOP)
    workers.append(Worker(redis_url, database_url))
    await rushing
    await shop.settled(60)
    workers[0].send(signal.SIGCONT)
    await shop.claim_many(sale, [f"late{i}" for i in range(499)])
    await assert_all_stored(shop, 1_500)
    assert [await worker.end(signal.SIGTERM) for worker in workers] == [0, 0]


async def test_two_workers_when_one_stops_in_the_rush_then_the_other_goes_on(
    shop: Bookshop, workers: list[Worker], redis_url: str, database_url: str
) -> None:
    sale = await shop.add_sale(units=1_000)
    workers.append(Worker(redis_url, database_url))
    rushing = asyncio.create_task(rush(shop, sale, 1_000))
    await eventually(lambda: progress(shop, 100), 30)
    workers.append(Worker(redis_url, database_url))
    assert await workers[0].end(signal.SIGTERM) == 0
    await rushing
    await assert_all_stored(shop, 1_000)
    assert await workers[1].end(signal.SIGTERM) == 0


async def test_worker_when_postgres_is_silent_then_it_still_stops(
    workers: list[Worker], redis_url: str, postgres_server: PostgresServer
) -> None:
    async with open_bookshop(redis_url, postgres_server.url()) as shop:
        sale = await shop.add_sale(units=300)
        workers.append(Worker(redis_url, postgres_server.url()))
        await shop.claim_many(sale, ["first"])
        await shop.settled()
        pids = await backends(shop)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        await shop.claim_many(sale, [f"b{i}" for i in range(99)])
        assert await workers[0].end(signal.SIGTERM) == 0
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        workers.append(Worker(redis_url, postgres_server.url()))
        await assert_all_stored(shop, 100)


async def backends(shop: Bookshop) -> list[int]:
    """PostgreSQL's processes that serve others than us."""
    rows = await shop.pool.fetch(
        "SELECT pid FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND query <> ''"
    )
    return [row["pid"] for row in rows]


async def test_worker_when_redis_is_silent_then_it_still_stops(
    workers: list[Worker], valkey_factory: Any, database_url: str
) -> None:
    server = await valkey_factory()
    async with open_bookshop(server.url, database_url) as shop:
        sale = await shop.add_sale(units=10)
        workers.append(Worker(server.url, database_url))
        await shop.claim(sale, "ann")
        await shop.settled()
        os.kill(server.child.pid, signal.SIGSTOP)
        try:
            assert await workers[0].end(signal.SIGTERM) == 0
        finally:
            os.kill(server.child.pid, signal.SIGCONT)
