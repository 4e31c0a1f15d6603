"""Tells Redis what was decided about dead letters where neither an order's step nor a give does it:
the claim without units is released, and the pool's counters are others.

As with those, it is marked as told last, so that a crash leaves what the projector's sweep finds.
"""

from typing import Final

from server.domain.claim import KIND_CLAIM
from server.records import dead_letters
from server.records.dead_letters import Letter
from server.records.pool import Pool, acquire
from server.store.stock import Stock
from server.store.types import EVERY_HUB, Confirmation, PoolCounters, Settled

CLAIM_ID_BYTES: Final = 16


class LetterProjector:
    """May raise StoreUnavailable and RecordsUnavailable; repeating is always right."""

    def __init__(self, pool: Pool, stock: Stock) -> None:
        self._pool = pool
        self._stock = stock

    async def tell(self, show_id: str, letter_id: int) -> bool:
        """Tell Redis, the hubs and the viewers of a decided letter. False: there is nothing to
        tell. Raises Refused(stock_rebuilding); the sweep tells later."""
        async with acquire(self._pool) as conn:
            letter = await dead_letters.untold_letter(conn, show_id, letter_id)
            if letter is None:
                return False
            row = await dead_letters.counters(conn, letter.pool_id)
        claims = [released] if (released := _released(letter)) else []
        counters = [PoolCounters(*row)] if row else []
        await self._stock.confirm_batch(show_id, Confirmation(claims, counters))
        async with acquire(self._pool) as conn:
            await dead_letters.mark_told(conn, letter_id)
        return True


def _released(letter: Letter) -> Settled | None:
    """Its claim, if it was one that a buyer may look up, as released."""
    take = letter.take
    if letter.status != "given_back" or take is None or take.kind != KIND_CLAIM:
        return None
    if len(take.claim_id) != CLAIM_ID_BYTES:
        return None
    return Settled(
        hub_id=EVERY_HUB,
        buyer=take.buyer,
        claim_id=take.claim_id,
        status="released_by_incident",
        pool=take.pool,
        quantity=take.quantity,
        price=take.price,
        price_version=take.price_version,
        epoch=letter.epoch,
        seq=letter.seq,
        order_id=0,
        pay_by_ms=0,
        at_ms=take.at_ms,
    )
