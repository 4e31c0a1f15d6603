"""What a room's own viewers add to the show: danmaku and likes, merged per tick before Redis.

At most one script call of each kind per tick and room, however many viewers tap and talk. A task
runs only while there is something to send.
"""

import asyncio
from collections.abc import Iterator

import structlog

from server import clock, limits
from server.errors import StoreUnavailable
from server.hub.ports import RoomStorePort
from server.protocol.messages import ChatLine
from server.telemetry import metrics

log = structlog.get_logger()

RETRY_SECONDS = 1.0  # after Redis did not answer


class Outbox:
    """Pending lines and taps of one room on one hub.

    `numbers` rise, and none was used for a like batch of this show and hub before.
    """

    __slots__ = (
        "_batch",
        "_batch_no",
        "_folded",
        "_hub_id",
        "_lines",
        "_numbers",
        "_show_id",
        "_store",
        "_taps",
        "_task",
        "_tick_s",
    )

    def __init__(
        self,
        store: RoomStorePort,
        show_id: str,
        hub_id: str,
        tick_s: float,
        numbers: Iterator[int],
    ) -> None:
        self._store = store
        self._show_id = show_id
        self._hub_id = hub_id
        self._tick_s = tick_s
        self._numbers = numbers
        self._lines: list[ChatLine] = []
        self._folded = 0
        self._taps = 0
        self._batch = 0  # taps of the batch in flight; sent again under its number until answered
        self._batch_no = 0
        self._task: asyncio.Task[None] | None = None

    def add_line(self, line: ChatLine) -> None:
        """Publish a line with this tick's others.

        Beyond CHAT_PUBLISH_PER_TICK_MAX one is folded, each of the tick's lines as likely as any
        other (reservoir sampling, Vitter 1985, algorithm R), so that being quick wins nothing.
        """
        self._lines.append(line)
        kept = limits.CHAT_PUBLISH_PER_TICK_MAX
        if len(self._lines) > kept:
            self._folded += 1
            (chosen,) = clock.sample(kept + self._folded, 1)
            del self._lines[min(chosen, kept)]
        self._wake()

    def add_taps(self, taps: int) -> None:
        """Add `taps` likes to the show's total with this tick's one increment."""
        self._taps += taps
        self._wake()

    @property
    def is_empty(self) -> bool:
        """Nothing is waiting to be sent, nor under way."""
        return self._task is None

    async def settled(self) -> None:
        """Wait until everything is sent, or given up on by cancelling."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    def stop(self) -> None:
        """Give up on what is not sent yet."""
        if self._task is not None:
            self._task.cancel()

    def _wake(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._lines or self._folded or self._taps or self._batch:
                answered = await self._send_lines() and await self._send_taps()
                await asyncio.sleep(self._tick_s if answered else RETRY_SECONDS)
        finally:
            self._task = None

    async def _send_lines(self) -> bool:
        """False when Redis did not answer: whether the lines are out is unknown, so no repeat."""
        if not self._lines and not self._folded:
            return True
        lines, self._lines = self._lines, []
        folded, self._folded = self._folded, 0
        metrics.danmaku.add("sent_on", len(lines))
        metrics.danmaku.add("folded", folded)
        try:
            await self._store.publish_chat(self._show_id, lines, folded)
        except StoreUnavailable:
            log.warning("chat_not_published", show_id=self._show_id, lines=len(lines))
            return False
        return True

    async def _send_taps(self) -> bool:
        """False when Redis did not answer: the same batch is sent again, and counted once."""
        if not self._batch:
            self._batch, self._taps = self._taps, 0
            if not self._batch:
                return True
            self._batch_no = next(self._numbers)
        try:
            await self._store.add_likes(self._show_id, self._hub_id, self._batch_no, self._batch)
        except StoreUnavailable:
            log.warning("likes_not_counted_yet", show_id=self._show_id, taps=self._batch)
            return False
        self._batch = 0
        return True
