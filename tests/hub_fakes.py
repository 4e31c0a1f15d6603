"""Stand-ins for a room and its viewers, for tests of what is handed to them."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any

from server.hub.counts import Counts
from server.protocol import messages as m
from server.protocol.codec import MSGPACK


class FakeViewer:
    """Remembers what it was sent."""

    def __init__(self, room: "FakeRoom", user: str | None = None) -> None:
        self.room = room
        self.user = user
        self.name = user or ""
        self.role = "viewer"
        self.expires_at_ms = 2**50
        self.budget: Any = None
        self.codec = MSGPACK
        self.sent: list[Any] = []
        self.answers = 0  # of what was written past `send`
        self.refused: list[tuple[int | None, str]] = []
        self.details: list[dict[str, Any]] = []
        self.closed: list[int] = []
        if user is not None:
            room.users[user].append(self)

    def send(self, message: Any) -> None:
        if isinstance(message, m.RefusedReply):
            told = {"retry_ms": message.retry_ms, "price": message.price}
            self.refuse(message.ref, message.name, **told, price_version=message.price_version)
        else:
            self.sent.append(message)

    def answered(self, message: Any) -> None:
        self.answers += 1

    is_writable = False  # past the transport, as it has no socket

    def refuse(self, ref: int | None, name: str, **details: Any) -> None:
        self.refused.append((ref, name))
        self.details.append(details)

    def close(self, code: int) -> None:
        self.closed.append(code)

    def leave(self) -> None:
        assert self.user is not None
        self.room.users[self.user].remove(self)

    @property
    def claims(self) -> list[tuple[int, str]]:
        """(ref, status) of the claims that were accepted."""
        return [(x.ref, x.claim.status) for x in self.sent if isinstance(x, m.Accepted) and x.claim]

    @property
    def orders(self) -> list[str]:
        """Statuses of the order events it was sent."""
        return [x.order.status for x in self.sent if isinstance(x, m.OrderEvent)]


class FakeRoom:
    """A room that is only users and state."""

    def __init__(self, show_id: str = "show1") -> None:
        self.show_id = show_id
        self.stock_epoch = 1
        self.position = 0
        self.believed: list[tuple[int, set[str]]] = []  # policies: asked for where, banned users
        self.state: dict[str, dict[str, Any]] = {}
        self.users: dict[str, list[FakeViewer]] = defaultdict(list)
        self.said: list[m.ChatLine] = []
        self.counts = Counts()
        self.taps = 0
        self._lines = 0

    @property
    def viewers(self) -> int:
        return sum(map(len, self.users.values()))

    def viewers_of(self, user: str) -> tuple[FakeViewer, ...]:
        return tuple(self.users.get(user, ()))

    def sign_in(
        self, viewer: FakeViewer, user: str, name: str, role: str, expires_at_ms: int
    ) -> None:
        if viewer.user is None:
            self.users[user].append(viewer)
        viewer.user, viewer.name, viewer.role = user, name, role
        viewer.expires_at_ms = expires_at_ms

    def believe_policy(self, begun_at: int, banned: Collection[str]) -> None:
        self.believed.append((begun_at, set(banned)))

    def say(self, line: m.ChatLine) -> None:
        self.said.append(line)

    def add_likes(self, taps: int) -> None:
        self.taps += taps

    def next_chat_id(self) -> str:
        self._lines += 1
        return f"hub-{self._lines}"

    def stock(self, sale: int, left: int, version: int, epoch: int = 1) -> None:
        """Show a stock value, as the bus would."""
        self.state[f"stock:{sale}"] = {"epoch": epoch, "version": version, "left": left}
