"""One livesale for all tests of a file: web and worker are running, each test makes its own show.

running     its addresses; its Redis was empty when it started
"""

import asyncio
import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import redis

from tests.conftest import run_sql, with_database
from tests.live import LiveSystem


class Running(NamedTuple):
    """Where it is."""

    url: str
    redis_url: str
    database_url: str


@pytest.fixture(scope="module")
def running(
    session_redis_url: str,
    session_database_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    with redis.Redis.from_url(session_redis_url) as client:
        client.flushall()
    name = f"livesale_test_{os.getpid()}_shared"
    create = f"CREATE DATABASE {name} TEMPLATE {template_database}"
    asyncio.run(run_sql(session_database_url, create))
    database_url = with_database(session_database_url, name)
    system = LiveSystem(session_redis_url, database_url, tmp_path_factory.mktemp("logs"))
    try:
        url = asyncio.run(system.start_web())
        system.start_worker()
        yield Running(url, session_redis_url, database_url)
    finally:
        system.stop()
        asyncio.run(run_sql(session_database_url, f"DROP DATABASE {name} WITH (FORCE)"))
