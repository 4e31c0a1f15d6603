"""The board of a room: everything its viewers can see, with a position after every change.

`position` counts changes. Whoever has been shown the board up to position p needs exactly what
changed after p: `since(p)` gives it in one piece, however long ago p was. So a viewer's whole
delivery state is one number, a viewer that does not read costs nothing, and joins, ticks, edges
and catch-ups cannot disagree about what was sent already.

- State keys: the newest (epoch, version) wins, older facts are dropped.
- Events: gapless by (epoch, seq). A later event is not shown before the missing ones are there.
- Danmaku: a window's lines are sampled when it is taken, and the rest counted. Lines that an event
  takes back are forgotten: who has not seen them yet never does.

Pure: no clock, no sockets; tests/property/test_room_consistency.py checks the promises.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from server import clock, limits
from server.hub.ports import Snapshot
from server.protocol.messages import ChatLine

LINE_FACTS_MAX: Final = 256  # danmaku facts kept for windows not yet shown; older ones are lost
EARLY_EVENTS_MAX: Final = 1_024  # events kept back behind a gap; above it the room resyncs

EventMap = dict[str, Any]
Outcome = Literal["shown", "known", "gap"]


class Changes:
    """What changed on the board after a position. `folded`: danmaku lines left out."""

    __slots__ = ("chat", "events", "folded", "state")

    def __init__(
        self,
        state: dict[str, Any],
        events: list[EventMap],
        chat: list[ChatLine],
        folded: int,
    ) -> None:
        self.state = state
        self.events = events
        self.chat = chat
        self.folded = folded


class Board:
    """See the module docstring. Made from a snapshot, then fed with facts."""

    __slots__ = (
        "_changed_at",
        "_early",
        "_events",
        "_gone",
        "_lines",
        "epoch",
        "floor",
        "gate",
        "position",
        "recent",
        "removed_at",
        "removed_users",
        "seq",
        "state",
        "stock_epoch",
    )

    def __init__(self, snapshot: Snapshot, history: Sequence[EventMap] = ()) -> None:
        """`history`: events up to the snapshot's seq, gapless, so that resumes find them."""
        self.position = 0
        self.removed_at = 0  # position since which no line was taken back
        # User -> position since which they are removed, until a policy says whether they are.
        self.removed_users: dict[str, int] = {}
        # Ids of lines taken back, whose facts may be late.
        self._gone: deque[str] = deque(maxlen=limits.RECENT_CHAT_MAX)
        self._show_all(snapshot)
        if history and history[-1]["seq"] == snapshot.seq:
            self._events.extend((self.position, event) for event in history)
            self._gone.extend(one["line"] for one in history if one["k"] == "line_removed")

    def _show_all(self, snapshot: Snapshot) -> None:
        """Replace the whole board. Who saw an earlier one needs a new welcome."""
        self.position += 1
        self.floor = self.position
        self.epoch = snapshot.epoch
        self.seq = snapshot.seq
        self.stock_epoch = snapshot.stock_epoch
        self.gate = snapshot.gate
        self.state: dict[str, dict[str, Any]] = dict(snapshot.state)
        # Key -> position of its newest change; the newest is last.
        self._changed_at = dict.fromkeys(self.state, self.position)
        self._events: deque[tuple[int, EventMap]] = deque(maxlen=limits.HISTORY_EVENTS_MAX)
        self._early: dict[int, EventMap] = {}  # seq -> event kept back behind a gap
        self._lines: deque[tuple[int, list[ChatLine], int]] = deque(maxlen=LINE_FACTS_MAX)
        self.recent: deque[ChatLine] = deque(snapshot.chat, maxlen=limits.RECENT_CHAT_MAX)

    # --- Changing it ----------------------------------------------------------------------------

    def set_state(self, key: str, value: dict[str, Any]) -> bool:
        """Show `value` (a map with epoch and version) if it is newer. True when it was."""
        old = self.state.get(key)
        if old is not None and not _is_newer(value, old):
            return False
        self.position += 1
        self.state[key] = value
        self._changed_at.pop(key, None)  # to the end: the order of the dict is that of changes
        self._changed_at[key] = self.position
        if key.startswith(("stock:", "sale:")):
            self.stock_epoch = max(self.stock_epoch, value["epoch"])
        return True

    def add_event(self, epoch: int, event: EventMap) -> Outcome:
        """Show event number `event["seq"]`, and those kept back behind it.

        gap: earlier events are missing (this one is kept back), or the epoch is a new one.
        """
        seq: int = event["seq"]
        if epoch < self.epoch or (epoch == self.epoch and seq <= self.seq):
            return "known"
        if epoch > self.epoch:
            return "gap"
        if seq > self.seq + 1:
            if len(self._early) < EARLY_EVENTS_MAX:
                self._early[seq] = event
            return "gap"
        self._append(event)
        self._append_early()
        return "shown"

    def _append_early(self) -> None:
        while (event := self._early.pop(self.seq + 1, None)) is not None:
            self._append(event)

    def _append(self, event: EventMap) -> None:
        self.position += 1
        self.seq = event["seq"]
        if len(self._events) == limits.HISTORY_EVENTS_MAX:
            self.floor = max(self.floor, self._events[0][0])
        self._events.append((self.position, event))
        self._take_back(event)

    def _take_back(self, event: EventMap) -> None:
        """Forget the lines that must not be shown any more once this event was."""
        if event["k"] == "line_removed":
            self._gone.append(event["line"])
            self._forget(lambda line: line.id == event["line"])
        elif event["k"] == "user_removed":
            self.removed_users[event["user"]] = self.position
            self._forget(lambda line: line.user == event["user"])

    def _forget(self, is_gone: Callable[[ChatLine], bool]) -> None:
        """What was folded stays counted, and facts keep their positions."""
        self.removed_at = self.position
        for _, lines, _ in self._lines:
            lines[:] = [line for line in lines if not is_gone(line)]
        kept = [line for line in self.recent if not is_gone(line)]
        self.recent.clear()
        self.recent.extend(kept)

    def believe_policy(self, begun_at: int, banned: Collection[str]) -> None:
        """What was removed up to position `begun_at`, where the policy was asked for, this policy
        knows better. Lines of those it bans are forgotten, which a snapshot may have brought."""
        self.removed_users = {u: at for u, at in self.removed_users.items() if at > begun_at}
        if any(line.user in banned for line in self.recent):
            self.position += 1
            self._forget(lambda line: line.user in banned)

    def add_lines(self, lines: Sequence[ChatLine], folded: int) -> bool:
        """Show danmaku of one tick of one hub; `folded` more were left out there.

        A snapshot may hold lines whose fact comes only now: those are not shown again, and those
        taken back not at all.
        """
        known = {line.id for line in self.recent} | set(self._gone)
        lines = [line for line in lines if line.id not in known]
        if not lines and not folded:
            return False
        self.position += 1
        self._lines.append((self.position, lines, folded))
        self.recent.extend(lines)
        return True

    def heal(self, snapshot: Snapshot, seq_before: int) -> int:
        """Take over what a fresh snapshot knows better; how many events are still missing.

        `seq_before` is the board's seq when the snapshot was asked for: a snapshot behind that
        comes from a Redis that lost data, and replaces the board like a new epoch does. Missing
        events (result > 0) are to be fetched and given to `add_event`, or `jump` called.
        """
        lost = snapshot.epoch == self.epoch and snapshot.seq < seq_before
        if snapshot.epoch > self.epoch or lost:
            self._show_all(snapshot)
            return 0
        self.gate = snapshot.gate
        self.stock_epoch = max(self.stock_epoch, snapshot.stock_epoch)
        for key, value in snapshot.state.items():
            self.set_state(key, value)
        return max(0, snapshot.seq - self.seq) if snapshot.epoch == self.epoch else 0

    def jump(self, snapshot: Snapshot) -> None:
        """Events up to the snapshot's are lost for good: everybody gets a new welcome."""
        if snapshot.epoch == self.epoch and snapshot.seq > self.seq:
            early = self._early
            self._show_all(snapshot)
            self._early = {seq: event for seq, event in early.items() if seq > self.seq}
            self._append_early()

    # --- Reading it -----------------------------------------------------------------------------

    def since(self, position: int) -> Changes:
        """What changed after `position`, which must not be below `floor`."""
        state: dict[str, Any] = {}
        for key in reversed(self._changed_at):
            if self._changed_at[key] <= position:
                break
            state[key] = self.state[key]
        events = _newest_first(self._events, position)
        chat, folded = self._sample(position)
        return Changes(state, events[::-1], chat, folded)

    def _sample(self, position: int) -> tuple[list[ChatLine], int]:
        """At most CHAT_LINES_PER_TICK_MAX of the lines after `position`, in order, evenly drawn."""
        lines: list[ChatLine] = []
        folded = 0
        for at, some, more in reversed(self._lines):
            if at <= position:
                break
            lines[:0] = some
            folded += more
        extra = len(lines) - limits.CHAT_LINES_PER_TICK_MAX
        if extra <= 0:
            return lines, folded
        drawn = clock.sample(len(lines), limits.CHAT_LINES_PER_TICK_MAX)
        return [lines[index] for index in drawn], folded + extra

    def missed(self, epoch: int, seq: int) -> list[EventMap] | None:
        """Events after a viewer's (epoch, seq), or None when there is no gapless answer."""
        count = self.seq - seq
        if epoch != self.epoch or not 0 <= count <= limits.RESUME_EVENTS_MAX:
            return None
        if count > len(self._events):
            return None
        return [event for _, event in _last(self._events, count)]


def _is_newer(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    newer: bool = (new["epoch"], new["version"]) > (old["epoch"], old["version"])
    return newer


def _newest_first(log: deque[tuple[int, EventMap]], position: int) -> list[EventMap]:
    found = []
    for at, item in reversed(log):
        if at <= position:
            break
        found.append(item)
    return found


def _last(log: deque[tuple[int, EventMap]], count: int) -> Iterable[tuple[int, EventMap]]:
    return list(log)[len(log) - count :]
