"""`bench slow`: what viewers who do not keep up do to the others, and what becomes of them.

1,000 viewers, of whom 5 % are slow: *sleepers* never read, *talkers* send commands and never read,
*laggards* read but answer pings 3 s late, *dozers* stop reading for a while and then go on. The
others' frame age (from publishing until the tick with it is here, at a sample) is measured before
the slow ones come, while they are there, and after they are gone. Each rung of the ladder is seen
from outside, and RuntimeError raised when one is missing:

- frames are held back and folded: a dozer gets fewer than there were, and then the newest;
- one frame a second: what a laggard gets once its pongs are late;
- the end: sleepers and talkers are closed, laggards with close code 4408; dozers stay.

The process's memory is watched meanwhile. Beside it `websockets.broadcast` to as many viewers who
never read: `websockets_rss_kb_per_slow_viewer` is its growth after 7.5 MB were published to each,
of which the kernel took some 3 MB; it goes on like that for ever.
"""

import asyncio
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from loadtest import process, wire
from loadtest.bench import ages, peers, report, swarm
from loadtest.bench.publishing import Published
from loadtest.stand import Stand, live_show
from server.protocol.messages import Tick, Time, Welcome

PER_SECOND = 10  # publishes and a talker's commands
RECEIVE_BYTES = 4_096  # the slow ones' socket buffer, so that theirs fill within seconds
LATE_PONG_SECONDS = 3.0
DOZE_SECONDS = 6.0
AWAKE_SECONDS = 4.0  # until a dozer must have the newest
GONE_SECONDS = 45.0  # until the last slow one must be closed
SLOW = 4408
REFERENCE = "websockets_broadcast"
PEER_FRAME_BYTES, PEER_PER_SECOND = 64 * 1024, 20
LAGGING_PER_SECOND_MAX = 2.0

