"""Tells Redis what PostgreSQL decided about orders and units: gives, and orders that moved.

Everything is committed first and marked as told last, and every script ignores what it was told
before, so a crash anywhere leaves rows that the projector's sweep finds, and doing it twice (or by
two processes at once) changes nothing.

A give that comes to a sale after its end makes units available that nobody can claim: it is
followed by a closing take, which the order worker books and returns to the inventory.
"""

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any, Final, cast
from weakref import WeakValueDictionary

from server import limits
from server.records import order_life
from server.records.order_life import GiveRow, Untold, UntoldMove
from server.records.pool import Pool, acquire
from server.store.stock import Stock
from server.store.types import EVERY_HUB, Confirmation, Give, PoolCounters, Settled

BATCHES_MAX: Final = 20  # of GIVE_BATCH_MAX in one call of `tell`; the next one goes on
# Namespace of the act ids of takes that close a sale.
CLOSINGS: Final = uuid.UUID("6f6c7a52-6a0e-5d5c-9a3c-0d7a4f0c5a11")


class OrderProjector:
    """May raise StoreUnavailable and RecordsUnavailable; repeating is always right."""

    def __init__(self, pool: Pool, stock: Stock) -> None:
        self._pool = pool
        self._stock = stock
        self._telling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def tell(self, show_id: str, sale_id: int | None = None) -> int:
        """Tell Redis, the hubs and the viewers what is committed and untold, of a show or of one
        sale; how many gives and moves that were.

        Raises Refused(stock_rebuilding) while the stock is being rebuilt; the sweep tells later.
        """
        # One at a time in this process: the second would only publish the same again.
        async with self._telling.setdefault(show_id, asyncio.Lock()):
            told = 0
            for _ in range(BATCHES_MAX):
                told_now = await self._tell_some(show_id, sale_id)
                told += told_now
                if told_now < limits.GIVE_BATCH_MAX:
                    break
            return told

    async def _tell_some(self, show_id: str, sale_id: int | None) -> int:
        size = limits.GIVE_BATCH_MAX
        async with acquire(self._pool) as conn:
            untold = await order_life.read_untold(conn, show_id, sale_id, size)
        if not (untold.gives or untold.moves):
            return 0
        given = await self._give(show_id, untold)
        if untold.moves:
            await self._stock.confirm_batch(show_id, _confirmation(untold))
        move_ids = [move.move_id for move in untold.moves]
        async with acquire(self._pool) as conn:
            await order_life.mark_told(conn, [row.give_id for row in given], move_ids)
        return len(given) + len(move_ids)

    async def _give(self, show_id: str, untold: Untold) -> list[GiveRow]:
        """Apply the gives; those in force now. Redis may not have a pool yet."""
        if not untold.gives:
            return []
        gives = [_give(row) for row in untold.gives]
        counters = [PoolCounters(*row) for row in untold.pools]
        answers = await self._stock.give_batch(show_id, gives, counters)
        given = [row for row, answer in zip(untold.gives, answers, strict=True) if answer]
        await self._take_after_the_end(show_id, given)
        return given

    async def _take_after_the_end(self, show_id: str, gives: Iterable[GiveRow]) -> None:
        for sale_id, give_id in {row.pool_id: row.give_id for row in gives if row.closed}.items():
            act = uuid.uuid5(CLOSINGS, f"{sale_id}:{give_id}").bytes
            await self._stock.take(show_id, sale_id, act, None, close=True)


def _give(row: GiveRow) -> Give:
    return Give(
        give_id=row.give_id,
        pool=row.pool_id,
        units=row.units,
        reason=cast(Any, row.reason),
        buyer=row.buyer,
        claim_id=row.claim_id.bytes if row.claim_id else b"",
        forgiven=row.forgiven,
        order_id=row.order_id,
        pay_by_ms=row.pay_by_ms,
    )


def _confirmation(untold: Untold) -> Confirmation:
    """Each order that moved, once, as it is now, for all hubs; and the counters."""
    orders = {move.order_id: move for move in untold.moves}
    counters = [PoolCounters(*row) for row in untold.pools]
    return Confirmation([_settled(move) for move in orders.values()], counters)


def _settled(move: UntoldMove) -> Settled:
    return Settled(
        hub_id=EVERY_HUB,
        buyer=move.buyer,
        claim_id=move.claim_id.bytes,
        status=move.status,
        pool=move.pool_id,
        quantity=move.quantity,
        price=move.price,
        price_version=move.price_version,
        epoch=move.epoch,
        seq=move.seq,
        order_id=move.order_id,
        pay_by_ms=move.pay_by_ms,
        at_ms=move.confirmed_ms,
    )
