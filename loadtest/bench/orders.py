"""`bench orders`: how fast the order worker persists a full stream.

The stream is filled through the claim script while no worker runs; then the worker starts. The
clock runs from the first transaction (its `confirmed_at`) until the stream is empty, so starting
Python is not in it and acknowledging is.
"""

import time

import asyncpg
import redis.asyncio
import uuid_utils

from loadtest import process
from loadtest.bench import report
from loadtest.stand import Stand, stand
from server import limits
from server.store.client import RedisClients
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import ACCEPTED, ClaimRequest

CLAIMS = 100_000
ROUNDS = 5
EPOCH = 1
HUB = "bench"
RUN_SECONDS = 120.0


async def run(*, quick: bool) -> report.Result:
    """Both durability profiles; figures of `strict` begin with its name. Quick: only these."""
    claims, rounds = (2_000, 1) if quick else (CLAIMS, ROUNDS)
    figures = {} if quick else await measure("fast", claims, rounds)
    strict = await measure("strict", claims, rounds)
    figures |= {f"strict_{name}": value for name, value in strict.items()}
    setting: dict[str, object] = {"orders": claims, "rounds": rounds, "fsync": "on"}
    return report.Result(figures, setting=setting)


async def measure(profile: str, claims: int, rounds: int) -> dict[str, float]:
    """Fill and drain the stream `rounds` times; medians."""
    measured = []
    async with stand(profile) as running:
        await running.start_web()
        await running.open_show()
        for _ in range(rounds):
            sale = await running.open_sale(claims, 1)
            await fill(running, sale, claims)
            measured.append(await _drain(running, sale, claims))
            report.progress(f"{profile}: {measured[-1]['persisted_per_s']:,.0f} orders/s")
    return report.medians(measured)


async def fill(running: Stand, sale: int, claims: int) -> None:
    """Put `claims` accepted claims of as many buyers into the show's stream, 512 per entry."""
    clients = await RedisClients.open(running.valkey.url)
    try:
        stock = Stock(Scripts(clients.commands))
        for first in range(0, claims, limits.CLAIM_BATCH_MAX):
            size = min(limits.CLAIM_BATCH_MAX, claims - first)
            batch = [_request(sale, first + number) for number in range(size)]
            answer = await stock.claim_batch(running.show_id, HUB, EPOCH, batch)
            if any(each.code != ACCEPTED for each in answer.answers):
                raise RuntimeError(f"not accepted: {answer.answers[0]}")
    finally:
        await clients.aclose()


def _request(sale: int, number: int) -> ClaimRequest:
    claim_id = uuid_utils.uuid7().bytes
    return ClaimRequest(f"buyer-{number}", claim_id, sale, quantity=1, price_version=1)


async def _drain(running: Stand, sale: int, claims: int) -> dict[str, float]:
    worker = running.start_worker()
    await _first_order(running, sale)
    before = {name: process.cpu(pid).total for name, pid in _pids(running).items()}
    begun = await _orders(running, sale)
    end = await _emptied(running)
    used = {n: process.cpu(pid).total - before[n] for n, pid in _pids(running).items()}
    first, rows = await _first_transaction(running, sale)
    await process.stop(worker)
    if rows != claims:
        raise RuntimeError(f"{claims} claims, {rows} orders")
    rest = max(1, claims - begun)  # the first orders came before the CPU was read
    return {"persisted_per_s": claims / (end - first)} | {
        f"{name}_cpu_us_per_order": value / rest for name, value in used.items()
    }


def _pids(running: Stand) -> dict[str, int]:
    assert running.worker is not None
    return {
        "worker": running.worker.pid,
        "redis": running.valkey.child.pid,
        "postgres": running.postgres.child.pid,
    }


async def _first_order(running: Stand, sale: int) -> None:
    async def written() -> bool:
        return await _orders(running, sale) > 0

    await process.wait_for_answer(written, RUN_SECONDS, "a first order")


async def _orders(running: Stand, sale: int) -> int:
    return (await _first_transaction(running, sale))[1]


async def _first_transaction(running: Stand, sale: int) -> tuple[float, int]:
    """(wall time of the first order's transaction, number of orders) of a sale."""
    connection = await asyncpg.connect(running.database_url)
    try:
        row = await connection.fetchrow(
            "SELECT coalesce(extract(epoch FROM min(confirmed_at)), 0)::float8, count(*) "
            "FROM orders WHERE pool_id = $1",
            sale,
        )
    finally:
        await connection.close()
    assert row is not None
    return row[0], row[1]


async def _emptied(running: Stand) -> float:
    """Wall time at which the stream was seen empty."""
    stream = running.order_stream
    async with redis.asyncio.Redis.from_url(running.valkey.url) as client:

        async def empty() -> bool:
            return not await client.xlen(stream)

        await process.wait_for_answer(empty, RUN_SECONDS, "an empty stream")
        return time.time()
