"""`bench fanout`: what one delivered frame costs the server, beside a floor and other servers.

Every server has one core of its own, the receivers the other. All are connected at once and take
turns in short bursts (paired and interleaved), so that a busy moment of the machine meets each of
them. A burst is 20 publishes a second; the cost is the server's CPU time (user and system) over
the frames that arrived, the user part of it by looks.py. On loopback the system part contains the
receivers' TCP work, which is why the floor, one write(2) per viewer, is the honest yardstick.

Measured with 1,000 viewers and again with 10,000 (figures ending in `_10k`). Those are a crowd in
C per server (crowd.c), because a receiver in Python could not read so much; 3 publishes a second
are as many as the slowest reference can deliver to them.
"""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import redis.asyncio

from loadtest import process, wire
from loadtest.bench import joins, looks, peers, report, swarm
from loadtest.bench.crowd import Audience, Counts, audience
from loadtest.bench.publishing import Newer, Published, epoch_of
from loadtest.stand import Stand, live_show

PAYLOAD_BYTES = 200
CHECKED = 5  # receivers per server whose frames are decoded and whose order is verified
BURST_TRIES = 3
QUIET_SECONDS = 0.12
ARRIVAL_SECONDS = 10.0
DELIVERED_MIN = 0.9  # of the frames of the viewer that got most
MANY = "_10k"  # what the figures with many viewers end in


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement. Of the viewers `in_crowd` are not in this process."""

    viewers: int
    rounds: int
    ticks: int  # publishes per burst
    per_second: int  # publishes
    in_crowd: int = 0
    suffix: str = ""

    @classmethod
    def few(cls, quick: bool) -> "Plan":
        """All viewers in this process."""
        return cls(20, 1, 4, 20) if quick else cls(1_000, 5, 40, 20)

    @classmethod
    def many(cls, quick: bool) -> "Plan":
        """All but CHECKED of them in a crowd."""
        if quick:
            return cls(40, 1, 2, 10, 40 - CHECKED, MANY)
        return cls(10_000, 5, 6, 3, 10_000 - CHECKED, MANY)

    @property
    def sampled(self) -> int:
        """Viewers in this process."""
        return self.viewers - self.in_crowd


class Publisher(Protocol):
    """Makes one more frame go to all viewers of a server."""

    async def __call__(self) -> None: ...


class Incomplete(RuntimeError):
    """A burst did not reach everybody, so its cost says nothing."""


@dataclass(slots=True)
class Target:
    """One server under test and its viewers. `exact`: it delivers every frame to each of them.

    Ours may merge ticks for a viewer that does not keep up.
    """

    figure: str  # name in the figures; empty for ours
    pid: int  # its children are counted too
    viewers: Audience
    publish: Publisher
    exact: bool = True
    per_frame: list[float] = field(default_factory=list)  # µs, one per burst
    user_us: float = 0.0  # of all bursts
    frames: int = 0
    size: int = 0
    _user_us: Callable[[], float] | None = None

    def user_us_now(self) -> float:
        """What the server has spent outside the kernel since some instant."""
        if self._user_us is None:
            self._user_us = looks.user_us(self.pid)
        return self._user_us()

    def verify(self, got: Counts, published: int) -> None:
        """Raises Incomplete where frames are missing, or too many were merged: the machine is too
        busy to measure."""
        most = published if self.exact else got.most
        if not most or got.frames < DELIVERED_MIN * most * got.open or got.most > most:
            name = self.figure or "livesale"
            found = f"{got.fewest} to {got.most} of {published} frames to {got.open} viewers"
            raise Incomplete(f"{name} delivered {found}")

    @property
    def prefix(self) -> str:
        return f"{self.figure}_" if self.figure else ""

    def figures(self) -> dict[str, float]:
        """Median cost of a frame, and the mean part of it outside the kernel."""
        return {
            f"{self.prefix}cpu_us_per_frame": report.median(self.per_frame),
            f"{self.prefix}user_cpu_us_per_frame": self.user_us / max(1, self.frames),
            f"{self.prefix}bytes_per_frame": self.size / max(1, self.frames),
        }


async def run(*, quick: bool) -> report.Result:
    """Measure ours and every reference that can run here, with few viewers and with many."""
    references, notes = peers.available()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="livesale-bench-") as directory:
        folder = Path(directory)
        plans = [Plan.few(quick), Plan.many(quick)]
        if peers.compile_c(peers.FLOOR) is None:
            notes.append("no C compiler: neither the floor nor 10,000 viewers were measured")
            plans = plans[:1]
        for plan in plans:
            beside = references[1:2] if quick and plan.suffix else references
            found = await _measure(plan, folder, beside, quick=quick)
            figures |= {name + plan.suffix: value for name, value in found.items()}
    figures |= (await joins.run(quick=quick)).figures
    return report.Result(figures, notes, _setting(plans))


def _setting(plans: Sequence[Plan]) -> dict[str, object]:
    return {
        "viewers": [plan.viewers for plan in plans],
        "frames_per_s": [plan.per_second for plan in plans],
        "rounds": plans[0].rounds,
    }


async def _measure(
    plan: Plan, folder: Path, references: Sequence[str], *, quick: bool
) -> dict[str, float]:
    """All servers side by side, in turns."""
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(ours(plan, folder))]
        if (program := peers.compile_c(peers.FLOOR)) is not None:
            floor = await stack.enter_async_context(peers.floor(program))
            targets.append(await stack.enter_async_context(_echoing(plan, floor, folder)))
        for name in references:
            peer = await stack.enter_async_context(peers.reference(name, folder))
            targets.append(await stack.enter_async_context(_echoing(plan, peer, folder)))
        return await compare(plan, targets, quick=quick)


async def compare(plan: Plan, targets: Sequence[Target], *, quick: bool) -> dict[str, float]:
    """Figures of all targets, and of the first in relation to each other one."""
    for number in range(0 if quick else -1, plan.rounds):  # round -1 warms up
        await _round(plan, targets, number)
    figures: dict[str, float] = {}
    for target in targets:
        figures |= target.figures()
    first = targets[0].per_frame
    for other in targets[1:]:
        pairs = [mine / theirs for mine, theirs in zip(first, other.per_frame, strict=True)]
        figures[f"ratio_to_{other.figure}"] = report.median(pairs)
    return figures


async def _round(plan: Plan, targets: Sequence[Target], number: int) -> None:
    """One burst per server; the order turns, so that none is always first."""
    shift = max(0, number) % len(targets)
    for target in itertools.chain(targets[shift:], targets[:shift]):
        cost = await _whole_burst(plan, target, keep=number >= 0)
        report.progress(f"round {number + 1}: {target.figure or 'livesale'} {cost:.2f} µs/frame")


async def _whole_burst(plan: Plan, target: Target, *, keep: bool) -> float:
    """A burst, repeated when the machine was too busy for it. Raises Incomplete after BURST_TRIES:
    what fails again and again is no accident."""
    for _ in range(BURST_TRIES - 1):
        try:
            return await _burst(plan, target, keep=keep)
        except Incomplete as reason:
            report.progress(f"{reason}: once more")
    return await _burst(plan, target, keep=keep)


async def _burst(plan: Plan, target: Target, *, keep: bool) -> float:
    """Publish `plan.ticks` times; µs of server CPU per frame that arrived."""
    await target.viewers.quiet(QUIET_SECONDS)
    await target.viewers.mark()
    before, user_before = process.cpu(target.pid), target.user_us_now()
    await _publish_evenly(target.publish, plan)
    await _arrived(target, plan.ticks)
    used = process.cpu(target.pid).since(before)
    user_us = target.user_us_now() - user_before
    got = await target.viewers.counts()
    target.verify(got, plan.ticks)
    cost = used.total / got.frames
    if keep:
        target.per_frame.append(cost)
        target.user_us += user_us
        target.frames += got.frames
        target.size += got.size
    return cost


async def _arrived(target: Target, ticks: int) -> None:
    """Wait until nothing is on its way any more; references must come to `ticks` frames each."""
    if target.exact:
        what = f"all frames of {target.figure}"
        await target.viewers.reached(ticks, ARRIVAL_SECONDS, what)
    await target.viewers.quiet(QUIET_SECONDS)


async def _publish_evenly(publish: Publisher, plan: Plan) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(plan.ticks):
        await asyncio.sleep(max(0.0, start + number / plan.per_second - loop.time()))
        await publish()
    await asyncio.sleep(1 / plan.per_second)


# --- The references ---------------------------------------------------------------------------


class Echo:
    """Publishes through the first viewer: a reference sends what it gets to all."""

    def __init__(self, sender: swarm.Receiver, *, framed: bool) -> None:
        self._sender = sender
        self._framed = framed
        self._numbers = itertools.count()

    async def __call__(self) -> None:
        payload = next(self._numbers).to_bytes(8, "big").ljust(PAYLOAD_BYTES, b".")
        frame = wire.client_frame(payload) if self._framed else wire.server_frame(payload)
        self._sender.send(frame)


class Counted:
    """Checks that the payloads' numbers of a reference follow each other."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, payload: bytes) -> None:
        number = int.from_bytes(payload[:8], "big")
        if number != self._next or len(payload) != PAYLOAD_BYTES:
            raise RuntimeError(f"frame {number} of {len(payload)} bytes, expected {self._next}")
        self._next += 1


