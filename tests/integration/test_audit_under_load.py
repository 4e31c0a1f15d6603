"""Audits while everything happens at once: none of them sees a fault, none looks twice.

LIVESALE_TEST_LONG=1 makes it 1,000 audits: ten crowds, because books that only grow make audits
slow and seldom.
"""

import asyncio
import os
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from server.acts.projector import Projector
from server.domain.order import OrderStatus
from server.errors import Refused
from server.orders.expirer import Expirer
from server.records import payments, sales
from server.records.order_life import move_orders
from server.records.transaction import transaction
from server.store.room import RoomStore
from server.store.types import ClaimRequest
from tests.bookshop import SHOW
from tests.till import Till, open_till

CROWDS, AUDITS = (10, 100) if os.environ.get("LIVESALE_TEST_LONG") else (1, 40)
# What the dice have not thrown after so many audits, they cannot throw.
AUDITS_MAX = AUDITS * 10
SECONDS_MAX = 300
BUYERS = 400
UNITS = 3_000


@dataclass
class Crowd:
    """Everybody who changes something, until told to stop."""

    till: Till
    projector: Projector
    paid_sale: int
    plain_sale: int
    dice: random.Random
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    counts: dict[str, int] = field(default_factory=dict)

    async def keep(self, name: str, act: Callable[[], Awaitable[object]]) -> None:
        """Do something again and again; what is refused by rule is part of the game."""
        while not self.stopping.is_set():
            try:
                await act()
                self.counts[name] = self.counts.get(name, 0) + 1
            except Refused:
                pass
            await asyncio.sleep(self.dice.uniform(0, 0.02))

    async def claim(self) -> None:
        """Some claims, one of them sent again."""
        claims = [
            ClaimRequest(
                f"b{self.dice.randrange(BUYERS)}",
                uuid.uuid4().bytes,
                self.dice.choice((self.paid_sale, self.plain_sale)),
                self.dice.randint(1, 3),
                1,
            )
            for _ in range(self.dice.randint(1, 30))
        ]
        await self.till.shop.claim_all([*claims, claims[0]])

    async def orders(self, status: str, sale: int, count: int = 3) -> list[int]:
        rows = await self.till.shop.pool.fetch(
            "SELECT order_id FROM orders WHERE status = $1 AND pool_id = $2"
            " ORDER BY random() LIMIT $3",
            *(status, sale, count),
        )
        return [row["order_id"] for row in rows]

    async def pay(self) -> None:
        """Payments in time and too late, sometimes told twice, sometimes failed."""
        rows = await self.till.shop.pool.fetch(
            "SELECT payment_id FROM payments JOIN orders USING (order_id)"
            " WHERE payments.status = 'created' AND orders.status IN ('confirmed', 'expired')"
            " ORDER BY random() LIMIT 4"
        )
        for row in rows:
            what = self.dice.choice(("captured", "captured", "captured", "failed"))
            await self.till.tell(row["payment_id"], what)
            if self.dice.random() < 0.2:
                await self.till.tell(row["payment_id"], "captured")

    async def begin_to_pay(self) -> None:
        for order_id in await self.orders("confirmed", self.paid_sale):
            await self.till.begin(order_id)

    async def let_expire(self) -> None:
        for order_id in await self.orders("confirmed", self.paid_sale, 8):
            await self.till.shop.pool.execute(
                "UPDATE orders SET pay_by = now() - interval '1 ms' WHERE order_id = $1", order_id
            )

    async def step(self) -> None:
        """What hosts and buyers do with orders."""
        steps: list[tuple[int, OrderStatus, OrderStatus]] = [
            (self.paid_sale, "confirmed", "cancelled"),
            (self.plain_sale, "confirmed", "cancelled"),
            (self.paid_sale, "paid", "fulfilled"),
            (self.paid_sale, "paid", "refunded"),
        ]
        sale, before, after = self.dice.choice(steps)
        async with transaction(self.till.shop.pool) as conn:
            moved = await move_orders(
                conn, SHOW, await self.orders(before, sale, 2),
                status_from=before, status_to=after, reason=self.dice.choice(("host", "buyer")),
            )  # fmt: skip
            if after == "refunded":
                for order in moved:
                    await payments.request_refund(conn, order.order_id, "host")
        if self.dice.random() < 0.5:
            await self.till.projector.tell(SHOW)

    async def restock(self) -> None:
        sale, units = self.dice.choice((self.paid_sale, self.plain_sale)), self.dice.randint(1, 9)
        async with transaction(self.till.shop.pool) as conn:
            await conn.execute("SELECT FROM pools WHERE pool_id = $1 FOR UPDATE", sale)
            await conn.execute(
                "UPDATE skus SET inventory = inventory + $2, allotted = allotted + $2"
                " WHERE sku_id = (SELECT sku_id FROM pools WHERE pool_id = $1)",
                *(sale, units),
            )
            await sales.restock(conn, SHOW, sale, units, uuid.uuid4())

    async def lower(self) -> None:
        sale = self.dice.choice((self.paid_sale, self.plain_sale))
        units = self.dice.randint(1, 3)
        await self.till.shop.stock.take(SHOW, sale, uuid.uuid4().bytes, units, close=False)

    async def pay_late(self) -> None:
        """What the worker's payer does."""
        await self.till.payer.round()

    async def tidy(self) -> None:
        await self.projector.sweep()

    async def missed(self) -> set[str]:
        """What has to happen for the audits to mean something, and has not yet.

        Counted in what was done, not in what is: an order that is paid now may be refunded next.
        """
        moves = await self.till.shop.pool.fetch("SELECT DISTINCT status_to FROM order_moves")
        missed = {"paid", "fulfilled", "expired", "cancelled", "refunded"}
        missed -= {row["status_to"] for row in moves}
        if not await self.till.shop.pool.fetchval("SELECT count(*) FROM retakes WHERE units > 0"):
            missed.add("retake")
        often = ("claims", "restocks", "lowerings", "payments")
        return missed | {name for name in often if self.counts.get(name, 0) <= 5}

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """The crowd is at work in the block. Fails when somebody in it failed."""
        expirer = Expirer(self.till.shop.pool, self.till.projector)
        parts = {
            "claims": self.claim,
            "payments": self.pay,
            "intents": self.begin_to_pay,
            "expiries": self.let_expire,
            "expirer": expirer.round,
            "steps": self.step,
            "restocks": self.restock,
            "lowerings": self.lower,
            "late": self.pay_late,
            "sweeps": self.tidy,
        }
        async with asyncio.timeout(SECONDS_MAX), asyncio.TaskGroup() as tasks:
            for name, act in parts.items():
                tasks.create_task(self.keep(name, act))
            try:
                yield
            finally:
                self.stopping.set()


