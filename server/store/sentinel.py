"""Connections to the primary that Redis Sentinels name.

Every new connection asks them (Sentinel client spec): after a failover the old connections break,
or a write is answered READONLY, and the next ones lead to the new primary.
"""

import weakref
from copy import copy
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from server.store.address import Place, RedisAddress

ASK_SECONDS: Final = 0.5  # for one Sentinel to answer; then the next one is asked


class PrimaryPool(BlockingConnectionPool):
    """A pool of connections to whatever is the service's primary when they are made."""

    is_master = True  # these three are what redis-py's SentinelManagedConnection asks its pool for
    check_connection = False

    def __init__(self, address: RedisAddress, **options: Any) -> None:
        is_tls = options.pop("connection_class", None) is SSLConnection
        kind = SentinelManagedSSLConnection if is_tls else SentinelManagedConnection
        super().__init__(connection_class=kind, **options)
        self.connection_kwargs["connection_pool"] = weakref.proxy(self)
        self._service = address.service
        asking = {
            "socket_timeout": ASK_SECONDS,
            "socket_connect_timeout": ASK_SECONDS,
            "retry": Retry(NoBackoff(), 0),
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
            **address.sentinel_options,
        }
        self._sentinels = Sentinel(address.places, sentinel_kwargs=asking)  # type: ignore[no-untyped-call]

    async def get_master_address(self) -> Place:
        """Raises redis-py's MasterNotFoundError, a ConnectionError."""
        # With a list of its own: redis-py moves the Sentinel that answered to the front by a swap
        # after an await, in which two at once lose a third one for good.
        asking = copy(self._sentinels)
        asking.sentinels = [*self._sentinels.sentinels]
        found: Place = await asking.discover_master(self._service)
        answered = asking.sentinels[0]
        self._sentinels.sentinels.sort(key=lambda one: one is not answered)
        return found

    async def aclose(self) -> None:
        await super().aclose()
        await self._sentinels.aclose()
