"""Acts on single orders: what hosts and buyers do with them, and their history.

Each is one conditional step in PostgreSQL (server/domain/order.py has the edges), so of a
cancellation, a payment and an expiry at the same moment one wins and the others are refused with
`conflict`. Asked again, a step that is done is answered as done. Units that come back and the news
for the buyer reach Redis right after the commit, or by the projector's sweep.

- cancel: a confirmed order. The host may always; a buyer only while the order waits for payment.
- refund: a paid order. Its captured payment goes back to the buyer, by the order worker's process.
- fulfil: a paid order; the host has done their part.
"""

from typing import Final, Literal

from server.acts.desk import Act, Desk
from server.acts.views import OrderDetail, OrderView, order_detail, order_view
from server.domain.identity import Identity
from server.domain.order import MoveReason, OrderStatus
from server.errors import Refused
from server.records import order_life, order_list, payments
from server.records.order_life import move_orders
from server.records.order_list import OrderRow
from server.records.pool import Connection, acquire
from server.records.transaction import transaction

HostStep = Literal["cancel", "refund", "fulfil"]

_STEPS: Final[dict[HostStep, tuple[OrderStatus, OrderStatus]]] = {
    "cancel": ("confirmed", "cancelled"),
    "refund": ("paid", "refunded"),
    "fulfil": ("paid", "fulfilled"),
}


class OrderActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown)."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def history(self, identity: Identity, show_id: str, order_id: int) -> OrderDetail:
        """An order with every step it took and its payments. Raises Refused(not_found)."""
        async with self._desk.reading(identity, show_id) as act:
            row = await _found(act.conn, show_id, order_id)
            moves = await order_life.moves_of_order(act.conn, order_id)
            paid = await order_life.payments_of_order(act.conn, order_id)
        return order_detail(row, moves, paid)

    async def move(
        self, identity: Identity, show_id: str, order_id: int, step: HostStep
    ) -> OrderView:
        """A step by the host. Raises Refused: not_found, conflict (its status forbids it)."""
        async with self._desk.act(identity, show_id, ended=True) as act:
            await _found(act.conn, show_id, order_id)
            if await _step(act.conn, show_id, order_id, _STEPS[step], "host", identity.user):
                await _follow_up(act, order_id, step)
        return await self._told(show_id, order_id)

    async def cancel_own(self, identity: Identity, show_id: str, order_id: int) -> OrderView:
        """A buyer gives an unpaid order back. Raises Refused: forbidden (a token of another show),
        not_found (also for somebody else's order), conflict (paid, expired or complete)."""
        if not identity.covers(show_id):
            raise Refused("forbidden", "The token is for another show")
        async with transaction(self._desk.pool) as conn:
            order = await _found(conn, show_id, order_id, buyer=identity.user)
            if not order.pay_by:
                raise Refused("conflict", "The order is complete")
            await _step(conn, show_id, order_id, _STEPS["cancel"], "buyer", identity.user)
        return await self._told(show_id, order_id)

    async def _told(self, show_id: str, order_id: int) -> OrderView:
        """Tell Redis now if it can be done, and show how the order stands."""
        await self._desk.apply(self._desk.projector.orders.tell(show_id))
        async with acquire(self._desk.pool) as conn:
            return order_view(await _found(conn, show_id, order_id))


async def _found(
    conn: Connection, show_id: str, order_id: int, buyer: str | None = None
) -> OrderRow:
    row = await order_list.get_order(conn, show_id, order_id, buyer)
    if row is None:
        raise Refused("not_found", "No such order")
    return row


async def _step(
    conn: Connection,
    show_id: str,
    order_id: int,
    step: tuple[OrderStatus, OrderStatus],
    reason: MoveReason,
    actor: str,
) -> bool:
    """Take it. False when the order had taken it before; Refused(conflict) when it cannot."""
    status_from, status_to = step
    moved = await move_orders(
        conn, show_id, [order_id], status_from=status_from, status_to=status_to, reason=reason,
        actor=actor,
    )  # fmt: skip
    if moved:
        return True
    now = (await _found(conn, show_id, order_id)).status
    if now != status_to:
        raise Refused("conflict", f"The order is {now}")
    return False


async def _follow_up(act: Act, order_id: int, step: HostStep) -> None:
    """The audit line, and the money of a refund."""
    if step == "refund":
        await payments.request_refund(act.conn, order_id, "by_host")
    await act.note(f"{step}_order", {"order": order_id})
