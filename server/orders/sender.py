"""Tells merchants what happened: outbox -> messages -> deliveries -> their URLs.

Every worker does this; rows are shared out by PostgreSQL (records/webhooks.py), so none is sent by
two while one has it in hand. Each round writes down what became of earlier attempts, makes
messages of new rows, and starts attempts for endpoints that have something due.

One endpoint never delays the others: it begins with few attempts under way and gets one more with
each answer, up to WEBHOOKS_PER_ENDPOINT_MAX; one that does not answer is left alone for a while,
which doubles, then asked by a single attempt.
Bodies are held in memory only for attempts under way, at most WEBHOOKS_IN_HAND_MAX.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from server import clock, limits
from server.errors import RecordsUnavailable
from server.orders import metrics
from server.orders.waiting import Backoff, wait_for
from server.records import webhooks
from server.records.pool import Connection, Pool, acquire
from server.records.webhooks import InHand, Outcome
from server.webhooks.send import Answer, Outgoing, Post, SystemResolver, open_post

log = structlog.get_logger()

ROUND_MS: Final = 250
BUSY_ROUND_MS: Final = 10  # while attempts are under way or the outbox has more
OUTBOX_ROWS: Final = 4  # turned into messages in one transaction; each up to a worker's batch
STOCK_EVERY_MS: Final = 1_000
STOCK_ENDED_DAYS: Final = 7
FORGET_EVERY_MS: Final = 60_000
FORGET_MESSAGES: Final = 10_000
STOP_SECONDS: Final = 3.0  # at a stop, for attempts under way; others take them over later

# Pauses after the first, second... attempt, as Standard Webhooks suggests; then it has failed.
# Together about three days.
RETRY_S: Final = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
RETRY_SPREAD: Final = 0.2
IN_HAND_S: Final = 3 * limits.WEBHOOK_SECONDS  # then its worker is taken for dead
PLACES_FIRST: Final = 2  # of an endpoint that has not answered yet
REST_FIRST_MS: Final = 1_000  # how long an endpoint that does not answer is left alone
REST_MAX_MS: Final = 300_000


@dataclass(slots=True)
class Manners:
    """How this worker treats one endpoint: `places` for attempts, and rest after silence."""

    under_way: int = 0
    places: int = PLACES_FIRST
    rest_ms: int = 0
    rests_until: float = 0.0  # monotonic ms

    def free(self, now: float) -> int:
        """How many attempts more may start now."""
        if self.rest_ms:
            return int(now >= self.rests_until and not self.under_way)
        return self.places - self.under_way

    def ended(self, answer: Answer) -> None:
        """An attempt is over. Of several that fail together only one lengthens the rest."""
        self.under_way -= 1
        if not answer.is_overloaded:
            self.rest_ms = 0
            self.places = min(self.places + 1, limits.WEBHOOKS_PER_ENDPOINT_MAX)
            return
        self.places = 1
        if clock.monotonic_ms() >= self.rests_until:
            self.rest_ms = min(max(REST_FIRST_MS, 2 * self.rest_ms), REST_MAX_MS)
            self.rests_until = clock.monotonic_ms() + clock.jittered(self.rest_ms, RETRY_SPREAD)

    def is_idle(self, now: float) -> bool:
        """Nothing to remember but what a few answers teach again."""
        return not self.under_way and now >= self.rests_until


@dataclass(slots=True)
class Sender:
    """`post` makes one attempt."""

    pool: Pool
    post: Post
    _endpoints: dict[int, Manners] = field(default_factory=lambda: defaultdict(Manners))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _ended: list[Outcome] = field(default_factory=list)
    _gone: set[int] = field(default_factory=set)  # endpoints that answered 410
    _behind: bool = False  # the outbox has more
    _stock_due: float = 0.0
    _forget_due: float = 0.0

    async def run(self, stopping: asyncio.Event) -> None:
        """Rounds until `stopping` is set; outages of PostgreSQL are waited out."""
        backoff = Backoff()
        try:
            while not stopping.is_set():
                try:
                    await self.round()
                    backoff.reset()
                    busy = self._tasks or self._ended or self._behind
                    pause_ms = BUSY_ROUND_MS if busy else ROUND_MS
                except RecordsUnavailable as outage:
                    pause_ms = backoff.next_ms()
                    log.warning("sender_backs_off", reason=str(outage), pause_ms=pause_ms)
                except Exception:  # orders must go on being stored by this process
                    pause_ms = backoff.next_ms()
                    log.exception("sender_failed", pause_ms=pause_ms)
                await wait_for(stopping, pause_ms)
            await self._finish()
        finally:
            for task in self._tasks:
                task.cancel()

    async def round(self) -> None:
        """Once everything that is to be done now. Raises RecordsUnavailable."""
        async with acquire(self.pool) as conn:
            await self._settle(conn)
            if clock.monotonic_ms() < self._forget_due and not await webhooks.has_work(conn):
                self._behind = False
                return
            self._behind = await webhooks.make_messages(conn, OUTBOX_ROWS) == OUTBOX_ROWS
            await self._at_times(conn)
            for delivery in await self._due(conn):
                self._start(delivery)

    async def _finish(self) -> None:
        """Wait for the attempts under way, but not long, and write down what became of them.

        What cannot be written is sent once more, by whoever takes it over.
        """
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=STOP_SECONDS)
        with suppress(RecordsUnavailable):
            async with acquire(self.pool) as conn:
                await self._settle(conn)

    async def _at_times(self, conn: Connection) -> None:
        now = clock.monotonic_ms()
        if now >= self._stock_due:
            self._stock_due = now + STOCK_EVERY_MS
            await webhooks.note_stock(conn, STOCK_ENDED_DAYS)
        if now >= self._forget_due:
            self._forget_due = now + FORGET_EVERY_MS
            await webhooks.forget_old(conn, limits.WEBHOOK_LOG_DAYS, FORGET_MESSAGES)
            for number in [n for n, manners in self._endpoints.items() if manners.is_idle(now)]:
                del self._endpoints[number]

    # --- Attempts -----------------------------------------------------------------------------

    async def _due(self, conn: Connection) -> list[InHand]:
        """Deliveries now in this worker's hands, some of every endpoint that has any due."""
        now = clock.monotonic_ms()
        free = limits.WEBHOOKS_IN_HAND_MAX - len(self._tasks)
        full = [number for number, manners in self._endpoints.items() if manners.free(now) <= 0]
        taken: list[InHand] = []
        for number in await webhooks.endpoints_due(conn, full, max(0, free)):
            manners = self._endpoints.get(number, Manners())
            if (places := min(manners.free(now), free - len(taken))) > 0:
                taken += await webhooks.take_in_hand(conn, number, places, IN_HAND_S)
        return taken

    def _start(self, delivery: InHand) -> None:
        self._endpoints[delivery.endpoint_id].under_way += 1
        task = asyncio.create_task(self._attempt(delivery))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _attempt(self, delivery: InHand) -> None:
        message = Outgoing(delivery.url, delivery.secret, delivery.webhook_id, delivery.body)
        try:
            answer = await self.post.send(message)
        except Exception as fault:  # ours: the place of this attempt must be free again
            log.exception("webhook_attempt_failed", endpoint=delivery.endpoint_id)
            answer = Answer(0, type(fault).__name__)
        outcome = outcome_of(delivery, answer)
        metrics.webhooks.labels(outcome.status).inc()
        self._ended.append(outcome)
        if answer.is_gone:
            self._gone.add(delivery.endpoint_id)
        self._endpoints[delivery.endpoint_id].ended(answer)

    async def _settle(self, conn: Connection) -> None:
        """Write down what became of attempts; kept for the next round if that fails."""
        ended = list(self._ended)
        await webhooks.settle(conn, ended)
        del self._ended[: len(ended)]
        for number in list(self._gone):
            if show_id := await webhooks.endpoint_gone(conn, number):
                log.warning("webhook_gone", show_id=show_id, endpoint=number)
            self._gone.discard(number)


def outcome_of(delivery: InHand, answer: Answer) -> Outcome:
    """Delivered, failed for good, or pending until the schedule's next attempt."""
    place = (delivery.delivery_id, delivery.attempts)
    if answer.is_delivered:
        return Outcome(*place, "delivered", answer.status, "", 0)
    if answer.is_gone or delivery.schedule > len(RETRY_S):
        return Outcome(*place, "failed", answer.status, answer.error, 0)
    wait_ms = clock.jittered(RETRY_S[delivery.schedule - 1] * 1000, RETRY_SPREAD)
    return Outcome(*place, "pending", answer.status, answer.error, wait_ms / 1000)


@asynccontextmanager
async def open_sender(pool: Pool, *, allow_private: bool) -> AsyncIterator[Sender]:
    """A sender with its connections, which end with the block."""
    with closing(SystemResolver()) as resolver:
        async with open_post(resolver, allow_private=allow_private) as post:
            yield Sender(pool, post)