@asynccontextmanager
async def _echoing(plan: Plan, peer: peers.Peer, folder: Path) -> AsyncIterator[Target]:
    """A reference with its viewers, of whom the first publishes."""
    framed = peer.speaks_websocket
    request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/") if framed else b""
    joining = audience(peer.port, request, folder, plan.viewers, plan.sampled)
    async with joining as viewers:
        for viewer in viewers.sampled[:CHECKED]:
            viewer.check = Counted()
        publish = Echo(viewers.sampled[0], framed=framed)
        yield Target(peer.figure, peer.child.pid, viewers, publish)


# --- Ours -------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(plan: Plan, folder: Path) -> AsyncIterator[Target]:
    """A livesale of its own, and its viewers."""
    tick_ms = str(1000 // plan.per_second)
    async with (
        live_show(LIVESALE_TICK_MS=tick_ms) as running,
        watching(running, plan, folder) as target,
    ):
        yield target


@asynccontextmanager
async def watching(
    running: Stand, plan: Plan, folder: Path, figure: str = ""
) -> AsyncIterator[Target]:
    """All viewers of a livesale that runs."""
    assert running.web is not None
    request = running.upgrade_request()
    async with (
        audience(running.port, request, folder, plan.viewers, plan.sampled) as viewers,
        redis.asyncio.Redis.from_url(running.valkey.url) as client,
    ):
        publish = Published(running, client, await epoch_of(running), PAYLOAD_BYTES)
        for viewer in viewers.sampled[:CHECKED]:
            viewer.check = Newer()
        yield Target(figure, running.web.pid, viewers, publish, exact=False)
