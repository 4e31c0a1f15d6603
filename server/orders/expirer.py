"""Orders that were not paid in time: their units go back, and every viewer's counter rises.

PostgreSQL's clock decides, and its conditional UPDATE: an order that is being paid at the last
moment is either paid or expired, whoever asks (records/order_life.py). Every worker does this; all
of it may be done by many at once.
"""

import asyncio
from typing import Final

import structlog

from server import clock, limits
from server.acts.order_projector import OrderProjector
from server.errors import RecordsUnavailable, Refused, StoreDamaged, StoreUnavailable
from server.orders import metrics
from server.orders.waiting import keep_on
from server.records import order_life
from server.records.pool import Pool

log = structlog.get_logger()

ROUND_MS: Final = 300
BATCHES_PER_ROUND: Final = 20
TROUBLED_MS: Final = 2_000  # how long a show that could not be done is left out


class Expirer:
    """Expires the orders of all shows. `orders` tells Redis of them."""

    def __init__(self, pool: Pool, orders: OrderProjector) -> None:
        self._pool = pool
        self._orders = orders
        self._troubled: dict[str, float] = {}  # show -> monotonic ms until when it is left out

    async def run(self, stopping: asyncio.Event) -> None:
        """A round every 300 ms until `stopping` is set; outages are waited out."""
        await keep_on(self.round, stopping, every_ms=ROUND_MS, name="expirer")

    async def round(self) -> int:
        """Expire what is due, at most BATCHES_PER_ROUND batches; how many orders.

        One show's trouble does not keep the others waiting. When Redis is away orders expire all
        the same; StoreUnavailable is raised in the end, and the sweep tells later. Raises
        RecordsUnavailable.
        """
        expired = 0
        outage: StoreUnavailable | None = None
        for _ in range(BATCHES_PER_ROUND):
            due = await order_life.due_orders(self._pool, self._left_out(), limits.GIVE_BATCH_MAX)
            for show_id, order_ids in due.items():
                expired += await self._expire(show_id, order_ids)
                outage = outage or await self._tell(show_id)
            if not due:
                break
        if outage is not None:
            raise outage
        return expired

    def _left_out(self) -> list[str]:
        now_ms = clock.monotonic_ms()
        self._troubled = {s: until for s, until in self._troubled.items() if until > now_ms}
        return list(self._troubled)

    async def _expire(self, show_id: str, order_ids: list[int]) -> int:
        try:
            done = await order_life.expire(self._pool, show_id, order_ids)
        except RecordsUnavailable:
            raise
        except Exception:  # the books of this show; the others must not wait
            log.exception("expiry_failed", show_id=show_id)
            done = None
        if done is None:
            self._troubled[show_id] = clock.monotonic_ms() + TROUBLED_MS
            return 0
        metrics.expired.inc(done)
        return done

    async def _tell(self, show_id: str) -> StoreUnavailable | None:
        """The outage that keeps Redis from being told now. What concerns this show alone (it is
        being rebuilt, or damaged) is left to the sweep."""
        try:
            await self._orders.tell(show_id)
        except (Refused, StoreDamaged) as trouble:
            log.debug("expiry_told_later", show_id=show_id, reason=str(trouble))
        except StoreUnavailable as outage:
            return outage
        return None
