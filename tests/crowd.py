"""Buyers and viewers for the fault tests: they do what PROTOCOL.md asks of a client, whatever
happens to the servers, and write down everything they see (tests/history.py).

A shopper makes one claim id, sends the claim, and sends the same claim again, on another process
when the connection broke, until there is a last word. Connections are lean
(loadtest/bench/swarm.py): frames of the room are skipped unread except by watchers.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec

from loadtest import wire
from loadtest.bench import swarm
from server import clock, limits
from server.protocol import messages as m
from tests.history import COMMITTED, ENDING, RELEASED, History
from tests.live import token_of

# A message is a map whose first pair is "t": its name, so the name's first letter is byte 4.
KIND_AT: Final = 4
OWN: Final = frozenset(b"aro")  # accepted, refused, order: what a shopper reads
SILENT_SECONDS: Final = 3.0  # no answer for so long: ask again
CONNECT_SECONDS: Final = 10.0
RECONNECT_MS: Final = 200

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(m.ServerMessage)


class Line(swarm.Receiver):
    """One connection. `shopper` is told of own replies and news and of the end."""

    __slots__ = ("name", "shopper")

    def __init__(
        self, request: bytes, opened: "asyncio.Future[None]", shopper: "Shopper", name: str
    ) -> None:
        super().__init__(request, opened)
        self.shopper = shopper
        self.name = name

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        if data[at] & 0x08:
            self.control(data[at] & 0x0F, data[start:end])
        elif data[start + KIND_AT] in OWN:
            self.shopper.hear(self.name, _DECODER.decode(data[start:end]))

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.shopper.stirred.set()

    def post(self, *commands: msgspec.Struct) -> None:
        """Send commands in one segment."""
        self.send(b"".join(wire.client_frame(_ENCODER.encode(command)) for command in commands))


class Watcher(swarm.Receiver):
    """An anonymous viewer that notes every stock value. `left`: sale -> newest."""

    __slots__ = ("history", "left", "name")

    def __init__(
        self, request: bytes, opened: "asyncio.Future[None]", history: History, name: str
    ) -> None:
        super().__init__(request, opened)
        self.history = history
        self.name = name
        self.left: dict[int, int] = {}

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        if data[at] & 0x08:
            self.control(data[at] & 0x0F, data[start:end])
            return
        message = _DECODER.decode(data[start:end])
        if not isinstance(message, m.Welcome | m.Tick):
            return
        for key, value in message.state.items():
            if key.startswith("stock:"):
                self.history.note_stock(self.name, value)
                self.left[value["sale"]] = value["left"]


@dataclass
class Shop:
    """Where the crowd goes: web processes by port, and what is for sale there."""

    ports: Sequence[int]
    show: str
    sale: int
    quantity: int = 1
    price_version: int = 1


@dataclass
class Shopper:
    """One buyer and one claim, until its last word (`final`)."""

    user: str
    shop: Shop
    history: History
    claim_id: str = field(default_factory=lambda: str(clock.new_uuid7()))
    final: str = ""
    attempts: int = 0
    hold: m.ClaimState | None = None
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    line: Line | None = None
    _retry_ms: int = 0
    _connections: int = 0

    def __str__(self) -> str:
        said = [one.name for one in self.history.refused if one.buyer == self.user]
        lost = self.line is None or self.line.lost
        return f"{self.user} asked {self.attempts} times, {lost=}, {self.hold}, {said[-3:]}"

    async def buy(self) -> None:
        """Ask until there is a last word."""
        while not self.final:
            if self.line is None or self.line.lost:
                await self.arrive()
            self._ask()
            await self._listen()

    async def arrive(self) -> None:
        """Connect and sign in, at any process that lets us."""
        while True:
            port = self.shop.ports[random.randrange(len(self.shop.ports))]
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    self.line = await self._connect(port)
                return
            except (OSError, TimeoutError):
                await asyncio.sleep(clock.jittered(RECONNECT_MS) / 1000)

    async def _connect(self, port: int) -> Line:
        self._connections += 1
        name = f"{self.user}#{self._connections}"
        line = await open_line(port, self.shop.show, partial(Line, shopper=self, name=name))
        line.post(m.Hello(token=token_of(self.user, self.shop.show)))
        return line

    def _ask(self) -> None:
        assert self.line is not None
        self.stirred.clear()
        self._retry_ms = 0
        line, shop = self.line, self.shop
        self.history.note_sent(line.name, self.user, self.claim_id, shop.sale, shop.quantity)
        line.post(
            m.Claim(
                ref=self.attempts + 1, sale=shop.sale, claim_id=self.claim_id,
                quantity=shop.quantity, price_version=shop.price_version,
                attempt=min(self.attempts, limits.ATTEMPT_MAX), proof=self._proof(),
            )
        )  # fmt: skip
        self.attempts += 1

    def _proof(self) -> m.Proof | msgspec.UnsetType:
        """Of the hold we were told of: the server may have lost it."""
        if self.hold is None:
            return msgspec.UNSET
        hold = self.hold
        return m.Proof(receipt=hold.receipt, epoch=hold.epoch, seq=hold.seq, price=hold.price)

    async def _listen(self) -> None:
        """Until the last word, the time to ask again, or the end of the connection."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SILENT_SECONDS):
                while not (self.final or self._retry_ms or (self.line and self.line.lost)):
                    await self.stirred.wait()
                    self.stirred.clear()
        if self._retry_ms and not self.final:
            await asyncio.sleep(self._retry_ms / 1000)

    def hear(self, line: str, message: m.ServerMessage) -> None:
        """One reply or news on a connection of ours."""
        match message:
            case m.Accepted(claim=m.ClaimState() as state) | m.OrderEvent(order=state):
                self.history.note_state(line, self.user, state)
                if state.status in COMMITTED or state.status == RELEASED:
                    self.final = state.status
                elif state.status == "held":
                    self.hold = state
            case m.RefusedReply(ref=ref) if ref:
                self.history.note_refusal(line, self.user, self.claim_id, message.name)
                if message.name in ENDING:
                    self.final = message.name
                self._retry_ms = clock.jittered(message.retry_ms or RECONNECT_MS)
        self.stirred.set()