@pytest.fixture
async def crowd(
    request: pytest.FixtureRequest, redis_url: str, database_url: str
) -> AsyncIterator[Crowd]:
    """A crowd whose dice have the test's parameter as seed."""
    async with open_till(redis_url, database_url) as till:
        paid = await till.open_sale(units=UNITS, limit=12)
        plain = await till.shop.add_sale(units=UNITS, limit=12)
        projector = Projector(till.shop.pool, till.shop.stock, RoomStore(till.shop.scripts))
        yield Crowd(till, projector, paid, plain, random.Random(request.param))


@pytest.mark.timeout(SECONDS_MAX + 60)
@pytest.mark.parametrize("crowd", range(CROWDS), indirect=True)
async def test_audit_when_everything_happens_at_once_then_no_false_alarm(crowd: Crowd) -> None:
    shop = crowd.till.shop
    shop.start()
    most = {"backlog": 0, "pending_give": 0}
    audits = 0
    async with crowd.busy():
        while audits < AUDITS or await crowd.missed() or 0 in most.values():
            report = await shop.audit()
            assert report.problems == [], f"audit {audits}"
            for name, before in most.items():
                most[name] = max(before, *(getattr(pool, name) for pool in report.pools))
            audits += 1
            assert audits < AUDITS_MAX, f"missed: {await crowd.missed()}, in flight: {most}"
    await shop.settled()
    await crowd.projector.sweep()
    assert (await shop.audit()).problems == []
