"""Acts on refunds that do not end by themselves: asking the provider again, or settling by hand.

A provider that refuses a refund for good (the account is closed, the time for refunds is over), or
whose refund failed later, is not asked again by itself. The payment stays `refund_requested`, and
is listed, counted and named by the audit, until an operator decides; so is one that was settled by
hand and refunded by its provider as well. Each decision is committed with its audit line.
"""

import uuid
from contextlib import suppress
from typing import Final

from msgspec import Struct

from server.acts.desk import Desk, Permission
from server.domain.identity import Identity, require_host
from server.errors import Refused
from server.records import payments
from server.records.payments import HeldRefund, PaymentRow
from server.records.pool import acquire

NOTE_CHARS_MAX: Final = 500
REFUSED_MAX: Final = 1_000  # asked again in one call


class RefundView(Struct, frozen=True):
    """A payment whose money has to go back, or went. `amount` in minor units."""

    payment_id: str
    order_id: int
    status: str
    amount: int
    currency: str


class RefundActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown)."""

    def __init__(self, desk: Desk, permission: Permission = require_host) -> None:
        self._desk = desk
        self._permission = permission

    async def again(self, identity: Identity, payment_id: uuid.UUID) -> RefundView:
        """Have the provider asked again now. Raises Refused: not_found, conflict (nothing is to be
        refunded, or the provider is being asked just now)."""
        row = await self._payment(payment_id)
        async with self._desk.act(identity, row.show_id, self._permission, ended=True) as act:
            held = await payments.hold_refund(act.conn, payment_id)
            _check_due(held)
            if held.in_hand:
                raise Refused("conflict", "The provider is being asked: look again in a minute")
            await payments.refund_again(act.conn, payment_id)
            await act.note("refund_again", {"payment": str(payment_id)})
        return _view(row)

    async def all_again(self, identity: Identity) -> list[RefundView]:
        """`again` for those that providers refused, of every show, at most REFUSED_MAX; without
        what moves on meanwhile."""
        async with acquire(self._desk.pool) as conn:
            refused = await payments.list_payments(conn, refused=True, limit=REFUSED_MAX)
        asked = []
        for row in refused:
            with suppress(Refused):
                asked.append(await self.again(identity, row.payment_id))
        return asked

    async def by_hand(self, identity: Identity, payment_id: uuid.UUID, note: str) -> RefundView:
        """The money went back without the provider's help; `note` says how. Or it went back twice,
        and `note` says what was done about that.

        Raises Refused: bad_field (note), not_found, conflict (nothing is to be refunded, or its
        provider has not refused: it may have given the money back).
        """
        _check_note(note)
        row = await self._payment(payment_id)
        async with self._desk.act(identity, row.show_id, self._permission, ended=True) as act:
            held = await payments.hold_refund(act.conn, payment_id)
            if not held.refunded_twice:
                _check_refused(held)
            await payments.settle_by_hand(act.conn, payment_id)
            await act.note("refunded_by_hand", {"payment": str(payment_id), "note": note})
        return _view(row, status="refunded")

    async def _payment(self, payment_id: uuid.UUID) -> PaymentRow:
        async with acquire(self._desk.pool) as conn:
            row = await payments.get_payment(conn, payment_id)
        if row is None:
            raise Refused("not_found", "No such payment")
        return row


def _check_note(note: str) -> None:
    if not note.strip() or len(note) > NOTE_CHARS_MAX or "\0" in note:
        raise Refused("bad_field", f"1 to {NOTE_CHARS_MAX} characters", field="note")


def _check_due(held: HeldRefund) -> None:
    if not held.due:
        raise Refused("conflict", "Nothing of this payment is to be refunded")


def _check_refused(held: HeldRefund) -> None:
    """What was asked and not answered, or is pending at the provider, may have taken effect."""
    _check_due(held)
    if not held.refused:
        raise Refused("conflict", "The provider has not refused: it may have refunded already")


def _view(row: PaymentRow, status: str = "refund_requested") -> RefundView:
    return RefundView(str(row.payment_id), row.order_id, status, row.amount, row.currency)
