"""What PostgreSQL keeps when its machine dies: `confirmed` is a promise that rests on it."""

from typing import Final

import structlog

from server.errors import Misconfigured
from server.records import sql
from server.records.pool import Pool, acquire

log = structlog.get_logger()

_SQL: Final = sql.load("durability")


async def require_durability(pool: Pool, profile: str, *, demo: bool) -> None:
    """Refuse a server that may lose what it committed, or come back damaged.

    `profile` as in server/store/durability.py: nothing is asked under `none`, and a demo is only
    warned. Raises Misconfigured, which says what to change, and RecordsUnavailable.
    """
    if profile == "none":
        return
    async with acquire(pool) as conn:
        off = [row["name"] for row in await conn.fetch(_SQL["unsafe_settings"])]
    if not off:
        return
    fault = (
        f"PostgreSQL has {', '.join(off)} off: confirmed orders could be lost or damaged when its "
        "machine fails; set it to on (ALTER SYSTEM SET ... = on; SELECT pg_reload_conf())"
    )
    if not demo:
        raise Misconfigured(fault)
    log.warning("postgresql_not_durable", reason=fault)
