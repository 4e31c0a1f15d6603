"""A payment provider as the outside world has them: slow, forgetful, and exact about money.

It keeps its own books of what was captured and given back, tells of it by webhooks that come late,
twice, out of order and again until they are taken, and loses answers to what it was asked.
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from contextvars import Context
from dataclasses import dataclass, field

from server.payments.provider import (
    Ack,
    Intent,
    IntentCreated,
    ProviderEvent,
    ProviderUnavailable,
    RefundRequest,
    RefundState,
)
from server.payments.registry import Providers
from tests.simulation.shop import on_web
from tests.simulation.world import WebNode, World

NAME = "bank"


@dataclass(slots=True)
class Account:
    """One payment in the bank's books; amounts in minor units."""

    payment_id: uuid.UUID
    order_id: int
    amount: int
    currency: str
    captured: int = 0
    refunded: int = 0
    asked_to_refund: int = 0


@dataclass
class Bank:
    """The provider itself; one for all processes."""

    world: World
    accounts: dict[uuid.UUID, Account] = field(default_factory=dict)
    telling: set["asyncio.Task[None]"] = field(default_factory=set)

    def providers(self) -> Providers:
        provider = BankProvider(self)
        return Providers(provider, {NAME: provider})

    # --- What buyers do -----------------------------------------------------------------------

    def pay(self, payment_id: uuid.UUID) -> None:
        """The buyer's money is taken. Once: the bank's page knows that it was paid."""
        account = self.accounts.get(payment_id)
        if account is None or account.captured:
            return
        account.captured = account.amount
        self.world.note(f"bank captures {str(payment_id)[-6:]} of order {account.order_id}")
        self.tell(account, "captured")

    def fail(self, payment_id: uuid.UUID) -> None:
        """The buyer's card is refused; paying may succeed later."""
        account = self.accounts.get(payment_id)
        if account is not None and not account.captured:
            self.tell(account, "failed")

    # --- Webhooks -----------------------------------------------------------------------------

    def tell(self, account: Account, kind: str) -> None:
        rng = self.world.rng
        event = {
            "id": f"{kind}:{account.payment_id}", "kind": kind, "payment": str(account.payment_id),
            "amount": account.amount, "currency": account.currency,
            "at": self.world.network.wall_ms(),
        }  # fmt: skip
        raw = json.dumps(event).encode()
        for _ in range(1 if rng.random() < 0.8 else 2):
            delay = rng.uniform(2.0, 6.0) if rng.random() < 0.1 else rng.uniform(0.0, 0.3)
            # Of the bank's own, whichever process asked: that one may die.
            nobody = Context()
            task = self.world.loop.create_task(self._until_taken(raw, delay), context=nobody)
            self.telling.add(task)
            task.add_done_callback(self.telling.discard, context=nobody)

    async def _until_taken(self, raw: bytes, delay: float) -> None:
        await asyncio.sleep(delay)
        while (answer := await on_web(self.world, lambda node: _receive(node, raw))) != "taken":
            self.world.note(f"the bank was answered {answer}")
            await asyncio.sleep(self.world.rng.uniform(0.3, 1.0))


async def _receive(node: WebNode, raw: bytes) -> str:
    assert node.payments is not None
    await node.payments.receive(NAME, raw, {})
    return "taken"


class BankProvider:
    """server/payments/provider.py's Provider, as a process sees the bank."""

    name = NAME
    ack = Ack()

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def _line(self) -> None:
        """A question on its way. Raises ProviderUnavailable: it may have arrived."""
        world = self._bank.world
        await asyncio.sleep(world.network.delay() * 20)
        if world.network.is_over or world.rng.random() < 0.05:
            raise ProviderUnavailable("the bank does not answer")

    async def create_intent(self, intent: Intent) -> IntentCreated:
        await self._line()
        account = Account(intent.payment_id, intent.order_id, intent.amount, intent.currency)
        self._bank.accounts.setdefault(intent.payment_id, account)
        await self._line()
        return IntentCreated(f"ext-{intent.payment_id}", f"/pay/{intent.payment_id}")

    def verify(self, raw: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        event = json.loads(raw)
        payment_id = uuid.UUID(event["payment"])
        return ProviderEvent(
            event["id"], event["kind"], f"ext-{payment_id}", payment_id, event["amount"],
            event["currency"], event["at"],
        )  # fmt: skip

    async def refund(self, request: RefundRequest) -> RefundState:
        await self._line()
        account = self._bank.accounts[request.payment_id]
        account.asked_to_refund += 1
        if not account.refunded:
            account.refunded = account.captured
            self._bank.world.note(f"bank refunds {str(request.payment_id)[-6:]}")
            self._bank.tell(account, "refunded")
        await self._line()
        return "refunded" if self._bank.world.rng.random() < 0.8 else "pending"

    async def aclose(self) -> None:
        """Nothing is held."""
