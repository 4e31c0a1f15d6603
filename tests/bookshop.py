"""A live show with sales in both databases, for tests of the order worker and the audit.

The rows are inserted by hand and applied through the store, so that these tests need neither the
host's acts nor the web.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgpack

from server.audit.audit import audit_show
from server.audit.report import ShowReport
from server.orders.reconcile import Report, diagnose, reconcile
from server.orders.worker import OrderWorker, ShowConsumer, Tools
from server.protocol.messages import ClaimState
from server.records.pool import Pool, open_pool
from server.store import keys
from server.store.client import RedisClients
from server.store.evidence import Evidence
from server.store.order_stream import OrderStream
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import (
    ACCEPTED,
    ClaimAnswer,
    ClaimRequest,
    SaleProjection,
    ShowProjection,
)

SHOW = "bookshop"
HUB = "hub1"
WINDOW = (1, 2**45)
POLL_S = 0.01


@dataclass
class Bookshop:
    """Handles to everything; a sale is named by its pool's id."""

    clients: RedisClients
    scripts: Scripts
    stock: Stock
    pool: Pool
    epoch: int = 1
    workers: list[tuple[asyncio.Event, asyncio.Task[None]]] = field(default_factory=list)

    # --- setting up -------------------------------------------------------------------------

    async def add_show(self) -> None:
        await self.pool.execute(
            "INSERT INTO shows (show_id, host_id, title, status, applied_revision)"
            " VALUES ($1, 'host', 'show', 'live', 1)",
            SHOW,
        )
        await self.pool.execute("INSERT INTO stock_epochs (show_id) VALUES ($1)", SHOW)
        projection = ShowProjection(1, "live", "show", "", "", 0, 0, (), self.epoch, True)
        assert await self.stock.apply_show(SHOW, projection) == "applied"

    async def add_sale(
        self, units: int = 10, limit: int = 1, price: int = 100, pay_within_s: int = 0
    ) -> int:
        product = await self.pool.fetchval(
            "INSERT INTO products (show_id, title, position) VALUES ($1, '杯', 1)"
            " RETURNING product_id",
            SHOW,
        )
        sku = await self.pool.fetchval(
            "INSERT INTO skus (product_id, show_id, title, price, currency, inventory, allotted)"
            " VALUES ($1, $2, '红', $3, 'CNY', $4, $4) RETURNING sku_id",
            *(product, SHOW, price, units),
        )
        sale: int = await self.pool.fetchval(
            "INSERT INTO pools (show_id, sku_id, limit_per_buyer, initial)"
            " VALUES ($1, $2, $3, $4) RETURNING pool_id",
            *(SHOW, sku, limit, units),
        )
        await self.pool.execute(
            "INSERT INTO sales (sale_id, show_id, price, countdown_s, duration_s, pay_within_s,"
            " status, opens_at_ms, closes_at_ms, applied_revision)"
            " VALUES ($1, $2, $3, 0, 60, $4, 'open', $5, $6, 1)",
            *(sale, SHOW, price, pay_within_s, *WINDOW),
        )
        projection = SaleProjection(
            *(sale, 1, "open", sku, product, price, price, "CNY", 1, limit, *WINDOW),
            *(pay_within_s, units, True),
        )
        assert await self.stock.apply_sale(SHOW, projection) == "applied"
        return sale

    # --- buying -----------------------------------------------------------------------------

    async def claim(self, sale: int, buyer: str, quantity: int = 1) -> tuple[bytes, ClaimAnswer]:
        claim_id = uuid.uuid4().bytes
        (answer,) = await self.claim_all([ClaimRequest(buyer, claim_id, sale, quantity, 1)])
        assert answer.code == ACCEPTED, answer
        return claim_id, answer

    async def claim_all(self, claims: Sequence[ClaimRequest]) -> list[ClaimAnswer]:
        answer = await self.stock.claim_batch(SHOW, HUB, self.epoch, claims)
        return answer.answers

    async def claim_many(self, sale: int, buyers: Sequence[str], per_call: int = 7) -> None:
        claims = [ClaimRequest(buyer, uuid.uuid4().bytes, sale, 1, 1) for buyer in buyers]
        for start in range(0, len(claims), per_call):
            await self.claim_all(claims[start : start + per_call])

    async def put(self, *takes: tuple[Any, ...], epoch: int = 1, raw: bytes | None = None) -> str:
        """Write an entry into the order stream by hand; its id."""
        packed = raw if raw is not None else msgpack.packb(takes, use_bin_type=False)
        fields: Any = {"e": epoch, "h": HUB, "t": packed}
        entry_id: bytes = await self.clients.commands.xadd(keys.orders(SHOW), fields)
        return entry_id.decode()

    # --- the worker -------------------------------------------------------------------------

    def tools(self, owner: str = "w1", **other: Any) -> Tools:
        parts: dict[str, Any] = {
            "owner": owner,
            "clients": self.clients,
            "scripts": self.scripts,
            "stock": self.stock,
            "pool": self.pool,
            "batch_claims": 64,
        }
        return Tools(**{**parts, **other})

    def start(self, owner: str = "w1", **other: Any) -> tuple[asyncio.Event, asyncio.Task[None]]:
        """A worker for this show alone."""
        return self._start(ShowConsumer(SHOW, self.tools(owner, **other)).run)

    def start_discovering(self, owner: str = "w1") -> tuple[asyncio.Event, asyncio.Task[None]]:
        """A whole worker, which has to find the show."""
        return self._start(OrderWorker(self.tools(owner)).run)

    def _start(
        self, run: Callable[[asyncio.Event], Any]
    ) -> tuple[asyncio.Event, asyncio.Task[None]]:
        stopping = asyncio.Event()
        self.workers.append((stopping, asyncio.create_task(run(stopping))))
        return self.workers[-1]

    async def stop(self) -> None:
        """End every worker as SIGTERM would."""
        for stopping, _ in self.workers:
            stopping.set()
        for _, task in self.workers:
            await asyncio.wait_for(task, 10)
        self.workers.clear()

    async def kill(self) -> None:
        """End every worker in the middle of whatever it does."""
        for _, task in self.workers:
            task.cancel()
        await asyncio.gather(*(task for _, task in self.workers), return_exceptions=True)
        self.workers.clear()

    async def store_all(self) -> None:
        """Have a worker store what is in the stream."""
        self.start()
        await self.settled()
        await self.stop()

    # --- reconciliation ---------------------------------------------------------------------

    async def rebuilt(self) -> Report:
        """The report of a reconciliation, with the audit clean after it; claims name its epoch
        from here."""
        report = await reconcile(SHOW, self.tools(), "test: asked", "a test")
        self.epoch = report.epoch
        assert (await diagnose(SHOW, self.tools())).complaint == ""
        assert (await self.audit()).problems == []
        return report

    async def present(self, *claims: tuple[str, ClaimState]) -> bool:
        """Hand claims in as a hub does, as soon as a rebuild gathers; whether it was in time."""
        rebuild: bytes = await eventually(self._rebuild_id)
        return await Evidence(self.scripts).present(SHOW, rebuild.decode(), list(claims), HUB)

    async def _rebuild_id(self) -> bytes | None:
        found: Any = await self.clients.commands.hmget(keys.meta(SHOW), "gate", "rebuild")
        return found[1] if found[0] == b"rebuilding" else None

    # --- looking ----------------------------------------------------------------------------

    async def settled(self, seconds: float = 20) -> None:
        """Wait until the order stream is empty."""
        await eventually(self._is_settled, seconds)

    async def _is_settled(self) -> bool:
        return await self.stream_length() == 0

    async def stream_length(self) -> int:
        return int(await self.clients.commands.xlen(keys.orders(SHOW)))

    def stream(self) -> OrderStream:
        return OrderStream(SHOW, self.clients, self.scripts)

    async def orders(self) -> list[dict[str, Any]]:
        rows = await self.pool.fetch("SELECT * FROM orders ORDER BY pool_id, seq")
        return [dict(row) for row in rows]

    async def counters(self, sale: int) -> dict[str, Any]:
        row = await self.pool.fetchrow("SELECT * FROM pools WHERE pool_id = $1", sale)
        assert row is not None
        return dict(row)

    async def available(self, sale: int) -> int:
        """Units in Redis that can be claimed; -1 when it does not know the sale."""
        return int(await self.clients.commands.hget(keys.pool(SHOW, sale), "a") or -1)

    async def audit(self) -> ShowReport:
        return await audit_show(self.clients, self.pool, SHOW)

    async def assert_all_stored(self, units: int) -> None:
        """Every claim became one order, and the audit is clean."""
        await self.settled(60)
        orders = await self.orders()
        assert len(orders) == len({order["claim_id"] for order in orders}) == units
        assert (await self.audit()).problems == []

    async def reopened(self, seconds: float = 20) -> None:
        """Wait until the stock was reconciled into a later epoch, which claims name from here."""
        await eventually(self._is_reopened, seconds)

    async def _is_reopened(self) -> bool:
        epoch, gate = await self.clients.commands.hmget(keys.meta(SHOW), "epoch", "gate")
        if epoch is None or int(epoch) <= self.epoch or gate != b"open":
            return False
        self.epoch = int(epoch)
        return True

    async def gate(self) -> str:
        gate: bytes = await self.clients.commands.hget(keys.meta(SHOW), "gate")
        return gate.decode()

    async def set_gate(self, gate: str) -> None:
        """Say by hand whether the stock is sold from: `open`, `rebuilding`."""
        await self.clients.commands.hset(keys.meta(SHOW), "gate", gate)

    async def halted(self) -> str:
        """Why the show is halted; "" while it is not."""
        reason: str = await self.pool.fetchval("SELECT halted_by FROM stock_epochs")
        return reason


@asynccontextmanager
async def open_bookshop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    """A live show without sales; workers started in it are killed at the end."""
    clients = await RedisClients.open(redis_url)
    scripts = Scripts(clients.commands)
    pool = await open_pool(database_url, size=8, keep_state=True)
    shop = Bookshop(clients, scripts, Stock(scripts), pool)
    try:
        await shop.add_show()
        yield shop
    finally:
        await shop.kill()
        pool.terminate()
        await clients.aclose()


def take(pool: int, seq: int, buyer: str, **changes: Any) -> tuple[Any, ...]:
    """A take as claim_batch.lua writes it, to be put into the stream by hand."""
    fields = {"kind": 0, "claim_id": uuid.uuid4().bytes, "quantity": 1, "price": 100, "pv": 1}
    kind, claim_id, quantity, price, price_version = {**fields, **changes}.values()
    return (kind, pool, seq, buyer, claim_id, quantity, price, price_version, 1)


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float = 10) -> Any:
    """Wait until the coroutine function `condition` returns something true; return that."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):  # noqa: ASYNC110  (nothing tells us)
            await asyncio.sleep(POLL_S)
    return found
