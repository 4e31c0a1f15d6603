"""Acts on dead letters: looking at them, and deciding what becomes of their units.

- redrive: the take is booked at its own place. Its claim becomes `confirmed`.
- give back: its units return to the pool. Its claim becomes `released_by_incident`.

Each is committed with its audit line first (server/records/dead_letters.py); buyers and viewers are
told right after that, or by the projector's sweep. Asked again, a decision is answered as made, and
what nobody can sweep up is told again.
"""

from typing import Final

from server.acts.desk import Desk, Permission
from server.acts.messages import DeadLettersQuery
from server.acts.views import DeadLetterView, dead_letter_view
from server.domain.claim import KIND_CLAIM
from server.domain.identity import Identity, require_host
from server.records import dead_letters
from server.records.dead_letters import Decided, Letter
from server.records.pool import acquire
from server.store.stock import Stock
from server.store.types import EVERY_HUB, Confirmation, PoolCounters, Settled

CLAIM_ID_BYTES: Final = 16


class DeadLetterActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown).

    `permission` says who may: the show's host, and operators at their terminal.
    """

    def __init__(self, desk: Desk, stock: Stock, permission: Permission = require_host) -> None:
        self._desk = desk
        self._stock = stock
        self._permission = permission

    async def list_all(
        self, identity: Identity, show_id: str, query: DeadLettersQuery
    ) -> list[DeadLetterView]:
        """A show's dead letters, newest first, older than letter `before`."""
        async with self._desk.reading(identity, show_id, self._permission) as act:
            letters = await dead_letters.list_letters(
                act.conn, show_id, query.status, query.before, query.limit
            )
        return [dead_letter_view(letter) for letter in letters]

    async def show(self, identity: Identity, show_id: str, letter_id: int) -> DeadLetterView:
        """One of them. Raises Refused(not_found)."""
        async with self._desk.reading(identity, show_id, self._permission) as act:
            return dead_letter_view(await dead_letters.get_letter(act.conn, show_id, letter_id))

    async def redrive(self, identity: Identity, show_id: str, letter_id: int) -> DeadLetterView:
        """Book it. Raises Refused: not_found, conflict (decided otherwise, or its fault is still
        there), out_of_stock, limit_reached, stock_rebuilding; nothing was changed then."""
        async with self._desk.act(identity, show_id, self._permission, ended=True) as act:
            decided = await dead_letters.redrive(act.conn, show_id, letter_id, identity.user)
            if not decided.before:
                detail = {"dead_letter": letter_id, "order": decided.order_id}
                await act.note("redrive_dead_letter", detail)
        return await self._told(decided)

    async def give_back(self, identity: Identity, show_id: str, letter_id: int) -> DeadLetterView:
        """Release it. Raises Refused: not_found, conflict (redriven already, or a host's take),
        stock_rebuilding; nothing was changed then."""
        async with self._desk.act(identity, show_id, self._permission, ended=True) as act:
            decided = await dead_letters.give_back(act.conn, show_id, letter_id)
            if not decided.before:
                detail = {"dead_letter": letter_id, "units": decided.letter.units}
                await act.note("give_back_dead_letter", detail)
        return await self._told(decided)

    async def _told(self, decided: Decided) -> DeadLetterView:
        """Tell Redis now if it can be done, and show how the letter stands."""
        letter = decided.letter
        await self._desk.apply(self._desk.projector.orders.tell(letter.show_id))
        if _has_no_row_to_sweep(letter):
            await self._desk.apply(self._tell_directly(letter))
        return dead_letter_view(letter)

    async def _tell_directly(self, letter: Letter) -> None:
        """What neither an order nor a give tells: a claim without units, a pool's counters."""
        async with acquire(self._desk.pool) as conn:
            row = await dead_letters.counters(conn, letter.pool_id)
        claims = [released] if (released := _released(letter)) else []
        counters = [PoolCounters(*row)] if row else []
        await self._stock.confirm_batch(letter.show_id, Confirmation(claims, counters))


def _has_no_row_to_sweep(letter: Letter) -> bool:
    take = letter.take
    if take is None:
        return False
    return letter.units == 0 if letter.status == "given_back" else take.kind != KIND_CLAIM


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
