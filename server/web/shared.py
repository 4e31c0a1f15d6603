"""One answer for all who ask at the same time, so that a crowd costs PostgreSQL one question."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from server import clock

Answer = TypeVar("Answer")


class Shared(Generic[Answer]):
    """`await shared()` asks `source`, or shares an answer that was asked for within `ttl_s`, or
    within `factor` times as long as it took.

    A failure is shared by those who wait for it and forgotten then: the next call asks again. With
    `turn` a question costs much: those with the same one are asked one after the other, and a
    failure too is shared for `factor` times as long as it took.
    """

    def __init__(
        self,
        source: Callable[[], Awaitable[Answer]],
        ttl_s: float,
        factor: float = 0.0,
        turn: asyncio.Lock | None = None,
    ) -> None:
        self._source = source
        self._ttl_ms = ttl_s * 1_000
        self._factor = factor
        self._turn = turn
        self._asked: asyncio.Future[Answer] | None = None
        self._stale_at = 0.0

    async def __call__(self) -> Answer:
        if self._asked is None or self.is_stale:
            self._asked = asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._asked)  # one caller giving up must not end it for others

    async def _ask(self) -> Answer:
        async with self._turn or contextlib.nullcontext():
            began = clock.monotonic_ms()
            kept_ms = 0.0
            try:
                answer = await self._source()
                kept_ms = self._ttl_ms
            finally:
                took_ms = clock.monotonic_ms() - began
                is_kept = kept_ms or self._turn is not None
                self._stale_at = began + max(kept_ms, self._factor * took_ms if is_kept else 0.0)
        return answer

    @property
    def is_stale(self) -> bool:
        """Whether the next call asks again."""
        asked = self._asked
        if asked is None or not asked.done():
            return asked is None
        return asked.cancelled() or clock.monotonic_ms() >= self._stale_at
