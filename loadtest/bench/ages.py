"""How old what a viewer sees is: from the moment it is published until the tick with it arrives."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec
import redis.asyncio

from loadtest.bench import report
from loadtest.bench.crowd import audience
from loadtest.bench.publishing import Published, epoch_of
from loadtest.stand import Stand
from server.protocol.messages import Tick, Welcome

PAYLOAD_BYTES = 1_000

_DECODER: Final = msgspec.msgpack.Decoder(Tick | Welcome)


class Feed:
    """Publishes `per_second` times, unevenly, so as not to meet each tick at the same instant."""

    def __init__(self, publish: Published, per_second: float) -> None:
        self.publish = publish
        self._mean_s = 1 / per_second
        self._stopping = False
        self.births: list[tuple[int, float]] = []  # (version, when)
        self.ages: list[float] = []  # of the present window

    async def run(self) -> None:
        """Publish until told to stop. Not to be cancelled: the Redis client may swallow that."""
        while not self._stopping:
            self.births.append((self.publish.version + 1, time.perf_counter()))
            await self.publish()
            await asyncio.sleep(random.uniform(0, 2 * self._mean_s))

    def stop(self) -> None:
        """Publish no more, after this pause."""
        self._stopping = True

    def watcher(self) -> Callable[[bytes], None]:
        """A check for one sampled viewer: the age of every version when it is first shown."""
        seen = 0

        def check(payload: bytes) -> None:
            nonlocal seen
            value = _DECODER.decode(payload).state.get("show")
            now = time.perf_counter()
            while value and seen < len(self.births) and self.births[seen][0] <= value["version"]:
                self.ages.append(now - self.births[seen][1])
                seen += 1

        return check

    async def window(self, seconds: float) -> float:
        """The p99 age in ms over the next `seconds`."""
        self.ages = []
        await asyncio.sleep(seconds)
        return self.p99_ms()

    def p99_ms(self) -> float:
        """The p99 age in ms since the window began."""
        return report.percentile(self.ages, 0.99) * 1000


@asynccontextmanager
async def feeding(
    running: Stand, folder: Path, viewers: int, sampled: int, per_second: float
) -> AsyncIterator[Feed]:
    """A feed that runs, and its viewers at the stand's port: `sampled` of them measure ages, the
    others are a crowd, whose program is compiled in `folder`."""
    request = running.upgrade_request()
    async with redis.asyncio.Redis.from_url(running.valkey.url) as client:
        epoch = await epoch_of(running)
        feed = Feed(Published(running, client, epoch, PAYLOAD_BYTES), per_second)
        async with audience(running.port, request, folder, viewers, sampled) as watching:
            for viewer in watching.sampled:
                viewer.check = feed.watcher()
            publishing = asyncio.create_task(feed.run())
            try:
                yield feed
            finally:
                feed.stop()
                await publishing
