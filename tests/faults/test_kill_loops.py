"""Processes of every kind killed with SIGKILL, one after another, in a running sale.

Buyers keep coming all the time. After every kill somebody who came later must get a last word;
in the end the books, the audit and what every client saw agree.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from server.embedded.postgres import PostgresServer
from tests.conftest import LONG, ValkeyFactory
from tests.crowd import Crowd, Shopper
from tests.deployment import Deployment, deploy
from tests.live import until

ROUNDS: Final = 120 if LONG else 6
UNITS: Final = 4_000 if LONG else 300
BUYERS_PER_SECOND: Final = 40
CALM_SECONDS: Final = 0.5  # at most, between an answer and the next kill
VICTIMS: Final = ("web", "worker", "valkey", "postgres")

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500 if LONG else 240)]


@asynccontextmanager
async def buyers_coming(crowd: Crowd) -> AsyncIterator[None]:
    """Somebody new comes and buys, again and again, until the block ends."""

    async def come() -> None:
        while True:
            crowd.send(crowd.add())
            await asyncio.sleep(1 / BUYERS_PER_SECOND)

    coming = asyncio.create_task(come())
    try:
        yield
    finally:
        coming.cancel()


async def somebody_new_is_answered(crowd: Crowd) -> None:
    """Wait until one of those who come from now on has a last word."""
    first = len(crowd.shoppers)

    def answered(shopper: Shopper) -> bool:
        return bool(shopper.final)

    await until(lambda: any(map(answered, crowd.shoppers[first:])), "an answer after the kill")


async def kill(deployment: Deployment, victim: str, chance: random.Random) -> None:
    match victim:
        case "web":
            deployment.kill_web(chance.choice(deployment.ports))
        case "worker":
            deployment.kill_worker()
        case "valkey":
            await deployment.kill_valkey()
        case "postgres":
            await deployment.kill_postgres()


async def test_sale_when_its_processes_are_killed_in_random_order_then_nothing_is_lost(
    valkey_factory: ValkeyFactory, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    valkey = await valkey_factory(appendonly="yes", appendfsync="everysec")
    seed = random.randrange(2**32)
    print(f"{seed=}")  # noqa: T201  (pytest shows it with the failure)
    chance = random.Random(seed)
    order = [victim for _ in range(ROUNDS) for victim in chance.sample(VICTIMS, len(VICTIMS))]
    async with (
        deploy(valkey, postgres_server, tmp_path) as deployment,
        deployment.sale(UNITS) as crowd,
    ):
        for port in deployment.ports:
            await crowd.watch(port)
        async with buyers_coming(crowd):
            for victim in order[:ROUNDS]:
                await somebody_new_is_answered(crowd)
                await asyncio.sleep(chance.random() * CALM_SECONDS)
                await kill(deployment, victim, chance)
            await somebody_new_is_answered(crowd)
        await crowd.answered(60)
        books = await deployment.assert_sound(crowd)
    assert crowd.count("confirmed") == len(books.orders) <= UNITS
    assert crowd.count("confirmed") + crowd.count("sold_out") == len(crowd.shoppers)
