"""The schema's history on a real PostgreSQL."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from server.errors import Misconfigured, RecordsUnavailable
from server.records import migrate

FILLED = """
INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version, epoch, seq)
SELECT 'abcd', 1, 'b' || n, gen_random_uuid(), 1, 100, 1, 1, n FROM generate_series(1, 1000) AS n;
INSERT INTO payments (payment_id, order_id, provider, external_id, amount, currency, status,
                      show_id, buyer)
SELECT gen_random_uuid(), order_id, 'demo', 'x' || order_id, 100, 'CNY', 'captured', show_id, buyer
FROM orders;
INSERT INTO payment_events (provider, event_id, kind, external_id, amount, currency, occurred_at,
                            payload, handled_at)
SELECT 'demo', 'e' || n, 'captured', 'x' || n, 100, 'CNY', now(), '', CASE WHEN n > 9 THEN now() END
FROM generate_series(1, 1000) AS n;
INSERT INTO dead_letters (show_id, pool_id, epoch, seq, units, payload, error)
SELECT 'abcd', 1, 1, 1000 + n, 1, '', 'why' FROM generate_series(1, 1000) AS n;
"""
FILLED_TABLES = ("orders", "payments", "payment_events", "dead_letters")


async def execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


def upgrade_to(url: str, revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a version of livesale did whose newest revision was that one."""
    to_head = command.upgrade
    with monkeypatch.context() as patch:
        patch.setattr(command, "upgrade", lambda config, _: to_head(config, revision))
        migrate.upgrade(url)


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


def test_upgrade_when_tables_are_filled_then_every_row_is_kept(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the schema of the last release."""
    url = empty_database_url
    upgrade_to(url, "0002", monkeypatch)
    asyncio.run(execute(url, FILLED))
    before = {name: asyncio.run(fetch(url, f"TABLE {name}")) for name in FILLED_TABLES}
    migrate.upgrade(url)
    assert asyncio.run(migrate.current_revision(url)) == migrate.newest_revision()
    for name, rows in before.items():
        columns = ", ".join(rows[0].keys())
        assert asyncio.run(fetch(url, f"SELECT {columns} FROM {name}")) == rows
    due = "SELECT 1 FROM payment_events WHERE handled_at IS NULL AND next_attempt_at <= now()"
    assert len(asyncio.run(fetch(url, due))) == 9
    assert (
        asyncio.run(fetch(url, "SELECT 1 FROM dead_letters WHERE untold_since > '-infinity'")) == []
    )
    assert asyncio.run(fetch(url, "SELECT 1 FROM payments WHERE settled_by_hand")) == []


def test_upgrade_when_a_table_is_in_use_then_it_says_so_and_can_be_repeated(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = empty_database_url
    upgrade_to(url, "0002", monkeypatch)
    monkeypatch.setattr(migrate, "LOCK_SECONDS", 1)
    asyncio.run(_upgrade_beside_a_writer(url))
    migrate.upgrade(url)
    assert asyncio.run(migrate.current_revision(url)) == migrate.newest_revision()


async def _upgrade_beside_a_writer(url: str) -> None:
    writer = await asyncpg.connect(url)
    try:
        await writer.execute("BEGIN; LOCK TABLE payments IN ROW EXCLUSIVE MODE")
        with pytest.raises(RecordsUnavailable, match="a table is in use"):
            await asyncio.to_thread(migrate.upgrade, url)
        assert await migrate.current_revision(url) == "0002"
    finally:
        await writer.close()
