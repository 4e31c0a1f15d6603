"""What a received frame and a claim cost a loader: the swarm must not be the bottleneck.

A stub of a room in a process of its own sends prebuilt ticks as fast as a server does and answers
claims at once; the swarm runs here, alone on its core. The same viewers are measured three times:

- bare: a protocol that only counts bytes, the floor of Python on uvloop;
- unmeasured: every frame is told apart, as any client must, and nothing is noted;
- full: what a load test does: checked views, arrivals, ages and the fold once a second.

`overhead_share` is what full costs more than unmeasured. Then buyers claim among the watchers.
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import msgspec
import uvloop

from loadtest import machine, process, wire
from loadtest.bench import report
from loadtest.scenario import Crowd
from loadtest.swarm.buying import Terms, Till
from loadtest.swarm.connection import Connection
from loadtest.swarm.crowds import Timetable, Turns
from loadtest.swarm.entrance import ADDRESSES_MAX, PEOPLE_PER_ADDRESS, Swarm, Target, Who
from loadtest.swarm.health import quiet_collector
from loadtest.swarm.ledger import Ledger
from loadtest.swarm.personas import Customer, Payer, Watcher
from server.protocol import messages as m

SALE: Final = 7
NUMBERS_FROM: Final = 100_000  # so that all ticks have the same size
GROUPS: Final = 10  # viewers are sent a tick in so many turns, as a room's phases are
JOIN_SECONDS: Final = 60.0
TICK_S: Final = 0.1
QUIET_S: Final = 0.3
CONFIRM_S: Final = 0.005
_ENCODER: Final = msgspec.msgpack.Encoder()
_COMMANDS: Final = msgspec.msgpack.Decoder(m.Command)


class Plan(NamedTuple):
    """Sizes. `claims` per second, by `buyers` beside the watchers."""

    watchers: int
    buyers: int
    claims: int
    seconds: float
    rounds: int

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(200, 20, 100, 0.5, 1) if quick else cls(10_000, 3_000, 3_000, 3.0, 3)


async def run(*, quick: bool) -> report.Result:
    """Medians over the rounds."""
    plan = Plan.of(quick)
    process.pin(0, process.LOADER_CORE)
    rounds = []
    async with _stub() as port:
        for _ in range(plan.rounds):
            rounds.append(await _round(port, plan))
            report.progress(", ".join(f"{k} {v:,.2f}" for k, v in rounds[-1].items()))
    figures = report.medians(rounds)
    return report.Result(figures, [], {"watchers": plan.watchers, "seconds": plan.seconds})


async def _round(port: int, plan: Plan) -> dict[str, float]:
    bare = await _watching(port, plan, Bare)
    unmeasured = await _watching(port, plan, Unmeasured)
    full = await _watching(port, plan, Watcher)
    return {
        "bare_us_per_frame": bare.us_per_frame,
        "unmeasured_us_per_frame": unmeasured.us_per_frame,
        "full_us_per_frame": full.us_per_frame,
        "overhead_share": full.us_per_frame / unmeasured.us_per_frame - 1,
        "frames_per_s": full.frames_per_s,
        **await _claiming(port, plan, full.us_per_frame),
    }


# --- The swarm -----------------------------------------------------------------------------------


class Bare(Watcher):
    """Counts bytes once it is in."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self.welcomed:
            self.size += len(data)
        else:
            super().data_received(data)


