"""What Redis keeps when it dies: the profiles, the check that a server fits one, and replicas.

| profile | an answered claim survives | needs |
|---|---|---|
| `fast` | a killed Redis; a dead machine loses up to about its last second | appendfsync everysec |
| `strict` | a dead machine, and with a replica the loss of the primary | appendfsync always |
| `none` | nothing | a demo or a test |

What PostgreSQL committed survives in all of them.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import redis.asyncio as aioredis
import structlog
from redis.exceptions import ResponseError

from server import clock, limits
from server.config import Settings
from server.errors import StoreUnavailable, Unfit
from server.store import keys
from server.store.client import EVICTS, command, commands, may_evict, primaries, server_of
from server.store.scripts import Scripts

log = structlog.get_logger()

Profile = Literal["fast", "strict", "none"]

_SYNC_ENOUGH: Final = {"fast": ("everysec", "always"), "strict": ("always",)}

_FORBIDDEN: Final = (
    "Redis does not tell how it persists (CONFIG GET is forbidden): allow CONFIG GET to this user, "
    "or, where the service's documents promise what durability {profile} needs ({needs}), say so "
    "with LIVESALE_DURABILITY_VOUCHED=true"
)


async def require_durability(
    client: "aioredis.Redis", profile: Profile, *, vouched: bool, demo: bool
) -> None:
    """Refuse a server that does not keep what `profile` promises, may evict, or does not tell.

    Asked at the start and whenever stock is rebuilt: a server that was restarted may have other
    settings. A demo is only warned. `vouched`: the operator knows what a managed service keeps
    where it forbids to ask. Raises Unfit, which says what to change, and StoreUnavailable.
    """
    if profile == "none":
        fault = "" if demo else "durability none is for demos and tests: claims could be lost"
    else:
        faults = [await _fault_of(one, profile, vouched) for one in await primaries(client)]
        fault = next(filter(None, faults), "")
    if fault and not demo:
        raise Unfit(fault)
    if fault:
        log.warning("redis_not_durable", reason=fault)


async def require_as_set(client: "aioredis.Redis", settings: Settings) -> None:
    """`require_durability` of this process's settings."""
    await require_durability(
        client, settings.durability, vouched=settings.durability_vouched, demo=settings.demo
    )


async def _fault_of(server: "aioredis.Redis", profile: Profile, vouched: bool) -> str:
    if may_evict(await command(server, "INFO", "memory")):
        return EVICTS
    return _fault(profile, await _persistence(server), vouched=vouched)


def _fault(profile: Profile, found: tuple[str, str] | None, *, vouched: bool) -> str:
    """What to change; "" when all is well."""
    enough = _SYNC_ENOUGH[profile]
    needs = f"appendonly yes, appendfsync {' or '.join(enough)}"
    if found is None:
        return "" if vouched else _FORBIDDEN.format(profile=profile, needs=needs)
    if found[0] == "yes" and found[1] in enough:
        return ""
    has = f"appendonly {found[0]}, appendfsync {found[1]}"
    return f"durability {profile} needs {needs} in Redis, which has {has}"


async def _persistence(client: "aioredis.Redis") -> tuple[str, str] | None:
    """The values of appendonly and appendfsync; None where asking is forbidden."""
    try:
        found = await command(client, "CONFIG GET", "appendonly", "appendfsync")
    except StoreUnavailable as error:
        if isinstance(error.__cause__, ResponseError):  # NOPERM, or no such command
            return None
        raise
    return found["appendonly"], found["appendfsync"]


class Replicas:
    """Answers that are given only when a replica has what they rest on (profile `strict`).

    Without a replica in sync this costs one INFO per REPLICAS_ASKED_EVERY_MS. With one, every
    call is followed, on the same connection and in the same round trip, by WAIT, so the price is
    paid once per batch. The primary has synced the batch to its disk by then, so it takes the loss
    of two machines to lose it. (WAITAOF would ask for the replica's disk too, but a replica tells
    that only once a second: 1 s per batch against 1.3 ms.) Who never wants to sell without a
    replica sets `min-replicas-to-write` in Redis.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._found: dict[aioredis.Redis, tuple[float, bool]] = {}  # server -> when, what

    async def run(self, show_id: str, name: str, names: Sequence[str], args: Sequence[Any]) -> Any:
        """As Scripts.run, and a replica has the outcome. Raises StoreUnavailable: it may not."""
        if not await self._any(show_id):
            return await self._scripts.run(name, names, args)
        return _acknowledged(*await self._scripts.run_with(name, names, args, *_waiting(show_id)))

    async def read(self, show_id: str, *words: Any) -> Any:
        """One reading command, and a replica has what it found. Raises StoreUnavailable."""
        if not await self._any(show_id):
            return await command(self._scripts.client, *words)
        return _acknowledged(*await commands(self._scripts.client, words, *_waiting(show_id)))

    async def _any(self, show_id: str) -> bool:
        """Whether the server of this show had a replica in sync when it was asked last."""
        now, server = clock.monotonic_ms(), server_of(self._scripts.client, keys.fence(show_id))
        asked_at, in_sync = self._found.get(server, (-float("inf"), False))
        if now - asked_at >= limits.REPLICAS_ASKED_EVERY_MS:
            in_sync = _is_replica_in_sync(await command(server, "INFO", "replication"))
            self._found[server] = now, in_sync
        return in_sync


def _is_replica_in_sync(info: dict[str, Any]) -> bool:
    links = (info[f"slave{n}"] for n in range(int(info.get("connected_slaves", 0))))
    return any(link["state"] == "online" for link in links)


def _waiting(show_id: str) -> tuple[tuple[Any, ...], ...]:
    """Redis waits for what this very connection wrote: a claim accepted by an earlier call on
    another one would count as acknowledged. So write something behind it first."""
    return (("SET", keys.fence(show_id), 1), ("WAIT", 1, limits.REPLICA_ACK_MS))


def _acknowledged(reply: Any, _fence: Any, replicas: int) -> Any:
    if replicas < 1:
        raise StoreUnavailable("no replica acknowledged in time")
    return reply
