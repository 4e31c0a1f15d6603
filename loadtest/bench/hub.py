"""`bench hub`: what a claim costs the web process, beside servers that only echo.

1,000 connections, each with one claim on its way (closed loop), one claim per TCP segment. The web
process has one core, the loader and Redis the other, so Redis is not in the numbers; what the web
process itself does to ask Redis is. Read from its CPU time:

- `hub_cpu_us_per_claim`: repeats on an empty sale. Each is decoded, checked, put in a batch for
  the script, decided there, and answered;
- `hub_cpu_us_per_sold_out`: first claims on it, which the hub answers by itself;
- `hub_cpu_us_per_held`: claims that are accepted, with their receipts. No order worker runs, so
  nothing is confirmed; the room's ticks (one a second) are in it.

The references get the same bytes from the same clients and decode nothing but the frame. All are
connected at once and take turns.
"""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from loadtest import process, wire
from loadtest.bench import buyers, peers, report, swarm
from loadtest.stand import Stand, stand
from server.protocol.messages import RefusedReply

ECHOED: Final = ord("c")  # the letter that tells an echoed claim; see buyers.KIND_AT
DECODED_EVERY = 64
RUN_SECONDS = 60.0
KNOWN_SECONDS = 1.2  # more than a tick, for the news of a sale to reach the room

