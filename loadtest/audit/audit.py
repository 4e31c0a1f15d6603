"""The audit of one run: what its people saw against what Redis and PostgreSQL say of its show."""

from typing import Final

import asyncpg
import redis
import structlog

from loadtest.audit.books import Books, open_books
from loadtest.audit.inspection import Inspection
from loadtest.audit.invariants import BookChecks, ClientChecks
from loadtest.audit.screens import check_likes, check_offences, check_shown
from loadtest.audit.seen import Seen
from loadtest.report.summary import Audit

# ValueError: an address that is none of one server.
UNREADABLE: Final = (
    OSError, ValueError, redis.RedisError, asyncpg.PostgresError, asyncpg.InterfaceError,
)  # fmt: skip

log = structlog.get_logger()


async def audit(
    seen: Seen, redis_url: str, database_url: str, show: str, *, settle_s: float
) -> Audit:
    """Audit the run's `show`, which must still be live; its sales may be over.

    Waits up to `settle_s` for the books to come to rest. Without both URLs, or when a server does
    not answer or is no single one (not ok then, without a finding of its own), only what clients
    saw is checked.
    """
    if not (redis_url and database_url):
        return judged(seen, None)
    try:
        async with open_books(redis_url, database_url, show, seen.zero_us) as reader:
            books = await reader.books(settle_s)
    except UNREADABLE as error:
        log.warning("audit_without_books", error=f"{type(error).__name__}: {error}")
        return judged(seen, None, is_complete=False)
    return judged(seen, books)


def judged(seen: Seen, books: Books | None, *, is_complete: bool = True) -> Audit:
    """What is to be said of the run. `is_complete` False: the books should have been there."""
    checks: Inspection
    if books is None:
        checks = ClientChecks(seen, None)
        checks.check()
    else:
        checks = BookChecks(seen, books)
        checks.check()
        check_shown(checks, books)
        check_likes(checks, books)
    check_offences(checks, books)
    found = checks.found.made()
    return Audit(
        scope="clients" if books is None else "full",
        ok=is_complete and not found,
        checked=dict(checks.checked),
        findings=found,
        explained=checks.explained.made(),
    )
