"""A Redis Cluster as one client: every command goes to the server that has its show's slot.

redis-py's RedisCluster repeats commands, drops everybody's connections when one node is away and
sends ASKING on a connection of its own; here a command is sent again only when a server said that
it did not run it: MOVED, ASK or TRYAGAIN. All keys of a show are in one slot, so the first key of a
command says where it goes, and commands without a key go where those around them go.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import redis.asyncio as aioredis
import structlog
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ClusterError,
    MovedError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TimedOut

from server.store import keys
from server.store.address import Place

REDIRECTIONS_MAX: Final = 40  # the first two at once, the others AGAIN_SECONDS apart: 2 s
AGAIN_SECONDS: Final = 0.05
REFRESH_SECONDS: Final = 0.1  # between two questions for the map, however many ask for it

log = structlog.get_logger()

Connect = Callable[[Place], aioredis.Redis]


class SlotMap:
    """Which server has which slot, for all clients of a process.

    Kept true by what servers say (MOVED) and, after errors, by CLUSTER SLOTS of any server.
    """

    def __init__(self, places: Sequence[Place], connect: Connect) -> None:
        self._seeds = places
        self._connect = connect
        self._of_slot: dict[int, Place] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self.changed = asyncio.Event()  # set at every change; cleared by the one who waits for it

    @property
    def is_known(self) -> bool:
        return bool(self._of_slot)

    def primaries(self) -> list[Place]:
        return sorted(set(self._of_slot.values()))

    def place_of(self, key: str) -> Place:
        """The server to ask; any one while nobody has the slot, it will then say so."""
        return self._of_slot.get(slot_of(key), self._seeds[0])

    def learn(self, slot: int, place: Place) -> None:
        """A server said MOVED."""
        if self._of_slot.get(slot) != place:
            self._of_slot[slot] = place
            self.changed.set()

    def refresh_soon(self) -> None:
        """Something went wrong: read the map again in the background."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh_once())

    async def _refresh_once(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self.refresh()
        await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Read the map from the first server that answers. Raises what the last one raised."""
        failure: Exception = ClusterError("no server of the Cluster is known")
        for place in dict.fromkeys((*self.primaries(), *self._seeds)):
            try:
                self._replace(await self._ask(place))
            except (RedisError, OSError) as error:
                failure = error
            else:
                return
        raise failure

    async def _ask(self, place: Place) -> dict[int, Place]:
        server = self._connect(place)
        try:
            # As two words: redis-py would parse the reply of "CLUSTER SLOTS".
            rows = await server.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]
        finally:
            await server.aclose()
        return {
            slot: ((primary[0] or b"").decode() or place[0], int(primary[1]))
            for first, last, primary, *_ in rows
            for slot in range(first, last + 1)
        }

    def _replace(self, found: dict[int, Place]) -> None:
        if found and found != self._of_slot:
            self._of_slot = found
            self.changed.set()
            log.info("redis_cluster_map", primaries=len(self.primaries()))

    async def aclose(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)


class ClusterRedis(aioredis.Redis):
    """Commands of redis-py by the slot of their first key; what has no key goes to any primary.

    No pipeline(), no pubsub(): see together() and Bus.
    """

    def __init__(self, slots: SlotMap, connect: Connect) -> None:
        super().__init__()  # its own pool stays without connections
        self._slots = slots
        self._connect = connect
        self._servers: dict[Place, aioredis.Redis] = {}

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        """Raises redis-py's errors; a redirection was followed."""
        await self._know_the_map()
        if words[0] == "SCRIPT LOAD":
            return await self._load_everywhere(words)

        async def run(server: aioredis.Redis, asking: bool) -> Any:
            if not asking:
                return await server.execute_command(*words, **options)  # type: ignore[no-untyped-call]
            return (await _pipelined(server, (words,), asking=True))[0]

        return await self._redirected(_first_key((words,)), run)

    async def together(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        """Calls in one round trip per slot, those of one slot in order on one connection. A call
        without a key belongs to the one before it. Raises the first error of all."""
        await self._know_the_map()
        parts: dict[int, list[int]] = {}  # slot -> places of its calls
        slot = -1
        for place, words in enumerate(calls):
            key = _first_key((words,))
            slot = slot_of(key) if key else slot
            parts.setdefault(slot, []).append(place)
        done = await asyncio.gather(
            *(self._part([calls[n] for n in places]) for places in parts.values())
        )
        replies: list[Any] = [None] * len(calls)
        for places, found in zip(parts.values(), done, strict=True):
            for n, reply in zip(places, found, strict=True):
                replies[n] = reply
        return replies

    async def _part(self, calls: Sequence[Sequence[Any]]) -> list[Any]:
        async def run(server: aioredis.Redis, asking: bool) -> Any:
            return await _pipelined(server, calls, asking=asking)

        replies: list[Any] = await self._redirected(_first_key(calls), run)
        return replies

    async def _redirected(
        self, key: str, run: Callable[[aioredis.Redis, bool], Awaitable[Any]]
    ) -> Any:
        """Run where the slot is. Whoever redirects has run nothing."""
        place, asking = self._place(key), False
        for redirections in range(REDIRECTIONS_MAX):
            if redirections > 1:  # two servers that send us to each other, or keys on their way
                await asyncio.sleep(AGAIN_SECONDS)
            try:
                return await run(self.server(place), asking)
            except MovedError as moved:
                place, asking = _target(moved, place), False
                self._slots.learn(moved.slot_id, place)
            except AskError as ask:
                place, asking = _target(ask, place), True
            except TryAgainError:
                place, asking = self._place(key), False
            except (Disconnected, TimedOut, OSError, ClusterDownError):
                self._slots.refresh_soon()
                raise
        raise ClusterError("redirected too often")

    async def _know_the_map(self) -> None:
        if not self._slots.is_known:
            await self._slots.refresh()

    def _place(self, key: str) -> Place:
        return self._slots.place_of(key) if key else self._slots.primaries()[0]

    def server(self, place: Place) -> aioredis.Redis:
        if place not in self._servers:
            self._servers[place] = self._connect(place)
        return self._servers[place]

    def server_of(self, key: str) -> aioredis.Redis:
        """The server that has this key's slot, as far as is known."""
        return self.server(self._slots.place_of(key))

    async def primaries(self) -> list[aioredis.Redis]:
        await self._know_the_map()
        return [self.server(place) for place in self._slots.primaries()]

    async def _load_everywhere(self, words: Iterable[Any]) -> Any:
        """Where a server is away, NOSCRIPT will tell later. Raises when none took the script."""
        servers = await self.primaries()
        replies = await asyncio.gather(
            *(server.execute_command(*words) for server in servers),  # type: ignore[no-untyped-call]
            return_exceptions=True,
        )
        failures = [reply for reply in replies if isinstance(reply, BaseException)]
        if len(failures) == len(replies):
            self._slots.refresh_soon()
            raise failures[0]
        return next(reply for reply in replies if not isinstance(reply, BaseException))

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        for server in self._servers.values():
            await server.aclose()
        await super().aclose(close_connection_pool)


def slot_of(key: str) -> int:
    return key_slot(key.encode())


def _first_key(calls: Iterable[Iterable[Any]]) -> str:
    """In every command we use, keys and channels come before anything that looks like one."""
    words = (word for call in calls for word in call if isinstance(word, str))
    return next((word for word in words if word.startswith(keys.PREFIX)), "")


def _target(redirection: AskError, replied: Place) -> Place:
    """An empty host means the one that replied (MOVED of servers that do not know their name)."""
    return redirection.host or replied[0], redirection.port


async def _pipelined(
    server: aioredis.Redis, calls: Sequence[Sequence[Any]], *, asking: bool
) -> list[Any]:
    """All replies. A redirection of the first call means that nothing ran; any other error is
    raised as one whose effect is unknown."""
    pipeline = server.pipeline(transaction=False)
    for words in calls:
        if asking:  # it holds for one command
            pipeline.execute_command("ASKING")
        pipeline.execute_command(*words)
    found = await pipeline.execute(raise_on_error=False)
    replies: list[Any] = found[1::2] if asking else found
    errors = [reply for reply in replies if isinstance(reply, Exception)]
    if errors and errors[0] is not replies[0] and isinstance(errors[0], AskError | TryAgainError):
        raise ClusterError("the slot moved between two commands") from errors[0]
    if errors:
        raise errors[0]
    return replies
