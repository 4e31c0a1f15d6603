"""What the hub needs from the world, as Protocols: it never imports store or web.

server/web/app.py hands in server.store's RoomStore, Bus and RedisClock, which fit as they are;
tests hand in plain objects.
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from server.domain.presence import PresenceAnswer, PresenceReport
from server.errors import StoreUnavailable
from server.protocol.facts import Fact, Resync
from server.protocol.messages import ChatLine, ClaimState, Command

if TYPE_CHECKING:
    from server.hub.room import Room
    from server.hub.viewer import Viewer


class Snapshot(Protocol):
    """One consistent cut of a show (store.types.RoomSnapshot)."""

    @property
    def epoch(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def stock_epoch(self) -> int: ...
    @property
    def gate(self) -> str: ...

    @property
    def rebuild(self) -> str: ...
    @property
    def state(self) -> Mapping[str, dict[str, Any]]: ...
    @property
    def chat(self) -> Sequence[ChatLine]: ...


def require_show(snapshot: Snapshot) -> None:
    """Raises StoreUnavailable when Redis has lost the show and not been given it back yet: what is
    there by then (presence, likes) is no reason to take everything else from viewers."""
    lost = not snapshot.gate or (snapshot.rebuild and "show" not in snapshot.state)
    if lost:
        raise StoreUnavailable("the show is being rebuilt")


class RoomStorePort(Protocol):
    """The room of a show in Redis (store.room.RoomStore). All raise StoreUnavailable."""

    async def snapshot(self, show_id: str) -> Snapshot | None: ...

    async def events_after(
        self, show_id: str, epoch: int, seq: int, limit: int
    ) -> list[dict[str, Any]] | None:
        """Events seq+1, seq+2, ... in order; None when they are no longer all there."""

    async def add_likes(self, show_id: str, hub_id: str, batch_no: int, taps: int) -> object:
        """Idempotent by (hub_id, batch_no); batch numbers only rise."""

    async def publish_chat(self, show_id: str, lines: Sequence[ChatLine], folded: int) -> None: ...

    async def report_presence(
        self, show_id: str, hub_id: str, report: PresenceReport, ttl_ms: int
    ) -> PresenceAnswer:
        """Idempotent by (hub_id, report.number); report numbers only rise."""

    async def report_counts(self, show_id: str, hub_id: str, lines: int, claims: int) -> None:
        """Totals of a hub; the greatest count."""

    async def heartbeat(self, show_id: str, hub_id: str, n: int) -> None: ...


class BusPort(Protocol):
    """Facts of the subscribed shows (store.bus.Bus)."""

    async def subscribe(self, show_id: str, hub_id: str) -> None: ...

    async def unsubscribe(self, show_id: str) -> None: ...

    def facts(self) -> AsyncIterator[tuple[str, Fact | Resync]]: ...

    async def reconnect(self, shows: Collection[str]) -> None:
        """Drop the connections of these shows, because their silence shows that they are deaf;
        Resyncs follow."""


class ClockPort(Protocol):
    """Redis time (store.redis_clock.RedisClock)."""

    def now_ms(self) -> int: ...

    async def refresh(self) -> None:
        """Measure the offset to Redis again; the hub calls it every few seconds."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The three together."""

    store: RoomStorePort
    bus: BusPort
    clock: ClockPort


@dataclass(frozen=True, slots=True)
class HubSettings:
    """The settings of server/config.py that the hub works by."""

    tick_ms: int = 100
    viewers_per_user_max: int = 10
    ping_seconds: int = 20
    pong_seconds: int = 20


class Dispatch(Protocol):
    """Carries out one command of one viewer; plain, it may start tasks of its own."""

    def __call__(self, viewer: "Viewer", command: Command, /) -> None: ...


OnOrders = Callable[["Room", Sequence[tuple[str, ClaimState]]], None]
OnPolicy = Callable[["Room"], None]
BannedIn = Callable[["Room"], Collection[str]]
OnRebuild = Callable[["Room", str], None]
OnGone = Callable[["Viewer"], None]
