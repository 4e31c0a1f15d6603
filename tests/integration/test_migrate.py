"""The schema's history on a real PostgreSQL."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from server.errors import Misconfigured, RecordsUnavailable
from server.records import migrate


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(query)
    finally:
        await connection.close()


def test_newest_revision_when_compared_then_it_is_alembics_only_head() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.newest_revision()]


def test_upgrade_when_database_is_empty_then_tables_exist(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    rows = asyncio.run(fetch(empty_database_url, "SELECT version_num FROM alembic_version"))
    assert [row["version_num"] for row in rows] == [migrate.newest_revision()]
    assert asyncio.run(fetch(empty_database_url, "SELECT * FROM orders")) == []


def test_upgrade_when_four_start_at_once_then_all_succeed(empty_database_url: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(migrate.upgrade, [empty_database_url] * 4))
    rows = asyncio.run(fetch(empty_database_url, "SELECT version_num FROM alembic_version"))
    assert len(rows) == 1


def test_upgrade_when_repeated_then_data_is_kept(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    insert = "INSERT INTO shows (show_id, host_id, title) VALUES ('abcd', 'h', 't')"
    asyncio.run(fetch(empty_database_url, insert))
    migrate.upgrade(empty_database_url)
    assert len(asyncio.run(fetch(empty_database_url, "SELECT * FROM shows"))) == 1


def test_upgrade_when_schema_is_newer_then_it_refuses_and_says_so(empty_database_url: str) -> None:
    migrate.upgrade(empty_database_url)
    asyncio.run(fetch(empty_database_url, "UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match="schema is revision 9999"):
        migrate.upgrade(empty_database_url)


def test_upgrade_when_a_revision_fails_then_nothing_is_left(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(fetch(empty_database_url, "CREATE TABLE outbox (oops int)"))
    with pytest.raises(Exception, match="outbox"):
        migrate.upgrade(empty_database_url)
    tables = asyncio.run(
        fetch(empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    )
    assert [row["tablename"] for row in tables] == ["outbox"]


def test_upgrade_when_server_is_away_then_records_are_unavailable() -> None:
    with pytest.raises(RecordsUnavailable):
        migrate.upgrade("postgresql://livesale@/livesale?host=/nonexistent")


def test_upgrade_when_database_does_not_exist_then_it_says_so(empty_database_url: str) -> None:
    missing = empty_database_url.replace("livesale_test_", "livesale_missing_")
    with pytest.raises(Misconfigured, match="does not exist"):
        migrate.upgrade(missing)
