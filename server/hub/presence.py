"""What Redis is told of the people in one room of this hub, so that it can count them exactly.

Only users who came or left since the last report are told, in portions. A report whose answer was
lost is sent again under its number. When Redis knows something else of this hub than it was told
(it lost the last writes, or let the hub go while that was frozen), the hub tells of everybody.
"""

from itertools import islice
from typing import TYPE_CHECKING, Final

from server import limits
from server.domain.presence import PresenceReport

if TYPE_CHECKING:
    from server.hub.room import Room

TTL_MS: Final = 10_000  # people of a killed hub are gone everywhere after that
# A report counts for so long, two may be lost; the rest is for another hub's next one to notice.
REPORT_MS: Final = TTL_MS - 4_000
CALLS_MAX: Final = 256  # reports at one beat; the rest waits for the next


class Presence:
    """See the module docstring. One caller of `tell` at a time."""

    __slots__ = ("_changed", "_known", "_room", "_sent", "_told_at")

    def __init__(self, room: "Room") -> None:
        self._room = room
        self._changed: dict[str, None] = {}  # users who came or left and are not in a report yet
        self._sent: PresenceReport | None = None  # without an answer so far
        self._known = 0  # number of the last report that counts
        self._told_at = float("-inf")  # loop time when Redis had been told everything

    def changed(self, user: str) -> None:
        """The first connection of `user` has come, or the last one has gone."""
        self._changed[user] = None

    async def tell(self) -> None:
        """Report until Redis knows who is here. Raises StoreUnavailable: maybe it knows a part."""
        time = self._room.hub.loop.time
        # Where our reports were late, those of the other hubs may be late for the same reason.
        is_steady = time() - self._told_at < REPORT_MS / 1_000
        for _ in range(CALLS_MAX):
            if not await self._tell_portion(is_steady):
                self._told_at = time()
                return

    async def _tell_portion(self, is_steady: bool) -> bool:
        """Whether there is more to be done."""
        room = self._room
        report = self._sent = self._next_report()._replace(
            anonymous=room.anonymous,
            more_follow=bool(self._changed),
            may_let_go=is_steady,
        )
        answer = await room.hub.ports.store.report_presence(
            room.show_id, room.hub.hub_id, report, REPORT_MS
        )
        if answer.counts:
            self._known, self._sent = report.number, None
            return report.more_follow or answer.is_unswept
        if report.after:
            self._begin_anew()
        return True  # a first report has to wait until what was known of us is taken out

    def _next_report(self) -> PresenceReport:
        """The one that was not answered, or a new one."""
        if self._sent is not None:
            return self._sent
        here = self._room.users
        users = list(islice(self._changed, limits.PRESENCE_PORTION_MAX))
        for user in users:
            del self._changed[user]
        return PresenceReport(
            number=next(self._room.hub.numbers),
            after=self._known,
            came=[user for user in users if user in here],
            left=[user for user in users if user not in here],
        )

    def _begin_anew(self) -> None:
        self._known, self._sent = 0, None
        self._changed = dict.fromkeys(self._room.users)
