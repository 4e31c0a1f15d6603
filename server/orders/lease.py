"""Which worker consumes a show: a lease in Redis that lapses when its holder stops renewing it.

The lease keeps two workers out of each other's way; it is not what keeps orders right. A holder
that was frozen past its end may still act: the books' watermark makes that harmless.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from server import clock, limits
from server.errors import StoreUnavailable
from server.store.order_stream import OrderStream


class Lease:
    """A lease once acquired. `held` turns False when it could not be renewed in time."""

    def __init__(self, stream: OrderStream, owner: str) -> None:
        self._stream = stream
        self._owner = owner
        self._until = 0.0  # monotonic ms

    @property
    def held(self) -> bool:
        return clock.monotonic_ms() < self._until

    async def acquire(self) -> bool:
        """Raises StoreUnavailable."""
        asked_at = clock.monotonic_ms()
        if await self._stream.acquire_lease(self._owner, limits.WORKER_LEASE_MS):
            self._until = asked_at + limits.WORKER_LEASE_MS
        return self.held

    async def keep(self) -> None:
        """Renew it until somebody else has it. Redis away: it lapses by itself."""
        while self.held:
            await asyncio.sleep(limits.WORKER_LEASE_MS / 3000)
            with suppress(StoreUnavailable):
                asked_at = clock.monotonic_ms()
                renewed = await self._stream.renew_lease(self._owner, limits.WORKER_LEASE_MS)
                self._until = asked_at + limits.WORKER_LEASE_MS if renewed else 0.0

    async def release(self) -> None:
        """Let the next worker start at once."""
        self._until = 0.0
        with suppress(StoreUnavailable):
            await self._stream.release_lease(self._owner)


@asynccontextmanager
async def hold(stream: OrderStream, owner: str) -> AsyncIterator[Lease]:
    """Try for the lease (see `held`), keep it during the block, release it after."""
    lease = Lease(stream, owner)
    if not await lease.acquire():
        yield lease
        return
    keeper = asyncio.create_task(lease.keep())
    try:
        yield lease
    finally:
        keeper.cancel()
        # Not suppress(CancelledError): that would swallow a cancellation of the holder, too.
        await asyncio.gather(keeper, return_exceptions=True)
        await lease.release()