async def open_line(
    port: int, show: str, factory: "swarm.Factory[swarm.SomeReceiver]"
) -> swarm.SomeReceiver:
    """A connection to the show's room. Raises OSError when it is refused or breaks."""
    request = wire.upgrade_request(f"127.0.0.1:{port}", f"/ws/{show}", m.SUBPROTOCOL_MSGPACK)
    (line,) = await swarm.connect(port, [request], factory)
    return line


async def _buy_after(shopper: Shopper, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await shopper.buy()


@dataclass
class Crowd:
    """Shoppers of one sale and those who watch."""

    shop: Shop
    history: History = field(default_factory=History)
    shoppers: list[Shopper] = field(default_factory=list)
    watchers: list[Watcher] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def add(self, user: str = "") -> Shopper:
        """One more buyer, who has not come yet."""
        shopper = Shopper(user or f"buyer-{len(self.shoppers)}", self.shop, self.history)
        self.shoppers.append(shopper)
        return shopper

    async def gather(self, buyers: int) -> None:
        """So many buyers come in and sign in; nobody buys yet."""
        for start in range(0, buyers, swarm.CONNECTING_MAX):
            count = min(swarm.CONNECTING_MAX, buyers - start)
            await asyncio.gather(*(self.add().arrive() for _ in range(count)))

    def rush(self, over_s: float = 0.0) -> None:
        """Everybody who is there buys, spread over so many seconds."""
        for shopper in self.shoppers:
            self.send(shopper, random.random() * over_s)

    def send(self, shopper: Shopper, after_s: float = 0.0) -> None:
        """One buyer buys after a while."""
        self._tasks.append(asyncio.create_task(_buy_after(shopper, after_s)))

    async def watch(self, port: int) -> Watcher:
        """Somebody comes to watch; lost connections are not opened again."""
        name = f"watcher-{len(self.watchers)}"
        make = partial(Watcher, history=self.history, name=name)
        watcher = await open_line(port, self.shop.show, make)
        self.watchers.append(watcher)
        return watcher

    async def answered(self, seconds: float) -> None:
        """Wait until every buyer has a last word; after `seconds` fails, naming some without."""
        _, waiting = await asyncio.wait(self._tasks, timeout=seconds)
        assert not waiting, [str(s) for s in self.shoppers if s.attempts and not s.final][:5]
        await asyncio.gather(*self._tasks)

    def count(self, final: str) -> int:
        return sum(shopper.final == final for shopper in self.shoppers)

    async def leave(self) -> None:
        """Everybody who is here goes, with an answer or without."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        lines = [shopper.line for shopper in self.shoppers if shopper.line is not None]
        await swarm.hang_up([*lines, *self.watchers])
