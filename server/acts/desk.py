"""The frame of every host act: who may, one transaction, the audit line, then Redis.

A host act is answered as done once PostgreSQL has committed it. Applying it to Redis is tried at
once; when Redis (or the connection to PostgreSQL) fails then, the answer says `pending` and the
projector's sweep finishes it.
"""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from server import clock
from server.acts.projector import Projector
from server.domain.identity import Identity, require_host, require_moderator
from server.domain.show import require_not_ended
from server.errors import RecordsUnavailable, Refused, StoreUnavailable
from server.records import acts, shows
from server.records.pool import Connection, Pool
from server.records.shows import ShowRow
from server.records.transaction import one_instant, transaction

log = structlog.get_logger()

Permission = Callable[[Identity, str, str], None]
_REQUESTS: Final = uuid.UUID("0d3f1d0e-5a53-5b8e-8d55-9b6b7f1d2c42")


class Clock(Protocol):
    """Redis time in ms."""

    def now_ms(self) -> int: ...


def request_act_id(show_id: str, subject: int, request_id: uuid.UUID | None) -> uuid.UUID:
    """The act id of a host's request: its own within a show and a sale (0: the show itself).

    A new one without a `request_id`: a repeat is then another act.
    """
    if request_id is None:
        return clock.new_uuid7()
    return uuid.uuid5(_REQUESTS, f"{show_id}:{subject}:{request_id}")


@dataclass(frozen=True, slots=True)
class Act:
    """One act under way: the show's row is held, `note` writes the audit line."""

    conn: Connection
    show: ShowRow
    identity: Identity

    async def repeated(
        self, act_id: uuid.UUID, action: str, asked: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """The detail of this act when it was done before, else None; `asked` is part of it.

        Raises Refused(conflict) when the act did or asked for something else.
        """
        known = await acts.get_act(self.conn, act_id)
        if known is None:
            return None
        was, detail = known
        if was != action or not asked.items() <= detail.items():
            what = "This request_id asked for something else"
            raise Refused("conflict", what, field="request_id")
        return detail

    async def note(
        self, action: str, detail: Mapping[str, Any], act_id: uuid.UUID | None = None
    ) -> uuid.UUID:
        """Append to the audit log, in this transaction; the act's id."""
        act_id = act_id or clock.new_uuid7()
        by = (self.identity.user, self.identity.role)
        await acts.insert_act(self.conn, act_id, self.show.show_id, *by, action, detail)
        log.info("host_act", show_id=self.show.show_id, action=action, act_id=str(act_id))
        return act_id


@dataclass(frozen=True, slots=True)
class Desk:
    """What all acts work with. `clock` tells Redis time."""

    pool: Pool
    projector: Projector
    clock: Clock

    @asynccontextmanager
    async def act(
        self,
        identity: Identity,
        show_id: str,
        permission: Permission = require_host,
        *,
        ended: bool = False,
    ) -> AsyncIterator[Act]:
        """A transaction that holds the show's row, for somebody who may act in it.

        Raises Refused(not_found|forbidden), and show_ended unless `ended` shows may be changed.
        """
        async with transaction(self.pool) as conn:
            show = _permitted(await shows.lock_show(conn, show_id), identity, permission)
            if not ended:
                require_not_ended(show.status)
            yield Act(conn, show, identity)

    @asynccontextmanager
    async def reading(
        self, identity: Identity, show_id: str, permission: Permission = require_host
    ) -> AsyncIterator[Act]:
        """What is read here is of one instant, for somebody who may see the show's inside."""
        async with one_instant(self.pool) as conn:
            show = _permitted(await shows.get_show(conn, show_id), identity, permission)
            yield Act(conn, show, identity)

    async def apply(self, work: Awaitable[object]) -> None:
        """Try to bring a committed act to Redis now; what fails is left to the sweep."""
        try:
            await work
        except (StoreUnavailable, RecordsUnavailable, Refused) as trouble:
            log.warning("act_left_pending", reason=str(trouble))


def _permitted(show: ShowRow | None, identity: Identity, permission: Permission) -> ShowRow:
    if show is None:
        raise Refused("not_found", "No such show")
    try:
        permission(identity, show.show_id, show.host_id)
    except Refused:
        log.warning("host_act_denied", show_id=show.show_id, role=identity.role)
        raise
    return show


__all__ = ["Act", "Clock", "Desk", "request_act_id", "require_host", "require_moderator"]
