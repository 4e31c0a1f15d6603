"""Acts on dead letters: looking at them, and deciding what becomes of their units.

- redrive: the take is booked at its own place. Its claim becomes `confirmed`.
- give back: its units return to the pool. Its claim becomes `released_by_incident`.

Each is committed with its audit line first (server/records/dead_letters.py); buyers and viewers are
told right after that, or by the projector's sweep. Asked again, a decision is answered as made.
"""

from server.acts.desk import Desk, Permission
from server.acts.messages import DeadLettersQuery
from server.acts.views import DeadLetterView, dead_letter_view
from server.domain.identity import Identity, require_host
from server.records import dead_letters
from server.records.dead_letters import Decided


class DeadLetterActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown).

    `permission` says who may: the show's host, and operators at their terminal.
    """

    def __init__(self, desk: Desk, permission: Permission = require_host) -> None:
        self._desk = desk
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
        letter, projector = decided.letter, self._desk.projector
        await self._desk.apply(projector.orders.tell(letter.show_id))
        await self._desk.apply(projector.letters.tell(letter.show_id, letter.dead_letter_id))
        return dead_letter_view(letter)
