"""Redis time, the one clock of sales and of everything told to viewers."""

import redis.asyncio as aioredis

from server import clock
from server.store.client import redis_errors

SAMPLES = 5


class RedisClock:
    """Redis time by an offset to this process's monotonic clock.

    The offset is Cristian's: of a few TIME calls the quickest one counts, its answer taken to be
    from the middle of the round trip. Wrong by at most half that round trip, plus the drift since
    the last refresh (call it every few seconds).
    """

    def __init__(self, client: "aioredis.Redis") -> None:
        self._client = client
        self._offset_ms = clock.now_ms() - clock.monotonic_ms()

    def now_ms(self) -> int:
        """Redis time in ms; before the first refresh, this machine's wall time."""
        return int(clock.monotonic_ms() + self._offset_ms)

    async def refresh(self) -> None:
        """Measure the offset again. Raises StoreUnavailable; the old offset then stays."""
        samples = [await self._sample() for _ in range(SAMPLES)]
        _, self._offset_ms = min(samples)

    async def _sample(self) -> tuple[float, float]:
        """(round trip ms, offset ms) of one TIME call."""
        sent = clock.monotonic_ms()
        with redis_errors():
            seconds, micros = await self._client.time()
        received = clock.monotonic_ms()
        middle = (sent + received) / 2
        return received - sent, seconds * 1_000 + micros / 1_000 - middle
