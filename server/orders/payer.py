"""What must happen to payments without anybody asking: events handled, late payments decided,
refunds given.

Every worker does this; all of it may be done by many at once (server/acts/payments.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from server.acts.payments import HANDLED_AT_ONCE, PaymentActs
from server.acts.work import Work
from server.orders import metrics
from server.orders.waiting import keep_on
from server.records import payments
from server.records.pool import acquire

ROUND_MS: Final = 300
ROWS: Final = 100  # of each kind in one round
REFUNDS_AT_ONCE: Final = 8  # questions to providers under way


class Payer:
    def __init__(self, acts: PaymentActs) -> None:
        self._acts = acts
        self._troubled: set[object] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Rounds every 300 ms until `stopping` is set; outages are waited out.

        Each kind of work has rounds of its own: late payments that wait for a silent Redis keep no
        refund waiting, and a silent provider no event.
        """
        kinds = (self.handle_events, self.decide_late, self.give_refunds)
        await asyncio.gather(
            *(keep_on(one, stopping, every_ms=ROUND_MS, name=one.__name__) for one in kinds)
        )

    async def round(self) -> None:
        """Once everything that is due. Raises RecordsUnavailable."""
        await self.handle_events()
        await self.decide_late()
        await self.give_refunds()

    async def handle_events(self) -> None:
        """Events that whoever received them has not handled; also counts what is unfinished."""
        async with acquire(self._acts.pool) as conn:
            unfinished = await payments.count_unfinished(conn)
        for kind, count in unfinished._asdict().items():
            metrics.payments_unfinished.labels(kind).set(count)
        events = await self._acts.due_events(ROWS)
        await self._each(self._acts.handle_due, events, at_once=HANDLED_AT_ONCE)

    async def decide_late(self) -> None:
        """Payments that came after their order had expired."""
        async with acquire(self._acts.pool) as conn:
            late = await payments.due_retakes(conn, ROWS)
        await self._each(self._acts.retake, late)

    async def give_refunds(self) -> None:
        """Refunds that are to be asked for now."""
        due = await self._acts.due_refunds(REFUNDS_AT_ONCE)
        await self._each(self._acts.refund, ((one,) for one in due), at_once=REFUNDS_AT_ONCE)

    async def _each(
        self,
        act: Callable[..., Awaitable[bool]],
        things: Iterable[tuple[Any, ...]],
        *,
        at_once: int = 1,
    ) -> None:
        work, shared = Work(self._troubled), iter(things)
        await asyncio.gather(*(work.each(act, shared) for _ in range(at_once)))
        work.end()
