"""A room that is played to a page: welcome and ticks come from the test, no server takes part."""

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec import structs
from playwright.async_api import WebSocketRoute

from server import clock
from server.protocol import messages as m
from server.protocol.examples import STATE_EXAMPLES

TICK_MS = 100
TEXTS = (
    "主播，蓝色的还有吗？",
    "冲！",
    "Is the kettle dishwasher safe?",
    "这个价真的可以",
    "已下单",
    "666",
)

_ENCODER = msgspec.msgpack.Encoder()
_COMMANDS = msgspec.msgpack.Decoder(m.Command)


@dataclass
class PlayedRoom:
    """Use `take` as the handler of `page.route_web_socket`."""

    routes: list[WebSocketRoute] = field(default_factory=list)
    lines: Iterator[int] = field(default_factory=itertools.count)
    ticks: int = 0

    def take(self, route: WebSocketRoute) -> None:
        route.on_message(lambda data: self._answer(route, data))
        self.routes.append(route)
        welcome = m.Welcome(
            version=1, show="played", epoch=1, seq=0, now=clock.now_ms(), tick_ms=TICK_MS,
            recovered=False, state=_selling(), chat=[],
        )  # fmt: skip
        route.send(_ENCODER.encode(welcome))

    def _answer(self, route: WebSocketRoute, data: str | bytes) -> None:
        """The server's time is all that a viewer who watches asks for."""
        match _COMMANDS.decode(data):  # type: ignore[arg-type]  # msgpack comes as bytes
            case m.Time(ref=ref, sent_at=sent_at):
                told = m.TimeResult(sent_at=sent_at, now=clock.now_ms())
                route.send(_ENCODER.encode(m.Accepted(ref=ref, time=told)))

    async def talk(self, seconds: float, lines_per_tick: int) -> None:
        """Danmaku at a steady pace: late ticks do not shift later ones."""
        begin = clock.monotonic_ms()
        for number in range(int(seconds * 1000 / TICK_MS)):
            await asyncio.sleep(max(0, begin + number * TICK_MS - clock.monotonic_ms()) / 1000)
            self._tick([self._line() for _ in range(lines_per_tick)])

    def _tick(self, chat: list[m.ChatLine]) -> None:
        self.ticks += 1
        people = 3_000 + self.ticks % 50
        online = m.OnlineState(epoch=2_000_000_000, version=self.ticks, people=people)
        tick = m.Tick(n=self.ticks, now=clock.now_ms(), state={"online": online}, chat=chat)
        self.routes[-1].send(_ENCODER.encode(tick))

    def _line(self) -> m.ChatLine:
        number = next(self.lines)
        user = f"u-{number % 500}"
        text = f"{TEXTS[number % len(TEXTS)]} {number}"
        return m.ChatLine(id=f"h-{number}", user=user, name=user, role="viewer", text=text)


def _selling() -> dict[str, Any]:
    """The examples' room, with its sale open for ten minutes from now."""
    now = clock.now_ms()
    sale = structs.replace(STATE_EXAMPLES["sale:7"], opens_at=now - 1_000, closes_at=now + 600_000)
    return {**STATE_EXAMPLES, "sale:7": sale}
