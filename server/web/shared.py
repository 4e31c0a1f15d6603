"""One answer for all who ask at the same time, so that a crowd costs PostgreSQL one question."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from server import clock

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """`await shared()` asks `source`, or shares an answer that was asked for within `ttl_s`, or
    within `factor` times as long as it took.

    A failure is shared by those who wait for it and forgotten then: the next call asks again.
    """

    def __init__(
        self, source: Callable[[], Awaitable[Answer]], ttl_s: float, factor: float = 0.0
    ) -> None:
        self._source = source
        self._ttl_ms = ttl_s * 1_000
        self._factor = factor
        self._asked: asyncio.Future[Answer] | None = None
        self._stale_at = 0.0

    async def __call__(self) -> Answer:
        if self._asked is None or self._is_stale(self._asked):
            self._asked = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asked)  # one caller giving up must not end it for others

    async def _ask(self) -> Answer:
        began = clock.monotonic_ms()
        answer = await self._source()
        took_ms = clock.monotonic_ms() - began
        self._stale_at = began + max(self._ttl_ms, self._factor * took_ms)
        return answer

    def _is_stale(self, asked: asyncio.Future[Answer]) -> bool:
        if not asked.done():
            return False
        failed = asked.cancelled() or asked.exception() is not None
        return failed or clock.monotonic_ms() >= self._stale_at
