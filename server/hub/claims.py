"""Claims of one hub on their way to Redis: send-on-idle batches, and what their answers cause.

One batch per show is in flight; the next leaves when its reply arrives, with whatever has
gathered meanwhile (at most CLAIM_BATCH_MAX). So a lone claim waits for nothing and a rush makes
its own batches; there is no timer. The queue is bounded: beyond CLAIM_QUEUE_MAX a claim is
answered `busy` at once. Once a claim has left for Redis it is never `busy`: when the reply is
lost it is `outcome_unknown`, and the same id sent again gets the true answer.

On this path there is no task, future or copy per claim, and what one viewer is to be told at one
moment is one write: a write costs the kernel more than all the rest of a claim costs us.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Final, Protocol

import structlog

from server import clock
from server.errors import ERRORS, ERRORS_BY_CODE, StoreUnavailable
from server.hub.direct import write_each
from server.hub.holds import Holds
from server.hub.proofs import Proofs
from server.hub.receipts import Receipts
from server.hub.redo import Redo
from server.hub.refusal import refusal
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.limits import CLAIM_BATCH_MAX, CLAIM_QUEUE_MAX, SOLD_OUT_CACHE_MS
from server.protocol.messages import Accepted, ClaimState, OrderEvent, RefusedReply
from server.telemetry import metrics
from server.telemetry.metrics import own_lane

log = structlog.get_logger()

ACCEPTED_BEFORE: Final = 1  # codes 0 and 1 accept, all others are in server/errors.py


class Request(Protocol):
    """A claim as the script wants it (store.types.ClaimRequest)."""

    @property
    def buyer(self) -> str: ...
    @property
    def claim_id(self) -> bytes: ...
    @property
    def pool(self) -> int: ...
    @property
    def attempt(self) -> int: ...


class Answer(Protocol):
    """What the script says of one claim (store.types.ClaimAnswer)."""

    @property
    def code(self) -> int: ...
    @property
    def state(self) -> ClaimState | None: ...
    @property
    def price(self) -> int: ...
    @property
    def price_version(self) -> int: ...


class Level(Protocol):
    """Units available in a pool at a version of a stock epoch (store.types.PoolLevel)."""

    @property
    def version(self) -> int: ...
    @property
    def available(self) -> int: ...
    @property
    def epoch(self) -> int: ...


class BatchAnswer(Protocol):
    """Answers in the order of the claims (store.types.ClaimBatchAnswer)."""

    @property
    def epoch(self) -> int: ...
    @property
    def answers(self) -> Sequence[Answer]: ...
    @property
    def pools(self) -> Mapping[int, Level]: ...


class ClaimStore(Protocol):
    """What decides claims (store.stock.Stock)."""

    async def claim_batch(
        self, show_id: str, hub_id: str, epoch: int, claims: Sequence[Any], /
    ) -> BatchAnswer:
        """Raises StoreUnavailable: the outcome is unknown, the same claims may be sent again."""


Waiting = tuple[Viewer, int, Request]  # who asked, under which ref, for what
News = tuple[str, ClaimState]  # whose claim moved on, and how it stands


class SoldOutCache:
    """Pools that were empty a moment ago: (epoch, version) of the news and when it goes stale."""

    __slots__ = ("_empty",)

    def __init__(self) -> None:
        self._empty: dict[int, tuple[int, int, float]] = {}

    def learn(self, pool: int, level: Level, now_ms: float) -> None:
        """Note what the script just said of a pool."""
        if level.available == 0:
            self._empty[pool] = (level.epoch, level.version, now_ms + SOLD_OUT_CACHE_MS)
        else:
            self._empty.pop(pool, None)

    def __contains__(self, pool: int) -> bool:
        """Is there any news of `pool`, old or not?"""
        return pool in self._empty

    def holds(self, pool: int, stock: Mapping[str, Any] | None, now_ms: float) -> bool:
        """Is a `pool` there is news of still empty? `stock`: its newest state value, which may
        know better."""
        epoch, version, until_ms = self._empty[pool]
        refilled = (
            stock is not None
            and stock["left"] > 0
            and (stock["epoch"], stock["version"]) > (epoch, version)
        )
        if now_ms < until_ms and not refilled:
            return True
        del self._empty[pool]
        return False


Message = Accepted | RefusedReply | OrderEvent


class Mail:
    """Messages to viewers, each viewer's in order, for one write to each."""

    __slots__ = ("_messages",)

    def __init__(self) -> None:
        self._messages: list[tuple[Viewer, Message]] = []

    def add(self, viewer: Viewer, message: Message) -> None:
        """One more for `viewer`."""
        self._messages.append((viewer, message))

    def send(self) -> None:
        """Write them, all at once to those who can take it."""
        frames: dict[Viewer, bytes] = {}
        for viewer, message in self._messages:
            if viewer.is_writable:
                frames[viewer] = frames.get(viewer, b"") + viewer.codec.frame(message)
                viewer.answered(message)
            else:
                viewer.send(message)
        write_each(list(frames), list(frames.values()))
        own_lane.add(len(frames), sum(map(len, frames.values())))


