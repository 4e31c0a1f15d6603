"""`livesale webhooks`, `dead-letters` and `payments`: what operators do by hand, at their terminal.

Whoever can open both databases may do it, for every show; there is no token. The audit log names
the actor `operator`.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from server.acts.dead_letters import DeadLetterActs
from server.acts.desk import Desk
from server.acts.projector import Projector
from server.acts.refunds import RefundActs
from server.acts.webhooks import WebhookActs
from server.config import Settings
from server.domain.identity import EVERY_SHOW, Identity
from server.records.pool import open_pool
from server.store.client import RedisClients
from server.store.redis_clock import RedisClock
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.webhooks.send import SystemResolver

OPERATOR: Final = Identity("operator", "", "host", EVERY_SHOW, 0)
MOMENTS: Final = frozenset({"at", "created_at", "removed_at", "next_at", "updated_at"})


@dataclass(frozen=True, slots=True)
class ByHand:
    """The acts, for OPERATOR."""

    webhooks: WebhookActs
    dead_letters: DeadLetterActs
    refunds: RefundActs


def run(settings: Settings, act: Callable[[ByHand], Awaitable[Any]], *, as_json: bool) -> None:
    """Do it and print what it answers, one object a line.

    Raises Refused, RecordsUnavailable, StoreUnavailable, Misconfigured.
    """
    answer = asyncio.run(_run(settings, act))
    found = answer if isinstance(answer, Sequence) else [answer]
    for line in json_lines(found) if as_json else text_lines(found):
        sys.stdout.write(f"{line}\n")


async def _run(settings: Settings, act: Callable[[ByHand], Awaitable[Any]]) -> Any:
    async with by_hand(settings) as acts:
        return await act(acts)


@asynccontextmanager
async def by_hand(settings: Settings) -> AsyncIterator[ByHand]:
    """Connections to both databases, closed at the end."""
    clients = await RedisClients.open(settings.redis_url)
    try:
        pool = await open_pool(settings.database_url, size=2)
        try:
            stock, rooms = Stock(scripts := Scripts(clients.commands)), RoomStore(scripts)
            desk = Desk(pool, Projector(pool, stock, rooms), RedisClock(clients.commands))
            private = settings.webhook_allow_private
            yield ByHand(
                WebhookActs(desk, SystemResolver(), allow_private=private, permission=_anybody),
                DeadLetterActs(desk, _anybody),
                RefundActs(desk, _anybody),
            )
        finally:
            pool.terminate()
    finally:
        await clients.aclose()


def _anybody(identity: Identity, show_id: str, host_id: str) -> None:
    """Operators need no permission of the show's host."""


def json_lines(found: Sequence[Struct | None]) -> Iterator[str]:
    for each in found:
        if each is not None:
            yield msgspec.json.encode(each).decode()


def text_lines(found: Sequence[Struct | None]) -> Iterator[str]:
    """`name value` pairs; empty texts and times are left out, times are UTC."""
    for each in found:
        if each is not None:
            fields = msgspec.to_builtins(each)
            yield "  ".join(f"{name} {_shown(name, value)}" for name, value in _filled(fields))


def _filled(fields: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    return (
        (name, value)
        for name, value in fields.items()
        if value not in ("", None, [], {}) and not (value == 0 and name in MOMENTS)
    )


def _shown(name: str, value: Any) -> str:
    match value:
        case int() if name in MOMENTS:
            return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds")
        case list():
            return ",".join(map(str, value))
        case dict():
            return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}"
    return str(value)
