"""Takes into the books, around those whose data PostgreSQL refuses."""

from collections.abc import Sequence

import structlog

from server.domain.claim import Take
from server.records import orders
from server.records.orders import DATA_ERRORS, CommitResult
from server.records.pool import Connection

log = structlog.get_logger()


async def enter(
    connection: Connection, show_id: str, epoch: int, takes: Sequence[Take]
) -> CommitResult:
    """One transaction; when a take's data is refused, halves, down to a dead letter.

    Raises StockIncident, RecordsUnavailable: what was entered by then is the same when repeated.
    """
    try:
        return await orders.commit_takes(connection, show_id, epoch, takes)
    except DATA_ERRORS as error:
        if len(takes) == 1:
            return await _bury(connection, show_id, epoch, takes[0], error)
    half = len(takes) // 2
    result = await enter(connection, show_id, epoch, takes[:half])
    result.absorb(await enter(connection, show_id, epoch, takes[half:]))
    return result


async def _bury(
    connection: Connection, show_id: str, epoch: int, take: Take, error: Exception
) -> CommitResult:
    where = {"show_id": show_id, "pool": take.pool, "seq": take.seq}
    log.error("take_refused_by_postgres", **where, error=type(error).__name__)
    faults = {(take.pool, take.seq): f"{type(error).__name__}: {error}"}
    return await orders.commit_takes(connection, show_id, epoch, [take], faults)
