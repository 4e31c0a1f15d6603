"""Payments: begun for buyers, moved by what providers say, and finished whatever happens.

A provider's event is committed before anything follows from it, then handled in one transaction
with the order's row. What comes too late for its order is decided by a re-take: Redis is asked for
the units again, and the order worker books them or refuses (records/retakes.py). All of it may be
done many times and by many processes; the payer (orders/payer.py) finishes what crashes left over.
"""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Final

import structlog
from msgspec import Struct

from server import clock
from server.acts.order_projector import OrderProjector
from server.domain.identity import Identity
from server.domain.money import line_total
from server.domain.payment import step_after
from server.domain.rehearsal import is_shadow
from server.errors import RecordsUnavailable, Refused, StoreUnavailable
from server.payments.provider import (
    Ack,
    BadSignature,
    Intent,
    Provider,
    ProviderRefused,
    ProviderUnavailable,
    RefundRequest,
)
from server.payments.registry import Providers
from server.records import payments
from server.records.order_life import hold_pools, move_orders, wait_at_most
from server.records.payments import (
    DueRefund,
    HeldEvent,
    NewEvent,
    OpenPayment,
    OrderToPay,
    PaymentPlace,
    WaitingRetake,
)
from server.records.pool import Connection, Pool, acquire
from server.records.transaction import transaction
from server.store.stock import Stock
from server.store.types import Retake

log = structlog.get_logger()

# Events of one sale wait for one row, so webhooks handle few at once: the process's connections are
# needed to store what else comes, and by buyers.
HANDLED_AT_ONCE: Final = 2
HANDLED_SOON_S: Final = 2.0  # who waits longer leaves the event to the payer
LOOK_AGAIN_S: Final = 1.0  # at a late payment that cannot be decided now
RULING_S: Final = 5.0  # for the order worker to rule on a re-take, before Redis is asked again

# What Redis answers when the units cannot be had: the payment goes back.
_NOT_TO_BE_HAD: Final = frozenset({"sold_out", "out_of_stock", "limit_reached"})


class PaymentView(Struct, frozen=True):
    """A payment as its buyer sees it. `pay_url`: where to pay, relative to our pages or absolute;
    empty when nothing is left to pay. `amount` in minor units."""

    payment_id: str
    order_id: int
    provider: str
    status: str
    amount: int
    currency: str
    pay_url: str


