"""The feed: facts from the bus into the rooms, and everything that keeps them true.

Pub/Sub delivers at most once and a broken subscription is silent, so nothing rests on it alone:

- every hub publishes a heartbeat per show and second; a hub that does not hear its own for
  DEAF_SECONDS reconnects: it looks once a second, so at most 3 s after the last one it heard;
- the bus says Resync where facts may have been missed, and each room reads a snapshot every
  HEAL_SECONDS in any case;
- missing event numbers are fetched from the show's stream.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

import structlog

from server import clock, limits
from server.errors import StoreUnavailable
from server.hub.ports import require_show
from server.telemetry import metrics

if TYPE_CHECKING:
    from server.hub.hub import Hub
    from server.hub.room import Room

log = structlog.get_logger()

BEAT_SECONDS: Final = 1.0
DEAF_SECONDS: Final = 2.0
HEAL_SECONDS: Final = 5
PRESENCE_SECONDS: Final = 2
CLOCK_SECONDS: Final = 10
RETRY_MS: Final = 500  # after Redis did not answer, jittered


class Feed:
    """The tasks of one hub that listen to Redis and look after its rooms."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub
        self._store = hub.ports.store
        self._bus = hub.ports.bus
        self._tasks: set[asyncio.Task[None]] = set()
        self._heals: dict[str, bool] = {}  # shows being healed -> asked for again meanwhile
        self._beats = 0
        self._beaten: deque[tuple[int, float]] = deque(maxlen=4)  # (number, loop time it was sent)
        self._reconnected_at = 0.0  # loop time of the last reconnect for deafness

    def start(self) -> None:
        self._spawn(self._listen())
        self._spawn(self._beat())

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- Facts ----------------------------------------------------------------------------------

    async def _listen(self) -> None:
        while True:
            try:
                async for show_id, fact in self._bus.facts():
                    self._hub.take_fact(show_id, fact)
            except Exception:
                log.exception("bus_failed")
            await asyncio.sleep(clock.jittered(RETRY_MS) / 1_000)
            for room in list(self._hub.rooms.values()):
                self.heal(room)

    # --- Healing --------------------------------------------------------------------------------

    def heal(self, room: "Room") -> None:
        """Read a snapshot of the show and fetch what is missing; once at a time per room."""
        if room.show_id in self._heals:
            self._heals[room.show_id] = True
        else:
            self._heals[room.show_id] = False
            self._spawn(self._heal_until_true(room))

    async def _heal_until_true(self, room: "Room") -> None:
        try:
            while self._hub.rooms.get(room.show_id) is room:
                self._heals[room.show_id] = False
                healed = await self._try_to_heal(room)
                if healed and not self._heals[room.show_id]:
                    return
                if not healed:
                    await asyncio.sleep(clock.jittered(RETRY_MS) / 1_000)
        finally:
            del self._heals[room.show_id]

    async def _try_to_heal(self, room: "Room") -> bool:
        """False when Redis did not answer. Viewers are shown whatever changed."""
        position = room.board.position
        try:
            await self._heal(room)
        except StoreUnavailable:
            return False
        except Exception:  # a fact or snapshot we cannot read: the next one may be better
            log.exception("heal_failed", show_id=room.show_id)
        if room.board.position != position:
            room.changed()
        return True

    async def _heal(self, room: "Room") -> None:
        board = room.board
        seq_before = board.seq
        snapshot = await self._store.snapshot(room.show_id)
        if snapshot is None:
            log.warning("show_not_in_redis", show_id=room.show_id)
            return
        if snapshot.rebuild:
            self._hub.on_rebuild(room, snapshot.rebuild)
        require_show(snapshot)
        if board.heal(snapshot, seq_before) == 0:
            return
        epoch = board.epoch
        events = await self._store.events_after(
            room.show_id, epoch, board.seq, limits.HISTORY_EVENTS_MAX
        )
        for event in events or ():
            board.add_event(epoch, event)
        board.jump(snapshot)  # if there is still a hole

    # --- The beat -------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Once a second: heartbeats, presence, healing, rooms that are no longer needed."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._beats += 1
            try:
                await self._hub.close_idle_rooms()
                await self._look_after_rooms()
                if self._beats % CLOCK_SECONDS == 0:
                    await self._hub.ports.clock.refresh()
            except StoreUnavailable:
                log.warning("beat_without_redis")
            except Exception:
                log.exception("beat_failed")

    async def _look_after_rooms(self) -> None:
        """All at once: one show that Redis cannot serve must not keep the others waiting."""
        rooms = list(self._hub.rooms.values())
        await self._reconnect_if_deaf(rooms)
        self._beaten.append((self._beats, self._hub.loop.time()))
        done = await asyncio.gather(
            *(self._look_after(room, self._beats + place) for place, room in enumerate(rooms))
        )
        if not all(done):
            log.warning("rooms_not_looked_after", rooms=done.count(False))

    async def _look_after(self, room: "Room", beat: int) -> bool:
        """False when Redis did not answer, or not well."""
        if beat % HEAL_SECONDS == 0:
            self.heal(room)
        try:
            await self._store.heartbeat(room.show_id, self._hub.hub_id, self._beats)
            if beat % PRESENCE_SECONDS == 0:
                await room.presence.tell()
                await room.counts.tell(self._store, room.show_id, self._hub.hub_id)
        except StoreUnavailable:
            return False
        return True

    def hear(self, beat: int) -> None:
        """Heartbeat number `beat` came back."""
        now = self._hub.loop.time()
        for number, sent_at in self._beaten:
            if number == beat:
                metrics.feed_echo.observe(now - sent_at)

    async def _reconnect_if_deaf(self, rooms: "list[Room]") -> None:
        """A heartbeat of ours did not come back in time: the subscription is gone or stuck."""
        now = self._hub.loop.time()
        since = self._reconnected_at  # the new connection gets as long again
        deaf = [room for room in rooms if now - max(room.heard_at, since) > DEAF_SECONDS]
        if deaf:
            log.warning("bus_deaf", shows=len(deaf))
            self._reconnected_at = now
            await self._bus.reconnect([room.show_id for room in deaf])
