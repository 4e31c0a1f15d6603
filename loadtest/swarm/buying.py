"""Buying as the client SDK does it: one id until there is an answer that decides.

A claim is sent again with its old id, attempt + 1, when it was refused for now or its connection
was lost; with the proof of a hold once there was one. What it is told is checked: the same id gets
the same answer, always.
"""

from asyncio import TimerHandle
from collections.abc import Callable
from typing import Final

import uuid_utils
from msgspec import UNSET, UnsetType

from loadtest.measures.claims import REPEATED, ClaimTable
from loadtest.swarm.connection import Connection
from loadtest.swarm.entrance import Swarm, Who
from loadtest.swarm.sight import Fault
from server.protocol.messages import (
    Accepted,
    Claim,
    ClaimState,
    OrderEvent,
    OrderStatus,
    Proof,
    RefusedReply,
)

RETRY_MIN_MS: Final = 300
RETRY_MAX_MS: Final = 5_000
ATTEMPTS_MAX: Final = 200
HOLD_ASK_US: Final = 3_000_000  # a hold without news is asked for this often
STORED: Final = frozenset({"confirmed", "paid", "fulfilled", "expired", "cancelled", "refunded"})
RELEASED: Final = "released_by_incident"


class Terms:
    """What is bought now."""

    def __init__(self, sale: int, price_version: int) -> None:
        self.sale = sale
        self.price_version = price_version


class Purchase:
    """One claim of one user. `phase`: sending, unknown (it may have arrived), given_up (sent
    ATTEMPTS_MAX times: it may have arrived, but goes out no more), held, stored, refused, released.
    The last three are over."""

    __slots__ = ("answer", "asked_us", "attempt", "buyer", "claim_id", "order_id", "phase",
                 "price_version", "quantity", "row", "sale", "status", "timer")  # fmt: skip

    def __init__(
        self, buyer: "Buyer", row: int, claim_id: str, terms: Terms, quantity: int
    ) -> None:
        self.buyer = buyer
        self.row = row
        self.claim_id = claim_id
        self.sale = terms.sale
        self.price_version = terms.price_version
        self.quantity = quantity
        self.attempt = 0
        self.phase = "sending"
        self.status = ""
        self.answer: ClaimState | None = None  # the hold
        self.order_id = 0
        self.asked_us = 0
        self.timer: TimerHandle | None = None

    @property
    def undecided(self) -> bool:
        """Whether it goes out again when it can."""
        return self.phase in ("sending", "unknown")

    @property
    def open(self) -> bool:
        """Whether there is more to come."""
        return self.phase in ("sending", "unknown", "given_up", "held")

    def command(self, ref: int) -> Claim:
        """The claim as it goes out next."""
        proof: Proof | UnsetType = UNSET
        if self.answer is not None and self.answer.receipt:
            held = self.answer
            proof = Proof(held.receipt, held.epoch, held.seq, held.price)
        content = self.sale, self.claim_id, self.quantity, self.price_version
        return Claim(ref, *content, self.attempt, proof)


class Till:
    """The claims of all buyers of a loader. `unsettled`: those with more to come."""

    def __init__(self, swarm: Swarm, terms: Terms) -> None:
        self.swarm = swarm
        self.terms = terms
        self.table = ClaimTable(swarm.measured)
        self.unsettled: set[Purchase] = set()

    def ask(self, *, everyone: bool = False) -> None:
        """Ask for the holds that have had no news for a while, or for all that is open."""
        now_us = self.swarm.now_us()
        for purchase in self.unsettled:
            due = now_us - purchase.asked_us >= HOLD_ASK_US and purchase.phase == "held"
            if (due or everyone) and purchase.buyer.signed_in:
                purchase.asked_us = now_us
                purchase.buyer.ask(purchase)


