"""One answer for all who ask at the same time, so that a crowd costs PostgreSQL one question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from server import clock

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """`await shared()` asks `source`, or shares an answer that was asked for within `ttl_s`.

    A failure is shared by those who wait for it and forgotten then: the next call asks again.
    """

    def __init__(self, source: Callable[[], Awaitable[Answer]], ttl_s: float) -> None:
        self._source = source
        self._ttl_ms = ttl_s * 1_000
        self._asked: asyncio.Future[Answer] | None = None
        self._stale_at = 0.0

    async def __call__(self) -> Answer:
        if self._asked is None or self._is_stale(self._asked):
            self._asked = asyncio.ensure_future(self._source())
            self._stale_at = clock.monotonic_ms() + self._ttl_ms
        return await asyncio.shield(self._asked)  # one caller giving up must not end it for others

    def _is_stale(self, asked: asyncio.Future[Answer]) -> bool:
        if not asked.done():
            return False
        failed = asked.cancelled() or asked.exception() is not None
        return failed or clock.monotonic_ms() >= self._stale_at
