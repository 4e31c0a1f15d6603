"""Real servers for the tests: one Valkey and one PostgreSQL per session, clean for every test.

    redis_url           an empty database on the session's Valkey
    database_url        a fresh, migrated database on the session's PostgreSQL
    empty_database_url  a fresh database without tables
    valkey_factory      starts further Valkey servers: `await valkey_factory(appendonly="yes")`
    durable_valkey      a Valkey of the test's own that keeps all it acknowledged, to be killed
    chromium            path of a Chromium for the pages; without one the test is skipped, or
                        fails where LIVESALE_TEST_CHROMIUM=required (CI)
    postgres_server     a PostgreSQL of the test's own, migrated, to be stopped and killed
    durable_books       one that keeps what it committed, as production demands

LIVESALE_TEST_REDIS_URL and LIVESALE_TEST_DATABASE_URL run the tests against other servers (the
Redis is flushed; on the PostgreSQL databases are created and dropped). LIVESALE_TEST_LONG=1 runs
the long form of what has two (`make test-faults`).
"""

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import redis

from server.embedded import binaries, place
from server.embedded.postgres import SETTINGS, PostgresServer
from server.embedded.valkey import ValkeyServer
from server.records import migrate

TEST_REDIS_URL = os.environ.get("LIVESALE_TEST_REDIS_URL", "")
TEST_DATABASE_URL = os.environ.get("LIVESALE_TEST_DATABASE_URL", "")
LONG = bool(os.environ.get("LIVESALE_TEST_LONG"))
TEMPLATE = "livesale_template"

QUICK_VALKEY = {
    "appendonly": "no",
    "save": "",
    "maxmemory-policy": "noeviction",
    "enable-debug-command": "yes",
}
QUICK_POSTGRES = {
    **SETTINGS,
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}

ValkeyFactory = Callable[..., Awaitable[ValkeyServer]]
_NUMBERS = itertools.count()


# What takes longest runs first, so that no process is left alone with it in the end.
LONGEST = ("simulation", "faults", "e2e", "guards")


def pytest_xdist_auto_num_workers() -> int:
    """One more than processors: tests wait for servers a third of their time."""
    return 1 + (os.cpu_count() or 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {folder: place for place, folder in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(LONGEST)))


@pytest.fixture(scope="session")
def servers_directory() -> Iterator[Path]:
    """A short directory for sockets and data of the tests' servers."""
    folder = place.new_socket_directory()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def valkey_binary() -> binaries.Binary:
    return binaries.choose_valkey(os.get_exec_path())


@pytest.fixture(scope="session")
def postgres_binary() -> binaries.Binary:
    found = binaries.choose_postgres(os.get_exec_path())
    return place.reachable_binary(found, place.account_for_postgres())


def make_valkey(binary: binaries.Binary, folder: Path, **config: str) -> ValkeyServer:
    named = {name.replace("_", "-"): value for name, value in config.items()}
    return ValkeyServer(binary, folder / "data", folder, config={**QUICK_VALKEY, **named})


def make_postgres(binary: binaries.Binary, folder: Path, **settings: str) -> PostgresServer:
    return PostgresServer(
        binary,
        folder / "data",
        folder / "postgres",
        log=folder / "postgres.log",
        account=place.account_for_postgres(),
        settings={**QUICK_POSTGRES, **settings},
    )


# --- Valkey ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def session_redis_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if TEST_REDIS_URL:
        yield TEST_REDIS_URL
        return
    folder = request.getfixturevalue("servers_directory") / "v"
    server = make_valkey(request.getfixturevalue("valkey_binary"), folder)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def redis_url(session_redis_url: str) -> str:
    """An empty Redis."""
    with redis.Redis.from_url(session_redis_url) as client:
        client.flushall()
    return session_redis_url


