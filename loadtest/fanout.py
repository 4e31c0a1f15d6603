"""`bench fanout`: what one delivered frame costs the server, beside a floor and other servers.

Every server has one core of its own, the receivers the other. All are connected at once and take
turns in short bursts (paired and interleaved), so that a busy moment of the machine meets each of
them. A burst is 20 publishes a second; the cost is the server's CPU time (user and system) over
the frames that arrived. On loopback the system part contains the receivers' TCP work, which is
why the floor, one write(2) per viewer, is the honest yardstick.
"""

import asyncio
import itertools
import shutil
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec
import redis.asyncio

from loadtest import joins, peers, process, report, swarm, wire
from loadtest.stand import Stand, stand
from server.protocol.facts import StateFact
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Tick, Welcome

VIEWERS = 1_000
PAYLOAD_BYTES = 200
PER_SECOND = 20
CHECKED = 5  # receivers per server whose frames are decoded and whose order is verified
QUIET_SECONDS = 0.12
ARRIVAL_SECONDS = 10.0
DELIVERED_MIN = 0.9  # of the frames of the viewer that got most


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement."""

    viewers: int
    rounds: int
    ticks: int  # publishes per burst

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(20, 1, 4) if quick else cls(VIEWERS, 5, 2 * PER_SECOND)


class Publisher(Protocol):
    """Makes one more frame go to all viewers of a server."""

    async def __call__(self) -> None: ...


@dataclass(slots=True)
class Target:
    """One server under test and its viewers."""

    figure: str  # name in the figures; empty for ours
    pid: int
    viewers: Sequence[swarm.Receiver]
    publish: Publisher
    per_frame: list[float] = field(default_factory=list)  # µs, one per burst
    used: process.Cpu = process.ZERO
    frames: int = 0
    size: int = 0

    def verify(self, got: Sequence[int], published: int) -> None:
        """A reference delivers every frame. Ours may merge ticks for a viewer that does not keep
        up; where many do not, the machine is too busy to measure. Raises RuntimeError."""
        most = published if self.figure else max(got)
        if not most or sum(got) < DELIVERED_MIN * most * len(got) or max(got) > most:
            name = self.figure or "livesale"
            raise RuntimeError(f"{name} delivered {min(got)} to {max(got)} of {published} frames")

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
    """Measure ours and every reference that can run here."""
    plan = Plan.of(quick)
    process.pin(0, process.LOADER_CORE)
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="livesale-bench-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        targets = [await stack.enter_async_context(_ours(plan))]
        references, notes = peers.available()
        if (program := peers.compile_floor(folder)) is None:
            notes.append("no C compiler: the floor was not measured")
        else:
            floor = await stack.enter_async_context(peers.floor(program))
            targets.append(await stack.enter_async_context(_echoing(plan, floor)))
        for name in references:
            peer = await stack.enter_async_context(peers.reference(name, folder))
            targets.append(await stack.enter_async_context(_echoing(plan, peer)))
        for number in range(0 if quick else -1, plan.rounds):  # round -1 warms up
            await _round(plan, targets, number)
    figures = _figures(targets)
    figures |= (await joins.run(quick=quick)).figures
    setting: dict[str, object] = {"viewers": plan.viewers, "frames_per_s": PER_SECOND}
    return report.Result(figures, notes, setting | {"rounds": plan.rounds})


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
    await swarm.quiet(target.viewers, QUIET_SECONDS)
    frames = [viewer.frames for viewer in target.viewers]
    size = sum(viewer.size for viewer in target.viewers)
    before = process.cpu(target.pid)
    await _publish_evenly(target.publish, plan.ticks)
    await _arrived(target, [had + plan.ticks for had in frames])
    used = process.cpu(target.pid).since(before)
    got = [v.frames - had for v, had in zip(target.viewers, frames, strict=True)]
    target.verify(got, plan.ticks)
    cost = used.total / sum(got)
    if keep:
        target.per_frame.append(cost)
        target.used = target.used.plus(used)
        target.frames += sum(got)
        target.size += sum(viewer.size for viewer in target.viewers) - size
    return cost


async def _arrived(target: Target, frames: Sequence[int]) -> None:
    """Wait until nothing is on its way any more; references must come to `frames` each."""
    if target.figure:
        await process.wait_for(
            lambda: all(v.frames >= n for v, n in zip(target.viewers, frames, strict=True)),
            ARRIVAL_SECONDS,
            f"all frames of {target.figure}",
        )
    await swarm.quiet(target.viewers, QUIET_SECONDS)


async def _publish_evenly(publish: Publisher, times: int) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    for number in range(times):
        await asyncio.sleep(max(0.0, start + number / PER_SECOND - loop.time()))
        await publish()
    await asyncio.sleep(1 / PER_SECOND)


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
async def _echoing(plan: Plan, peer: peers.Peer) -> AsyncIterator[Target]:
    """A reference with its viewers, of whom the first publishes."""
    framed = peer.speaks_websocket
    request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/") if framed else b""
    requests = itertools.repeat(request, plan.viewers)
    viewers = await swarm.connect(peer.port, requests, swarm.Receiver)
    for viewer in viewers[:CHECKED]:
        viewer.check = Counted()
    yield Target(peer.figure, peer.child.pid, viewers, Echo(viewers[0], framed=framed))
    await swarm.hang_up(viewers)


# --- Ours -------------------------------------------------------------------------------------


class Published:
    """Publishes the state `show` through Redis, its title as long as 200-byte frames need."""

    def __init__(self, running: Stand, client: "redis.asyncio.Redis", epoch: int) -> None:
        self._channel = running.bus_channel
        self._client = client
        self._epoch = epoch
        self._versions = itertools.count(1_000_000)
        self._padding = PAYLOAD_BYTES - len(msgspec.msgpack.encode(self._tick("", 1_000_000)))

    def _value(self, title: str, version: int) -> dict[str, object]:
        terms = {"phase": "live", "title": title, "cover_url": "", "playback_url": ""}
        return {"epoch": self._epoch, "version": version, **terms, "starts_at": 0}

    def _tick(self, title: str, version: int) -> Tick:
        return Tick(n=1 << 20, now=1 << 40, state={"show": self._value(title, version)})

    async def __call__(self) -> None:
        value = self._value("." * self._padding, next(self._versions))
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
async def _ours(plan: Plan) -> AsyncIterator[Target]:
    async with stand() as running:
        process.pin(running.valkey.child.pid, process.LOADER_CORE)
        web = await running.start_web(
            core=process.SERVER_CORE, LIVESALE_TICK_MS=str(1000 // PER_SECOND)
        )
        await running.open_show()
        request = wire.upgrade_request(
            f"127.0.0.1:{running.port}", f"/ws/{running.show_id}", SUBPROTOCOL_MSGPACK
        )
        viewers = await swarm.connect(
            running.port, itertools.repeat(request, plan.viewers), swarm.Receiver
        )
        epoch = await _epoch(running, request)
        for viewer in viewers[:CHECKED]:
            viewer.check = Newer()
        async with redis.asyncio.Redis.from_url(running.valkey.url) as client:
            yield Target("", web.pid, viewers, Published(running, client, epoch))
        await swarm.hang_up(viewers)


async def _epoch(running: Stand, request: bytes) -> int:
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
