"""The accepted takes of a show on their way to PostgreSQL, and who may consume them.

The stream is made with the show (lua/apply_show.lua, lua/rebuild_begin.lua). Entries are written
by lua/claim_batch.lua and lua/take.lua and deleted by lua/confirm_batch.lua after the commit; they
are never trimmed by length. One consumer at a time holds the show's lease:
it takes over what was read and never acknowledged, then reads new entries.
"""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import redis.asyncio as aioredis
from redis.exceptions import ResponseError

from server.store import keys
from server.store.client import RedisClients, command, redis_errors
from server.store.packing import unpack_order_entry
from server.store.scripts import Scripts
from server.store.types import OrderEntry, Reclaimed, StreamLost

_AUTOCLAIM_COUNT: Final = 100
_ENTRIES_AT_ONCE: Final = 16  # of up to CLAIM_BATCH_MAX takes each


@contextmanager
def _stream_errors() -> Iterator[None]:
    with redis_errors():
        try:
            yield
        except ResponseError as error:
            if str(error).startswith("NOGROUP"):
                raise StreamLost(str(error)) from None
            raise


class OrderStream:
    """One show's stream. Raises StoreUnavailable, and StreamLost when the group is gone."""

    def __init__(self, show_id: str, clients: RedisClients, scripts: Scripts) -> None:
        self._key = keys.orders(show_id)
        self._lease = keys.lease(show_id)
        self._scripts = scripts
        self._commands = clients.commands
        self._blocking: aioredis.Redis = clients.new_blocking()

    async def aclose(self) -> None:
        await self._blocking.aclose()

    async def read(self, consumer: str, count: int, block_ms: int) -> list[OrderEntry]:
        """At most `count` new entries, waiting up to `block_ms` (1 to 10,000) for the first."""
        with _stream_errors():
            reply: Any = await self._blocking.xreadgroup(
                keys.ORDER_GROUP, consumer, {self._key: ">"}, count=count, block=block_ms
            )
        return _entries(reply[0][1]) if reply else []

    async def autoclaim(self, consumer: str, min_idle_ms: int) -> Reclaimed:
        """Take over every entry, oldest first, that a consumer (this one, too) read and left
        unacknowledged for `min_idle_ms`; 0 is for the holder of the lease after a start.

        Redis drops pending ids whose entries are gone and tells so only once: `lost_ids`.
        """
        entries: list[OrderEntry] = []
        lost: list[str] = []
        start = b"0-0"
        while True:
            with _stream_errors():
                start, claimed, gone = await self._commands.xautoclaim(
                    self._key, keys.ORDER_GROUP, consumer, min_idle_ms, start, _AUTOCLAIM_COUNT
                )
            entries += _entries(claimed)
            lost += [entry_id.decode() for entry_id in gone]
            if start == b"0-0":
                return Reclaimed(entries, lost)

    async def acquire_lease(self, owner: str, ttl_ms: int) -> bool:
        """True when `owner` holds the lease now (for the first time, or still)."""
        return await self._change_lease("acquire", owner, ttl_ms)

    async def renew_lease(self, owner: str, ttl_ms: int) -> bool:
        """False: it lapsed or somebody else has it. Stop at once and acquire again."""
        return await self._change_lease("renew", owner, ttl_ms)

    async def release_lease(self, owner: str) -> bool:
        """Let the next one in at once. False: it was not `owner`'s any more."""
        return await self._change_lease("release", owner, 0)

    async def _change_lease(self, what: str, owner: str, ttl_ms: int) -> bool:
        return bool(await self._scripts.run("lease", [self._lease], (what, owner, ttl_ms)))

    async def backlog(self) -> int:
        """Entries not yet settled (each is the takes of one script call)."""
        with redis_errors():
            return int(await self._commands.xlen(self._key))


async def surviving_entries(scripts: Scripts, show_id: str) -> AsyncIterator[list[OrderEntry]]:
    """Every entry of the order stream, oldest first, some at a time; also those being settled."""
    key, start = keys.orders(show_id), "-"
    while True:
        words: tuple[Any, ...] = ("XRANGE", key, start, "+", "COUNT", _ENTRIES_AT_ONCE)
        rows = await command(scripts.client, *words)
        if not rows:
            return
        yield [unpack_order_entry(entry_id, fields) for entry_id, fields in rows]
        start = b"(" + rows[-1][0]


def _entries(rows: Sequence[tuple[bytes, dict[bytes, bytes]]]) -> list[OrderEntry]:
    return [unpack_order_entry(entry_id, fields) for entry_id, fields in rows]
