"""Who comes: each persona is a connection with a behaviour of its own.

`wants`: whether there is anything left for it to do; `ready`: whether it can act now. The acts of a
crowd are dealt out to its people in turn (worker.py), at instants decided beforehand.
"""

import asyncio
from asyncio import TimerHandle
from typing import Final

import aiohttp

from loadtest.scenario import Crowd
from loadtest.swarm.buying import Buyer, Purchase, Till
from loadtest.swarm.connection import Connection
from loadtest.swarm.entrance import Swarm, Who
from server.protocol.messages import Accepted, Chat, Like, RefusedReply

TAPS_MAX: Final = 3  # at once; the server refuses more than 20 a second
LIKE_ASKED_EVERY: Final = 20  # one like in so many wants a reply
LINES: Final = (
    "这个颜色还有吗", "主播,库存还有多少", "冲!", "价格能再低点吗", "第一次来,怎么下单",
    "已拍,等发货", "尺码偏大还是偏小", "质量不错,上次买过", "手慢了😭", "Is there a blue one left?",
)  # fmt: skip
FAULTY_CODES: Final = (range(1000, 1200), range(1400, 1500))  # not by rule: see server/errors.py
LOOK_BYTES: Final = 1 << 18
STOPPED_S: Final = 20.0  # after so long a reader that has stopped looks whether it is still wanted
LOOKS_S: Final = 1.0
SMALL_BUFFER: Final = 4_096  # bytes: what is not read waits at the server's side
PAY_SECONDS: Final = 10.0


class Person(Connection):
    """A viewer who does nothing but watch, unless a subclass says what it does."""

    __slots__ = ("crowd",)

    def __init__(self, swarm: Swarm, who: Who, crowd: Crowd) -> None:
        super().__init__(swarm, who)
        self.crowd = crowd

    @property
    def wants(self) -> bool:
        return True

    @property
    def ready(self) -> bool:
        return self.signed_in

    def act(self, intended_us: int) -> None:
        """Watching is all."""

    def _count_refusal(self, what: str, reply: RefusedReply) -> None:
        self.swarm.counts[f"{what}_refused.{reply.name}"] += 1
        if any(reply.code in codes for codes in FAULTY_CODES):
            self.swarm.counts["errors"] += 1


class Watcher(Person):
    """Anonymous, reads."""

    __slots__ = ()


class Liker(Person):
    """Taps; every 20th like asks for a reply. `taps` counts all that were sent, `taps_unsure`
    those that may have been lost with a connection."""

    __slots__ = ("_asked", "_likes", "_unsure")

    def __init__(self, swarm: Swarm, who: Who, crowd: Crowd) -> None:
        super().__init__(swarm, who, crowd)
        self._likes = 0
        self._unsure = 0  # taps since the last that was answered
        self._asked: dict[int, int] = {}  # ref -> taps unsure that its reply makes sure

    def act(self, intended_us: int) -> None:
        taps = self.swarm.rng.randint(1, TAPS_MAX)
        self._likes += 1
        self._unsure += taps
        ref = self.next_ref() if self._likes % LIKE_ASKED_EVERY == 0 else None
        if ref is not None:
            self._asked[ref] = self._unsure
            self._unsure = 0
        self.send(Like(taps, ref))
        self.swarm.counts["likes"] += 1
        self.swarm.counts["taps"] += taps

    def on_accepted(self, reply: Accepted) -> None:
        self._asked.pop(reply.ref, None)

    def on_refused(self, reply: RefusedReply) -> None:
        self.swarm.counts["taps_unsure"] += self._asked.pop(reply.ref or -1, 0)
        self._count_refusal("like", reply)

    def on_away(self) -> None:
        self.swarm.counts["taps_unsure"] += self._unsure + sum(self._asked.values())
        self._unsure = 0
        self._asked.clear()


class Commenter(Person):
    """Writes lines, none like another."""

    __slots__ = ("_sent_us",)

    def __init__(self, swarm: Swarm, who: Who, crowd: Crowd) -> None:
        super().__init__(swarm, who, crowd)
        self._sent_us: dict[int, int] = {}  # ref -> intended instant

    def act(self, intended_us: int) -> None:
        ref = self.next_ref()
        self._sent_us[ref] = intended_us
        self.send(Chat(f"{LINES[ref % len(LINES)]} {self.name[-6:]}.{ref}", ref))
        self.swarm.counts["lines_tried"] += 1

    def on_accepted(self, reply: Accepted) -> None:
        intended_us = self._sent_us.pop(reply.ref, None)
        if intended_us is not None:
            self.swarm.counts["lines_sent"] += 1
            took_us = self.swarm.now_us() - intended_us
            self.swarm.measured.record("reply", intended_us, took_us, room=self.room)

    def on_refused(self, reply: RefusedReply) -> None:
        self._sent_us.pop(reply.ref or -1, None)
        self._count_refusal("line", reply)

    def on_away(self) -> None:
        self._sent_us.clear()


