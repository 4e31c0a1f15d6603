"""Viewers who take part: signed in, they tap, write, buy and ask the time, as browsers do."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from loadtest import wire
from loadtest.bench import buyers, swarm
from loadtest.stand import Stand
from server.protocol.messages import Accepted, Chat, Like, RefusedReply, Time

ASKERS = 20
PACE_SECONDS = 0.005

_ENCODER: Final = msgspec.msgpack.Encoder()
_ANSWER: Final = msgspec.msgpack.Decoder(Accepted | RefusedReply)


class Heard:
    """What all people were told. `replies` are round trips in s."""

    def __init__(self) -> None:
        self.accepted = 0
        self.orders = 0
        self.refused: Counter[str] = Counter()
        self.replies: list[float] = []


class Person(buyers.Buyer):
    """A signed-in viewer who takes part; `heard` is shared by all."""

    __slots__ = ("heard",)

    heard: Heard

    def take_part(self, heard: Heard) -> None:
        """From now on replies are counted in `heard`."""
        self.heard = heard

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        if not self.signed_in.done() or data[at] & 0x08:
            super().frame(data, at, start, end)
            return
        self.frames += 1
        kind = data[start + buyers.KIND_AT]
        if kind == buyers.ORDER:
            self.heard.orders += 1
        elif kind in (buyers.ACCEPTED, buyers.REFUSED):
            self._answered_by(_ANSWER.decode(data[start:end]))

    def _answered_by(self, reply: Accepted | RefusedReply) -> None:
        if isinstance(reply, RefusedReply):
            self.heard.refused[reply.name] += 1
            return
        self.heard.accepted += 1
        if reply.time is not None:
            self.heard.replies.append(time.perf_counter() - reply.time.sent_at)


class Doings:
    """What people send, one frame a call, people in turn. Claims are for `sale`."""

    def __init__(self, people: Sequence[Person], sale: int) -> None:
        self.sale = sale
        self._turns: dict[str, Iterator[Person]] = {
            "like": itertools.cycle(people),
            "chat": itertools.cycle(people),
            "claim": itertools.cycle(people),
            "ask": itertools.cycle(people[:ASKERS]),
        }
        self._refs = itertools.count(1)
        self.sent: Counter[str] = Counter()

    def like(self) -> None:
        """One tap; there is no reply."""
        self._send("like", _frame(Like()))

    def chat(self) -> None:
        """One line of danmaku, none like another."""
        ref = next(self._refs)
        self._send("chat", _frame(Chat(f"这个颜色还有吗 {ref}", ref=ref)))

    def claim(self) -> None:
        """One unit."""
        [(_, frame)] = buyers.segments(self.sale, 1, 1)
        self._send("claim", frame)

    def ask(self) -> None:
        """The time."""
        self._send("ask", _frame(Time(ref=next(self._refs), sent_at=time.perf_counter())))

    def _send(self, what: str, frame: bytes) -> None:
        self.sent[what] += 1
        next(self._turns[what]).send(frame)


def _frame(command: object) -> bytes:
    return wire.client_frame(_ENCODER.encode(command))


async def evenly(rates: Sequence[tuple[float, Callable[[], None]]], seconds: float) -> list[float]:
    """Call each function so often per second, whatever is answered meanwhile.

    Returns by how many seconds each step of ours was late.
    """
    start = time.perf_counter()
    late: list[float] = []
    done = [0] * len(rates)
    due_at = start
    while (elapsed := time.perf_counter() - start) < seconds:
        for number, (per_second, call) in enumerate(rates):
            due = int(elapsed * per_second)
            for _ in range(due - done[number]):
                call()
            done[number] = due
        due_at = max(due_at + PACE_SECONDS, time.perf_counter())
        await asyncio.sleep(due_at - time.perf_counter())
        late.append(max(0.0, time.perf_counter() - due_at))
    return late


async def sign_in(running: Stand, count: int) -> list[Person]:
    """People of the show; who they are is told by their number."""
    requests = itertools.repeat(running.upgrade_request(), count)
    people = await swarm.connect(running.port, requests, Person)
    tokens = [running.token("viewer", f"viewer-{number}") for number in range(count)]
    await buyers.say_hello(people, tokens)
    return people


async def speak(running: Stand, per_second: float) -> float:
    """Host lines in writing until cancelled; how many."""
    said = 0.0
    with suppress(asyncio.CancelledError):
        while True:
            text = {"text": f"第 {said:.0f} 句"}
            await running.call("POST", f"/api/shows/{running.show_id}/commentary", text)
            said += 1
            await asyncio.sleep(1 / per_second)
    return said


async def ended(task: "asyncio.Task[float]") -> float:
    """What a task found that goes on until it is cancelled, like `speak`."""
    task.cancel()
    return await task


def verify(doings: Doings, heard: Heard, lost: int) -> None:
    """Every command that has a reply was accepted, every claim confirmed, nobody was cut off.

    `lost` is how many were. Raises RuntimeError.
    """
    wanted = doings.sent["chat"] + doings.sent["claim"] + doings.sent["ask"]
    if heard.accepted != wanted or heard.refused or lost or heard.orders != doings.sent["claim"]:
        told = f"{heard.accepted} of {wanted} accepted, {heard.orders} orders"
        raise RuntimeError(f"{told}, refused {dict(heard.refused)}, {lost} viewers lost")
