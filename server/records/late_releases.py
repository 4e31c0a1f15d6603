"""Holds that Redis lost, proved by their buyers when the units were gone; see
sql/late_releases.sql and the table's comment.
"""

import uuid
from collections.abc import Sequence
from typing import Final, NamedTuple

from server.records import sql
from server.records.pool import Pool, acquire

_SQL: Final = sql.load("late_releases")


class LateRelease(NamedTuple):
    """A hold of stock epoch `epoch`; `refusal`: why its units could not be taken again."""

    show_id: str
    buyer: str
    claim_id: uuid.UUID
    pool: int
    quantity: int
    price: int
    price_version: int
    epoch: int
    seq: int
    refusal: str


async def insert(pool: Pool, releases: Sequence[LateRelease]) -> None:
    """One row per claim, however often it comes. Raises RecordsUnavailable (effect unknown)."""
    async with acquire(pool) as connection:
        await connection.execute(_SQL["insert"], *zip(*releases, strict=True))
