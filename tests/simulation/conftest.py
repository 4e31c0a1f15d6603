"""Options and databases of the simulation.

    pytest tests/simulation --seed 123      one seed, with its trace when it fails
    pytest tests/simulation --seeds 5000    how many seeds instead of the usual number

LIVESALE_TEST_LONG=1 runs more of them.
"""

import asyncio
import os
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import LONG, run_sql, with_database
from tests.simulation.postgres import Server

SEEDS = 500
SEEDS_LONG = 2_000


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=None, help="simulate this seed only")
    parser.addoption("--seeds", type=int, default=None, help="how many seeds to simulate")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --seed nothing else runs."""
    if config.getoption("--seed", default=None) is not None:
        items[:] = [item for item in items if "one_seed" in getattr(item, "fixturenames", ())]


@pytest.fixture
def one_seed(request: pytest.FixtureRequest) -> int | None:
    seed: int | None = request.config.getoption("--seed", default=None)
    return seed


@pytest.fixture
def seed_count(request: pytest.FixtureRequest) -> int:
    count: int | None = request.config.getoption("--seeds", default=None)
    return count or (SEEDS_LONG if LONG else SEEDS)


@pytest.fixture(scope="session")
def simulation_database(
    session_database_url: str, template_database: str
) -> Iterator[Callable[[int], str]]:
    """URL of the `n`-th database for simulated runs: migrated, its time the simulation's."""
    made: dict[int, str] = {}

    def make(n: int) -> str:
        name = made[n] = f"livesale_simulation_{os.getpid()}_{n}"
        create = f"CREATE DATABASE {name} TEMPLATE {template_database}"
        asyncio.run(run_sql(session_database_url, create))
        url = with_database(session_database_url, name)
        server = Server(url)
        server.set_up()
        server.close()
        return url

    yield make
    drops = [f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in made.values()]
    asyncio.run(run_sql(session_database_url, *drops))


@pytest.fixture(scope="session")
def simulation_server(simulation_database: Callable[[int], str]) -> Iterator[Server]:
    """The server of runs inside this process."""
    server = Server(simulation_database(0))
    yield server
    server.close()
