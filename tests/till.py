"""A bookshop where orders are paid: real books and stock, a provider that does what a test says.

The order worker's steps are done one by one (`book`), so that a test can stop between any two.
"""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec

from server import clock
from server.acts.order_projector import OrderProjector
from server.acts.payments import PaymentActs
from server.audit.audit import audit
from server.domain.identity import Identity
from server.errors import Refused
from server.orders.batch import Batch
from server.orders.payer import Payer
from server.payments.demo import DemoProvider
from server.payments.provider import RefundRequest, RefundState
from server.payments.registry import Providers
from server.records import order_life
from server.records.orders import commit_takes
from server.store.order_stream import OrderStream
from server.store.types import OrderEntry
from tests.bookshop import SHOW, Bookshop, open_bookshop

SECRET = b"a secret of the tests, long enough for HS256"
PAY_WITHIN_S = 600


@dataclass
class TestedProvider(DemoProvider):
    """The demo provider with a refund that can be watched and can fail."""

    __test__ = False

    refunds: list[RefundRequest] = field(default_factory=list)
    refund_answers: list[RefundState | Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(SECRET)

    async def refund(self, request: RefundRequest) -> RefundState:
        self.refunds.append(request)
        answer = self.refund_answers.pop(0) if self.refund_answers else "refunded"
        if isinstance(answer, Exception):
            raise answer
        return answer


@dataclass
class Till:
    shop: Bookshop
    provider: TestedProvider
    projector: OrderProjector
    acts: PaymentActs
    payer: Payer
    stream: OrderStream
    sale: int = 0

    # --- orders -----------------------------------------------------------------------------

    async def open_sale(self, **terms: Any) -> int:
        self.sale = await self.shop.add_sale(**{"pay_within_s": PAY_WITHIN_S, **terms})
        return self.sale

    async def order(self, buyer: str = "an", quantity: int = 1) -> int:
        """A confirmed order that is not paid."""
        claim_id, _ = await self.shop.claim(self.sale, buyer, quantity)
        await self.book()
        order_id: int = await self.shop.pool.fetchval(
            "SELECT order_id FROM orders WHERE claim_id = $1", uuid.UUID(bytes=claim_id)
        )
        return order_id

    async def expire(self, *order_ids: int, tell: bool = True) -> None:
        """The orders' time is over, and the expirer has been there."""
        await self.shop.pool.execute(
            "UPDATE orders SET pay_by = now() - interval '1 s' WHERE order_id = ANY($1::bigint[])",
            list(order_ids),
        )
        await order_life.expire(self.shop.pool, SHOW, list(order_ids))
        if tell:
            await self.projector.tell(SHOW)

    async def order_status(self, order_id: int) -> str:
        return str(await self._value("SELECT status FROM orders WHERE order_id = $1", order_id))

    # --- the order worker -------------------------------------------------------------------

    async def entries(self) -> list[OrderEntry]:
        """All that is in the order stream, read before or not."""
        old = (await self.stream.autoclaim("w1", 0)).entries
        return [*old, *await self.stream.read("w1", 1_000, 1)]

    async def book(self, *, confirm: bool = True) -> None:
        """What the order worker does with what is in the stream; without `confirm` it dies after
        the commit."""
        entries = await self.entries()
        if not entries:
            return
        batch = Batch(entries)
        async with self.shop.pool.acquire() as conn:
            result = await commit_takes(conn, SHOW, batch.epoch, batch.takes)
        if confirm:
            with suppress(Refused):  # the stock is being rebuilt: the entries stay
                await self.shop.stock.confirm_batch(SHOW, batch.confirmation(result))

    # --- payments ---------------------------------------------------------------------------

    async def begin(self, order_id: int) -> uuid.UUID:
        """The id of the order's open payment."""
        buyer = await self._value("SELECT buyer FROM orders WHERE order_id = $1", order_id)
        view = await self.acts.begin(viewer(buyer), SHOW, order_id)
        return uuid.UUID(view.payment_id)

    async def second_payment(self, order_id: int) -> uuid.UUID:
        """A further payment of the same order: the first was said to have failed."""
        await self.tell(await self.begin(order_id), "failed")
        return await self.begin(order_id)

    async def lapsed_payment(self, buyer: str = "an", quantity: int = 1) -> uuid.UUID:
        """The open payment of an order that has expired; the units are given back."""
        order_id = await self.order(buyer, quantity)
        payment_id = await self.begin(order_id)
        await self.expire(order_id)
        return payment_id

    async def late_payment(self, buyer: str = "an", quantity: int = 1) -> uuid.UUID:
        """A payment that the provider captured when its order had expired."""
        payment_id = await self.lapsed_payment(buyer, quantity)
        await self.tell(payment_id, "captured")
        return payment_id

    async def tell(self, payment_id: uuid.UUID, what: str, **changes: Any) -> str:
        """The provider says `what` (captured, failed, refunded); the event's id."""
        raw, headers = await self.webhook(payment_id, what, **changes)
        await self.acts.receive("demo", raw, headers)
        return headers["webhook-id"]

    async def webhook(
        self, payment_id: uuid.UUID, what: str, event_id: str = "", **changes: Any
    ) -> tuple[bytes, dict[str, str]]:
        """A signed webhook about a payment, with other `amount` or `currency` if given."""
        row = await self.payment(payment_id)
        data = {"payment": payment_id, "amount": row["amount"], "currency": row["currency"]}
        body = {
            "type": f"payment.{what}",
            "timestamp": "2026-01-01T00:00:00Z",
            "data": {**data, **changes},
        }
        event_id = event_id or f"evt_{uuid.uuid4().hex}"
        signed = self.provider.sign(event_id, clock.now_ms(), msgspec.json.encode(body))
        return signed.body, signed.headers

    async def payment(self, payment_id: uuid.UUID) -> dict[str, Any]:
        row = await self.shop.pool.fetchrow(
            "SELECT * FROM payments WHERE payment_id = $1", payment_id
        )
        return dict(row) if row else {"amount": 100, "currency": "CNY"}

    async def status(self, payment_id: uuid.UUID) -> str:
        return str((await self.payment(payment_id))["status"])

    async def statuses(self, payment_id: uuid.UUID) -> tuple[str, str]:
        """Of the payment and of its order."""
        row = await self.payment(payment_id)
        return row["status"], await self.order_status(row["order_id"])

    async def due_now(self) -> None:
        """Whatever waits for a time has come to it."""
        await self.shop.pool.execute(
            "UPDATE payments SET next_attempt_at = now() - interval '1 s'"
            " WHERE next_attempt_at IS NOT NULL"
        )
        await self.shop.pool.execute(
            "UPDATE payment_events SET next_attempt_at = now() - interval '1 s'"
        )

    async def round(self) -> None:
        """The payer once, with everything due."""
        await self.due_now()
        await self.payer.round()

    async def settle(self) -> None:
        """Everything that would happen by itself, to the end; then every unit is where it should
        be, and no money is anywhere else."""
        await self.go_on()
        report = await audit(self.shop.clients, self.shop.pool, SHOW)
        assert report.is_ok, report.to_text()

    async def go_on(self) -> None:
        """Everything that would happen by itself, as often as anything could need it."""
        for _ in range(4):
            await self.round()
            await self.book()
            await self.projector.tell(SHOW)

    async def _value(self, query: str, *args: Any) -> Any:
        return await self.shop.pool.fetchval(query, *args)

    # --- looking ----------------------------------------------------------------------------

    async def available(self) -> int:
        return await self.shop.available(self.sale)

    async def units(self) -> tuple[int, int, int]:
        """Available in Redis, reserved and sold in the books."""
        row = await self.shop.counters(self.sale)
        return await self.available(), row["reserved"], row["sold"]

    async def counted(self, buyer: str) -> tuple[int, int]:
        """Units that count against the buyer: in Redis, in the books."""
        stored = await self.shop.clients.commands.hget(f"ls:{{{SHOW}}}:buyers:{self.sale}", buyer)
        booked = await self._value(
            "SELECT units FROM pool_buyers WHERE pool_id = $1 AND buyer = $2", self.sale, buyer
        )
        return int(stored or 0), booked or 0


def viewer(user: str) -> Identity:
    return Identity(user, user, "viewer", SHOW, 2**50)


async def refused(call: Callable[[], Any]) -> str:
    """The name of the refusal that a call ends in."""
    try:
        await call()
    except Refused as refusal:
        return refusal.error.name
    raise AssertionError("not refused")


@asynccontextmanager
async def open_till(redis_url: str, database_url: str) -> AsyncIterator[Till]:
    """A till without a sale."""
    async with open_bookshop(redis_url, database_url) as shop:
        provider = TestedProvider()
        projector = OrderProjector(shop.pool, shop.stock)
        providers = Providers(provider, {"demo": provider})
        acts = PaymentActs(shop.pool, shop.stock, projector, providers)
        stream = shop.stream()
        yield Till(shop, provider, projector, acts, Payer(acts), stream)
        await stream.aclose()