_DECODER: Final = msgspec.msgpack.Decoder(Tick | Welcome)
_TIME: Final = wire.client_frame(msgspec.msgpack.encode(Time(ref=1, sent_at=1.0)))


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement. Of each kind of `slow` viewers there is at least one."""

    viewers: int
    sampled: int
    slow: int
    window_s: float  # before, and after
    ping_s: int  # between two pings of the web process; the default is 20

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(60, 10, 8, 1.0, 1) if quick else cls(1_000, 50, 50, 15.0, 3)


async def run(*, quick: bool) -> report.Result:
    """Our ladder, then a server without one."""
    plan = Plan.of(quick)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="livesale-bench-") as directory:
        figures = await _ours(plan, Path(directory))
        if REFERENCE in peers.available()[0]:
            figures |= await _without_ladder(Path(directory), plan.slow, 4 if quick else 120)
        else:
            notes.append("websockets is not installed: not measured")
    setting: dict[str, object] = {"viewers": plan.viewers, "slow": plan.slow}
    return report.Result(figures, notes, setting | {"frames_per_s": PER_SECOND})


# --- The slow ones ----------------------------------------------------------------------------


class Slow(swarm.Receiver):
    """A viewer that may stop reading. `code` is the close code it was told, 0 while open."""

    __slots__ = ("arrivals", "code", "version")

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        super().__init__(request, opened)
        self.code = 0
        self.version = 0  # newest seen
        self.arrivals: list[float] = []
        self.check = self._see

    def sleep(self) -> None:
        """Read no more."""
        assert self.transport is not None
        self.transport.pause_reading()

    def wake(self) -> None:
        """Read on."""
        assert self.transport is not None
        self.transport.resume_reading()

    def control(self, opcode: int, payload: bytes) -> None:
        if opcode == wire.CLOSE:
            self.code = int.from_bytes(payload[:2], "big")
        super().control(opcode, payload)

    def _see(self, payload: bytes) -> None:
        if payload[4:7] == b"bye":  # see buyers.KIND_AT
            return
        self.arrivals.append(time.perf_counter())
        value = _DECODER.decode(payload).state.get("show")
        if value is not None:
            self.version = value["version"]


class Laggard(Slow):
    """Reads all and answers pings late. `late_since` is when its first late pong was sent."""

    __slots__ = ("late_since",)

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        super().__init__(request, opened)
        self.late_since = 0.0

    def control(self, opcode: int, payload: bytes) -> None:
        if opcode == wire.PING:
            loop = asyncio.get_running_loop()
            loop.call_later(LATE_PONG_SECONDS, self._pong, payload)
        else:
            super().control(opcode, payload)

    def _pong(self, payload: bytes) -> None:
        if not self.lost:
            self.late_since = self.late_since or time.perf_counter()
            super().control(wire.PING, payload)

    @property
    def per_second(self) -> float:
        """Frames a second from its first late pong to the last frame."""
        late = [at for at in self.arrivals if at > self.late_since]
        return (len(late) - 1) / (late[-1] - late[0]) if len(late) > 1 else 0.0


SomeSlow = TypeVar("SomeSlow", bound=Slow)


async def _join_slow(
    running: Stand, count: int, factory: "swarm.Factory[SomeSlow]"
) -> list[SomeSlow]:
    """Slow viewers, each with a small receive buffer."""
    return [await _one_slow(running, factory) for _ in range(count)]


async def _one_slow(running: Stand, factory: "swarm.Factory[SomeSlow]") -> SomeSlow:
    return await _join_small(running.port, running.upgrade_request(), factory)


async def _join_small(port: int, request: bytes, factory: "swarm.Factory[SomeSlow]") -> SomeSlow:
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    sock.setblocking(False)
    await loop.sock_connect(sock, ("127.0.0.1", port))
    opened: asyncio.Future[None] = loop.create_future()
    _, receiver = await loop.create_connection(lambda: factory(request, opened), sock=sock)
    await opened
    return receiver


@dataclass(slots=True)
class SlowOnes:
    """All slow viewers of a run, by what they do."""

    sleepers: list[Slow]
    talkers: list[Slow]
    laggards: list[Laggard]
    dozers: list[Slow]

    @classmethod
    async def join(cls, running: Stand, count: int) -> "SlowOnes":
        """A tenth of them laggards, a tenth dozers, the others by halves; all asleep but those."""
        few = max(1, count // 10)
        half = (count - 2 * few) // 2
        self = cls(
            await _join_slow(running, count - 2 * few - half, Slow),
            await _join_slow(running, half, Slow),
            await _join_slow(running, few, Laggard),
            await _join_slow(running, few, Slow),
        )
        for slow in (*self.sleepers, *self.talkers, *self.dozers):
            slow.sleep()
        return self

    async def talk(self) -> None:
        """Talkers send commands until cancelled."""
        with suppress(asyncio.CancelledError):
            while True:
                for talker in self.talkers:
                    talker.send(_TIME)
                await asyncio.sleep(1 / PER_SECOND)

    async def wake_dozers(self, published: Published, had: int) -> float:
        """Let them read on; the share of the versions since `had` that was folded for them."""
        await asyncio.sleep(DOZE_SECONDS)
        for dozer in self.dozers:
            dozer.wake()
        newest = published.version
        await process.wait_for(
            lambda: all(dozer.version >= newest for dozer in self.dozers),
            AWAKE_SECONDS,
            "the newest state at viewers who read again",
        )
        got = max(len(dozer.arrivals) for dozer in self.dozers)
        return 1 - got / (newest - had)

    def verify(self) -> None:
        """Raises RuntimeError unless laggards were slowed down and told why they were closed."""
        codes = {laggard.code for laggard in self.laggards}
        fastest = max(laggard.per_second for laggard in self.laggards)
        if codes != {SLOW} or fastest > LAGGING_PER_SECOND_MAX:
            raise RuntimeError(f"laggards got {fastest:.1f} frames/s and close codes {codes}")
        if any(dozer.code or dozer.lost for dozer in self.dozers):
            raise RuntimeError("a viewer that reads again was closed")

    def everybody(self) -> Sequence[Slow]:
        """All of them."""
        return [*self.sleepers, *self.talkers, *self.laggards, *self.dozers]


# --- The others -------------------------------------------------------------------------------


async def _ours(plan: Plan, folder: Path) -> dict[str, float]:
    async with live_show(LIVESALE_PING_SECONDS=str(plan.ping_s)) as running:
        quick_ones = plan.viewers - plan.slow
        feeding = ages.feeding(running, folder, quick_ones, plan.sampled, PER_SECOND)
        async with feeding as feed:
            return await _with_slow_ones(running, plan, feed)


async def _with_slow_ones(running: Stand, plan: Plan, feed: ages.Feed) -> dict[str, float]:
    """The three windows."""
    assert running.web is not None
    await feed.window(plan.window_s / 3)  # warms up
    before = await feed.window(plan.window_s)
    memory, had = process.rss_kb(running.web.pid), feed.publish.version
    slow = await SlowOnes.join(running, plan.slow)
    feed.ages = []
    talking = asyncio.create_task(slow.talk())
    dozing = asyncio.create_task(slow.wake_dozers(feed.publish, had))
    try:
        seconds, most = await _until_closed(running, plan.viewers - plan.slow + len(slow.dozers))
        during = feed.p99_ms()
        folded = await dozing
    finally:
        for task in (talking, dozing):
            task.cancel()
    slow.verify()
    after = await feed.window(plan.window_s)
    kept = process.rss_kb(running.web.pid) - memory
    per_second = report.median(laggard.per_second for laggard in slow.laggards)
    await swarm.hang_up(slow.everybody())
    usual = report.median([before, after])
    return {
        "age_p99_before_ms": before,
        "age_p99_during_ms": during,
        "age_p99_after_ms": after,
        "age_p99_change_percent": (during / usual - 1) * 100,
        "closed_after_s": seconds,
        "dozers_folded_share": folded,
        "laggards_frames_per_s": per_second,
        "rss_growth_kb": most - memory,
        "rss_growth_kb_per_slow_viewer": (most - memory) / plan.slow,
        "rss_kept_kb": kept,
    }


async def _until_closed(running: Stand, left: int) -> tuple[float, float]:
    """Wait until only `left` viewers are there: (seconds, largest resident KB meanwhile).

    The process's own count: a sleeper would not notice. Raises TimeoutError.
    """
    assert running.web is not None
    start, most = time.perf_counter(), 0.0
    async with asyncio.timeout(GONE_SECONDS):
        while await running.metric("livesale_viewers") > left:
            most = max(most, process.rss_kb(running.web.pid))
            await asyncio.sleep(0.25)
    return time.perf_counter() - start, most


# --- Without a ladder -------------------------------------------------------------------------


async def _without_ladder(folder: Path, count: int, frames: int) -> dict[str, float]:
    """Memory of websockets.broadcast while `count` viewers never read."""
    async with peers.reference(REFERENCE, folder) as peer:
        request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/")
        [sender] = await swarm.connect(peer.port, [request], swarm.Receiver)
        sleepers = [await _join_small(peer.port, request, Slow) for _ in range(count)]
        for sleeper in sleepers:
            sleeper.sleep()
        frame = wire.client_frame(bytes(PEER_FRAME_BYTES))
        memory = process.rss_kb(peer.child.pid)
        for _ in range(frames):
            sender.send(frame)
            await asyncio.sleep(1 / PEER_PER_SECOND)
        grown = process.rss_kb(peer.child.pid) - memory
        await swarm.hang_up([sender, *sleepers])
    return {"websockets_rss_kb_per_slow_viewer": grown / count}
