"""`bench fanout`: what one delivered frame costs the server, beside a floor and other servers.

Every server has one core of its own, the receivers the other. All are connected at once and take
turns in short bursts (paired and interleaved), so that a busy moment of the machine meets each of
them. A burst is 20 publishes a second; the cost is the server's CPU time (user and system) over
the frames that arrived. On loopback the system part contains the receivers' TCP work, which is
why the floor, one write(2) per viewer, is the honest yardstick.

Measured with 1,000 viewers and again with 10,000 (figures ending in `_10k`). Those are a crowd in
C per server (crowd.c), because a receiver in Python could not read so much; 3 publishes a second
are as many as the slowest reference can deliver to them.
"""

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import redis.asyncio

from loadtest import joins, peers, process, report, swarm, wire
from loadtest.crowd import Audience, Counts, crowd
from loadtest.stand import Stand, stand
from server.protocol.facts import StateFact
from server.protocol.messages import Tick, Welcome

PAYLOAD_BYTES = 200
CHECKED = 5  # receivers per server whose frames are decoded and whose order is verified
QUIET_SECONDS = 0.12
ARRIVAL_SECONDS = 10.0
DELIVERED_MIN = 0.9  # of the frames of the viewer that got most
MANY = "_10k"  # what the figures with many viewers end in


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement."""

    viewers: int
    rounds: int
    ticks: int  # publishes per burst
    per_second: int  # publishes
    suffix: str = ""

    @classmethod
    def few(cls, quick: bool) -> "Plan":
        """All viewers in this process."""
        return cls(20, 1, 4, 20) if quick else cls(1_000, 5, 40, 20)

    @classmethod
    def many(cls, quick: bool) -> "Plan":
        """All but CHECKED of them in a crowd."""
        return cls(40, 1, 2, 10, MANY) if quick else cls(10_000, 5, 6, 3, MANY)

    @property
    def sampled(self) -> int:
        """Viewers in this process."""
        return CHECKED if self.suffix else self.viewers


class Publisher(Protocol):
    """Makes one more frame go to all viewers of a server."""

    async def __call__(self) -> None: ...


@dataclass(slots=True)
class Target:
    """One server under test and its viewers."""

    figure: str  # name in the figures; empty for ours
    pid: int
    viewers: Audience
    publish: Publisher
    per_frame: list[float] = field(default_factory=list)  # µs, one per burst
    used: process.Cpu = process.ZERO
    frames: int = 0
    size: int = 0

    def verify(self, got: Counts, published: int) -> None:
        """A reference delivers every frame. Ours may merge ticks for a viewer that does not keep
        up; where many do not, the machine is too busy to measure. Raises RuntimeError."""
        most = published if self.figure else got.most
        if not most or got.frames < DELIVERED_MIN * most * got.open or got.most > most:
            name = self.figure or "livesale"
            found = f"{got.fewest} to {got.most} of {published} frames to {got.open} viewers"
            raise RuntimeError(f"{name} delivered {found}")

    @property
    def prefix(self) -> str:
        return f"{self.figure}_" if self.figure else ""

    def figures(self) -> dict[str, float]:
        """Median cost of a frame, and the part of it outside the kernel over all bursts."""
        cost = report.median(self.per_frame)
        return {
            f"{self.prefix}cpu_us_per_frame": cost,
            f"{self.prefix}user_cpu_us_per_frame": cost * self.used.user_share,
            f"{self.prefix}bytes_per_frame": self.size / max(1, self.frames),
        }


async def run(*, quick: bool) -> report.Result:
    """Measure ours and every reference that can run here, with few viewers and with many."""
    process.pin(0, process.LOADER_CORE)
    references, notes = peers.available()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="livesale-bench-") as directory:
        folder = Path(directory)
        plans = [Plan.few(quick), Plan.many(quick)]
        if peers.compile_c(peers.FLOOR, folder) is None:
            notes.append("no C compiler: neither the floor nor 10,000 viewers were measured")
            plans = plans[:1]
        for plan in plans:
            found = await _measure(plan, folder, references, quick=quick)
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
        targets = [await stack.enter_async_context(_ours(plan, folder))]
        if (program := peers.compile_c(peers.FLOOR, folder)) is not None:
            floor = await stack.enter_async_context(peers.floor(program))
            targets.append(await stack.enter_async_context(_echoing(plan, floor, folder)))
        for name in references:
            peer = await stack.enter_async_context(peers.reference(name, folder))
            targets.append(await stack.enter_async_context(_echoing(plan, peer, folder)))
        for number in range(0 if quick else -1, plan.rounds):  # round -1 warms up
            await _round(plan, targets, number)
    return _figures(targets)


def _figures(targets: Sequence[Target]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for target in targets:
        figures |= target.figures()
    ours = targets[0].per_frame
    for other in targets[1:]:
        pairs = [mine / theirs for mine, theirs in zip(ours, other.per_frame, strict=True)]
        figures[f"ratio_to_{other.figure}"] = report.median(pairs)
    return figures


async def _round(plan: Plan, targets: Sequence[Target], number: int) -> None:
    """One burst per server; the order turns, so that none is always first."""
    shift = max(0, number) % len(targets)
    for target in itertools.chain(targets[shift:], targets[:shift]):
        cost = await _burst(plan, target, keep=number >= 0)
        report.progress(f"round {number + 1}: {target.figure or 'livesale'} {cost:.2f} µs/frame")


async def _burst(plan: Plan, target: Target, *, keep: bool) -> float:
    """Publish `plan.ticks` times; µs of server CPU per frame that arrived."""
    await target.viewers.quiet(QUIET_SECONDS)
    await target.viewers.mark()
    before = process.cpu(target.pid)
    await _publish_evenly(target.publish, plan)
    await _arrived(target, plan.ticks)
    used = process.cpu(target.pid).since(before)
    got = await target.viewers.counts()
    target.verify(got, plan.ticks)
    cost = used.total / got.frames
    if keep:
        target.per_frame.append(cost)
        target.used = target.used.plus(used)
        target.frames += got.frames
        target.size += got.size
    return cost


async def _arrived(target: Target, ticks: int) -> None:
    """Wait until nothing is on its way any more; references must come to `ticks` frames each."""
    if target.figure:
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
    async with _audience(plan, peer.port, request, folder) as viewers:
        for viewer in viewers.sampled[:CHECKED]:
            viewer.check = Counted()
        publish = Echo(viewers.sampled[0], framed=framed)
        yield Target(peer.figure, peer.child.pid, viewers, publish)


@asynccontextmanager
async def _audience(plan: Plan, port: int, request: bytes, folder: Path) -> AsyncIterator[Audience]:
    """All viewers of one server, connected."""
    async with AsyncExitStack() as stack:
        sampled = await swarm.connect(port, itertools.repeat(request, plan.sampled), swarm.Receiver)
        stack.push_async_callback(swarm.hang_up, sampled)
        others = None
        if plan.viewers > plan.sampled:
            joining = crowd(folder, port, request, plan.viewers - plan.sampled)
            others = await stack.enter_async_context(joining)
        yield Audience(sampled, others)


# --- Ours -------------------------------------------------------------------------------------


class Published:
    """Publishes the state `show` through Redis, its title as long as frames of `size` bytes need.

    `version` is that of the newest.
    """

    def __init__(
        self, running: Stand, client: "redis.asyncio.Redis", epoch: int, size: int = PAYLOAD_BYTES
    ) -> None:
        self._channel = running.bus_channel
        self._client = client
        self._epoch = epoch
        self.version = 1_000_000
        self._padding = size - len(msgspec.msgpack.encode(self._tick("", 1_000_000)))

    def _value(self, title: str, version: int) -> dict[str, object]:
        terms = {"phase": "live", "title": title, "cover_url": "", "playback_url": ""}
        return {"epoch": self._epoch, "version": version, **terms, "starts_at": 0}

    def _tick(self, title: str, version: int) -> Tick:
        return Tick(n=1 << 20, now=1 << 40, state={"show": self._value(title, version)})

    async def __call__(self) -> None:
        self.version += 1
        value = self._value("." * self._padding, self.version)
        payload = msgspec.msgpack.encode(StateFact("show", value))
        await self._client.spublish(self._channel, payload)


class Newer:
    """Checks that the versions in our ticks rise."""

    def __init__(self) -> None:
        self._last = 0
        self._decoder = msgspec.msgpack.Decoder(Tick | Welcome)

    def __call__(self, payload: bytes) -> None:
        value = self._decoder.decode(payload).state.get("show")
        if value is None:
            return
        if value["version"] <= self._last:
            raise RuntimeError(f"version {value['version']} after {self._last}")
        self._last = value["version"]


class Epoch:
    """Reads the epoch of the event numbers from `welcome`."""

    def __init__(self) -> None:
        self.found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def __call__(self, payload: bytes) -> None:
        if not self.found.done():
            self.found.set_result(msgspec.msgpack.decode(payload, type=Welcome).epoch)


@asynccontextmanager
async def _ours(plan: Plan, folder: Path) -> AsyncIterator[Target]:
    async with stand() as running:
        process.pin(running.valkey.child.pid, process.LOADER_CORE)
        web = await running.start_web(
            core=process.SERVER_CORE, LIVESALE_TICK_MS=str(1000 // plan.per_second)
        )
        await running.open_show()
        request = running.upgrade_request()
        async with (
            _audience(plan, running.port, request, folder) as viewers,
            redis.asyncio.Redis.from_url(running.valkey.url) as client,
        ):
            epoch = await epoch_of(running, request)
            for viewer in viewers.sampled[:CHECKED]:
                viewer.check = Newer()
            yield Target("", web.pid, viewers, Published(running, client, epoch))


async def epoch_of(running: Stand, request: bytes) -> int:
    """The room's epoch, from the welcome of one more viewer."""
    epoch = Epoch()

    def checking(head: bytes, opened: "asyncio.Future[None]") -> swarm.Receiver:
        receiver = swarm.Receiver(head, opened)
        receiver.check = epoch
        return receiver

    late = await swarm.connect(running.port, [request], checking)
    try:
        async with asyncio.timeout(5):
            return await epoch.found
    finally:
        await swarm.hang_up(late)
