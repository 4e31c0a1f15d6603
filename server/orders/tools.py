"""What every part of the order worker is given."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from server.records.pool import Pool
from server.store.client import RedisClients
from server.store.scripts import Scripts
from server.store.stock import Stock

RECONCILING_MAX: Final = 2  # at once in one process; each needs two connections to PostgreSQL


@dataclass(frozen=True, slots=True)
class Tools:
    """`owner` names this worker in Redis; `batch_claims` go into one transaction."""

    owner: str
    clients: RedisClients
    scripts: Scripts
    stock: Stock
    pool: Pool
    batch_claims: int
    reconciling: asyncio.Semaphore = field(
        default_factory=lambda: asyncio.Semaphore(RECONCILING_MAX)
    )