class Buyer(Connection):
    """A connection that can claim. Sockets of one user share `purchases` (by claim id)."""

    __slots__ = ("_asked", "_newest", "crowd_number", "on_stored", "purchases", "till")
    patient = True  # waits as long as the server says

    def __init__(self, swarm: Swarm, who: Who, till: Till, crowd_number: int) -> None:
        super().__init__(swarm, who)
        self.till = till
        self.crowd_number = crowd_number
        self.purchases: dict[str, Purchase] = {}
        self._asked: dict[int, tuple[Purchase, int]] = {}  # ref -> claim, attempt (-1: status)
        self._newest: Purchase | None = None
        self.on_stored: Callable[[Purchase], None] | None = None

    @property
    def busy(self) -> bool:
        """Whether its newest claim waits for an answer."""
        return self._newest is not None and self._newest.undecided

    def claim(self, intended_us: int, quantity: int) -> None:
        """Make a claim and send it."""
        made = uuid_utils.uuid7()
        terms = self.till.terms
        row = self.till.table.intend(
            self.name,
            made.bytes,
            crowd=self.crowd_number,
            sale=terms.sale,
            quantity=quantity,
            intended_us=intended_us,
            room=self.room,
        )
        purchase = self._newest = Purchase(self, row, str(made), terms, quantity)
        self.purchases[purchase.claim_id] = purchase
        self.till.unsettled.add(purchase)
        self.swarm.counts["claims_intended"] += 1
        self._send_claim(purchase)
        self.swarm.acted(intended_us, self.swarm.now_us())

    def _send_claim(self, purchase: Purchase) -> None:
        ref = self.next_ref()
        self._asked[ref] = purchase, purchase.attempt
        purchase.phase, purchase.timer = "sending", None
        self.send(purchase.command(ref))
        self.till.table.sent(purchase.row, self.swarm.now_us())

    def repeat(self, purchase: Purchase) -> None:
        """The same claim once more, if it is still undecided and there is a connection."""
        purchase.timer = None
        if purchase.undecided and self.signed_in:
            purchase.attempt += 1
            self._send_claim(purchase)

    def ask(self, purchase: Purchase) -> None:
        """What became of it?"""
        ref = self.next_ref()
        self._asked[ref] = purchase, -1
        self.send(OrderStatus(ref, purchase.claim_id))

    # --- Answers ------------------------------------------------------------------------------

    def on_accepted(self, reply: Accepted) -> None:
        asked = self._asked.pop(reply.ref, None)
        answer = reply.claim or reply.order
        if answer is not None and asked is not None:
            self._told(asked[0], answer)

    def on_order(self, event: OrderEvent) -> None:
        self.swarm.counts["orders_told"] += 1
        purchase = self.purchases.get(event.order.claim_id)
        if purchase is None:
            self._offend("foreign_claim", "no such claim", event.order.claim_id)
        else:
            self._told(purchase, event.order)

    def on_refused(self, reply: RefusedReply) -> None:
        purchase, attempt = self._asked.pop(reply.ref or -1, (None, 0))
        if purchase is None or attempt != purchase.attempt or not purchase.undecided:
            return  # a question, or not the newest attempt
        is_decision, is_last = reply.name not in REPEATED, purchase.attempt >= ATTEMPTS_MAX
        final = is_decision or is_last
        self.till.table.refused(purchase.row, self.swarm.now_us(), reply.code, final=final)
        if is_decision:
            self._refused(purchase, reply)
        elif is_last:
            purchase.phase = "given_up"
            self.swarm.counts["given_up"] += 1
        else:
            self.swarm.counts[f"retried.{reply.name}"] += 1
            self._repeat_later(purchase, reply.retry_ms)

    def _refused(self, purchase: Purchase, reply: RefusedReply) -> None:
        if purchase.answer is not None:
            self._offend("two_answers", "held", reply.name)
        purchase.status = reply.name
        self.swarm.counts["refused"] += 1
        self._over(purchase, "refused")

    def _repeat_later(self, purchase: Purchase, hint_ms: int) -> None:
        purchase.phase = "unknown"
        delay_ms = 50.0
        if self.patient:
            step = max(hint_ms, RETRY_MIN_MS) * 2 ** min(purchase.attempt, 5)
            delay_ms = min(step, RETRY_MAX_MS) * (0.75 + self.swarm.rng.random() / 2)
        purchase.timer = self.swarm.loop.call_later(delay_ms / 1000, self.repeat, purchase)

    def _told(self, purchase: Purchase, answer: ClaimState) -> None:
        """An answer, by whatever way. `not_seen` is never final."""
        if answer.status == "not_seen":
            self._not_seen(purchase)
            return
        self._check(purchase, answer)
        if answer.status == "held":
            self._held(purchase, answer)
        elif answer.status == RELEASED:
            self._released(purchase)
        elif answer.status in STORED:
            self._stored(purchase, answer)

    def _not_seen(self, purchase: Purchase) -> None:
        if purchase.phase == "given_up":
            self.till.unsettled.discard(purchase)
        elif purchase.open and purchase.timer is None and not self.swarm.ended:
            self._repeat_later(purchase, RETRY_MIN_MS)

    def _held(self, purchase: Purchase, answer: ClaimState) -> None:
        if purchase.phase not in ("sending", "unknown", "given_up", "refused"):
            return
        again = purchase.answer is not None
        purchase.phase, purchase.answer = "held", answer
        purchase.asked_us = self.swarm.now_us()
        self.till.unsettled.add(purchase)
        if not again:
            self.till.table.held(purchase.row, purchase.asked_us, answer.epoch, answer.seq)
            self.swarm.counts["held"] += 1

    def _stored(self, purchase: Purchase, answer: ClaimState) -> None:
        if answer.status != purchase.status:
            purchase.status = answer.status
            self.swarm.counts[f"told.{answer.status}"] += 1
        if purchase.phase == "stored":
            return
        now_us = self.swarm.now_us()
        if purchase.answer is None:
            self.swarm.counts["held"] += 1
        self.till.table.confirmed(purchase.row, now_us, answer.order_id, answer.epoch, answer.seq)
        self.swarm.counts["confirmed"] += 1
        purchase.order_id, purchase.answer = answer.order_id, purchase.answer or answer
        self._over(purchase, "stored")
        if answer.pay_by and purchase.buyer.on_stored:
            purchase.buyer.on_stored(purchase)

    def _released(self, purchase: Purchase) -> None:
        """Rare and by contract: the server lost the hold and says so."""
        if purchase.status == RELEASED:
            return
        purchase.status = RELEASED
        self.swarm.counts["released_by_incident"] += 1
        self.till.table.refused(purchase.row, self.swarm.now_us(), 0, final=True)
        self._over(purchase, "released")

    def _over(self, purchase: Purchase, phase: str) -> None:
        purchase.phase = phase
        if purchase.timer:
            purchase.timer.cancel()
            purchase.timer = None
        self.till.unsettled.discard(purchase)

    # --- The same id gets the same answer -----------------------------------------------------

    def _check(self, purchase: Purchase, answer: ClaimState) -> None:
        if purchase.phase == "refused":
            self._offend("two_answers", f"refused {purchase.status}", answer.status)
        if purchase.order_id and answer.order_id not in (0, purchase.order_id):
            self._offend("order_changed", f"order {purchase.order_id}", f"order {answer.order_id}")
        was, now = purchase.answer, _content(answer)
        if was is not None and now != _content(was):
            self._offend("two_answers", str(_content(was)), str(now))
        if was is not None and answer.epoch == was.epoch and answer.seq != was.seq:
            self._offend("two_answers", f"place {was.seq}", f"place {answer.seq}")
        if now[:2] != (purchase.sale, purchase.quantity):
            self._offend("two_answers", str((purchase.sale, purchase.quantity)), str(now))

    def _offend(self, kind: str, was: str, now: str) -> None:
        self.swarm.offend(Fault(kind, was, now), self.name, self.room)

    # --- Connection ---------------------------------------------------------------------------

    def on_signed_in(self) -> None:
        """As a page does when it is back: undecided claims go out again, holds are asked for."""
        for purchase in self.purchases.values():
            self.till.table.back(purchase.row, self.swarm.now_us())
            if purchase.undecided and purchase.timer is None and purchase.phase == "unknown":
                self.repeat(purchase)
            elif purchase.phase in ("given_up", "held"):
                self.ask(purchase)

    def on_away(self) -> None:
        self._asked.clear()
        for purchase in self.purchases.values():
            if purchase.open:
                self.till.table.cut(purchase.row, self.swarm.now_us())
            if purchase.phase == "sending":
                purchase.phase = "unknown"


def _content(answer: ClaimState) -> tuple[int, int, int]:
    """What must never change. The place may, with the epoch, when Redis has lost its data."""
    return answer.sale, answer.quantity, answer.price
