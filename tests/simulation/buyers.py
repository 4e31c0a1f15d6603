"""Buyers: they claim, repeat, come back on another hub, pay or not, and remember what they heard.

What a buyer may conclude is what the protocol promises: an accepted claim stays accepted, its
states only move forward, `confirmed` is never taken back, a refusal of the newest sending is final.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET, UnsetType

from server.domain.identity import Identity
from server.errors import StoreUnavailable
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.limits import ATTEMPT_MAX
from server.protocol.codec import MSGPACK
from server.protocol.messages import (
    Accepted,
    Bye,
    Claim,
    ClaimState,
    OrderEvent,
    Proof,
    RefusedReply,
)
from tests.hub_world import FakeTransport
from tests.simulation.bank import Bank
from tests.simulation.shop import Request, Sale, on_web
from tests.simulation.world import SHOW, WebNode, World, uuid7_of

REPLY_S: Final = (0.3, 2.5)  # an answer that takes longer is not waited for: by some, by others
ASK_AGAIN_S: Final = 3.0
RANK: Final = {
    "held": 0, "confirmed": 1, "expired": 2, "cancelled": 2, "released_by_incident": 2,
    "paid": 3, "fulfilled": 4, "refunded": 4,
}  # fmt: skip
# What a buyer does not put up with. Only the first line decides nothing; after the others the id
# is sent again because that is allowed, too.
_AGAIN: Final = frozenset(
    {"busy", "outcome_unknown", "unavailable", "stock_rebuilding", "rate_limited", "internal",
     "show_not_live", "show_paused", "unknown_sale", "sale_not_open"}
)  # fmt: skip


class DeafTransport(FakeTransport):
    """The room's frames are not looked at."""

    def write(self, data: Any) -> None:
        """Dropped."""


class BuyerViewer(Viewer):
    """A viewer whose own messages reach the buyer as they are, over a slow line."""

    def __init__(self, room: Room, connection: "Connection") -> None:
        super().__init__(room, MSGPACK, address="192.0.2.1")
        self.connection = connection

    @property
    def is_writable(self) -> bool:
        """Not past `send`."""
        return False

    def send(self, message: object, *, is_answer: bool = True) -> None:
        self.connection.to_buyer(message)


class Connection:
    """A buyer's socket to one hub; both directions keep their order."""

    def __init__(self, buyer: "Buyer", node: WebNode) -> None:
        self._buyer = buyer
        self._world = buyer.world
        self.node = node
        self.viewer: BuyerViewer | None = None
        self._free_at = [0.0, 0.0]

    def open(self) -> None:
        """In the web process: let the buyer in, signed in."""
        task = asyncio.get_running_loop().create_task(self._enter())
        self._entering = task

    async def _enter(self) -> None:
        assert self.node.web is not None
        try:
            room = await self.node.web.hub.room(SHOW)
        except StoreUnavailable:
            return
        if room is not None:
            viewer = BuyerViewer(room, self)
            viewer.connection_made(DeafTransport())
            viewer.start()
            room.sign_in(viewer, self._buyer.name, self._buyer.name, "viewer", 2**50)
            self.viewer = viewer

    def close(self) -> None:
        """In the web process: the buyer has gone."""
        if self.viewer is not None:
            self.viewer.connection_lost(None)
            self.viewer = None

    def to_hub(self, callback: Any, *args: Any) -> None:
        world = self._world
        seconds = self._next(0)
        world.loop.deliver(self.node.process, seconds, callback, *args)

    def command(self, command: Claim) -> None:
        """In the web process: a command came."""
        if self.viewer is not None:
            self.viewer.room.dispatch(self.viewer, command)

    def to_buyer(self, message: object) -> None:
        if self._buyer.connection is self:
            self._world.loop.at(self._next(1), self._buyer.receive, self, message)

    def _next(self, way: int) -> float:
        now = self._world.loop.now
        self._free_at[way] = max(self._free_at[way], now + self._world.network.delay()) + 1e-7
        return self._free_at[way] - now


