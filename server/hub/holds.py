"""Holds of connected buyers that wait for their confirmation, and the look-up of late ones.

The order worker tells this hub of every commit, over Pub/Sub, which may lose a message. So every
hold older than HOLD_LOOKUP_AFTER_MS is looked up in Redis, in one call per second and room, until
it has moved on or its buyer has left.
"""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from server import clock
from server.errors import StoreUnavailable
from server.hub.room import Room
from server.limits import HOLD_LOOKUP_AFTER_MS, HOLD_LOOKUP_BATCH_MAX, HOLD_LOOKUP_EVERY_MS
from server.protocol.messages import ClaimState
from server.telemetry import metrics

log = structlog.get_logger()

Hold = tuple[str, str]  # buyer, claim id as text
OnMoved = Callable[[Room, str, ClaimState], None]


class HoldStore(Protocol):
    """Where claims are remembered (store.stock.Stock)."""

    async def lookup(
        self, show_id: str, claims: Sequence[tuple[str, bytes]], /
    ) -> list[ClaimState | None]:
        """How each (buyer, claim id of 16 bytes) stands. Raises StoreUnavailable."""


class Holds:
    """The open holds of one room, oldest first."""

    __slots__ = ("_since", "room")

    def __init__(self, room: Room) -> None:
        self.room = room
        self._since: dict[Hold, float] = {}  # a dict keeps the order of insertion

    def __len__(self) -> int:
        return len(self._since)

    def add(self, buyer: str, claim_id: str, now_ms: float) -> bool:
        """A hold is told to its buyer at `now_ms` (monotonic); whether that is news. Told again it
        is no younger, or it would keep those behind it from being looked up."""
        hold = buyer, claim_id
        if hold in self._since:
            return False
        self._since[hold] = now_ms
        return True

    def has(self, buyer: str, claim_id: str) -> bool:
        """Is this hold still open?"""
        return (buyer, claim_id) in self._since

    def discard(self, buyer: str, claim_id: str) -> None:
        """The claim moved on; unknown ones are none of ours."""
        self._since.pop((buyer, claim_id), None)

    def take_due(self, now_ms: float) -> list[Hold]:
        """Holds to look up now: old enough and their buyer is here. They count as young again.

        Those whose buyer has left are forgotten: on returning, the client asks by itself.
        """
        due: list[Hold] = []
        for hold, since_ms in list(self._since.items()):
            if now_ms - since_ms < HOLD_LOOKUP_AFTER_MS or len(due) == HOLD_LOOKUP_BATCH_MAX:
                break
            del self._since[hold]
            if self.room.viewers_of(hold[0]):
                self._since[hold] = now_ms
                due.append(hold)
        return due


class HoldTracker:
    """The holds of all rooms of a hub. `on_moved` hears of each that is held no more."""

    def __init__(self, store: HoldStore, on_moved: OnMoved) -> None:
        self._store = store
        self._on_moved = on_moved
        self._rooms: dict[str, Holds] = {}

    @property
    def open(self) -> int:
        """Open holds, all rooms together."""
        return sum(len(holds) for holds in self._rooms.values())

    def of(self, room: Room) -> Holds:
        """The holds of `room`."""
        holds = self._rooms.get(room.show_id)
        return holds if holds is not None and holds.room is room else self._make(room)

    def _make(self, room: Room) -> Holds:
        for show_id, idle in list(self._rooms.items()):  # those of rooms that are empty now
            if not idle.room.viewers:
                del self._rooms[show_id]
        holds = self._rooms[room.show_id] = Holds(room)
        return holds

    async def run(self) -> None:
        """Look up late holds once per HOLD_LOOKUP_EVERY_MS, for ever."""
        while True:
            await asyncio.sleep(HOLD_LOOKUP_EVERY_MS / 1_000)
            try:
                await self.look_up_late(clock.monotonic_ms())
            except Exception:  # our fault; the next round may do better
                log.exception("hold_lookup_failed")

    async def look_up_late(self, now_ms: float) -> None:
        """One round of look-ups, one call per room with late holds."""
        for holds in list(self._rooms.values()):
            due = holds.take_due(now_ms)
            if due:
                await self._look_up(holds.room, due)

    async def _look_up(self, room: Room, due: list[Hold]) -> None:
        asked = [(buyer, uuid.UUID(claim_id).bytes) for buyer, claim_id in due]
        try:
            states = await self._store.lookup(room.show_id, asked)
        except StoreUnavailable:
            log.warning("hold_lookup_failed", show_id=room.show_id, n=len(due))
            return
        for (buyer, _), state in zip(due, states, strict=True):
            metrics.hold_lookups.add("not_seen" if state is None else state.status)
            if state is not None and state.status != "held":
                self._on_moved(room, buyer, state)