@pytest.fixture
async def valkey_factory(
    servers_directory: Path, valkey_binary: binaries.Binary
) -> AsyncIterator[ValkeyFactory]:
    """`await valkey_factory(**config)`: a further running server, stopped after the test.

    `directory=` names its folder, so that a second server can be started on the same data.
    """
    started: list[ValkeyServer] = []
    numbers = itertools.count()

    async def start(directory: Path | None = None, **config: str) -> ValkeyServer:
        folder = directory or servers_directory / f"v{os.getpid()}-{next(numbers)}"
        server = make_valkey(valkey_binary, folder, **config)
        started.append(server)
        await server.start()
        return server

    yield start
    for server in started:
        server.kill()
        shutil.rmtree(server.directory.parent, ignore_errors=True)


@pytest.fixture
async def durable_valkey(valkey_factory: ValkeyFactory) -> ValkeyServer:
    """A server of the test's own that keeps whatever it has acknowledged, to be killed."""
    return await valkey_factory(appendonly="yes", appendfsync="always")


# --- PostgreSQL ------------------------------------------------------------------------------


def with_database(url: str, name: str) -> str:
    """`url` pointing to another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


async def run_sql(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def session_database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The maintenance database of the session's PostgreSQL."""
    if TEST_DATABASE_URL:
        yield TEST_DATABASE_URL
        return
    folder = request.getfixturevalue("servers_directory") / "p"
    folder.mkdir()
    server = make_postgres(request.getfixturevalue("postgres_binary"), folder)
    asyncio.run(server.start())
    yield server.url("postgres")
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def template_database(session_database_url: str) -> Iterator[str]:
    """Name of a migrated database that nobody is connected to."""
    drop = f"DROP DATABASE IF EXISTS {TEMPLATE} WITH (FORCE)"
    asyncio.run(run_sql(session_database_url, drop, f"CREATE DATABASE {TEMPLATE}"))
    migrate.upgrade(with_database(session_database_url, TEMPLATE))
    yield TEMPLATE
    asyncio.run(run_sql(session_database_url, drop))


@pytest.fixture
def fresh_database(session_database_url: str) -> Iterator[Callable[[str], str]]:
    """Makes a database of the test's own from a template; dropped after the test."""
    made: list[str] = []

    def make(template: str) -> str:
        name = f"livesale_test_{os.getpid()}_{len(made)}"
        made.append(name)
        create = f"CREATE DATABASE {name} TEMPLATE {template}"
        asyncio.run(run_sql(session_database_url, create))
        return with_database(session_database_url, name)

    yield make
    drops = [f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in made]
    asyncio.run(run_sql(session_database_url, *drops))


@pytest.fixture
def empty_database_url(fresh_database: Callable[[str], str]) -> str:
    return fresh_database("template0")


@pytest.fixture
def database_url(fresh_database: Callable[[str], str], template_database: str) -> str:
    return fresh_database(template_database)


@asynccontextmanager
async def migrated_postgres(
    binary: binaries.Binary, parent: Path, **settings: str
) -> AsyncIterator[PostgresServer]:
    folder = parent / f"p{next(_NUMBERS)}"
    folder.mkdir()
    server = make_postgres(binary, folder, **settings)
    await server.start()
    try:
        await asyncio.to_thread(migrate.upgrade, server.url())
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)


@pytest.fixture
async def postgres_server(
    servers_directory: Path, postgres_binary: binaries.Binary
) -> AsyncIterator[PostgresServer]:
    """A running PostgreSQL of the test's own, database `livesale` migrated, safe to kill.

    `await server.stop()`, `server.kill()`, `await server.start()`; `server.url()`.
    """
    async with migrated_postgres(postgres_binary, servers_directory) as server:
        yield server


@pytest.fixture
async def durable_books(
    servers_directory: Path, postgres_binary: binaries.Binary
) -> AsyncIterator[PostgresServer]:
    """A running PostgreSQL of the test's own that keeps what it committed; it is migrated."""
    safe = {"fsync": "on", "full_page_writes": "on"}
    async with migrated_postgres(postgres_binary, servers_directory, **safe) as server:
        yield server


# --- Chromium --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing = "no Chromium on this machine (Debian: apt install chromium fonts-noto-cjk)"
        if os.environ.get("LIVESALE_TEST_CHROMIUM") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    return found