@dataclass
class Purchase:
    """One claim and all that was heard of it.

    `refused`: why the newest sending was not accepted, where that is final. `losses`: how often
    Redis had lost something before that sending.
    """

    claim_id: str
    sale: int
    quantity: int
    heard: list[ClaimState] = field(default_factory=list)
    refused: str = ""
    attempts: int = 0
    losses: int = 0

    @property
    def last(self) -> ClaimState | None:
        """The state of highest rank."""
        return max(self.heard, key=lambda state: RANK[state.status], default=None)

    @property
    def proof(self) -> Proof | UnsetType:
        """What a repeat of a hold is sent with."""
        held = self.last
        if held is None or not held.receipt:
            return UNSET
        return Proof(held.receipt, held.epoch, held.seq, held.price)

    def is_decided(self, losses: int) -> bool:
        """It was refused and no sending of it can be accepted any more, however many are still on
        their way or wait in a frozen hub; unless Redis lost the refusal."""
        return bool(self.refused) and losses == self.losses

    @property
    def is_settled(self) -> bool:
        """A final answer is there."""
        return bool(self.refused) or (self.last is not None and self.last.status != "held")


class Buyer:
    """One person with one device."""

    def __init__(self, world: World, name: str, sales: list[Sale], bank: Bank) -> None:
        self.world = world
        self.name = name
        self.identity = Identity(name, name, "viewer", SHOW, 2**50)
        self.sales = sales
        self.bank = bank
        self._endings: list[asyncio.Task[None]] = []
        self.connection: Connection | None = None
        self.purchases: dict[str, Purchase] = {}
        self.is_done = False
        self._ref = 0
        self._replies: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Event()

    # --- Hearing ------------------------------------------------------------------------------

    def receive(self, connection: Connection, message: Any) -> None:
        if connection is not self.connection:
            return  # of an earlier connection
        match message:
            case Accepted(ref=ref, claim=state) if state is not None:
                self._hear(state)
                self._resolve(ref, state)
            case RefusedReply(ref=int(ref)):
                self._resolve(ref, message)
            case OrderEvent(order=state):
                self._hear(state)
            case Bye():
                self.disconnect()

    def _hear(self, state: ClaimState) -> None:
        purchase = self.purchases[state.claim_id]
        self.world.note(
            f"{self.name} hears {state.claim_id[-6:]} {state.status}"
            f" sale {state.sale} ({state.epoch},{state.seq}) order {state.order_id}"
        )
        self._news.set()
        if state.status == "not_seen":  # never final: to be asked for again
            return
        if state.status == "confirmed" and state.pay_by and not purchase.is_settled:
            self._endings.append(self.world.loop.create_task(self._end(state)))
        purchase.heard.append(state)
        if purchase.is_decided(self.world.redis.losses):
            self.world.fail(f"{self.name}: refused claim {state.claim_id} is {state.status}")

    def _resolve(self, ref: int, answer: Any) -> None:
        future = self._replies.pop(ref, None)
        if future is not None and not future.done():
            future.set_result(answer)

    # --- Connecting ---------------------------------------------------------------------------

    async def connect(self) -> Connection:
        """To a random hub that has the room."""
        while True:
            connection = self.connection
            if connection is not None and not connection.node.process.is_dead:
                return connection
            nodes = [node for node in self.world.webs if node.is_ready]
            if nodes:
                node = self.world.rng.choice(nodes)
                connection = self.connection = Connection(self, node)
                connection.to_hub(connection.open)
                for _ in range(10):
                    await asyncio.sleep(0.01)
                    if connection.viewer is not None:
                        return connection
            self.connection = None
            await asyncio.sleep(0.2)

    def disconnect(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.to_hub(connection.close)

    # --- Buying -------------------------------------------------------------------------------

    async def run(self, claims: int) -> None:
        rng = self.world.rng
        for _ in range(claims):
            await asyncio.sleep(rng.uniform(0.0, 1.5))
            sale = rng.choice(self.sales)
            quantity = rng.randint(1, min(3, sale.limit + 1))
            claim_id = str(uuid7_of(rng))
            purchase = self.purchases[claim_id] = Purchase(claim_id, sale.sale, quantity)
            await self._claim(purchase)
            if rng.random() < 0.8:
                await self._follow(purchase)
        for purchase in list(self.purchases.values()):
            await self._follow(purchase)
        for ending in self._endings:
            await ending
        self.is_done = True

    async def _claim(self, purchase: Purchase) -> None:
        """Send until there is an answer that ends it."""
        while not purchase.refused and not purchase.heard:
            answer = await self._send(purchase)
            if isinstance(answer, RefusedReply):
                self.world.note(f"{self.name} refused {purchase.claim_id[-6:]} {answer.name}")
                if answer.name not in _AGAIN:
                    self._refused(purchase, answer.name)
                await asyncio.sleep(max(0.05, answer.retry_ms / 1000))
            elif answer is None:
                self.disconnect()
            else:  # accepted, or not seen: then it is sent again
                await asyncio.sleep(0.2)

    def _refused(self, purchase: Purchase, name: str) -> None:
        purchase.refused = name
        if purchase.heard:
            self.world.fail(f"{self.name}: accepted claim {purchase.claim_id} refused {name}")

    async def _send(self, purchase: Purchase) -> Any:
        """One attempt; None when no answer came."""
        connection = await self.connect()
        self._ref += 1
        command = Claim(
            ref=self._ref,
            sale=purchase.sale,
            claim_id=purchase.claim_id,
            quantity=purchase.quantity,
            price_version=1,
            attempt=purchase.attempts,
            proof=purchase.proof,
        )
        copies = 2 if purchase.attempts and self.world.rng.random() < 0.1 else 1
        purchase.attempts = min(purchase.attempts + 1, ATTEMPT_MAX)
        purchase.losses = self.world.redis.losses
        future = self._replies[self._ref] = self.world.loop.create_future()
        for _ in range(copies):
            connection.to_hub(connection.command, command)
        try:
            async with asyncio.timeout(self.world.rng.choice(REPLY_S)):
                return await future
        except TimeoutError:
            return None

    async def _follow(self, purchase: Purchase) -> None:
        """Until it is settled; a silent server is asked again by the same claim."""
        rng = self.world.rng
        while not purchase.is_settled:
            self._news.clear()
            if rng.random() < 0.1:
                self.disconnect()
            try:
                async with asyncio.timeout(ASK_AGAIN_S * rng.uniform(0.5, 1.0)):
                    await self._news.wait()
            except TimeoutError:
                answer = await self._send(purchase)
                if isinstance(answer, RefusedReply) and answer.name not in _AGAIN:
                    self._refused(purchase, answer.name)
                    return
                if answer is None:
                    self.disconnect()

    # --- After the confirmation ---------------------------------------------------------------

    async def _end(self, order: ClaimState) -> None:
        """Pay in time, at the last moment or too late, cancel, both, or do nothing."""
        rng = self.world.rng
        left_s = order.pay_by / 1000 - self.world.network.wall_ms() / 1000
        what = rng.choice(["pay", "pay", "pay at the end", "pay late", "cancel", "both", "nothing"])
        begin_after = rng.uniform(0.0, max(0.05, left_s * 0.5))
        await asyncio.sleep(begin_after)
        if what == "cancel" or what == "both":
            await self._on_web("cancel", lambda node: self._cancel(node, order.order_id))
        if what.startswith("pay") or what == "both":
            await self._on_web("begin", lambda node: self._begin(node, order.order_id))
            account = next(
                (a for a in self.bank.accounts.values() if a.order_id == order.order_id), None
            )
            if account is not None:
                await asyncio.sleep(self._pause(what, left_s - begin_after))
                if rng.random() < 0.1:
                    self.bank.fail(account.payment_id)
                self.bank.pay(account.payment_id)

    def _pause(self, what: str, left_s: float) -> float:
        rng = self.world.rng
        if what == "pay at the end":
            return max(0.0, left_s + rng.uniform(-0.3, 0.3))
        if what == "pay late":
            return max(0.0, left_s + rng.uniform(0.5, 3.0))
        return rng.uniform(0.0, 0.3)

    async def _on_web(self, what: str, act: Request) -> None:
        for _ in range(20):
            answer = await on_web(self.world, act)
            self.world.note(f"{self.name} {what}: {answer}")
            if answer not in ("lost", "unavailable"):
                return
            await asyncio.sleep(0.3)

    async def _cancel(self, node: WebNode, order_id: int) -> str:
        return (await node.acts.orders.cancel_own(self.identity, SHOW, order_id)).status

    async def _begin(self, node: WebNode, order_id: int) -> str:
        assert node.payments is not None
        return (await node.payments.begin(self.identity, SHOW, order_id)).status
