"""A show with flash sales on a real Redis, for the tests of the store and of what stands on it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from server.store.client import RedisClients
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import (
    ClaimRequest,
    Confirmation,
    OrderEntry,
    PoolCounters,
    SaleProjection,
    Settled,
    ShowProjection,
)

SHOW = "shop1"
HUB = "hub1"
EPOCH = 1
PRICE = 990


@dataclass(frozen=True, slots=True)
class Shop:
    clients: RedisClients
    scripts: Scripts
    stock: Stock
    room: RoomStore

    async def now_ms(self) -> int:
        seconds, micros = await self.clients.commands.time()
        return int(seconds) * 1_000 + int(micros) // 1_000

    async def open_show(self, show_id: str = SHOW, **changes: Any) -> None:
        assert await self.stock.apply_show(show_id, show_projection(**changes)) == "applied"

    async def open_sale(self, sale: int = 1, show_id: str = SHOW, **changes: Any) -> None:
        projection = sale_projection(await self.now_ms(), sale=sale, **changes)
        assert await self.stock.apply_sale(show_id, projection) == "applied"


@asynccontextmanager
async def open_shop(redis_url: str) -> AsyncIterator[Shop]:
    clients = await RedisClients.open(redis_url)
    try:
        scripts = Scripts(clients.commands)
        await scripts.preload()
        yield Shop(clients, scripts, Stock(scripts), RoomStore(scripts))
    finally:
        await clients.aclose()


def show_projection(**changes: Any) -> ShowProjection:
    values: dict[str, Any] = {
        "revision": 1,
        "phase": "live",
        "title": "开播",
        "cover_url": "",
        "playback_url": "",
        "starts_at": 0,
        "pinned_product": 0,
        "products": [],
        "stock_epoch": EPOCH,
        "may_create": True,
    }
    return ShowProjection(**{**values, **changes})


def sale_projection(now_ms: int, **changes: Any) -> SaleProjection:
    values: dict[str, Any] = {
        "sale": 1,
        "revision": 1,
        "status": "open",
        "sku": 11,
        "product": 21,
        "price": PRICE,
        "list_price": 1990,
        "currency": "CNY",
        "price_version": 1,
        "limit_per_buyer": 2,
        "opens_at": now_ms - 1_000,
        "closes_at": now_ms + 600_000,
        "pay_within_s": 0,
        "units": 10,
        "may_create": True,
    }
    return SaleProjection(**{**values, **changes})


def claim_id(n: int) -> bytes:
    return n.to_bytes(16, "big")


def claim(
    n: int, buyer: str = "", pool: int = 1, quantity: int = 1, price_version: int = 1
) -> ClaimRequest:
    """Claim number `n`, by a buyer of its own unless one is named."""
    return ClaimRequest(buyer or f"buyer-{n}", claim_id(n), pool, quantity, price_version)


def confirmation(entries: list[OrderEntry], *counters: PoolCounters) -> Confirmation:
    """What the order worker says when PostgreSQL kept every claim of `entries`."""
    claims = [
        Settled(
            hub_id=entry.hub_id,
            buyer=take.buyer,
            claim_id=take.claim_id,
            status="confirmed",
            pool=take.pool,
            quantity=take.quantity,
            price=take.price,
            price_version=take.price_version,
            epoch=entry.epoch,
            seq=take.seq,
            order_id=1_000 * take.pool + take.seq,
            pay_by_ms=0,
            at_ms=take.at_ms,
        )
        for entry in entries
        for take in entry.takes
        if take.buyer
    ]
    return Confirmation(claims, counters, [entry.entry_id for entry in entries])


async def dump(shop: Shop) -> dict[bytes, bytes | None]:
    """Every key with its serialised value: two equal dumps mean that nothing was written."""
    names = sorted(await shop.clients.commands.keys("*"))
    return {name: await shop.clients.commands.dump(name) for name in names}
