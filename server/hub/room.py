"""A room: the viewers of one show on this hub, and the frames they are sent.

Facts come in by `offer` and change the board (server/hub/board.py); the phase groups
(server/hub/phases.py) are flushed by the hub's ticker and ask the room for frames. A frame is
encoded once for all who stand at the same position with the same codec. Nothing here awaits.
"""

from collections.abc import Collection, Iterable, Iterator, KeysView
from typing import TYPE_CHECKING, Any, Final

from server.errors import Refused
from server.hub.board import Board
from server.hub.counts import Counts
from server.hub.outbox import Outbox
from server.hub.phases import PhaseGroup
from server.hub.presence import Presence
from server.hub.viewer import Viewer
from server.protocol import facts
from server.protocol.codec import Codec
from server.protocol.messages import PROTOCOL_VERSION, ChatLine, Command, Tick, Welcome
from server.telemetry import metrics

if TYPE_CHECKING:
    from server.hub.hub import Hub

WELCOMES_MAX: Final = 64  # different welcome frames kept for one tick


class Room:
    """See the module docstring. Made by Hub.room."""

    __slots__ = (
        "_frames",
        "_frames_at",
        "_groups",
        "_signed_in",
        "_users",
        "_welcomes",
        "_welcomes_tick",
        "board",
        "counts",
        "empty_since",
        "heard_at",
        "hub",
        "outbox",
        "presence",
        "show_id",
        "viewers",
    )

    def __init__(self, show_id: str, hub: "Hub", board: Board) -> None:
        self.show_id = show_id
        self.hub = hub
        self.board = board
        self.outbox = Outbox(hub.ports.store, show_id, hub.hub_id, hub.ticker.tick_s, hub.numbers)
        self.counts = hub.counts.setdefault(show_id, Counts())
        self.viewers = 0
        self.empty_since = hub.loop.time()  # loop time since when it has no viewers
        self.heard_at = hub.loop.time()  # loop time of our last heartbeat through the bus
        self.presence = Presence(self)
        self._users: dict[str, tuple[Viewer, ...]] = {}
        self._signed_in = 0  # viewers with a user
        self._groups: dict[Codec, list[PhaseGroup]] = {}
        # (codec, position) -> frame up to `_frames_at`
        self._frames: dict[tuple[Codec, int], bytes] = {}
        self._frames_at = board.position
        # (codec, resume point or None) -> (frame, position), of this tick
        self._welcomes: dict[tuple[Codec, tuple[int, int] | None], tuple[bytes, int]] = {}
        self._welcomes_tick = -1

    # --- What it shows --------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, dict[str, Any]]:
        """State key -> newest value (a map as in messages.STATE_VALUES). Not to be changed."""
        return self.board.state

    @property
    def is_over(self) -> bool:
        """Whether the show has ended, as far as this hub knows."""
        return self.state.get("show", {}).get("phase") == "ended"

    @property
    def epoch(self) -> int:
        return self.board.epoch

    @property
    def seq(self) -> int:
        return self.board.seq

    @property
    def stock_epoch(self) -> int:
        return self.board.stock_epoch

    @property
    def position(self) -> int:
        return self.board.position

    @property
    def tick(self) -> int:
        return self.hub.ticker.n

    @property
    def users(self) -> KeysView[str]:
        """Users with a connection here."""
        return self._users.keys()

    @property
    def anonymous(self) -> int:
        """Connections here that nobody signed in on."""
        return self.viewers - self._signed_in

    @property
    def behind(self) -> int:
        """Viewers who have not been shown the newest tick."""
        return sum(len(group.behind) for groups in self._groups.values() for group in groups)

    # --- Facts ----------------------------------------------------------------------------------

    def offer(self, fact: facts.Fact) -> None:
        """Take in one fact from the bus."""
        match fact:
            case facts.StateFact(key, value, edge):
                if self.board.set_state(key, value):
                    self.changed(edge=edge)
            case facts.EventFact(epoch, event):
                self._offer_event(epoch, event)
            case facts.ChatFact(lines, folded):
                if self.board.add_lines(self._not_banned(lines), folded):
                    self.changed()
            case facts.OrderFact(orders):
                self.hub.on_orders(self, orders)
            case facts.KickFact(user, code):
                for viewer in self.viewers_of(user):
                    viewer.close(code)
            case facts.PolicyFact():
                self.hub.on_policy(self)
            case facts.RebuildFact(rebuild_id):
                self.hub.on_rebuild(self, rebuild_id)
            case facts.HeartbeatFact(hub_id, beat):
                if hub_id == self.hub.hub_id:
                    self.heard_at = self.hub.loop.time()
                    self.hub.on_heartbeat(beat)

    def _offer_event(self, epoch: int, event: dict[str, Any]) -> None:
        outcome = self.board.add_event(epoch, event)
        if outcome == "shown":
            self.changed()
        elif outcome == "gap":
            self.hub.heal(self)

    def _not_banned(self, lines: Iterable[ChatLine]) -> list[ChatLine]:
        """Their lines may be on the way still when users are banned, or kept by a Redis that was
        not told yet. The removal may be here before the policy that bans."""
        banned, removed = self.hub.banned_in(self), self.board.removed_users
        return [line for line in lines if line.user not in banned and line.user not in removed]

    def believe_policy(self, begun_at: int, banned: Collection[str]) -> None:
        """`banned` is in force, by a policy that was asked for at position `begun_at`."""
        self.board.believe_policy(begun_at, banned)

    def changed(self, *, edge: bool = False) -> None:
        """The board has moved on: show it in each group's instant, or now when it is an edge."""
        ticker = self.hub.ticker
        for groups in self._groups.values():
            for group in groups:
                if edge:
                    ticker.hurry(group)
                else:
                    ticker.schedule(group)

    def wake(self, group: PhaseGroup) -> None:
        """A viewer of `group` may be written to again."""
        self.hub.ticker.schedule(group)

    # --- What viewers add -----------------------------------------------------------------------

    def dispatch(self, viewer: Viewer, command: Command) -> None:
        """Carry out a viewer's command."""
        self.hub.dispatch(viewer, command)

    def say(self, line: ChatLine) -> None:
        """Publish an accepted danmaku line; it comes back through the bus like everybody's."""
        self.counts.lines += 1
        self.outbox.add_line(line)

    def add_likes(self, taps: int) -> None:
        """Count likes; the total comes back as state key `likes`."""
        self.outbox.add_taps(taps)

    def next_chat_id(self) -> str:
        """An id for a danmaku line, unique within the show."""
        return f"{self.hub.hub_id}-{next(self.hub.numbers)}"

    # --- Viewers --------------------------------------------------------------------------------

    def join(self, viewer: Viewer, before: bytes = b"") -> None:
        """Welcome `viewer`, behind the bytes `before`, and show it everything from there on."""
        frame, position = self._welcome(viewer.codec, viewer.resume)
        group = self._group_for(viewer.codec)
        group.add(viewer, position)
        viewer.group = group
        self.viewers += 1
        self.hub.on_joined(viewer)
        viewer.send_frame(before + frame)
        if position != self.board.position:
            self.wake(group)

    def leave(self, viewer: Viewer) -> None:
        """No more frames for `viewer`; it counts as gone. Calling it again changes nothing."""
        group = viewer.group
        if group is None:
            return
        viewer.group = None
        group.discard(viewer)
        if not len(group):
            self._groups[viewer.codec].remove(group)
            self.hub.ticker.forget(group)
        self._sign_out(viewer)
        self.viewers -= 1
        self.empty_since = self.hub.loop.time()

    def _group_for(self, codec: Codec) -> PhaseGroup:
        """The emptiest group with room; a new one when all are full."""
        groups = self._groups.setdefault(codec, [])
        best = min(groups, key=len, default=None)
        if best is None or best.is_full:
            best = PhaseGroup(self, codec, self.hub.ticker.new_phase())
            groups.append(best)
        return best

    def sign_in(self, viewer: Viewer, user: str, name: str, role: str, expires_at_ms: int) -> None:
        """`viewer` belongs to `user` from now on; for the same user again: a fresh token.

        Raises Refused: other_user, or too_many_connections of this user on this hub.
        """
        if viewer.user is None:
            self.hub.count_user(user)
            viewer.user = user
            self._signed_in += 1
            others = self._users.get(user, ())
            self._users[user] = (*others, viewer)
            if not others:
                self.presence.changed(user)
        elif viewer.user != user:
            raise Refused("other_user")
        viewer.name = name
        viewer.role = role
        viewer.expires_at_ms = expires_at_ms

    def _sign_out(self, viewer: Viewer) -> None:
        user = viewer.user
        if user is None:
            return
        rest = tuple(other for other in self._users[user] if other is not viewer)
        if rest:
            self._users[user] = rest
        else:
            del self._users[user]
            self.presence.changed(user)
        self._signed_in -= 1
        self.hub.uncount_user(user)

    def viewers_of(self, user: str) -> tuple[Viewer, ...]:
        """Open connections of `user` in this room on this hub."""
        return self._users.get(user, ())

    def __iter__(self) -> Iterator[Viewer]:
        """All viewers; a copy, so that they may leave meanwhile."""
        groups = [group for groups in self._groups.values() for group in groups]
        return iter([viewer for group in groups for viewer in (*group.current, *group.behind)])

    # --- Frames ---------------------------------------------------------------------------------

    def frame_since(self, position: int, codec: Codec) -> bytes:
        """The frame for viewers at `position`: a tick, or a welcome when the board was replaced."""
        board = self.board
        if self._frames_at != board.position:
            self._frames.clear()
            self._frames_at = board.position
        key = (codec, max(position, board.floor - 1))
        frame = self._frames.get(key)
        if frame is None:
            lost = position < board.floor
            message = self._new_welcome(None) if lost else self._new_tick(position)
            frame = self._frames[key] = codec.shared_frame(message)
        return frame

    def _new_tick(self, position: int) -> Tick:
        changes = self.board.since(position)
        metrics.danmaku.add("shown", len(changes.chat))
        metrics.danmaku.add("left_out", changes.folded)
        return Tick(
            n=self.tick,
            now=self.hub.ports.clock.now_ms(),
            state=changes.state,
            epoch=self.board.epoch if changes.events else 0,
            events=changes.events,  # type: ignore[arg-type]  # maps as in messages.Event
            chat=changes.chat,
            folded=changes.folded,
        )

    def _welcome(self, codec: Codec, resume: tuple[int, int] | None) -> tuple[bytes, int]:
        """A welcome frame and its position: cached within the tick, shared by all it suits.

        Who resumes may have seen the board a moment ago, so an older snapshot will not do there;
        nor one with lines that were taken back.
        """
        tick = self.tick
        if self._welcomes_tick != tick:
            self._welcomes.clear()
            self._welcomes_tick = tick
        missed = None if resume is None else self.board.missed(*resume)
        metrics.joins.add(
            "new" if resume is None else "snapshot" if missed is None else "recovered"
        )
        key = (codec, resume if missed is not None else None)
        cached = self._welcomes.get(key)
        board = self.board
        oldest = max(board.floor, board.removed_at) if missed is None else board.position
        if cached is not None and cached[1] >= oldest:
            return cached
        kept = key in self._welcomes or len(self._welcomes) < WELCOMES_MAX
        frame = codec.shared_frame if kept else codec.frame  # for one viewer, deflating is dear
        fresh = frame(self._new_welcome(missed)), self.board.position
        if kept:
            self._welcomes[key] = fresh
        return fresh

    def _new_welcome(self, missed: list[dict[str, Any]] | None) -> Welcome:
        board = self.board
        return Welcome(
            version=PROTOCOL_VERSION,
            show=self.show_id,
            epoch=board.epoch,
            seq=board.seq,
            now=self.hub.ports.clock.now_ms(),
            tick_ms=self.hub.settings.tick_ms,
            recovered=missed is not None,
            state=board.state,
            chat=self._not_banned(board.recent),
            events=missed or [],  # type: ignore[arg-type]  # maps as in messages.Event
        )
