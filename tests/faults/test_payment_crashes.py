"""Payments in time, at the very end of the time and after it, while the worker is killed.

Real web and worker processes and the demo provider over HTTP, which repeats and reorders what it
tells. Whatever dies: every payment that was made has a paid order, or was refunded.
"""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.records.payments import count_unfinished
from server.records.pool import Pool, open_pool
from server.store.client import RedisClients
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import ClaimRequest
from tests.bookshop import eventually
from tests.conftest import LONG
from tests.live import Host, LiveSystem, call, token_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

UNITS = 12
PAY_WITHIN_S = 2
ROUNDS = 10 if LONG else 1
KILLS = 5

# How each buyer pays; ms from the beginning of the payment. Two never do.
PAYMENTS: list[dict[str, Any]] = [
    *({"outcome": "paid", "repeat": 3, "reorder": True} for _ in range(3)),
    *({"outcome": "paid", "delay_ms": 1_000 + 200 * i, "repeat": 2} for i in range(5)),
    *({"outcome": "paid", "delay_ms": 3_500, "reorder": True} for _ in range(2)),
    *({"outcome": "silent"} for _ in range(2)),
]
assert len(PAYMENTS) == UNITS


class Market:
    """A show of a running system, asked as hosts, buyers and their pages ask."""

    def __init__(self, live: LiveSystem, url: str, pool: Pool, stock: Stock) -> None:
        self.live, self.url, self.pool, self.stock = live, url, pool, stock
        self.worker = live.start_worker()
        self.show = ""

    async def open_sale(self) -> int:
        host = Host(self.url, token_of("ming", "*", "host"))
        self.show = (await host.ask("POST", "/api/shows", {"title": "晚八点"}))["show"]
        path = f"/api/shows/{self.show}"
        await host.ask("POST", f"{path}/start")
        sku = {"title": "600 ml", "price": 12900, "inventory": UNITS}
        made = await host.ask("POST", f"{path}/products", {"title": "手冲壶", "skus": [sku]})
        terms = {
            "sku": made["skus"][0]["sku"], "price": 9900, "units": UNITS, "limit_per_buyer": 1,
            "duration_s": 300, "start": "now", "pay_within_s": PAY_WITHIN_S,
        }  # fmt: skip
        return int((await host.ask("POST", f"{path}/sales", terms))["sale"])

    async def claim(self, sale: int, buyers: list[str]) -> None:
        claims = [ClaimRequest(buyer, uuid.uuid4().bytes, sale, 1, 1) for buyer in buyers]
        await self.stock.claim_batch(self.show, "", 1, claims)

    async def order(self, buyer: str) -> int:
        async def found() -> Any:
            query = "SELECT order_id FROM orders WHERE show_id = $1 AND buyer = $2"
            return await self.pool.fetchval(query, self.show, buyer)

        return int(await eventually(found))

    async def pay(self, buyer: str, how: dict[str, Any]) -> None:
        order = await self.order(buyer)
        path = f"{self.url}/api/shows/{self.show}/my-orders/{order}/payment"
        status, payment = await call("POST", path, token_of(buyer, self.show))
        assert status == 200, payment
        token = payment["pay_url"].split("#")[1]
        status, answer = await call("POST", f"{self.url}/demo/pay", None, {"token": token, **how})
        assert status == 202, answer

    async def kill_workers(self) -> None:
        for _ in range(KILLS):
            await asyncio.sleep(0.8)
            self.worker.send_signal(signal.SIGKILL)
            self.worker.wait()
            self.worker = self.live.start_worker()

    async def is_done(self) -> bool:
        """No order waits, no payment and no event."""
        waiting = await self.pool.fetchval(
            "SELECT count(*) FROM orders WHERE status = 'confirmed' AND show_id = $1", self.show
        )
        paid = sum(how["outcome"] == "paid" for how in PAYMENTS)
        told = await self.pool.fetchval(
            "SELECT count(*) FROM payments WHERE show_id = $1"
            " AND status IN ('captured', 'refunded')",
            self.show,
        )
        async with self.pool.acquire() as conn:
            unfinished = await count_unfinished(conn)
        return (waiting, told, sum(unfinished)) == (0, paid, 0)

    async def left_over(self) -> list[dict[str, Any]]:
        """All that is known of the payments and the events, for whoever reads a failure."""
        tables = ("payments", "payment_events", "order_moves", "gives", "retakes")
        rows = [await self.pool.fetch(f"SELECT * FROM {table}") for table in tables]
        return [dict(row) for some in rows for row in some]

    async def outcomes(self) -> dict[str, tuple[str, str]]:
        """buyer -> statuses of the payment and of its order."""
        rows = await self.pool.fetch(
            "SELECT o.buyer, p.status AS payment, o.status FROM payments p"
            " JOIN orders o USING (order_id) WHERE p.show_id = $1",
            self.show,
        )
        return {row["buyer"]: (row["payment"], row["status"]) for row in rows}


@pytest.fixture
async def market(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Market]:
    live = LiveSystem(redis_url, database_url, tmp_path)
    clients = await RedisClients.open(redis_url)
    pool = await open_pool(database_url, size=4)
    try:
        url = await live.start_web()
        yield Market(live, url, pool, Stock(Scripts(clients.commands)))
    finally:
        live.stop()
        pool.terminate()
        await clients.aclose()


async def test_payments_when_workers_are_killed_then_each_is_paid_for_or_refunded(
    market: Market,
) -> None:
    for _ in range(ROUNDS):
        sale = await market.open_sale()
        buyers = [f"b{i}" for i in range(UNITS)]
        await market.claim(sale, buyers)
        paying = (market.pay(buyer, how) for buyer, how in zip(buyers, PAYMENTS, strict=True))
        await asyncio.gather(*paying)
        killing = asyncio.create_task(market.kill_workers())
        await asyncio.sleep(PAY_WITHIN_S + 1)
        await market.claim(sale, ["late1", "late2"])  # takes units that late payments want
        await killing
        try:
            await eventually(market.is_done, 90)
        except TimeoutError:
            pytest.fail(f"{await market.left_over()}\n{market.live.logs()}")
        found = await market.outcomes()
        assert set(found.values()) <= {
            ("captured", "paid"),
            ("refunded", "expired"),
            ("created", "expired"),
        }
        assert all(found[buyer] == ("captured", "paid") for buyer in buyers[:3])
        audit = await asyncio.to_thread(market.live.run, "audit", "--show", market.show)
        assert audit.returncode == 0, audit.stdout + audit.stderr