class SlowReader(Person):
    """Reads so many bytes a second; with 0 not at all, but for a look now and then."""

    __slots__ = ("_budget", "_look")
    timely = False
    receive_buffer = SMALL_BUFFER

    def __init__(self, swarm: Swarm, who: Who, crowd: Crowd) -> None:
        super().__init__(swarm, who, crowd)
        self._budget = 0
        self._look: TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._budget -= len(data)
        if self._budget <= 0 and self.welcomed:
            self._stop()

    def on_here(self) -> None:
        self._budget = self.crowd.reads_bytes_per_s

    def on_away(self) -> None:
        if self._look:
            self._look.cancel()
            self._look = None

    def _stop(self) -> None:
        if self.transport is not None and self._look is None and not self.transport.is_closing():
            self.transport.pause_reading()
            after_s = LOOKS_S if self.crowd.reads_bytes_per_s else STOPPED_S
            self._look = self.swarm.loop.call_later(after_s, self._read_on)

    def _read_on(self) -> None:
        self._look = None
        if self.transport is None or self.transport.is_closing():
            return
        self._budget = self.crowd.reads_bytes_per_s
        self.transport.resume_reading()
        if not self._budget:
            self._budget = LOOK_BYTES
            self.swarm.loop.call_later(LOOKS_S, self._stop)


class Flapper(Person):
    """Here for a while, gone for a while, and goes on where it was."""

    __slots__ = ()
    timely = False

    def on_here(self) -> None:
        self.swarm.loop.call_later(self.crowd.up_s, self.abort)

    def _pause_s(self) -> float:
        return self.crowd.down_s if self.arrived and not self._failures else super()._pause_s()

    def _again(self) -> None:
        if self.arrived:
            self.since_us = self.swarm.now_us()  # being away was meant
        super()._again()


# --- Buyers --------------------------------------------------------------------------------------


class Customer(Buyer):
    """Claims once per act, waits for the answer, and pays if there is a payment step: a buyer
    soon, a hesitant one late or never, as the crowd says."""

    __slots__ = ("_left", "_payer", "crowd")

    def __init__(
        self, swarm: Swarm, who: Who, crowd: Crowd, number: int, till: Till, payer: "Payer"
    ) -> None:
        super().__init__(swarm, who, till, number)
        self.crowd = crowd
        self._left = crowd.claims_each
        self._payer = payer
        self.on_stored = self._pay

    @property
    def wants(self) -> bool:
        return self._left > 0

    @property
    def ready(self) -> bool:
        return self.signed_in and not self.busy

    def act(self, intended_us: int) -> None:
        self._left -= 1
        self.claim(intended_us, self.crowd.quantity)

    def _pay(self, purchase: Purchase) -> None:
        """Or forget about it."""
        if self.swarm.rng.random() < self.crowd.pays:
            after_s = self.swarm.rng.uniform(*self.crowd.pay_after_s)
            self.swarm.loop.call_later(after_s, self._payer.pay, self, purchase)


class Bot(Customer):
    """One user on several sockets that claims on all of them in the same instant, and repeats
    without waiting. `others` share its purchases."""

    __slots__ = ("others",)
    patient = False

    def __init__(
        self, swarm: Swarm, who: Who, crowd: Crowd, number: int, till: Till, payer: "Payer"
    ) -> None:
        super().__init__(swarm, who, crowd, number, till, payer)
        self.others: list[Bot] = []

    @property
    def ready(self) -> bool:
        return self.signed_in

    def act(self, intended_us: int) -> None:
        self._left -= 1
        for each in (self, *self.others):
            if each.signed_in:
                each.claim(intended_us, self.crowd.quantity)


class Payer:
    """Pays orders as the demo's pay page does."""

    def __init__(self, swarm: Swarm, show: str) -> None:
        self._swarm = swarm
        self._show = show
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def pay(self, buyer: Buyer, purchase: Purchase) -> None:
        """Pay in the background."""
        task = self._swarm.loop.create_task(self._pay(buyer, purchase))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pay(self, buyer: Buyer, purchase: Purchase) -> None:
        base = self._swarm.targets[buyer.room].base
        order = f"{base}/api/shows/{self._show}/my-orders/{purchase.order_id}/payment"
        try:
            begun = await self._post(order, None, {"Authorization": f"Bearer {buyer.token}"})
            _, fragment, pay_token = str(begun.get("pay_url", "")).partition("#")
            if fragment:
                await self._post(f"{base}/demo/pay", {"token": pay_token, "outcome": "paid"}, {})
            self._swarm.counts["payments" if fragment else "payments_refused"] += 1
        except (aiohttp.ClientError, TimeoutError):
            self._swarm.counts["payments_failed"] += 1
            self._swarm.counts["errors"] += 1

    async def _post(self, url: str, body: object, headers: dict[str, str]) -> dict[str, object]:
        """What it answers; {} when it refuses (too late, for example)."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=PAY_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout)
        async with self._session.post(
            url, json=body, headers=headers, allow_redirects=False
        ) as answer:
            if answer.status >= 500:
                answer.raise_for_status()
            found: dict[str, object] = await answer.json() if answer.status < 300 else {}
            return found

    async def aclose(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._session is not None:
            await self._session.close()