class Unmeasured(Watcher):
    """Tells frames apart, and notes nothing of those that are known."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self._known.get(data) is None or self._tail:
            self._parse(data)
        else:
            self.size += len(data)


class Use(NamedTuple):
    """What a stretch of time came to."""

    us_per_frame: float
    frames_per_s: float
    cpu_share: float


async def _watching(port: int, plan: Plan, kind: type[Watcher]) -> Use:
    swarm = await _new_swarm(port)
    crowd = Crowd("watcher", plan.watchers)
    watchers = [kind(swarm, _who(n, ""), crowd) for n in range(plan.watchers)]
    ledger = Ledger(swarm, Till(swarm, Terms(SALE, 1)), watchers, None)
    await _join(swarm, watchers)
    use = await _use(swarm, watchers, ledger.fold, plan.seconds)
    await _leave(swarm, watchers)
    return use


async def _claiming(port: int, plan: Plan, us_per_frame: float) -> dict[str, float]:
    """Watchers, and buyers among them who claim at a rate."""
    swarm = await _new_swarm(port)
    crowd = Crowd("watcher", plan.watchers)
    watchers = [Watcher(swarm, _who(n, ""), crowd) for n in range(plan.watchers)]
    till, payer = Till(swarm, Terms(SALE, 1)), Payer(swarm, "demo")
    buying = Crowd("buyer", plan.buyers, claims_each=1_000)
    buyers = [
        Customer(swarm, _who(n, f"lt-s-b0_{n}"), buying, 0, till, payer) for n in range(plan.buyers)
    ]
    people: list[Connection] = [*watchers, *buyers]
    ledger = Ledger(swarm, till, people, None)
    await _join(swarm, people)
    now_us, turns = swarm.now_us(), Turns(swarm, buyers, claiming=True)
    swarm.measured.part_us = now_us, now_us + int(plan.seconds * 1e6) + 1
    step_us = 1_000_000 / plan.claims
    whole = int(plan.claims * plan.seconds)
    Timetable(swarm, [(now_us + int(n * step_us), turns.act) for n in range(whole)]).run()
    use = await _use(swarm, people, ledger.fold, plan.seconds)
    claims_per_s = swarm.counts["confirmed"] / plan.seconds
    lags = sorted(swarm.lags)
    await _leave(swarm, people)
    for_frames = use.frames_per_s * us_per_frame / 1e6
    return {
        "mixed_frames_per_s": use.frames_per_s,
        "mixed_claims_per_s": claims_per_s,
        "mixed_cpu_share": use.cpu_share,
        "us_per_claim": (use.cpu_share - for_frames) * 1e6 / claims_per_s if claims_per_s else 0,
        "schedule_lag_p99_ms": report.percentile(lags, 0.99) / 1000,
    }


async def _new_swarm(port: int) -> Swarm:
    target = await Target.of(f"http://127.0.0.1:{port}", "demo")
    return Swarm(time.monotonic_ns() // 1000, 1, [target])


def _who(number: int, token: str) -> Who:
    return Who(token or f"w{number}", 0, token, number // PEOPLE_PER_ADDRESS % ADDRESSES_MAX)


async def _join(swarm: Swarm, people: Sequence[Connection]) -> None:
    for each in people:
        each.come(swarm.now_us())
    async with asyncio.timeout(JOIN_SECONDS):
        while not all(each.settled for each in people):  # noqa: ASYNC110  (thousands of events)
            await asyncio.sleep(0.1)
    quiet_collector()


async def _use(
    swarm: Swarm, people: Sequence[Connection], fold: Callable[[], None], seconds: float
) -> Use:
    """CPU and frames from now on."""
    fold()
    size, cpu, began = sum(each.size for each in people), time.process_time(), time.perf_counter()
    until = began + seconds
    while (left := until - time.perf_counter()) > 0:
        await asyncio.sleep(min(1.0, left))
        fold()
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    frames = (sum(each.size for each in people) - size) / len(next(_ticks()))
    return Use(cpu / frames * 1e6, frames / took, cpu / took)


async def _leave(swarm: Swarm, people: Sequence[Connection]) -> None:
    swarm.ended = True
    for each in people:
        each.abort()
    await asyncio.sleep(0.5)


# --- The stub of a room, in its own process ----------------------------------------------------


@asynccontextmanager
async def _stub() -> AsyncIterator[int]:
    """The port of a stub that ends with us."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __spec__.name if __spec__ else __name__, "stub",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    process.pin(child.pid, process.SERVER_CORE)
    assert child.stdout
    try:
        yield int(await child.stdout.readline())
    finally:
        child.kill()
        await child.wait()