class PaymentActs:
    """All of it may raise RecordsUnavailable; repeating is always right."""

    def __init__(
        self, pool: Pool, stock: Stock, projector: OrderProjector, providers: Providers
    ) -> None:
        self.pool = pool
        self.providers = providers
        self._stock = stock
        self._projector = projector
        self._hands = asyncio.Semaphore(HANDLED_AT_ONCE)

    # --- Buyers ---------------------------------------------------------------------------------

    async def begin(self, identity: Identity, show_id: str, order_id: int) -> PaymentView:
        """The payment of the buyer's own unpaid order: the open one, or a new one.

        Raises Refused: forbidden, not_found (no such order of theirs, or nobody takes payments),
        conflict (nothing to pay any more, or the provider refuses), unavailable (the provider is
        away: ask again).
        """
        if not identity.covers(show_id):
            raise Refused("forbidden", "The token is for another show")
        provider = self.providers.chosen
        if provider is None:
            raise Refused("not_found", "Nobody takes payments here")
        if is_shadow(show_id) and provider.name != "demo":
            raise Refused("forbidden", "A rehearsal moves no money")
        payment_id = clock.new_uuid7()
        async with transaction(self.pool) as conn:
            order = _payable(await payments.order_to_pay(conn, show_id, order_id, identity.user))
            amount = line_total(order.price, order.quantity)
            opened = await payments.open_payment(
                conn, payment_id, provider.name, show_id, identity.user, order, amount
            )
        if opened is None:
            raise Refused("conflict", "The payment has just moved on")
        if amount == 0:
            return await self._take_for_nothing(show_id, opened)
        if not opened.pay_url:
            opened = await self._ask_for_link(provider, show_id, order, opened)
        return _view(opened)

    async def _ask_for_link(
        self, provider: Provider, show_id: str, order: OrderToPay, opened: OpenPayment
    ) -> OpenPayment:
        """The provider makes one payment of one id: a crash before the link is stored is mended
        by the next call."""
        description = f"{order.product} {order.sku} x {order.quantity}"
        intent = Intent(
            opened.payment_id, show_id, opened.order_id, opened.amount, opened.currency, description
        )
        try:
            created = await provider.create_intent(intent)
        except ProviderUnavailable as outage:
            log.warning("payment_provider_away", provider=provider.name, reason=str(outage))
            raise Refused("unavailable", "The payment provider does not answer") from None
        except ProviderRefused as refusal:
            log.error("payment_refused", provider=provider.name, reason=str(refusal))
            raise Refused("conflict", "The payment provider refuses this payment") from None
        async with acquire(self.pool) as conn:
            await payments.set_intent(conn, opened.payment_id, *created)
        return opened._replace(pay_url=created.pay_url)

    async def _take_for_nothing(self, show_id: str, opened: OpenPayment) -> PaymentView:
        """An order that costs nothing is paid by asking to pay it."""
        place = PaymentPlace(opened.payment_id, show_id, opened.order_id)
        async with transaction(self.pool) as conn:
            nothing = HeldEvent("captured", "", opened.payment_id, 0, opened.currency)
            if await _follow(conn, place, nothing) != "order_paid":
                raise Refused("conflict", "The order's time is over")
        await self._tell(show_id)
        return _view(opened._replace(status="captured"))

    # --- Providers ------------------------------------------------------------------------------

    async def receive(self, name: str, raw: bytes, headers: Mapping[str, str]) -> Ack:
        """A provider's webhook; what to answer once its event is durable.

        Raises Refused: not_found (no such provider), malformed (the signature is not the
        provider's, or not fresh); RecordsUnavailable: the provider has to repeat it.
        """
        provider = self.providers.by_name.get(name)
        if provider is None:
            raise Refused("not_found")
        try:
            event = provider.verify(raw, headers)
        except BadSignature as fault:
            log.warning("webhook_not_believed", provider=name, fault=str(fault))
            raise Refused("malformed", "The signature is not valid") from None
        new = NewEvent(
            name, event.event_id, event.kind, event.external_id, event.payment_id,
            event.amount, event.currency, event.occurred_at, raw,
        )  # fmt: skip
        async with acquire(self.pool) as conn:
            is_new = await payments.insert_event(conn, new)
        if is_new:
            await self._try_to_handle(name, event.event_id)
        return provider.ack

    async def _try_to_handle(self, provider: str, event_id: str) -> None:
        """The event is safe: whatever goes wrong now is done by the payer later."""
        try:
            async with asyncio.timeout(HANDLED_SOON_S):
                await self._hands.acquire()
        except TimeoutError:
            log.info("payment_event_left", provider=provider, reason="busy")
            return
        try:
            await self.handle(provider, event_id)
        except (RecordsUnavailable, Refused) as reason:
            log.warning("payment_event_left", provider=provider, reason=str(reason))
        except Exception:
            log.exception("payment_event_failed", provider=provider)
        finally:
            self._hands.release()

    async def due_events(self, limit: int) -> list[tuple[str, str]]:
        """(provider, event id) of events to be handled now by the caller, and by nobody else for a
        while."""
        async with acquire(self.pool) as conn:
            return await payments.take_events(conn, limit)

    async def handle_due(self, provider: str, event_id: str) -> bool:
        """`handle`, without waiting long for others; what goes wrong is kept with the event."""
        try:
            return await self.handle(provider, event_id, lock_wait_ms=payments.EVENT_LOCK_MS)
        except Exception as fault:
            async with acquire(self.pool) as conn:
                told = str(fault).partition("\n")[0]  # without the row's content
                why = f"{type(fault).__name__}: {told}"
                await payments.note_event_fault(conn, provider, event_id, why)
            raise

    async def handle(self, provider: str, event_id: str, *, lock_wait_ms: int = 0) -> bool:
        """Do what follows from a stored event, once. False: it is done, or in other hands.

        `lock_wait_ms`: for each row that somebody else holds; 0: as long as a statement may take.
        """
        async with transaction(self.pool) as conn:
            if lock_wait_ms:
                await wait_at_most(conn, lock_wait_ms)
            event = await payments.hold_event(conn, provider, event_id)
            if event is None:
                return False
            place = await payments.find_payment(conn, provider, event.payment_id, event.external_id)
            outcome = await _follow(conn, place, event) if place else "unknown_payment"
            found = place.payment_id if place else None
            await payments.finish_event(conn, provider, event_id, outcome, found)
        if event.payment_id and not place:  # ours, and the books have lost it
            log.error("payment_unknown", provider=provider, payment_id=str(event.payment_id))
        log.info("payment_event", provider=provider, kind=event.kind, outcome=outcome)
        if place and outcome.startswith("order_"):
            await self._tell(place.show_id)
        return True

    async def _tell(self, show_id: str) -> None:
        """Let the buyer's page see it at once; if that fails the sweep does it."""
        try:
            await self._projector.tell(show_id)
        except (RecordsUnavailable, StoreUnavailable, Refused) as reason:
            log.info("payment_not_told", show_id=show_id, reason=str(reason))

    # --- Late payments --------------------------------------------------------------------------

    async def retake(self, show_id: str, payment_id: uuid.UUID) -> bool:
        """Ask Redis for the units of an order that was paid too late, or end it with a refund.

        The payment's row is held meanwhile, so that nobody decides otherwise. Once Redis has taken
        the units the order worker decides, by the books: a refund decided here meanwhile makes it
        give them back. False: the payment does not wait any more, or is in other hands.
        """
        await self._tell(show_id)  # what comes back to the pool just now may be what is needed
        async with transaction(self.pool) as conn:
            waiting = await payments.hold_retake(conn, payment_id)
            if waiting is None:
                return False
            refusal = await self._ask_redis(payment_id, waiting)
            if refusal in _NOT_TO_BE_HAD or waiting.overdue:
                reason = refusal or "undecided"
                await payments.set_status(conn, payment_id, "refund_requested", reason)
            else:
                pause = LOOK_AGAIN_S if refusal else RULING_S
                await payments.postpone(conn, payment_id, pause, refusal)
        log.info("payment_late", show_id=show_id, payment_id=str(payment_id), refusal=refusal)
        return True

    async def _ask_redis(self, payment_id: uuid.UUID, waiting: WaitingRetake) -> str:
        """Why the units are not taken again; "" when they are, now or since an earlier call."""
        if not waiting.given:
            return "not_given_yet"
        w = waiting
        retake = Retake(
            payment_id.bytes, w.pool_id, w.buyer, w.quantity, w.counted, w.price, w.price_version
        )
        try:
            await self._stock.retake(w.show_id, retake)
        except Refused as refusal:
            return refusal.error.name
        except StoreUnavailable:
            return "redis_away"
        return ""

    # --- Refunds --------------------------------------------------------------------------------

    async def due_refunds(self, limit: int) -> list[DueRefund]:
        """Refunds to be asked for now by the caller, and by nobody else for a while."""
        async with acquire(self.pool) as conn:
            return await payments.take_refunds(conn, limit)

    async def refund(self, due: DueRefund) -> bool:
        """Ask the provider to give the money back. False: not yet, it is asked again later; or
        never, where it refuses: then an operator has to settle it (acts/refunds.py).

        Who was stopped for long looks again whether he is still to ask: he may hold an old attempt.
        """
        async with acquire(self.pool) as conn:
            if not await payments.start_attempt(conn, due):
                return False
        settle = payments.note_attempt
        try:
            error = await self._ask_to_refund(due)
        except ProviderUnavailable as outage:
            error = f"ProviderUnavailable: {outage}"
        except ProviderRefused as refusal:
            error = f"ProviderRefused: {refusal}"
            settle = payments.stop_refund
            log.error("refund_refused", payment_id=str(due.payment_id), reason=str(refusal))
        async with acquire(self.pool) as conn:
            if error:
                await settle(conn, due, error)
            elif await payments.set_refunded(conn, due.payment_id):
                log.error("refunded_twice", payment_id=str(due.payment_id))
        log.info("payment_refund", payment_id=str(due.payment_id), error=error)
        return not error

    async def _ask_to_refund(self, due: DueRefund) -> str:
        """Why it is not refunded yet; "" when it is. Raises ProviderUnavailable,
        ProviderRefused."""
        if due.amount == 0:  # no provider has ever heard of it
            return ""
        provider = self.providers.by_name.get(due.provider)
        if provider is None:
            raise ProviderRefused(f"the provider {due.provider} is not set up")
        request = RefundRequest(due.payment_id, due.external_id, due.amount, due.currency)
        state = await provider.refund(request)
        return "" if state == "refunded" else "pending at the provider"


