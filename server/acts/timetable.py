"""What happens to sales by the clock alone: opening at their time, closing at their window's end.

Claims need none of it: the claim script compares Redis time with the window itself. This keeps
the books and what viewers see in step. Safe to run in many workers at once.
"""

from typing import Final

from server.acts.desk import Clock
from server.acts.projector import Projector
from server.errors import Refused
from server.records import sales
from server.records.pool import Pool, acquire
from server.records.transaction import transaction

DUE_ROWS: Final = 100  # sales of each kind handled in one round


class Timetable:
    """Raises StoreUnavailable and RecordsUnavailable; the next round goes on."""

    def __init__(self, pool: Pool, projector: Projector, clock: Clock) -> None:
        self._pool = pool
        self._projector = projector
        self._clock = clock

    async def open_due(self) -> int:
        """Scheduled sales whose time has come are open now; how many."""
        async with acquire(self._pool) as conn:
            due = await sales.sales_opening(conn, self._clock.now_ms(), DUE_ROWS)
        for sale_id, show_id in due:
            async with transaction(self._pool) as conn:
                await sales.lock_sale(conn, show_id, sale_id)
                await sales.set_open(conn, sale_id)
            await self._project(sale_id)
        return len(due)

    async def close_due(self) -> int:
        """Sales whose window has ended start closing; how many.

        The lock makes a restock that is being committed visible to the closing that follows.
        """
        async with acquire(self._pool) as conn:
            due = await sales.sales_overdue(conn, self._clock.now_ms(), DUE_ROWS)
        for sale_id, show_id in due:
            async with transaction(self._pool) as conn:
                await sales.lock_sale(conn, show_id, sale_id)
                await sales.set_closing(conn, sale_id)
            await self._project(sale_id)
        return len(due)

    async def _project(self, sale_id: int) -> None:
        """A refusal (the stock is being rebuilt) leaves it to the sweep."""
        try:
            await self._projector.project_sale(sale_id)
        except Refused:
            return