def _ticks() -> Iterator[bytes]:
    """Ticks as a busy room sends them: stock, likes, two lines."""
    return map(_tick, itertools.count(NUMBERS_FROM))


def _tick(n: int) -> bytes:
    stock = {"epoch": 1, "version": n, "sale": SALE, "left": 900_000, "held": NUMBERS_FROM}
    stock |= {"sold": n, "total": 900_000 + NUMBERS_FROM + n}
    likes = {"epoch": 1, "version": n, "total": n}
    line = m.ChatLine(f"k3x9-{n}", "u-7", "小林", "viewer", "这个颜色还有吗")
    state = {f"stock:{SALE}": stock, "likes": likes}
    return wire.server_frame(_ENCODER.encode(m.Tick(n, 1_790_000_000_000, state, chat=[line] * 2)))


class Guest(asyncio.Protocol):
    """A viewer, from the stub's side."""

    def __init__(self, guests: dict["Guest", int]) -> None:
        self._guests = guests
        self._tail = b""
        self._user = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def connection_lost(self, error: Exception | None) -> None:
        self._guests.pop(self, None)

    def data_received(self, data: bytes) -> None:
        if self not in self._guests:
            welcome = m.Welcome(1, "demo", 9, 0, 0, 100, False, {}, [])
            self._say(welcome, b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            self._guests[self] = self.transport.get_extra_info("socket").fileno()
            return
        data = self._tail + data
        while len(data) >= 8 and len(data) >= (end := _end(data)):
            self._command(data[:end])
            data = data[end:]
        self._tail = data

    def _say(self, message: Any, before: bytes = b"") -> None:
        self.transport.write(before + wire.server_frame(_ENCODER.encode(message)))

    def _command(self, frame: bytes) -> None:
        start = 8 if frame[1] & 0x7F == 126 else 6
        size = len(frame) - start
        mask = (frame[start - 4 : start] * (size // 4 + 1))[:size]
        masked = int.from_bytes(frame[start:], "big") ^ int.from_bytes(mask, "big")
        command = _COMMANDS.decode(masked.to_bytes(size, "big"))
        if isinstance(command, m.Hello):
            self._say(m.Accepted(0, hello=m.HelloResult(command.token, "", "viewer", 0)))
        elif isinstance(command, m.Claim):
            state = m.ClaimState(command.claim_id, "held", SALE, 1, 990, 1, 1, 1, receipt="r" * 32)
            self._say(m.Accepted(command.ref, claim=state))
            loop = asyncio.get_running_loop()
            loop.call_later(CONFIRM_S, self._confirm, msgspec.structs.replace(
                state, status="confirmed", order_id=1))  # fmt: skip

    def _confirm(self, state: m.ClaimState) -> None:
        if not self.transport.is_closing():
            self._say(m.OrderEvent(state))


def _end(data: bytes) -> int:
    """Where the first masked frame (below 64 KiB) ends."""
    size = data[1] & 0x7F
    return 8 + int.from_bytes(data[2:4], "big") if size == 126 else 6 + size


async def stub() -> None:
    """Serve until killed, or until the parent is gone."""
    guests: dict[Guest, int] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Guest(guests), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    parent, due = os.getppid(), time.perf_counter()
    known = 0
    for tick in _ticks():
        while len(guests) != known:  # no ticks while people come or go
            known = len(guests)
            await asyncio.sleep(QUIET_S)
        due = max(due, time.perf_counter() - QUIET_S)
        fds = list(guests.values())
        for group in range(GROUPS):
            for fd in fds[group::GROUPS]:
                try:
                    os.write(fd, tick)
                except (BlockingIOError, OSError):
                    continue  # full, or gone meanwhile
            due += TICK_S / GROUPS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if os.getppid() != parent:
            return


if __name__ == "__main__":
    if sys.argv[1:] == ["stub"]:
        uvloop.run(stub())
    else:
        found = uvloop.run(run(quick="--quick" in sys.argv))
        print(report.as_table("loader", found, machine.facts()))
