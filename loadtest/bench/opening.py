"""`bench opening`: do all buttons open together? 10,000 viewers and a sale announced ahead.

Everybody is there when a sale is scheduled LEAD_SECONDS ahead; its `opens_at` reaches them with a
tick, and each counts down by its own estimate of Redis' clock. A sample does in Python what the
SDK does: every viewer has a clock of its own that is wrong by up to a day and runs up to 50 ppm too
fast or slow, takes the welcome's time as a first guess, sends `time` at once and after 0.15, 0.3,
0.6 and 1.2 s, then every 10 s, and believes the quickest reply (bench/clocks.py). Some of the
sample come half a second before the opening. The room has news twice a second meanwhile.

Redis runs on this machine, so its clock is this machine's wall clock (checked) and the truth is
known to both sides:

- `clock_error_`: by how much the estimate is wrong at the opening. `guess_error_`: by how much it
  would be without `time`, by the welcome alone; `late_clock_error_`: of those who came late;
- `open_`: when a viewer's button opens: once its estimate reaches `opens_at`, or when it hears of
  the sale, if that is later. `open_spread_p99_ms` is how long after the first button 99 % of all
  are open; `open_after_` is relative to `opens_at` and may be negative;
- `told_`: the tick in which the server itself says that the sale is open, for comparison: the
  order worker opens it in the books once a second, which no button waits for. `told_spread_` is
  what the spread would be if buttons waited for the word to go out.

What a page adds until it paints is not in it (the demo page looks at the clock at every full tenth
of server time, so it adds the same for everybody). The web process has one core, all else the
other.
"""

import asyncio
import itertools
import random
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import redis.asyncio

from loadtest import process, wire
from loadtest.bench import ages, report, swarm
from loadtest.bench.clocks import LocalClock, ServerClock, wall_ms
from loadtest.bench.crowd import crowd
from loadtest.stand import Stand, live_show
from server.protocol.messages import Accepted, Tick, Time, Welcome

