"""Brings the database's schema to the newest revision (alembic, migrations/).

Web and worker both do this when they start, at the same time and on every machine: an advisory
lock lets one of them work while the others wait, and all revisions due run in one transaction.

A table that somebody else has locked is not waited for without end: all who want it would queue
behind us. So a revision begins with what others may read through, and drops and alters last.
"""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg

from server.errors import Misconfigured, RecordsUnavailable
from server.records.pool import CONNECT_SECONDS, outages

MIGRATIONS = Path(__file__).parent / "migrations"
LOCK = 0x6C697665  # "live": our number among the database's advisory locks
LOCK_SECONDS = 5  # for one table; longer than PostgreSQL's own autovacuum takes to make way


def newest_revision() -> str:
    """The revision this version of livesale needs: the highest number in versions/."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def upgrade(database_url: str) -> None:
    """Bring the schema up to date; quick when it is, safe when called many times at once.

    Blocking; must not run in a thread with an event loop. All revisions commit together or none.
    Raises Misconfigured when the schema is newer than this code, RecordsUnavailable when
    PostgreSQL does not answer or somebody keeps a table locked.
    """
    asyncio.run(upgrade_async(database_url))


async def upgrade_async(database_url: str) -> None:
    """`upgrade` for callers inside an event loop (which it blocks while revisions load)."""
    try:
        with outages():
            if await current_revision(database_url) != newest_revision():
                await _run_alembic(database_url)
    except asyncpg.LockNotAvailableError as error:
        raise RecordsUnavailable(
            f"the schema was not changed: a table is in use, and was not free within {LOCK_SECONDS}"
            " s (pg_stat_activity tells by whom); try again"
        ) from error
    except asyncpg.InvalidCatalogNameError as error:
        raise Misconfigured(f"the database does not exist: {error}") from error


async def current_revision(database_url: str) -> str:
    """The revision the database is at; "" when it has no schema of ours.

    Raises Misconfigured when it is newer than this code.
    """
    connection = await asyncpg.connect(database_url, timeout=CONNECT_SECONDS)
    try:
        found: str = await connection.fetchval("SELECT version_num FROM alembic_version") or ""
    except asyncpg.UndefinedTableError:
        return ""
    finally:
        await connection.close()
    if found > newest_revision():
        raise Misconfigured(
            f"the database's schema is revision {found}, this version of livesale knows "
            f"{newest_revision()}: start a newer version (a schema never goes back)"
        )
    return found


async def _run_alembic(database_url: str) -> None:
    """Run the revisions due, in one transaction, under the advisory lock."""
    from sqlalchemy import text  # slow to import, and rarely needed
    from sqlalchemy.ext.asyncio import create_async_engine

    async def connect() -> Any:
        return await asyncpg.connect(database_url, timeout=CONNECT_SECONDS)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    try:
        async with engine.begin() as connection:
            await connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            await connection.run_sync(_upgrade_to_head)
    finally:
        await engine.dispose()


def _upgrade_to_head(connection: Any) -> None:
    """Alembic's part; reads the database's revision itself, now that the lock is held."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    command.upgrade(config, "head")
