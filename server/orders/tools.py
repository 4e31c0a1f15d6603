"""What every part of the order worker is given."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from server.records.pool import Pool
from server.store.client import RedisClients
from server.store.scripts import Scripts
from server.store.stock import Stock

RECONCILING_MAX: Final = 2  # at once in one process; each needs two connections to PostgreSQL


async def any_redis() -> None:
    """Whatever it keeps is enough: in a demo, where its fault was logged at the start."""


@dataclass(frozen=True, slots=True)
class Tools:
    """`owner` names this worker in Redis; `batch_claims` go into one transaction.

    `require_fit` raises Unfit when Redis keeps less than was promised, as it may after a
    restart with other settings.
    """

    owner: str
    clients: RedisClients
    scripts: Scripts
    stock: Stock
    pool: Pool
    batch_claims: int
    require_fit: Callable[[], Awaitable[None]] = any_redis
    reconciling: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(RECONCILING_MAX)
    )
