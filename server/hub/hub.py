"""The hub: which rooms this process has, and what they share (ticker, wheel, feed, counters).

A room is loaded when its first viewer comes (subscribe, then read a snapshot, then apply what was
published meanwhile) and kept for IDLE_SECONDS after its last one left.
"""

import asyncio
import contextlib
import itertools
import re
from collections.abc import Collection, Sequence
from typing import Final

import structlog

from server import clock, limits
from server.errors import Refused, StoreUnavailable
from server.hub.board import Board
from server.hub.counts import Counts
from server.hub.feed import Feed
from server.hub.ports import (
    BannedIn,
    Dispatch,
    HubSettings,
    OnGone,
    OnOrders,
    OnPolicy,
    OnRebuild,
    Ports,
    Snapshot,
    require_show,
)
from server.hub.recent import Recent
from server.hub.room import Room
from server.hub.tick import Ticker
from server.hub.viewer import Viewer
from server.hub.wheel import Wheel
from server.protocol.facts import Fact, Resync
from server.protocol.messages import ClaimState
from server.telemetry import metrics

log = structlog.get_logger()

IDLE_SECONDS: Final = 15.0  # a quick return finds the room still there
UNTOLD_SECONDS: Final = 600.0  # a room whose totals Redis does not take is given up
DRAIN_SLICE_SECONDS: Final = 0.1
_SHOW_ID: Final = re.compile(limits.SHOW_ID_PATTERN)


def _ignore_orders(room: Room, orders: Sequence[tuple[str, ClaimState]]) -> None:
    """Without claims on this hub there is nobody to tell."""


def _ignore_policy(room: Room) -> None:
    """Without chat on this hub there is no policy to read."""


def _nobody_banned(room: Room) -> Collection[str]:
    """Without chat on this hub nobody is banned from it."""
    return ()


def _ignore_rebuild(room: Room, rebuild_id: str) -> None:
    """Without claims on this hub it knows nothing of any."""


def _ignore_gone(viewer: Viewer) -> None:
    """Nobody counts connections."""