async def _follow(conn: Connection, place: PaymentPlace, event: HeldEvent) -> str:
    """Take the step an event asks for, if any; what came of it, in a word."""
    await hold_pools(conn, place.show_id, [place.order_id])
    standing = await payments.hold_standing(conn, place.payment_id)
    step = step_after(event.kind, standing, event.amount, event.currency)
    if step.reason in ("refund_failed", "refunded_twice"):
        return await _leave_to_operator(conn, place, step.reason)
    if step.payment is None:
        return f"nothing:{standing.payment}"
    await payments.set_status(conn, place.payment_id, step.payment, step.reason, event.external_id)
    if step.order is None:
        return step.payment
    await move_orders(
        conn, place.show_id, [place.order_id],
        status_from=standing.order, status_to=step.order, reason="payment",
    )  # fmt: skip
    return f"order_{step.order}"


async def _leave_to_operator(conn: Connection, place: PaymentPlace, trouble: str) -> str:
    """A refund that failed after its provider had taken it on, or money that went back twice."""
    if trouble == "refund_failed":
        await payments.fail_refund(conn, place.payment_id, "the provider says that it failed")
    else:
        await payments.set_refunded_twice(conn, place.payment_id)
    log.error(trouble, payment_id=str(place.payment_id))
    return trouble


def _payable(order: OrderToPay | None) -> OrderToPay:
    if order is None:
        raise Refused("not_found", "No such order")
    if order.status != "confirmed" or not order.in_time:
        raise Refused("conflict", "The order has nothing to pay, or its time to pay is over")
    return order


def _view(opened: OpenPayment) -> PaymentView:
    return PaymentView(
        payment_id=str(opened.payment_id),
        order_id=opened.order_id,
        provider=opened.provider,
        status=opened.status,
        amount=opened.amount,
        currency=opened.currency,
        pay_url=opened.pay_url,
    )
