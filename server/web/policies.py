"""Chat policies of the rooms of this hub, compiled for use and kept fresh.

A policy is read before the first viewer enters a room, again when its PolicyFact or a Resync
arrives, and every REFRESH_SECONDS in case a fact was lost; bans are carried out right then.
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final, Protocol

import structlog

from server.domain.words import WordFilter
from server.errors import StoreUnavailable
from server.hub.room import Room
from server.store.types import ChatPolicy

log = structlog.get_logger()

REFRESH_SECONDS: Final = 2.0
REMOVED: Final = 4403  # close code of the banned


class PolicyStore(Protocol):
    """Where policies are kept (store.room.RoomStore)."""

    async def read_policy(self, show_id: str) -> ChatPolicy:
        """Raises StoreUnavailable."""


class RoomRules:
    """A policy with its words compiled; `words` when they are compiled already."""

    __slots__ = ("policy", "words")

    def __init__(self, policy: ChatPolicy, words: WordFilter | None = None) -> None:
        self.policy = policy
        self.words = WordFilter(policy.words) if words is None else words


class Policies:
    """The rules in force, by show. `of` is plain and always has an answer."""

    def __init__(self, store: PolicyStore) -> None:
        self._store = store
        # By the room itself: one that opens again must not begin with what was true before.
        self._rules: dict[Room, RoomRules] = {}
        self._reading: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()  # one read after the other: the last to begin is the newest

    def of(self, room: Room) -> RoomRules:
        """The rules of `room` as last read; empty ones when they never were."""
        return self._rules.get(room) or _NO_RULES

    def banned_in(self, room: Room) -> Collection[str]:
        """Users whose danmaku the room does not show any more."""
        return self.of(room).policy.banned

    def knows(self, room: Room) -> bool:
        """Were the rules of `room` read?"""
        return room in self._rules

    async def ensure(self, room: Room) -> None:
        """Read the rules of `room` unless they were. Raises StoreUnavailable."""
        if self.knows(room):
            return
        async with self._turn:  # a rush into a new room is one read
            if not self.knows(room):
                await self._read_now(room)

    def refresh(self, room: Room) -> None:
        """Read the rules of `room` again, soon; a failure leaves the old ones in force."""
        task = asyncio.create_task(self._try_read(room))
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def keep_fresh(self, rooms: "RoomsNow") -> None:
        """Read all rules again every REFRESH_SECONDS, and forget closed rooms, for ever."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            now = set(rooms())
            self._rules = {room: rules for room, rules in self._rules.items() if room in now}
            for room in now:
                await self._try_read(room)

    async def _try_read(self, room: Room) -> None:
        try:
            await self._read(room)
        except StoreUnavailable:
            log.warning("policy_not_read", show_id=room.show_id)
        except Exception:  # our fault; the next read may do better
            log.exception("policy_not_read", show_id=room.show_id)

    async def _read(self, room: Room) -> None:
        async with self._turn:
            await self._read_now(room)

    async def _read_now(self, room: Room) -> None:
        begun_at = room.position
        policy = await self._store.read_policy(room.show_id)
        self._apply(room, policy)
        room.believe_policy(begun_at, policy.banned)

    def _apply(self, room: Room, policy: ChatPolicy) -> None:
        known = self.of(room)
        if known.policy == policy and self.knows(room):
            return
        same_words = known.policy.words == policy.words
        self._rules[room] = RoomRules(policy, known.words if same_words else None)
        self._remove_banned(room, policy)

    def _remove_banned(self, room: Room, policy: ChatPolicy) -> None:
        for user in policy.banned:
            for viewer in list(room.viewers_of(user)):
                viewer.close(REMOVED)


class RoomsNow(Protocol):
    """Says which rooms are open."""

    def __call__(self) -> Iterable[Room]: ...


_NO_RULES: Final = RoomRules(ChatPolicy())
