"""When each stock level of a show was published, heard from Redis itself, not from the server.

Heard in the loader's own process: the two clocks of an age are one. A busy loader hears late,
by at most its loop lag, and by so much its ages come out too small.
"""

import asyncio
import time
from array import array
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from server.protocol.facts import StateFact, decode_fact
from server.store import keys

_STATE_FACT: Final = b"\x94\xa1s"  # how Lua packs [s, key, value, edge]: all else is passed over
RETRY_SECONDS: Final = 0.2

Version = tuple[int, int]  # (epoch, version): orders the levels of one sale


class Instants(Protocol):
    """When levels became public, as far as known."""

    def at(self, sale: int, version: Version) -> int | None:
        """t_us of one level; None: not known."""

    def history(self, sale: int) -> list[tuple[Version, int]]:
        """All known levels of a sale with their t_us, by version."""


class FirstSeen:
    """Instants without a witness: when a level arrived at the first viewer of this loader."""

    def __init__(self) -> None:
        self._of: dict[int, dict[Version, int]] = {}

    def note(self, sale: int, version: Version, t_us: int) -> None:
        """It was seen at `t_us`."""
        of_sale = self._of.setdefault(sale, {})
        of_sale[version] = min(t_us, of_sale.get(version, t_us))

    def at(self, sale: int, version: Version) -> int | None:
        return self._of.get(sale, {}).get(version)

    def history(self, sale: int) -> list[tuple[Version, int]]:
        return sorted(self._of.get(sale, {}).items())


class Witness(FirstSeen):
    """Instants heard on the channel of a show.

    `sold_out_us` has the first instant at which each sale had nothing left; `curve` its levels.
    `deaf`: how often the connection was lost; what was published meanwhile is not known.
    """

    def __init__(self, zero_us: int) -> None:
        super().__init__()
        self._zero_us = zero_us
        self._levels: dict[int, tuple[array[int], array[int]]] = {}  # t_us, left
        self.sold_out_us: dict[int, int] = {}
        self.deaf = 0
        self.hearing = asyncio.Event()

    def hear(self, payload: bytes, t_us: int) -> None:
        """Take note of a published fact if it is a stock level."""
        if not payload.startswith(_STATE_FACT):
            return
        with suppress(msgspec.DecodeError):
            fact = decode_fact(payload)
            if isinstance(fact, StateFact) and fact.key.startswith("stock:"):
                self._level(int(fact.key[6:]), fact.value, t_us)

    def _level(self, sale: int, value: dict[str, Any], t_us: int) -> None:
        left = int(value["left"])
        self.note(sale, (int(value["epoch"]), int(value["version"])), t_us)
        times, lefts = self._levels.setdefault(sale, (array("q"), array("q")))
        times.append(t_us)
        lefts.append(left)
        if not left:
            self.sold_out_us.setdefault(sale, t_us)

    def curve(self, sale: int) -> list[tuple[int, int]]:
        """(t_us, units left) at every publish."""
        return list(zip(*self._levels.get(sale, ((), ())), strict=True))

    async def run(self, redis_url: str, show: str) -> None:
        """Listen until cancelled; connects again by itself."""
        channel = keys.bus_channel(show)
        while True:
            with suppress(RedisError, OSError):
                async with (
                    redis.asyncio.Redis.from_url(redis_url) as client,
                    client.pubsub() as pubsub,
                ):
                    await pubsub.ssubscribe(channel)
                    await self._listen(pubsub)
            self.deaf += self.hearing.is_set()
            self.hearing.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self, pubsub: Any) -> None:
        """redis-py connects and subscribes again by itself, and the confirmation tells."""
        while True:
            message = await pubsub.get_message(timeout=None)
            t_us = time.monotonic_ns() // 1000 - self._zero_us
            if message is None:
                continue
            if message["type"] == "smessage":
                self.hear(message["data"], t_us)
            elif message["type"] == "ssubscribe":
                self.deaf += self.hearing.is_set()
                self.hearing.set()
