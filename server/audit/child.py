"""An audit in a process of its own: whoever serves viewers keeps its time and memory for them."""

import asyncio
import sys
from dataclasses import dataclass
from typing import Final

import msgspec

from server import config
from server.audit.command import EXIT_OK, EXIT_PROBLEMS
from server.audit.report import ShowReport
from server.config import Settings
from server.errors import StoreUnavailable

SECONDS_MAX: Final = 120.0


@dataclass(frozen=True, slots=True)
class _Printed:
    """What `livesale audit --json` prints."""

    shows: list[ShowReport]


async def audit_in_child(settings: Settings, show_id: str) -> ShowReport:
    """Audit one show that exists. Raises StoreUnavailable when there is no report within
    SECONDS_MAX; the process ends with the call."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server.cli", "audit", "--json", "--show", show_id),
        env=config.environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(SECONDS_MAX):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise StoreUnavailable("the audit took too long") from None
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode not in (EXIT_OK, EXIT_PROBLEMS):
        raise StoreUnavailable(f"the audit ended with {process.returncode}: {printed[:500]!r}")
    (report,) = msgspec.json.decode(printed, type=_Printed).shows
    return report
