"""The hosts of the open rooms' shows, so that a host's token for all shows is one only at home.

Read once per room when it opens; nothing on a viewer's path waits for PostgreSQL longer than
READ_SECONDS, and without PostgreSQL such a host is served as a viewer.
"""

import asyncio
from typing import Final

import structlog

from server import clock
from server.domain.identity import EVERY_SHOW, Identity
from server.errors import RecordsUnavailable
from server.records.pool import Pool, acquire
from server.records.shows import ShowRow, get_show

log = structlog.get_logger()

READ_SECONDS: Final = 1.0
RETRY_MS: Final = 5_000  # after PostgreSQL did not answer, nobody asks it for so long
KNOWN_MAX: Final = 10_000  # shows remembered; then all are forgotten and read again


class Crew:
    """Who hosts which show."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._hosts: dict[str, str] = {}
        self._turn = asyncio.Lock()
        self._not_before_ms = 0.0

    def knows(self, show_id: str) -> bool:
        """Is the host of `show_id` known, or is it too early to ask again?"""
        return show_id in self._hosts or clock.monotonic_ms() < self._not_before_ms

    async def ensure(self, show_id: str) -> None:
        """Know the host of `show_id` if PostgreSQL tells in time."""
        if self.knows(show_id):
            return
        try:
            async with asyncio.timeout(READ_SECONDS), self._turn:
                if show_id not in self._hosts:  # a rush into a new room is one read
                    self._remember(show_id, await read_show(self._pool, show_id))
        except (RecordsUnavailable, TimeoutError):
            self._not_before_ms = clock.monotonic_ms() + RETRY_MS
            log.warning("host_not_read", show_id=show_id)

    def _remember(self, show_id: str, show: ShowRow | None) -> None:
        if len(self._hosts) >= KNOWN_MAX:
            self._hosts.clear()
        self._hosts[show_id] = show.host_id if show is not None else ""

    def role_in(self, show_id: str, identity: Identity) -> str:
        """The role that `identity` has in the room of `show_id`, whose token covers it."""
        if identity.show == EVERY_SHOW and self._hosts.get(show_id) != identity.user:
            return "viewer"
        return identity.role


async def read_show(pool: Pool, show_id: str) -> ShowRow | None:
    """The show's row. Raises RecordsUnavailable."""
    async with acquire(pool) as connection:
        return await get_show(connection, show_id)