_REFUSED: Final = msgspec.msgpack.Decoder(RefusedReply)


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement; `claims` per connection and round."""

    callers: int
    rounds: int
    claims: int

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(20, 1, 5) if quick else cls(1_000, 5, 20)


class Rally:
    """Claims and their answers, which begin with the letter `kind`. `done` when all are there."""

    def __init__(self, kind: int, callers: int) -> None:
        self.kind = kind
        self.answers = 0
        self._callers = callers
        self.done = asyncio.Event()

    def take(self, payload: bytes) -> None:
        """One answer. Raises RuntimeError if it is another than expected; a sample is looked at."""
        self.answers += 1
        if self.kind == buyers.REFUSED and self.answers % DECODED_EVERY == 0:
            name = _REFUSED.decode(payload).name
            if name != "sold_out":
                raise RuntimeError(f"refused {name}")

    def one_done(self) -> None:
        """A caller has all its answers."""
        self._callers -= 1
        if not self._callers:
            self.done.set()


class Caller(buyers.Buyer):
    """One connection in a closed loop; ours sign in first."""

    __slots__ = ("_frames", "_rally")

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        super().__init__(request, opened)
        self._rally: Rally | None = None

    def begin(self, frames: Iterable[bytes], rally: Rally) -> None:
        """Send the first of `frames`, then each when the last is answered."""
        self._frames = iter(frames)
        self._rally = rally
        self.send(next(self._frames))

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        rally = self._rally
        if rally is None or data[at] & 0x08:
            super().frame(data, at, start, end)
        elif data[start + buyers.KIND_AT] == rally.kind:
            rally.take(data[start:end])
            following = next(self._frames, None)
            if following is None:
                rally.one_done()
            else:
                self.send(following)


@dataclass(slots=True)
class Target:
    """One server, or one kind of claim at ours. `sale` and `attempt` go into the claims."""

    figure: str
    pid: int
    callers: Sequence[Caller]
    kind: int
    sale: int = 1
    attempt: int = 0
    per_claim: list[float] = field(default_factory=list)  # µs, one per round
    used: process.Cpu = process.ZERO

    async def measure(self, claims: int) -> None:
        """One round. Raises TimeoutError when claims stay unanswered or get other answers."""
        made = [self._frames(claims) for _ in self.callers]
        rally = Rally(self.kind, len(self.callers))
        before = process.cpu(self.pid)
        for caller, frames in zip(self.callers, made, strict=True):
            caller.begin(frames, rally)
        async with asyncio.timeout(RUN_SECONDS):
            await rally.done.wait()
        used = process.cpu(self.pid).since(before)
        self.used = self.used.plus(used)
        self.per_claim.append(used.total / rally.answers)
        report.progress(f"{self.figure}: {self.per_claim[-1]:.2f} µs")

    def _frames(self, claims: int) -> list[bytes]:
        made = buyers.segments(self.sale, claims, 1, attempt=self.attempt)
        return [frame for _, frame in made]

    def figures(self) -> dict[str, float]:
        """Median cost, and the part of it outside the kernel over all rounds."""
        cost = report.median(self.per_claim)
        return {self.figure: cost, f"user_{self.figure}": cost * self.used.user_share}


async def run(*, quick: bool) -> report.Result:
    """Ours and every reference that can run here, in turns."""
    plan = Plan.of(quick)
    process.pin(0, process.LOADER_CORE)
    references, notes = peers.available(peers.ECHOES)
    async with AsyncExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="livesale-bench-")
        folder = Path(stack.enter_context(directory))
        running = await stack.enter_async_context(stand())
        first, *callers = await stack.enter_async_context(_ours(running, plan.callers + 1))
        targets = await _refusing(running, first, callers)
        for name in references:
            targets.append(await stack.enter_async_context(_echo(name, folder, plan.callers)))
        for number in range(0 if quick else -1, plan.rounds):
            await _round(targets, plan.claims, number)
        targets.append(await _holding(running, callers, plan.claims))
    figures = _ratios(targets[0], targets[2:-1])
    for target in targets:
        figures |= target.figures()
    setting: dict[str, object] = {"connections": plan.callers, "rounds": plan.rounds}
    return report.Result(figures, notes, setting | {"claims_per_round": plan.claims * plan.callers})


def _ratios(claim: Target, echoes: Sequence[Target]) -> dict[str, float]:
    """What a claim costs relative to each echo, round by round."""
    figures: dict[str, float] = {}
    for echo in echoes:
        pairs = [ours / its for ours, its in zip(claim.per_claim, echo.per_claim, strict=True)]
        figures[f"ratio_to_{echo.figure.removesuffix('_cpu_us')}"] = report.median(pairs)
    return figures


async def _round(targets: Sequence[Target], claims: int, number: int) -> None:
    """Each once; the order turns, so that none is always first. Round -1 warms up."""
    shift = max(0, number) % len(targets)
    for target in itertools.chain(targets[shift:], targets[:shift]):
        await target.measure(claims)
        if number < 0:
            target.per_claim.clear()
            target.used = process.ZERO


# --- Ours -------------------------------------------------------------------------------------


@asynccontextmanager
async def _ours(running: Stand, count: int) -> AsyncIterator[list[Caller]]:
    """The web process with its callers signed in."""
    process.pin(running.valkey.child.pid, process.LOADER_CORE)
    await running.start_web(core=process.SERVER_CORE, LIVESALE_TICK_MS="1000")
    await running.open_show()
    requests = itertools.repeat(running.upgrade_request(), count)
    callers = await swarm.connect(running.port, requests, Caller)
    try:
        tokens = [running.token("viewer", f"buyer-{number}") for number in range(count)]
        await buyers.say_hello(callers, tokens)
        yield callers
    finally:
        await swarm.hang_up(callers)


async def _refusing(running: Stand, first: Caller, callers: Sequence[Caller]) -> list[Target]:
    """An empty sale: its only unit went to `first`."""
    assert running.web is not None
    sale = await running.open_sale(1, 1)
    await asyncio.sleep(KNOWN_SECONDS)
    pid, refused = running.web.pid, buyers.REFUSED
    await Target("the only unit", pid, [first], buyers.ACCEPTED, sale).measure(1)
    await asyncio.sleep(KNOWN_SECONDS)
    return [
        Target("hub_cpu_us_per_claim", pid, callers, refused, sale, attempt=1),
        Target("hub_cpu_us_per_sold_out", pid, callers, refused, sale),
    ]


async def _holding(running: Stand, callers: Sequence[Caller], claims: int) -> Target:
    """Accepted claims, measured once and last: without a worker the hub soon looks after them."""
    assert running.web is not None
    units = claims * len(callers)
    sale = await running.open_sale(units, units)
    await asyncio.sleep(KNOWN_SECONDS)
    held = Target("hub_cpu_us_per_held", running.web.pid, callers, buyers.ACCEPTED, sale)
    await held.measure(claims)
    return held


# --- The references ---------------------------------------------------------------------------


@asynccontextmanager
async def _echo(module: str, folder: Path, count: int) -> AsyncIterator[Target]:
    async with peers.reference(module, folder) as peer:
        request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/")
        callers = await swarm.connect(peer.port, itertools.repeat(request, count), Caller)
        yield Target(f"{peer.figure}_echo_cpu_us", peer.child.pid, callers, ECHOED)
        await swarm.hang_up(callers)
