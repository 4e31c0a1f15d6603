"""News of a show, published through Redis as the server's own scripts do, and read at a viewer."""

import asyncio

import msgspec
import redis.asyncio

from loadtest.bench import swarm
from loadtest.stand import Stand
from server.protocol.facts import StateFact
from server.protocol.messages import Tick, Welcome


class Published:
    """Publishes the state `show` through Redis, its title as long as frames of `size` bytes need.

    `version` is that of the newest.
    """

    def __init__(
        self, running: Stand, client: "redis.asyncio.Redis", epoch: int, size: int
    ) -> None:
        self._channel = running.bus_channel
        self._client = client
        self._epoch = epoch
        self.version = 1_000_000
        self._padding = size - len(msgspec.msgpack.encode(self._tick("", 1_000_000)))

    def _value(self, title: str, version: int) -> dict[str, object]:
        terms = {"phase": "live", "title": title, "cover_url": "", "playback_url": ""}
        return {"epoch": self._epoch, "version": version, **terms, "starts_at": 0}

    def _tick(self, title: str, version: int) -> Tick:
        return Tick(n=1 << 20, now=1 << 40, state={"show": self._value(title, version)})

    async def __call__(self) -> None:
        self.version += 1
        value = self._value("." * self._padding, self.version)
        payload = msgspec.msgpack.encode(StateFact("show", value))
        await self._client.spublish(self._channel, payload)


class Newer:
    """Checks that the versions in our ticks rise."""

    def __init__(self) -> None:
        self._last = 0
        self._decoder = msgspec.msgpack.Decoder(Tick | Welcome)

    def __call__(self, payload: bytes) -> None:
        value = self._decoder.decode(payload).state.get("show")
        if value is None:
            return
        if value["version"] <= self._last:
            raise RuntimeError(f"version {value['version']} after {self._last}")
        self._last = value["version"]


class Epoch:
    """Reads the epoch of the event numbers from `welcome`."""

    def __init__(self) -> None:
        self.found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __call__(self, payload: bytes) -> None:
        if not self.found.done():
            self.found.set_result(msgspec.msgpack.decode(payload, type=Welcome).epoch)


async def epoch_of(running: Stand) -> int:
    """The room's epoch, from the welcome of one more viewer."""
    epoch = Epoch()

    def checking(head: bytes, opened: "asyncio.Future[None]") -> swarm.Receiver:
        receiver = swarm.Receiver(head, opened)
        receiver.check = epoch
        return receiver

    late = await swarm.connect(running.port, [running.upgrade_request()], checking)
    try:
        async with asyncio.timeout(5):
            return await epoch.found
    finally:
        await swarm.hang_up(late)