LEAD_SECONDS = 6.0  # between announcing and opening
LATE_SECONDS = 0.5  # before the opening, when the late ones come
TOLD_SECONDS = 15.0  # after it, until the server must have said so
PER_SECOND = 2  # news in the room
DAY_MS = 86_400_000.0
DRIFT = 50e-6  # of a cheap quartz, at most
NEVER = float("inf")
FIRST_SYNCS_S: Final = (0.0, 0.15, 0.3, 0.6, 1.2)  # as in client-demo/src/live/session.ts
HEARTBEAT_S, HEARTBEATS = 10.0, 5
SETTLE_SECONDS = 0.5
SAME_CLOCK_MS = 5.0
PORTIONS = 10  # in which they come, so that the sample is spread over the server's groups
UNITS = 10

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Accepted | Tick | Welcome)


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement. `sampled` and `late` ones have clocks, `aged` look at the news."""

    viewers: int
    sampled: int
    late: int
    aged: int
    lead_s: float

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(60, 10, 5, 5, 1.0) if quick else cls(10_000, 500, 100, 50, LEAD_SECONDS)

    @property
    def others(self) -> int:
        """Viewers who only fill the room."""
        return self.viewers - self.sampled - self.late - self.aged


class Punctual(swarm.Receiver):
    """A viewer who wants to be the first. What it sees of the sale is noted in wall time, ms."""

    __slots__ = ("_local", "_refs", "_timers", "announced_at", "clock", "guess", "told_at")

    def __init__(self, request: bytes, opened: "asyncio.Future[None]") -> None:
        super().__init__(request, opened)
        self._local = LocalClock(random.uniform(0, DAY_MS), random.uniform(-DRIFT, DRIFT))
        self._refs = itertools.count()
        self._timers: list[asyncio.TimerHandle] = []
        self.clock = ServerClock(self._local.now)
        self.guess = ServerClock(self._local.now)  # by the welcome alone
        self.announced_at = NEVER
        self.told_at = NEVER  # that the sale is open

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        for timer in self._timers:
            timer.cancel()

    def frame(self, data: bytes, at: int, start: int, end: int) -> None:
        if data[at] & 0x08:
            super().frame(data, at, start, end)
            return
        self.frames += 1
        match _DECODER.decode(data[start:end]):
            case Accepted(time=result) if result is not None:
                self.clock.sample(result.sent_at, result.now)
            case Welcome(now=now, state=state):
                self.clock.seed(now)
                self.guess.seed(now)
                self._keep_asking()
                self._look(state)
            case Tick(state=state):
                self._look(state)

    def _keep_asking(self) -> None:
        loop = asyncio.get_running_loop()
        delays = (*FIRST_SYNCS_S, *(HEARTBEAT_S * n for n in range(1, HEARTBEATS)))
        self._timers = [loop.call_later(delay, self._ask) for delay in delays]

    def _ask(self) -> None:
        ask = Time(ref=next(self._refs), sent_at=self._local.now())
        self.send(wire.client_frame(_ENCODER.encode(ask)))

    def _look(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            if key.startswith("sale:"):
                now = wall_ms()
                self.announced_at = min(self.announced_at, now)
                if value["phase"] == "open":
                    self.told_at = min(self.told_at, now)

    def believes(self, server_ms: float, clock: ServerClock) -> float:
        """The wall time at which `clock` says that it is `server_ms`."""
        return self._local.wall_at(clock.local_at(server_ms))

    def opens(self, opens_at: float) -> float:
        """The wall time at which its button opens."""
        return max(self.announced_at, self.believes(opens_at, self.clock))


async def run(*, quick: bool) -> report.Result:
    """One opening."""
    plan = Plan.of(quick)
    async with AsyncExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="livesale-bench-")
        folder = Path(stack.enter_context(directory))
        running = await stack.enter_async_context(live_show(worker=True))
        await _require_same_clock(running)
        feeding = ages.feeding(running, folder, plan.aged, plan.aged, PER_SECOND)
        feed = await stack.enter_async_context(feeding)
        request = running.upgrade_request()
        punctual: list[Punctual] = []
        for _ in range(PORTIONS):
            others = crowd(folder, running.port, request, plan.others // PORTIONS)
            await stack.enter_async_context(others)
            punctual += await _join(running, plan.sampled // PORTIONS)
        stack.push_async_callback(swarm.hang_up, punctual)
        feed.ages = []
        figures = await _opening(running, plan, punctual)
        figures["age_p99_ms"] = feed.p99_ms()
    setting: dict[str, object] = {"viewers": plan.viewers, "sampled": plan.sampled}
    return report.Result(figures, [], setting | {"late": plan.late, "announced_s": plan.lead_s})


async def _require_same_clock(running: Stand) -> None:
    """Raises RuntimeError where Redis' time is not this machine's wall time."""
    async with redis.asyncio.Redis.from_url(running.valkey.url) as client:
        before = wall_ms()
        seconds, micros = await client.time()
        after = wall_ms()
    if not before - SAME_CLOCK_MS <= seconds * 1000 + micros / 1000 <= after + SAME_CLOCK_MS:
        raise RuntimeError(f"Redis says {seconds}.{micros:06}, this machine {after / 1000:.6f}")


async def _opening(running: Stand, plan: Plan, punctual: Sequence[Punctual]) -> dict[str, float]:
    """Announce, wait until all were told that it is open, and look back. Raises TimeoutError."""
    await asyncio.sleep(FIRST_SYNCS_S[-1])
    opens_at = int(wall_ms() + plan.lead_s * 1000)
    await running.open_sale(UNITS, 1, starts_at=opens_at)
    await asyncio.sleep((opens_at - wall_ms()) / 1000 - LATE_SECONDS)
    late = await _join(running, plan.late)
    everybody = [*punctual, *late]
    await asyncio.sleep((opens_at - wall_ms()) / 1000 + SETTLE_SECONDS)
    figures = _figures(opens_at, punctual, late)
    await process.wait_for(
        lambda: all(viewer.told_at < NEVER for viewer in everybody),
        TOLD_SECONDS,
        "the open sale at every viewer",
    )
    await swarm.hang_up(late)
    return figures | _spread("told", [viewer.told_at - opens_at for viewer in everybody])


async def _join(running: Stand, count: int) -> list[Punctual]:
    requests = itertools.repeat(running.upgrade_request(), count)
    return await swarm.connect(running.port, requests, Punctual)


def _figures(
    opens_at: float, punctual: Sequence[Punctual], late: Sequence[Punctual]
) -> dict[str, float]:
    """What the buttons did. Raises RuntimeError when somebody never heard of the sale."""
    everybody = [*punctual, *late]
    if any(viewer.announced_at == NEVER for viewer in everybody):
        raise RuntimeError("the sale was not announced to everybody")
    guesses = [viewer.believes(opens_at, viewer.guess) - opens_at for viewer in punctual]
    figures = _errors("clock", punctual, opens_at) | _errors("late_clock", late, opens_at)
    figures["guess_error_p99_ms"] = report.percentile([abs(error) for error in guesses], 0.99)
    figures["round_trip_p50_ms"] = report.median(v.clock.best.round_trip for v in punctual)
    figures |= _spread("open", [viewer.opens(opens_at) - opens_at for viewer in everybody])
    unaware = sum(viewer.announced_at > opens_at for viewer in everybody)
    return figures | {"told_too_late_of_the_sale": float(unaware)}


def _errors(name: str, viewers: Sequence[Punctual], opens_at: float) -> dict[str, float]:
    """How wrong the clocks are at the opening."""
    errors = [abs(viewer.believes(opens_at, viewer.clock) - opens_at) for viewer in viewers]
    return {
        f"{name}_error_p50_ms": report.percentile(errors, 0.5),
        f"{name}_error_p99_ms": report.percentile(errors, 0.99),
    }


def _spread(name: str, after: Sequence[float]) -> dict[str, float]:
    """Of moments in ms after `opens_at`."""
    first = min(after)
    return {
        f"{name}_after_first_ms": first,
        f"{name}_after_p50_ms": report.percentile(after, 0.5),
        f"{name}_after_p99_ms": report.percentile(after, 0.99),
        f"{name}_spread_p99_ms": report.percentile([moment - first for moment in after], 0.99),
    }
