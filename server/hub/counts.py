"""What viewers of one show did on this hub, for the show's numbers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from server.hub.ports import RoomStorePort


class Counts:
    """Totals since the hub started: accepted lines of danmaku, and claims asked for the first time.

    Redis is told the totals themselves, again and again: a repeat is harmless, and a Redis that
    lost them has them back before anybody takes the rest for all. Redis keeps the greatest it was
    told, as a hub forgets a show that is over once its last viewer has left, and might begin anew.
    """

    __slots__ = ("_told", "claims", "lines")

    def __init__(self) -> None:
        self.lines = 0
        self.claims = 0
        self._told = (0, 0)

    @property
    def is_told(self) -> bool:
        """Whether Redis has had them all."""
        return self._told == (self.lines, self.claims)

    async def tell(self, store: "RoomStorePort", show_id: str, hub_id: str) -> None:
        """Raises StoreUnavailable."""
        totals = self.lines, self.claims
        if any(totals):
            await store.report_counts(show_id, hub_id, *totals)
            self._told = totals
