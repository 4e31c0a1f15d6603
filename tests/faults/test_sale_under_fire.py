"""A whole sale with real buyers while its processes die: every unit sold once, everybody answered.

Three processes of different kinds are killed with SIGKILL in the middle and PostgreSQL is away for
a while. The long form is the sale of the acceptance: 1,000 units, 5,000 buyers, 10 s.
"""

from pathlib import Path
from typing import Final

import pytest

from server.embedded.postgres import PostgresServer
from tests.conftest import LONG, ValkeyFactory
from tests.crowd import Crowd
from tests.deployment import Deployment, deploy
from tests.live import until

UNITS: Final = 1_000 if LONG else 100
BUYERS: Final = 5_000 if LONG else 300
POSTGRES_AWAY_S: Final = 10.0 if LONG else 2.0
RUSH_SECONDS: Final = 30.0 if LONG else 6.0
ANSWER_SECONDS: Final = 60.0

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


async def break_everything(deployment: Deployment, crowd: Crowd) -> None:
    """While units are going, a web process, Valkey and the worker die; then PostgreSQL stops."""
    await until_left(crowd, 0.9)
    deployment.kill_web(deployment.ports[1])
    await until_left(crowd, 0.7)
    await deployment.kill_valkey()
    await until_left(crowd, 0.5)
    deployment.kill_worker()
    await until_left(crowd, 0.3)
    await deployment.kill_postgres(POSTGRES_AWAY_S)


async def until_left(crowd: Crowd, share: float) -> None:
    (watcher,) = crowd.watchers
    bound = UNITS * share
    what = f"at most {bound} units left"
    await until(lambda: watcher.left.get(crowd.shop.sale, UNITS) <= bound, what)


async def test_sale_when_everything_is_killed_then_every_unit_is_sold_once(
    valkey_factory: ValkeyFactory, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    valkey = await valkey_factory(appendonly="yes", appendfsync="everysec")
    tick = {"tick_ms": "500"} if LONG else {}
    async with (
        deploy(valkey, postgres_server, tmp_path, **tick) as deployment,
        deployment.sale(UNITS) as crowd,
    ):
        await crowd.watch(deployment.ports[0])
        await crowd.gather(BUYERS)
        crowd.rush(RUSH_SECONDS)
        await break_everything(deployment, crowd)
        await crowd.answered(ANSWER_SECONDS)
        books = await deployment.assert_sound(crowd)
    assert (crowd.count("confirmed"), crowd.count("sold_out")) == (UNITS, BUYERS - UNITS)
    assert len(books.orders) == len({order.buyer for order in books.orders}) == UNITS
