"""Orders after their confirmation on a Bookshop: what tests of their life share."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from server.acts.order_projector import OrderProjector
from server.acts.projector import Projector
from server.domain.order import MoveReason, OrderStatus
from server.orders.expirer import Expirer
from server.protocol.messages import ClaimState
from server.records.order_life import MovedOrder, move_orders
from server.records.payments import request_refund
from server.records.transaction import transaction
from server.store.room import RoomStore
from server.store.stock import Stock
from tests.bookshop import SHOW, Bookshop, open_bookshop
from tests.host_stage import FlakyScripts


@dataclass
class OrderStage:
    """A bookshop with what moves its orders; `scripts` are those that tell Redis of moves."""

    shop: Bookshop
    scripts: FlakyScripts
    orders: OrderProjector
    projector: Projector

    async def sold(self, *buyers: str, pay_within_s: int = 900, **sale: Any) -> tuple[int, ...]:
        """(sale, *order ids) of a new sale with one confirmed order of one unit per buyer."""
        sale_id = await self.shop.add_sale(pay_within_s=pay_within_s, **sale)
        return (sale_id, *await self.buy(sale_id, *buyers))

    async def buy(self, sale: int, *buyers: str) -> list[int]:
        """One more confirmed order per buyer: their ids."""
        before = {order["order_id"] for order in await self.shop.orders()}
        for buyer in buyers:
            await self.shop.claim(sale, buyer)
        await self.book()
        after = [order["order_id"] for order in await self.shop.orders()]
        return [order_id for order_id in after if order_id not in before]

    async def book(self) -> None:
        """Let a worker book what is in the order stream."""
        self.shop.start()
        await self.shop.settled()
        await self.shop.kill()  # a stop would wait for its blocking read

    async def move(
        self,
        order_ids: Sequence[int],
        step: tuple[OrderStatus, OrderStatus],
        reason: MoveReason = "host",
        **more: Any,
    ) -> list[MovedOrder]:
        """One step, and what it means for payments, in one transaction; Redis is not told."""
        async with transaction(self.shop.pool) as conn:
            moved = await move_orders(
                conn, SHOW, order_ids, status_from=step[0], status_to=step[1], reason=reason, **more
            )
            for order in moved:
                if order.status == "paid":
                    await conn.execute(_CAPTURED, order.order_id)
                elif order.status == "refunded":
                    assert await request_refund(conn, order.order_id, "host")
        return moved

    async def make_due(self, *order_ids: int) -> None:
        """Their time to pay is over."""
        await self.shop.pool.execute(
            "UPDATE orders SET pay_by = now() - interval '1 ms' WHERE order_id = ANY($1::bigint[])",
            order_ids,
        )

    def expirer(self) -> Expirer:
        return Expirer(self.shop.pool, self.orders)

    # --- looking ----------------------------------------------------------------------------

    async def statuses(self) -> list[str]:
        return [order["status"] for order in await self.shop.orders()]

    async def gives(self) -> list[dict[str, Any]]:
        return [dict(row) for row in await self.shop.pool.fetch("SELECT * FROM gives ORDER BY 1")]

    async def moves(self) -> list[dict[str, Any]]:
        rows = await self.shop.pool.fetch("SELECT * FROM order_moves ORDER BY move_id")
        return [dict(row) for row in rows]

    async def buyer(self, sale: int, buyer: str) -> tuple[int, int, int]:
        """Units, returns and forfeited units that count for a buyer."""
        row = await self.shop.pool.fetchrow(
            "SELECT units, returns, forfeited FROM pool_buyers WHERE pool_id = $1 AND buyer = $2",
            *(sale, buyer),
        )
        return (row["units"], row["returns"], row["forfeited"]) if row else (0, 0, 0)

    async def state(self, order_id: int) -> ClaimState:
        """What Redis remembers of an order's claim."""
        order = next(o for o in await self.shop.orders() if o["order_id"] == order_id)
        claim = (order["buyer"], uuid.UUID(str(order["claim_id"])).bytes)
        (state,) = await self.shop.stock.lookup(SHOW, [claim])
        assert state is not None
        return state

    async def seen(self, sale: int) -> tuple[int, int, int, int]:
        """What viewers see: left, held, sold, total; they always add up."""
        snapshot = await RoomStore(self.shop.scripts).snapshot(SHOW)
        assert snapshot is not None
        stock = snapshot.state[f"stock:{sale}"]
        left, held, sold, total = (stock[name] for name in ("left", "held", "sold", "total"))
        assert left + held + sold == total
        assert min(left, held, sold) >= 0
        return left, held, sold, total

    async def assert_conserved(self) -> None:
        """Nothing is in flight, and every unit and row is where it must be."""
        assert await self.shop.stream_length() == 0
        rows = await self.shop.pool.fetch("SELECT * FROM pools ORDER BY pool_id")
        cut = await self.shop.stock.audit_cut(SHOW, [row["pool_id"] for row in rows])
        assert cut is not None
        for row in rows:
            pool = cut.pools[row["pool_id"]]
            out = row["reserved"] + row["sold"] + row["dead"]
            assert pool.available + out == row["initial"] + row["restocked"] - row["lowered"]
            assert (pool.reserved, pool.sold) == (row["reserved"], row["sold"])
        assert not [give for give in await self.gives() if give["applied_at"] is None]
        assert not [move for move in await self.moves() if move["told_at"] is None]
        assert not await self.shop.pool.fetch(_MISCOUNTED)
        audited = await self.shop.audit()
        assert audited.problems == []
        for order in await self.shop.orders():
            state = await self.state(order["order_id"])
            assert (state.status, state.order_id) == (order["status"], order["order_id"])


_CAPTURED = """
INSERT INTO payments (payment_id, order_id, provider, external_id, amount, currency, status,
                      show_id, buyer)
SELECT gen_random_uuid(), order_id, 'demo', order_id, price * quantity, 'CNY', 'captured', show_id,
       buyer
FROM orders WHERE order_id = $1
"""

# Buyers whose units are not those of their standing orders and the forfeited ones.
_MISCOUNTED = """
SELECT * FROM pool_buyers b
WHERE units <> forfeited + coalesce((
    SELECT sum(quantity) FROM orders o WHERE o.pool_id = b.pool_id AND o.buyer = b.buyer
    AND status IN ('confirmed', 'paid', 'fulfilled')), 0)
"""


@asynccontextmanager
async def open_order_stage(redis_url: str, database_url: str) -> AsyncIterator[OrderStage]:
    """A live show without sales."""
    async with open_bookshop(redis_url, database_url) as shop:
        scripts = FlakyScripts(shop.clients.commands)
        stock = Stock(scripts)
        projector = Projector(shop.pool, stock, RoomStore(scripts))
        yield OrderStage(shop, scripts, projector.orders, projector)


async def all_of(*work: Any) -> list[Any]:
    """Results of coroutines that run at the same time."""
    return list(await asyncio.gather(*work))