class ClaimBatcher:
    """The claims of one room: from the command to the answer, and the order events after it."""

    def __init__(
        self,
        room: Room,
        hub_id: str,
        store: ClaimStore,
        receipts: Receipts,
        holds: Holds,
        redo: Redo,
    ) -> None:
        self.room = room
        self._hub_id = hub_id
        self._store = store
        self._receipts = receipts
        self._holds = holds
        self._redo = redo
        self._ring = redo.of(room)
        self._proofs = Proofs(room, receipts, redo)
        self._queue: deque[Waiting] = deque()
        self._flight: asyncio.Task[None] | None = None
        self._in_flight = 0
        self._epoch = 0
        self._sold_out = SoldOutCache()
        self._overtaking: list[News] = []  # for the end of the batch in flight

    @property
    def waiting(self) -> int:
        """Claims not answered yet."""
        return len(self._queue) + self._in_flight

    def submit(self, viewer: Viewer, ref: int, request: Request) -> None:
        """Answer `request` on `viewer` under `ref`: now (sold_out, busy) or after the script, which
        a repeat (attempt above 0) always reaches."""
        if request.attempt == 0 and self._is_sold_out(request.pool):
            viewer.send(_refused(ref, "sold_out"))
        elif len(self._queue) >= CLAIM_QUEUE_MAX:
            viewer.send(_refused(ref, "busy"))
        else:
            self._queue.append((viewer, ref, request))
            if self._flight is None:
                self._flight = asyncio.create_task(self._fly())

    def resubmit(self, viewer: Viewer, ref: int, request: Request, hold: ClaimState) -> None:
        """`submit` of a repeat whose claim was held before, as the receipt of `hold` shows."""
        if len(self._queue) < CLAIM_QUEUE_MAX:
            self._proofs.add(request, hold)
        self.submit(viewer, ref, request)

    async def settled(self) -> None:
        """Wait until no claim is waiting (for a stop; new ones prolong it)."""
        while self._flight is not None:
            await asyncio.wait((self._flight,))

    def on_orders(self, orders: Iterable[tuple[str, ClaimState]]) -> None:
        """Claims of buyers moved on: tell every connection of theirs on this hub.

        News can overtake the answer to the claim itself, which travels on another connection;
        such news waits for the batch in flight, so that `held` always comes first.
        """
        mail = Mail()
        for buyer, state in orders:
            if self._in_flight and not self._holds.has(buyer, state.claim_id):
                self._overtaking.append((buyer, state))
            else:
                self._tell(mail, buyer, state)
        mail.send()

    # --- The flight of a batch ---------------------------------------------------------------

    async def _fly(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                answer = await self._ask([request for _, _, request in batch])
                try:
                    self._settle(batch, answer)
                except Exception:  # our fault; the claims behind must not wait for ever
                    log.exception("claims_not_settled", show_id=self.room.show_id)
        finally:
            self._in_flight = 0
            self._flight = None

    def _next_batch(self) -> list[Waiting]:
        queue = self._queue
        batch = list(islice(queue, CLAIM_BATCH_MAX))
        if len(batch) == len(queue):
            queue.clear()
        else:
            for _ in batch:
                queue.popleft()
        self._in_flight = len(batch)
        return batch

    async def _ask(self, claims: list[Request]) -> BatchAnswer | None:
        """The script's answer, None when it is unknown. A hub with an old stock epoch asks
        again with the one in force (nothing was accepted for the old one)."""
        began = clock.monotonic_ms()
        epoch = max(self._epoch, self.room.stock_epoch)
        try:
            answer = await self._store.claim_batch(self.room.show_id, self._hub_id, epoch, claims)
            if answer.epoch not in (0, epoch):
                self._epoch = answer.epoch
                answer = await self._store.claim_batch(
                    self.room.show_id, self._hub_id, answer.epoch, claims
                )
        except StoreUnavailable:
            log.warning("claim_batch_outcome_unknown", show_id=self.room.show_id, n=len(claims))
            return None
        except Exception:
            log.exception("claim_batch_failed", show_id=self.room.show_id, n=len(claims))
            return None
        metrics.claim_batch_claims.observe(len(claims))
        metrics.claim_batch_seconds.observe((clock.monotonic_ms() - began) / 1_000)
        return answer

    # --- Answers -----------------------------------------------------------------------------

    def _settle(self, batch: list[Waiting], answer: BatchAnswer | None) -> None:
        """Answer every claim of the batch, then what overtook it."""
        mail = Mail()
        try:
            if answer is None:
                for viewer, ref, request in batch:
                    self._proofs.pop(request)  # it comes again with the claim
                    mail.add(viewer, _refused(ref, "outcome_unknown"))
            else:
                self._answer(mail, batch, answer)
        finally:  # what is in the mail is true, whatever went wrong behind it
            self._in_flight = 0
            self._tell_overtaking(mail)
            mail.send()

    def _answer(self, mail: Mail, batch: list[Waiting], answer: BatchAnswer) -> None:
        now_ms = clock.monotonic_ms()
        self._ring = self._redo.of(self.room)  # an empty one may have made way meanwhile
        for pool, level in answer.pools.items():
            self._sold_out.learn(pool, level, now_ms)
        is_proved = bool(self._proofs)  # any of them: rare
        for (viewer, ref, request), one in zip(batch, answer.answers, strict=True):
            state = one.state
            hold = self._proofs.pop(request) if is_proved else None
            if state is None:
                self._refuse_by_script(mail, viewer, ref, request.buyer, hold, one)
            else:
                metrics.claims.add("repeated" if one.code == ACCEPTED_BEFORE else "held")
                self._accept(mail, viewer, ref, request.buyer, state, now_ms)

    def _accept(
        self, mail: Mail, viewer: Viewer, ref: int, buyer: str, state: ClaimState, now_ms: float
    ) -> None:
        is_news = False
        if state.status == "held":
            state = with_receipt(self._receipts, self.room.show_id, buyer, state)
            is_news = self._holds.add(buyer, state.claim_id, now_ms)
            self._ring.add(buyer, state)
        mail.add(viewer, Accepted(ref=ref, claim=state))
        if is_news:
            for other in self.room.viewers_of(buyer):
                if other is not viewer:
                    mail.add(other, OrderEvent(order=state))

    def _refuse_by_script(
        self,
        mail: Mail,
        viewer: Viewer,
        ref: int,
        buyer: str,
        hold: ClaimState | None,
        answer: Answer,
    ) -> None:
        """`hold`: the buyer proved that the claim had been accepted before Redis lost it."""
        name = ERRORS_BY_CODE[answer.code].name
        if hold is not None and (end := self._proofs.outcome(buyer, hold, name)):
            metrics.claims.add(end.status)
            self._holds.discard(buyer, end.claim_id)
            self._ring.discard(buyer, end.claim_id)
            mail.add(viewer, Accepted(ref=ref, claim=end))
        elif name == "price_changed":  # the one refusal that tells more
            metrics.claims.add(name)
            price, version = answer.price, answer.price_version
            mail.add(viewer, refusal(ref, name, price=price, price_version=version))
        else:
            mail.add(viewer, _refused(ref, name))

    def _is_sold_out(self, pool: int) -> bool:
        if pool not in self._sold_out:
            return False
        stock = self.room.state.get(f"stock:{pool}")
        return self._sold_out.holds(pool, stock, clock.monotonic_ms())

    def _tell_overtaking(self, mail: Mail) -> None:
        news, self._overtaking = self._overtaking, []
        for buyer, state in news:
            self._tell(mail, buyer, state)

    def _tell(self, mail: Mail, buyer: str, state: ClaimState) -> None:
        self._holds.discard(buyer, state.claim_id)
        self._ring.discard(buyer, state.claim_id)
        metrics.order_events.add(state.status)
        event = OrderEvent(order=state)
        for viewer in self.room.viewers_of(buyer):
            mail.add(viewer, event)


def _refused(ref: int, name: str) -> RefusedReply:
    """The refusal with the hint of the table, spread so that a rush does not come back as one."""
    metrics.claims.add(name)
    hint = ERRORS[name].retry_ms
    return refusal(ref, name, retry_ms=clock.jittered(hint) if hint else 0)


def with_receipt(receipts: Receipts, show_id: str, buyer: str, state: ClaimState) -> ClaimState:
    """`state` with its receipt."""
    return ClaimState(
        claim_id=state.claim_id,
        status=state.status,
        sale=state.sale,
        quantity=state.quantity,
        price=state.price,
        price_version=state.price_version,
        epoch=state.epoch,
        seq=state.seq,
        order_id=state.order_id,
        pay_by=state.pay_by,
        receipt=receipts.sign(show_id, buyer, state),
    )


class ClaimDesk:
    """The claim batchers of all rooms of a hub, made when a room's first claim comes."""

    def __init__(
        self,
        hub_id: str,
        store: ClaimStore,
        receipts: Receipts,
        holds_of: Callable[[Room], Holds],
        redo: Redo,
    ) -> None:
        self._hub_id = hub_id
        self._store = store
        self._receipts = receipts
        self._holds_of = holds_of
        self._redo = redo
        self._batchers: dict[str, ClaimBatcher] = {}

    @property
    def waiting(self) -> int:
        """Claims not answered yet, all rooms together."""
        return sum(batcher.waiting for batcher in self._batchers.values())

    def of(self, room: Room) -> ClaimBatcher:
        """The batcher of `room`."""
        batcher = self._batchers.get(room.show_id)
        return batcher if batcher is not None and batcher.room is room else self._make(room)

    def _make(self, room: Room) -> ClaimBatcher:
        for show_id, idle in list(self._batchers.items()):  # those of rooms that are empty now
            if not idle.waiting and not idle.room.viewers:
                del self._batchers[show_id]
        holds = self._holds_of(room)
        batcher = ClaimBatcher(room, self._hub_id, self._store, self._receipts, holds, self._redo)
        self._batchers[room.show_id] = batcher
        return batcher

    def on_orders(self, room: Room, orders: Iterable[tuple[str, ClaimState]]) -> None:
        """Claims of buyers moved on (see ClaimBatcher.on_orders)."""
        self.of(room).on_orders(orders)

    async def settled(self) -> None:
        """Wait until no claim of any room is waiting."""
        for batcher in list(self._batchers.values()):
            await batcher.settled()
