"""`livesale audit`: the report for people or programs, and the exit code."""

import asyncio
import json
import sys
from typing import Final

from server.audit.audit import audit
from server.audit.report import AuditReport
from server.config import Settings
from server.errors import Misconfigured, RecordsUnavailable, StoreUnavailable
from server.records.pool import open_pool
from server.store.client import RedisClients

EXIT_OK: Final = 0
EXIT_CANNOT_TELL: Final = 2  # wrong use, or a server does not answer
EXIT_PROBLEMS: Final = 11


def run(settings: Settings, show: str | None, as_json: bool) -> int:
    """Audit and print; the exit code: 0 all well, 11 problems, 2 cannot tell."""
    try:
        report = asyncio.run(_run(settings, show))
    except (Misconfigured, StoreUnavailable, RecordsUnavailable) as error:
        _print(json.dumps({"ok": None, "error": str(error)}) if as_json else f"audit: {error}")
        return EXIT_CANNOT_TELL
    _print(report.to_json() if as_json else report.to_text())
    return EXIT_OK if report.is_ok else EXIT_PROBLEMS


async def _run(settings: Settings, show: str | None) -> AuditReport:
    clients = await RedisClients.open(settings.redis_url)
    try:
        pool = await open_pool(settings.database_url, size=1)
        try:
            return await audit(clients, pool, show)
        finally:
            pool.terminate()
    finally:
        await clients.aclose()


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
