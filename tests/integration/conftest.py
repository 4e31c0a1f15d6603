"""What several files here stand on.

hubs    two web processes on the same servers
system  starts real web and worker processes on the servers of `hubs`
till    a shop where orders are paid, with an open sale
cluster a Cluster for all tests; who kills a server of it brings it back
"""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from server.embedded.binaries import Binary
from tests.conftest import run_sql, with_database
from tests.live import LiveSystem
from tests.redis_cluster import ValkeyCluster
from tests.till import Till, open_till
from tests.web_stage import WebStage, web_stage

EMPTY = """
DO $$ BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(tablename, ', ') || ' RESTART IDENTITY'
             FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version');
END $$
"""


@pytest.fixture
async def hubs(redis_url: str, database_url: str) -> AsyncIterator[tuple[WebStage, WebStage]]:
    async with (
        web_stage(redis_url, database_url) as first,
        web_stage(redis_url, database_url) as second,
    ):
        yield first, second


@pytest.fixture
def system(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[LiveSystem]:
    running = LiveSystem(redis_url, database_url, tmp_path)
    yield running
    running.stop()


@pytest.fixture(scope="session")
def books_url(session_database_url: str, template_database: str) -> Iterator[str]:
    """One database for all payments: emptying it is much faster than making another."""
    name = f"livesale_payments_{os.getpid()}"
    create = f"CREATE DATABASE {name} TEMPLATE {template_database}"
    asyncio.run(run_sql(session_database_url, create))
    yield with_database(session_database_url, name)
    asyncio.run(run_sql(session_database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
async def till(redis_url: str, books_url: str) -> AsyncIterator[Till]:
    """A till with a sale of 3 units, at most 2 for a buyer."""
    await run_sql(books_url, EMPTY)
    async with open_till(redis_url, books_url) as opened:
        await opened.open_sale(units=3, limit=2)
        yield opened


@pytest.fixture(scope="session")
def cluster(servers_directory: Path, valkey_binary: Binary) -> Iterator[ValkeyCluster]:
    folder = servers_directory / "cluster"
    running = asyncio.run(ValkeyCluster.start(valkey_binary, folder))
    yield running
    asyncio.run(running.stop())
    shutil.rmtree(folder)
