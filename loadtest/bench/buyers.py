"""Many buyers in one process: signed-in WebSocket clients that send prebuilt claims.

Made to cost little beside the server on the same machine: frames are built before the clock
starts, answers are told apart by one byte, and only a sample is decoded.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import uuid_utils

from loadtest import wire
from loadtest.bench import swarm
from server.protocol.messages import Claim, Hello, OrderEvent, RefusedReply

# A message is a map whose first pair is "t": its name, so the name's first letter is byte 4
# (map header, header and letter of "t", header of the name).
KIND_AT: Final = 4
ACCEPTED: Final = ord("a")
ORDER: Final = ord("o")
REFUSED: Final = ord("r")
DECODED_EVERY: Final = 64  # one confirmation in so many is decoded and checked

_ENCODER: Final = msgspec.msgpack.Encoder()
_REFUSED: Final = msgspec.msgpack.Decoder(RefusedReply)
_ORDER: Final = msgspec.msgpack.Decoder(OrderEvent)


class Tally:
    """What one run of claims came to. `done` is set when every claim has its last answer.

    Times are of `perf_counter` (a loop's own clock stands still within a turn), latencies in
    seconds from sending.
    """

    def __init__(self, claims: int) -> None:
        self.claims = claims
        self.held = 0
        self.confirmed = 0
        self.refused: Counter[str] = Counter()
        self.first_sent = 0.0
        self.last_held = 0.0
        self.last_answer = 0.0
        self.held_after: list[float] = []
        self.confirmed_after: list[float] = []
        self.done = asyncio.Event()

    def answered(self, now: float) -> None:
        """One more claim has its last answer."""
        self.last_answer = now
        if self.confirmed + self.refused.total() == self.claims:
            self.done.set()

    @property
    def seconds(self) -> float:
        """From the first claim sent to the last answer received."""
        return self.last_answer - self.first_sent

    @property
    def seconds_held(self) -> float:
        """From the first claim sent to the last `held` received."""
        return self.last_held - self.first_sent


class Buyer(swarm.Receiver):
    """One signed-in connection. `load` gives it claims, `send_next` sends the next segment."""

    __slots__ = ("_confirmed", "_held", "_segments", "_sent", "_told", "_waiting",
                 "closed_loop", "signed_in", "tally")  # fmt: skip

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        super().__init__(request, opened)
        self.signed_in: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tally: Tally | None = None
        self.closed_loop = True

    def load(self, segments: Sequence[tuple[int, bytes]], tally: Tally, *, closed: bool) -> None:
        """Take (claims, bytes) segments. `closed`: send each when the last one is answered."""
        self._segments = iter(segments)
        self._sent: list[float] = []
        self._told: set[bytes] = set()
        self._held = self._confirmed = self._waiting = 0
        self.tally = tally
        self.closed_loop = closed

    def send_next(self) -> None:
        """Send one more segment, if any is left."""
        segment = next(self._segments, None)
        if segment is None:
            return
        claims, data = segment
        now = time.perf_counter()
        if self.tally is not None and not self.tally.first_sent:
            self.tally.first_sent = now
        self._sent += [now] * claims
        self._waiting += claims
        self.send(data)

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        if data[at] & 0x08:
            self.control(data[at] & 0x0F, data[start:end])
            return
        kind = data[start + KIND_AT]
        if self.tally is None:
            self._before_claims(kind, data[start:end])
        elif kind == ACCEPTED:
            self._on_held(self.tally)
        elif kind == ORDER:
            self._on_confirmed(self.tally, data, start, end)
        elif kind == REFUSED:
            self._on_refused(self.tally, data[start:end])

    def _before_claims(self, kind: int, payload: bytes) -> None:
        if kind == ACCEPTED and not self.signed_in.done():
            self.signed_in.set_result(None)
        elif kind == REFUSED and not self.signed_in.done():
            self.signed_in.set_exception(ConnectionError(_REFUSED.decode(payload).name))

    def _on_held(self, tally: Tally) -> None:
        tally.held += 1
        tally.last_held = time.perf_counter()
        tally.held_after.append(tally.last_held - self._sent[self._held])
        self._held += 1
        self._one_less()

    def _on_confirmed(self, tally: Tally, data: bytes, start: int, end: int) -> None:
        event = data[start:end]
        if event in self._told:  # a hub that looks up late holds may tell a buyer twice
            return
        self._told.add(event)
        now = time.perf_counter()
        tally.confirmed_after.append(now - self._sent[self._confirmed])
        self._confirmed += 1
        tally.confirmed += 1
        if tally.confirmed % DECODED_EVERY == 0:
            order = _ORDER.decode(event).order
            if order.status != "confirmed" or order.order_id < 1:
                raise RuntimeError(f"not a confirmation: {order}")
        tally.answered(now)

    def _on_refused(self, tally: Tally, payload: bytes) -> None:
        tally.refused[_REFUSED.decode(payload).name] += 1
        tally.answered(time.perf_counter())
        self._one_less()

    def _one_less(self) -> None:
        self._waiting -= 1
        if self.closed_loop and not self._waiting:
            self.send_next()


async def sign_in(port: int, requests: Iterable[bytes], tokens: Sequence[str]) -> list[Buyer]:
    """Connect one buyer per token and sign it in. Raises ConnectionError when one is refused."""
    buyers = await swarm.connect(port, requests, Buyer)
    await say_hello(buyers, tokens)
    return buyers


async def say_hello(buyers: Sequence[Buyer], tokens: Sequence[str]) -> None:
    """Sign connected buyers in. Raises ConnectionError when one is refused, TimeoutError."""
    for buyer, token in zip(buyers, tokens, strict=True):
        buyer.send(wire.client_frame(_ENCODER.encode(Hello(token=token, ref=0))))
    async with asyncio.timeout(swarm.CONNECT_SECONDS):
        await asyncio.gather(*(buyer.signed_in for buyer in buyers))


def segments(
    sale: int, claims: int, per_segment: int, *, attempt: int = 0
) -> list[tuple[int, bytes]]:
    """`claims` claims of one unit each with new ids, as (number of claims, bytes) to be sent."""
    frames = [_claim_frame(sale, ref, attempt) for ref in range(1, claims + 1)]
    chunks = [frames[at : at + per_segment] for at in range(0, claims, per_segment)]
    return [(len(chunk), b"".join(chunk)) for chunk in chunks]


def _claim_frame(sale: int, ref: int, attempt: int) -> bytes:
    claim_id = str(uuid_utils.uuid7())
    claim = Claim(ref, sale, claim_id, quantity=1, price_version=1, attempt=attempt)
    return wire.client_frame(_ENCODER.encode(claim))
