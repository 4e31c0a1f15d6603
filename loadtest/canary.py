"""What one anonymous viewer of a real show feels while a rehearsal runs beside it.

It asks the time ten times a second (the server's answer tells how busy its loop is) and looks how
far apart the room's ticks come. A quiet room leaves ticks out; their numbers say how many, so the
gap is counted as if it never did. When our own loop was late, the window tells nothing; when that
goes on, nobody looks after the room, and the rehearsal ends.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from loadtest.report.summary import LiveRoom
from loadtest.target import here_only
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Time

ASK_S: Final = 0.1
WINDOW_S: Final = 2.0
BASELINE_S: Final = 5.0
WINDOWS_FELT: Final = 2  # one after the other: then the real room feels it
TICKS_MAX: Final = 3.0  # a gap of so many ticks is felt,
TICKS_MORE: Final = 2.0  # if it is also so many ticks more than before
REPLY_MORE_MS: Final = 100.0
OWN_LAG_MAX_MS: Final = 50.0
BLIND_MAX: Final = 5  # windows that told nothing, one after the other
FELT, BLIND = "live_room_felt_it", "canary_blind"
_REFS: Final = 1 << 16  # numbers of questions come again after so many


class Felt(NamedTuple):
    """The worst of a window in ms, p99: between two ticks, and until an answer."""

    tick_gap: float
    reply: float


class Canary:
    """Watches a real room; `on_end` is called once, when the rehearsal has to end; then `reason`
    is FELT or BLIND.

    `url`: http://HOST/ws/SHOW. A connection that ends counts as felt.
    """

    def __init__(self, url: str, on_end: Callable[[], None]) -> None:
        self._url = url
        self._on_end = on_end
        self._tick_ms = 100.0
        self._last: tuple[int, float] | None = None  # number and ms of the newest tick
        self._asked: dict[int, float] = {}
        self._gaps: list[float] = []
        self._replies: list[float] = []
        self._own_lag_ms = 0.0
        self._windows = self._blind = 0  # felt, or telling nothing, one after the other
        self._all_gaps: list[float] = []
        self._all_replies: list[float] = []
        self.before = Felt(0.0, 0.0)
        self.reason = ""

    async def run(self, begin: asyncio.Event) -> None:
        """Look for BASELINE_S, set `begin`, then look on until cancelled."""
        try:
            await self._watch(begin)
        except* (aiohttp.ClientError, OSError):
            self._end(FELT)
        finally:
            begin.set()

    def told(self) -> LiveRoom:
        """For the report."""
        gaps, replies = self._all_gaps + self._gaps, self._all_replies + self._replies
        return LiveRoom(
            self.before.tick_gap, _p99(gaps), self.before.reply, _p99(replies),
            stopped=self.reason == FELT, blind=self.reason == BLIND,
        )  # fmt: skip

    async def _watch(self, begin: asyncio.Event) -> None:
        async with (
            aiohttp.ClientSession(trace_configs=[here_only()]) as session,
            session.ws_connect(
                self._url,
                protocols=(SUBPROTOCOL_MSGPACK,),
                origin=self._url.partition("/ws/")[0],
            ) as viewer,
            asyncio.TaskGroup() as group,
        ):
            asking = group.create_task(self._ask(viewer))
            judging = group.create_task(self._judge(begin))
            async for message in viewer:
                if message.type is aiohttp.WSMsgType.BINARY:
                    self._take(msgspec.msgpack.decode(message.data), _now_ms())
            asking.cancel()
            judging.cancel()
        self._end(FELT)

    async def _ask(self, viewer: aiohttp.ClientWebSocketResponse) -> None:
        ref = 0
        while True:
            ref = ref % _REFS + 1
            self._asked[ref] = asked = _now_ms()
            await viewer.send_bytes(msgspec.msgpack.encode(Time(ref)))
            await asyncio.sleep(ASK_S)
            self._own_lag_ms = max(self._own_lag_ms, _now_ms() - asked - 1000 * ASK_S)

    async def _judge(self, begin: asyncio.Event) -> None:
        await asyncio.sleep(BASELINE_S)
        self.before = self._window()
        self._all_gaps.clear()
        self._all_replies.clear()
        self._own_lag_ms = 0.0
        begin.set()
        while True:
            await asyncio.sleep(WINDOW_S)
            self._weigh(self._window())

    def _weigh(self, felt: Felt) -> None:
        """Count windows in a row in which the room was served worse than before."""
        own_lag_ms, self._own_lag_ms = self._own_lag_ms, 0.0
        gap_max = self._tick_ms * TICKS_MAX
        gap_max = max(gap_max, self.before.tick_gap + TICKS_MORE * self._tick_ms)
        is_worse = felt.tick_gap > gap_max or felt.reply > self.before.reply + REPLY_MORE_MS
        if own_lag_ms > OWN_LAG_MAX_MS:
            self._blind += 1
            if self._blind >= BLIND_MAX:
                self._end(BLIND)
            return
        self._blind = 0
        self._windows = self._windows + 1 if is_worse else 0
        if self._windows >= WINDOWS_FELT:
            self._end(FELT)

    def _end(self, reason: str) -> None:
        if not self.reason:
            self.reason = reason
            self._on_end()

    def _window(self) -> Felt:
        """What was felt since the last look. Questions still open have waited so long already."""
        now_ms = _now_ms()
        replies = self._replies + [now_ms - asked for asked in self._asked.values()]
        felt = Felt(_p99(self._gaps), _p99(replies))
        self._all_gaps += self._gaps
        self._all_replies += self._replies
        self._gaps, self._replies = [], []
        return felt

    def _take(self, frame: dict[str, Any], now_ms: float) -> None:
        match frame.get("t"):
            case "welcome":
                self._tick_ms = float(frame["tick_ms"])
            case "tick":
                if self._last is not None:
                    number, at_ms = self._last
                    left_out = max(0, frame["n"] - number - 1)
                    self._gaps.append(now_ms - at_ms - left_out * self._tick_ms)
                self._last = frame["n"], now_ms
            case "accepted":
                with suppress(KeyError):
                    self._replies.append(now_ms - self._asked.pop(frame["ref"]))


def _now_ms() -> float:
    return time.monotonic_ns() / 1e6


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))] if values else 0.0
