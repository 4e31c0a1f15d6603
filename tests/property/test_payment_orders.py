"""Any order of events, crashes and acts: money is with a paid order, or on its way back.

Whatever a provider tells, how often and in which order, while orders expire, are cancelled or
refunded and the worker and the payer stop anywhere: in the end every captured payment has a paid
order, or was refunded; never both, never neither; and no unit is lost.
"""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.domain.order import MoveReason, OrderStatus
from server.errors import Refused
from server.records.order_life import move_orders
from server.records.payments import request_refund
from server.records.transaction import transaction
from server.store.types import ACCEPTED, ClaimRequest
from tests.bookshop import SHOW
from tests.conftest import LONG
from tests.till import Till, open_till

BUYERS = ("an", "bo", "cy")
MOVES: dict[str, tuple[OrderStatus, OrderStatus, MoveReason]] = {
    "cancel": ("confirmed", "cancelled", "buyer"),
    "refund": ("paid", "refunded", "host"),
    "fulfil": ("paid", "fulfilled", "host"),
}

which = st.integers(0, 7)
steps = st.one_of(
    st.tuples(st.just("order"), st.sampled_from(BUYERS), st.integers(1, 2)),
    st.tuples(st.just("begin"), which),
    st.tuples(st.just("begin_again"), which),
    st.tuples(
        st.just("tell"),
        which,
        st.sampled_from(["captured", "captured", "captured", "failed", "refunded"]),
        st.sampled_from([{}, {}, {}, {}, {"amount": 1}, {"currency": "USD"}]),
    ),
    st.tuples(st.just("expire"), which, st.booleans()),
    st.tuples(st.just("move"), st.sampled_from(sorted(MOVES)), which),
    st.tuples(st.just("round")),
    st.tuples(st.just("book"), st.booleans()),
    st.tuples(st.just("gate"), st.sampled_from(["open", "rebuilding"])),
    st.tuples(st.just("close")),
)
# A start that has something to pay for, then anything.
plans = st.tuples(
    st.just([("order", "an", 1), ("begin", 0), ("order", "bo", 2), ("begin", 1)]),
    st.lists(steps, max_size=25),
).map(lambda parts: [*parts[0], *parts[1]])


@dataclass
class Run:
    """One plan, in a sale of its own."""

    till: Till
    orders: list[int] = field(default_factory=list)
    payments: list[uuid.UUID] = field(default_factory=list)
    told: dict[uuid.UUID, set[str]] = field(default_factory=dict)

    async def follow(self, plan: list[tuple[Any, ...]]) -> None:
        await self.gate("open")
        await self.till.open_sale(units=4, limit=3)
        for name, *args in plan:
            await getattr(self, name)(*args)
        await self.gate("open")
        await self.till.settle()
        for payment in self.payments:
            await self.check(payment)

    async def order(self, buyer: str, quantity: int) -> None:
        claim = ClaimRequest(buyer, uuid.uuid4().bytes, self.till.sale, quantity, 1)
        (answer,) = await self.till.shop.claim_all([claim])
        if answer.code == ACCEPTED:
            await self.till.book()
            query = "SELECT order_id FROM orders WHERE claim_id = $1"
            found = await self.till.shop.pool.fetchval(query, uuid.UUID(bytes=claim.claim_id))
            self.orders.append(found)

    async def begin(self, which: int) -> None:
        if self.orders:
            try:
                payment = await self.till.begin(self.orders[which % len(self.orders)])
            except Refused:
                return
            if payment not in self.payments:
                self.payments.append(payment)
                self.told[payment] = set()

    async def begin_again(self, which: int) -> None:
        """A second payment of an order, beside the first."""
        if self.payments:
            payment = self.payments[which % len(self.payments)]
            await self.tell(which, "failed", {})
            order = (await self.till.payment(payment))["order_id"]
            await self.begin(self.orders.index(order))

    async def tell(self, which: int, what: str, wrong: dict[str, Any]) -> None:
        if self.payments:
            payment = self.payments[which % len(self.payments)]
            self.told[payment].add(what)
            await self.till.tell(payment, what, **wrong)

    async def expire(self, which: int, tell: bool) -> None:
        if self.orders:
            await self.till.expire(self.orders[which % len(self.orders)], tell=False)
            if tell:
                await self._tell_redis()

    async def _tell_redis(self) -> None:
        with suppress(Refused):  # the stock is being rebuilt
            await self.till.projector.tell(SHOW)

    async def move(self, name: str, which: int) -> None:
        if self.orders:
            order = self.orders[which % len(self.orders)]
            status_from, status_to, reason = MOVES[name]
            async with transaction(self.till.shop.pool) as conn:
                moved = await move_orders(
                    conn, SHOW, [order], status_from=status_from, status_to=status_to, reason=reason
                )
                if moved and name == "refund":
                    await request_refund(conn, order, "host")

    async def round(self) -> None:
        await self.till.round()

    async def book(self, confirm: bool) -> None:
        await self.till.book(confirm=confirm)

    async def gate(self, gate: str) -> None:
        await self.till.shop.set_gate(gate)

    async def close(self) -> None:
        with suppress(Refused):  # the stock is being rebuilt
            act = uuid.uuid4().bytes
            await self.till.shop.stock.take(SHOW, self.till.sale, act, None, close=True)

    async def check(self, payment_id: uuid.UUID) -> None:
        payment = await self.till.payment(payment_id)
        order = await self.till.order_status(payment["order_id"])
        told, status = self.told[payment_id], payment["status"]
        refunded = "refunded" in told or payment_id in {
            refund.payment_id for refund in self.till.provider.refunds
        }
        if "captured" not in told and "refunded" not in told:
            assert status in ("created", "failed")
        else:
            assert status == ("refunded" if refunded else "captured")
            assert refunded or order in ("paid", "fulfilled")
        if status == "captured":
            others = [one for one in self.payments if one != payment_id]
            rows = [await self.till.payment(one) for one in others]
            same = [row for row in rows if row["order_id"] == payment["order_id"]]
            assert "captured" not in {row["status"] for row in same}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def till(redis_url: str, database_url: str, runner: asyncio.Runner) -> Iterator[Till]:
    stack = AsyncExitStack()

    async def open_one() -> Till:
        return await stack.enter_async_context(open_till(redis_url, database_url))

    yield runner.run(open_one())
    runner.run(stack.aclose())


@pytest.mark.timeout(900)
@settings(
    max_examples=200 if LONG else 20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plans)
def test_payments_when_anything_happens_in_any_order_then_money_and_units_are_exact(
    till: Till, runner: asyncio.Runner, plan: list[tuple[Any, ...]]
) -> None:
    runner.run(Run(till).follow(plan))
