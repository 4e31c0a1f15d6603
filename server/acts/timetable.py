"""What happens to sales by the clock alone: opening at their time, closing at their window's end.

Claims need none of it: the claim script compares Redis time with the window itself. This keeps
the books and what viewers see in step. Safe to run in many workers at once.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

from server.acts.desk import Clock
from server.acts.projector import Projector
from server.acts.work import Work
from server.errors import Refused
from server.records import sales
from server.records.pool import Connection, Pool, acquire
from server.records.transaction import transaction

DUE_ROWS: Final = 100  # sales of each kind handled in one round

# (sale, show) pairs that are due at a Redis time in ms, at most so many.
Find: TypeAlias = Callable[[Connection, int, int], Awaitable[list[tuple[int, str]]]]


class Timetable:
    """One sale that cannot be done keeps no other from its time.

    Raises StoreUnavailable and RecordsUnavailable, after all else is done or after a few in a row
    (acts/work.py); the next round goes on.
    """

    def __init__(self, pool: Pool, projector: Projector, clock: Clock) -> None:
        self._pool = pool
        self._projector = projector
        self._clock = clock
        self._troubled: set[object] = set()

    async def open_due(self) -> int:
        """Scheduled sales whose time has come are open now; how many."""
        return await self._all_due(sales.sales_opening, self._open)

    async def close_due(self) -> int:
        """Sales whose window has ended start closing; how many."""
        return await self._all_due(sales.sales_overdue, self._close)

    async def _all_due(self, find: Find, act: Callable[[int, str], Awaitable[int]]) -> int:
        async with acquire(self._pool) as conn:
            due = await find(conn, self._clock.now_ms(), DUE_ROWS)
        work = Work(self._troubled)
        await work.each(act, due)
        return work.end()

    async def _open(self, sale_id: int, show_id: str) -> int:
        async with transaction(self._pool) as conn:
            await sales.lock_sale(conn, show_id, sale_id)
            await sales.set_open(conn, sale_id)
        return await self._project(sale_id)

    async def _close(self, sale_id: int, show_id: str) -> int:
        """The lock makes a restock that is being committed visible to the closing that follows."""
        async with transaction(self._pool) as conn:
            await sales.lock_sale(conn, show_id, sale_id)
            await sales.set_closing(conn, sale_id)
        return await self._project(sale_id)

    async def _project(self, sale_id: int) -> int:
        """A refusal (the stock is being rebuilt) leaves it to the sweep."""
        with suppress(Refused):
            await self._projector.project_sale(sale_id)
        return 1