class Hub:
    """One per process. Made inside the running loop, then `start`.

    `dispatch` carries out commands; `on_orders` hears that buyers' claims moved on (and tells
    them); `on_policy` hears that a show's chat policy changed, and `banned_in` says whose danmaku a
    room does not show; `on_rebuild` hears that a show's stock is being rebuilt (maybe more than
    once), `on_gone` of every viewer whose connection ended, once.
    """

    def __init__(
        self,
        hub_id: str,
        ports: Ports,
        settings: HubSettings,
        dispatch: Dispatch,
        *,
        on_orders: OnOrders = _ignore_orders,
        on_policy: OnPolicy = _ignore_policy,
        banned_in: BannedIn = _nobody_banned,
        on_rebuild: OnRebuild = _ignore_rebuild,
        on_gone: OnGone = _ignore_gone,
    ) -> None:
        self.hub_id = hub_id
        self.ports = ports
        self.settings = settings
        self.dispatch = dispatch
        self.on_orders = on_orders
        self.on_policy = on_policy
        self.banned_in = banned_in
        self.on_rebuild = on_rebuild
        self._on_gone = on_gone
        self.loop = asyncio.get_running_loop()
        self.ticker = Ticker(self.loop, settings.tick_ms / 1_000)
        self.wheel = Wheel(self.loop)
        self.rooms: dict[str, Room] = {}
        # Numbers of like batches and chat lines. The hub's, not the room's: a room that closes and
        # opens again must not use one twice, for Redis and viewers remember those they have seen.
        self.numbers = itertools.count(1)
        # By show; a room that opens again counts on. Gone with the room of a show that is over.
        self.counts: dict[str, Counts] = {}
        self.viewers = 0  # connections from join to the end of their transport
        self._echoes = Recent(60.0)  # s from ping to pong
        self.second_ticks = self.ticker.ticks(1)
        self.slow_ticks = self.ticker.ticks(limits.SLOW_SECONDS_MAX)
        self.message_ticks = self.ticker.ticks(limits.MESSAGE_SECONDS_MAX)
        self._feed = Feed(self)
        self._loading: dict[str, asyncio.Task[Room | None]] = {}
        # Unsubscribing from a show that nobody watches, and a first viewer coming back to it, must
        # not overtake each other.
        self._subscribing = asyncio.Lock()
        self._early: dict[str, list[Fact]] = {}  # facts of shows that are being loaded
        self._users: dict[str, int] = {}  # user -> signed-in connections
        self._deserted = asyncio.Event()  # set when a connection ended and none is left

    @property
    def tick(self) -> int:
        """Number of the current tick."""
        return self.ticker.n

    async def start(self) -> None:
        """Begin to listen. Raises StoreUnavailable when Redis time cannot be read."""
        await self.ports.clock.refresh()
        self._feed.start()

    async def stop(self) -> None:
        """Send what rooms still have for Redis, then stop all tasks and timers."""
        try:
            async with asyncio.timeout(limits.CLOSE_SECONDS):
                for room in list(self.rooms.values()):
                    await room.outbox.settled()
                    with contextlib.suppress(StoreUnavailable):
                        await room.counts.tell(self.ports.store, room.show_id, self.hub_id)
        except TimeoutError:
            log.warning("outbox_not_emptied")
        for room in list(self.rooms.values()):
            room.outbox.stop()
        await self._feed.stop()
        self.ticker.stop()
        self.wheel.stop()

    # --- Rooms ----------------------------------------------------------------------------------

    def open_room(self, show_id: str) -> Room | None:
        """The room of a show if it is open here already."""
        room = self.rooms.get(show_id)
        if room is not None:
            room.empty_since = self.loop.time()  # somebody is about to join
        return room

    async def room(self, show_id: str) -> Room | None:
        """The room of a show, loaded if need be. None: no such show. Raises StoreUnavailable."""
        if room := self.open_room(show_id):
            return room
        if not _SHOW_ID.fullmatch(show_id):
            return None
        task = self._loading.get(show_id)
        if task is None:
            task = self._loading[show_id] = asyncio.create_task(self._load(show_id))
        return await asyncio.shield(task)  # one caller that gives up does not end it for others

    async def _load(self, show_id: str) -> Room | None:
        try:
            if await self.ports.store.snapshot(show_id) is None:
                return None
            self._early[show_id] = []
            async with self._subscribing:
                await self.ports.bus.subscribe(show_id, self.hub_id)
            return await self._open(show_id)
        finally:
            self._early.pop(show_id, None)
            del self._loading[show_id]

    async def _open(self, show_id: str) -> Room | None:
        """Make the room from a snapshot taken after the subscription."""
        try:
            snapshot = await self.ports.store.snapshot(show_id)
            if snapshot is None:
                await self._unsubscribe(show_id)
                return None
            board = await self._read_board(show_id, snapshot)
        except StoreUnavailable:
            await self._unsubscribe(show_id)
            raise
        room = self.rooms[show_id] = Room(show_id, self, board)
        if snapshot.rebuild:  # whoever rebuilds waits for all that listen
            self.on_rebuild(room, snapshot.rebuild)
        for fact in self._early[show_id]:
            room.offer(fact)
        log.info("room_opened", show_id=show_id)
        return room

    async def _read_board(self, show_id: str, snapshot: Snapshot) -> Board:
        require_show(snapshot)
        first = max(0, snapshot.seq - limits.RESUME_EVENTS_MAX)
        history = await self.ports.store.events_after(
            show_id, snapshot.epoch, first, limits.RESUME_EVENTS_MAX
        )
        known = [event for event in history or () if event["seq"] <= snapshot.seq]
        return Board(snapshot, known)

    async def _unsubscribe(self, show_id: str) -> None:
        """Facts that still come are ignored, so a failure costs nothing but bandwidth."""
        async with self._subscribing:
            with contextlib.suppress(StoreUnavailable):
                await self.ports.bus.unsubscribe(show_id)

    async def close_idle_rooms(self) -> None:
        """Unsubscribe from shows nobody has watched here for IDLE_SECONDS; of those that are over
        nothing is kept."""
        for show_id, room in list(self.rooms.items()):
            if self._is_needless(room):
                del self.rooms[show_id]
                if room.is_over:
                    self.counts.pop(show_id, None)
                await self._unsubscribe(show_id)
                log.info("room_closed", show_id=show_id)

    def _is_needless(self, room: Room) -> bool:
        """Nobody is there, and Redis has what was counted or would not take it."""
        idle_s = self.loop.time() - room.empty_since
        is_idle = room.viewers == 0 and room.outbox.is_empty and idle_s > IDLE_SECONDS
        return is_idle and (room.counts.is_told or idle_s > UNTOLD_SECONDS)

    def take_fact(self, show_id: str, fact: Fact | Resync) -> None:
        """One fact from the bus. What a room cannot read is logged, never fatal."""
        room = self.rooms.get(show_id)
        if room is None:
            if show_id in self._early and not isinstance(fact, Resync):
                self._early[show_id].append(fact)
            return
        if isinstance(fact, Resync):
            self.heal(room)
            return
        try:
            room.offer(fact)
        except Exception:
            log.exception("fact_failed", show_id=show_id, kind=type(fact).__name__)

    def heal(self, room: Room) -> None:
        """Something is missing in `room`: read it from Redis."""
        self._feed.heal(room)

    def on_heartbeat(self, beat: int) -> None:
        """Our heartbeat number `beat` came back through a show's channel."""
        self._feed.hear(beat)

    # --- Viewers --------------------------------------------------------------------------------

    def on_joined(self, viewer: Viewer) -> None:
        """Count a viewer in. Its first ping comes at its own instant of the ping interval."""
        self.viewers += 1
        self.wheel.schedule(viewer, clock.jittered(500 * self.settings.ping_seconds, 1.0) / 1_000)

    def on_echo(self, lag_s: float) -> None:
        """A viewer's regular pong came `lag_s` after its ping."""
        metrics.staleness.observe(lag_s)
        self._echoes.add(self.loop.time(), lag_s)

    def recent_staleness(self, share: float) -> float:
        """That lag in s, which `share` of the last minute's did not exceed; NaN without any."""
        return self._echoes.quantile(share, self.loop.time())

    @property
    def behind(self) -> int:
        """Viewers who have not been shown the newest tick."""
        return sum(room.behind for room in self.rooms.values())

    def on_lost(self, viewer: Viewer) -> None:
        """The connection of a viewer is gone."""
        self.viewers -= 1
        self.wheel.discard(viewer)
        if not self.viewers:
            self._deserted.set()
        self._on_gone(viewer)

    def count_user(self, user: str) -> None:
        """One more connection of `user`. Raises Refused: too_many_connections."""
        count = self._users.get(user, 0)
        if count >= self.settings.viewers_per_user_max:
            raise Refused("too_many_connections")
        self._users[user] = count + 1

    def uncount_user(self, user: str) -> None:
        """One connection of `user` less."""
        left = self._users[user] - 1
        if left:
            self._users[user] = left
        else:
            del self._users[user]

    # --- End ------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """Ask all viewers to come back elsewhere, spread over `seconds`, and wait until they left.

        Ends at the latest CLOSE_SECONDS after the last was asked (then they are aborted).
        """
        viewers = [viewer for room in self.rooms.values() for viewer in room]
        log.info("drain_started", viewers=len(viewers))
        slices = max(1, round(seconds / DRAIN_SLICE_SECONDS))
        for number in range(slices):
            for viewer in viewers[number::slices]:
                viewer.shutdown()
            if number + 1 < slices and self.viewers:
                await asyncio.sleep(DRAIN_SLICE_SECONDS)
        for viewer in [late for room in self.rooms.values() for late in room]:
            viewer.shutdown()  # its handshake was under way when the drain began
        if not self.viewers:
            return
        self._deserted.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._deserted.wait(), limits.CLOSE_SECONDS + 1)
