"""`bench soak [--minutes N]`: does anything grow while viewers come and go? 15 minutes by default.

2,000 viewers are connected. Every second 100 of them leave, half with a close frame, half without
a word, and 100 new ones come, half of whom sign in as people never seen before. 100 others stay and
take part: likes, danmaku, claims (each a change of the stock), and the host says a line now and
then; when a sale is nearly over, another one opens. So the web process serves every room, viewer,
user and hold it has room for over and over, and whatever it forgets to drop adds up.

Every 10 s the resident memory of web process and order worker, Redis' memory, and the descriptors
and tasks beside those of the viewers are read. A figure is flat when its slope over the second
half (Theil-Sen, the median of the slopes between all pairs of readings: deaf to a spike) is below
its bound: memory 2 % in 10 minutes, descriptors and tasks 5 in 10 minutes. Redis keeps the answer
to every claim as long as the show lasts, so its bound is per claim. `flat` is 1 when all are; a
note names those that are not, and fewer than MINUTES_MIN say nothing.
"""

import asyncio
import collections
import itertools
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass

import psutil
import redis.asyncio

from loadtest import process, wire
from loadtest.bench import buyers, people, report, swarm
from loadtest.stand import SALE_SECONDS, Stand, live_show

MINUTES = 15.0
MINUTES_MIN = 5.0
LIKES, LINES, CLAIMS, HOST_LINES, ASKED = 50, 20, 10, 0.2, 10  # per second
CHURN_STEP_S = 0.1
SALE_RENEWED_S = SALE_SECONDS / 2
SETTLE_SECONDS = 1.0
STILL_SECONDS = 0.3  # until the web process has noticed who left
MEMORY_PERCENT_MAX = 2.0  # in 10 minutes
COUNT_MAX = 5.0  # in 10 minutes
REDIS_BYTES_PER_CLAIM_MAX = 1_024.0
_GOING_AWAY = wire.client_frame((1001).to_bytes(2, "big"), wire.CLOSE)


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one run. `churn` viewers leave and come per second."""

    viewers: int
    people: int
    churn: float
    seconds: float
    every_s: float  # between two readings

    @classmethod
    def of(cls, quick: bool, minutes: float) -> "Plan":
        if quick:
            return cls(40, 30, 40, 2.5, 0.05)
        return cls(2_000, 100, 100, minutes * 60, 10.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was there at one moment, `at` in s of perf_counter."""

    at: float
    claims: int  # sent so far
    values: dict[str, float]


async def run(*, quick: bool, minutes: float = MINUTES) -> report.Result:
    """One run."""
    plan = Plan.of(quick, minutes)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(live_show(worker=True))
        busy = await people.sign_in(running, plan.people)
        stack.push_async_callback(swarm.hang_up, busy)
        churn = await Churn.start(running, plan)
        stack.push_async_callback(churn.stop)
        readings, figures = await _show(running, plan, busy, churn)
    notes = [] if quick or minutes >= MINUTES_MIN else [f"under {MINUTES_MIN:g} minutes"]
    figures |= _verdict(readings, notes)
    setting: dict[str, object] = {"minutes": plan.seconds / 60, "viewers": plan.viewers}
    setting |= {"churn_per_s": plan.churn, "readings": len(readings)}
    return report.Result(figures, notes, setting)


# --- Coming and going -------------------------------------------------------------------------


class Churn:
    """Viewers of whom the oldest leave and new ones come, until stopped. `came` counts.

    Nobody comes or goes while somebody has the lock `still`.
    """

    def __init__(self, running: Stand, per_second: float) -> None:
        self._running = running
        self._step = round(per_second * CHURN_STEP_S)
        self._there: collections.deque[buyers.Buyer] = collections.deque()
        self._users = (f"passer-by-{number}" for number in itertools.count())
        self._task: asyncio.Task[None] | None = None
        self._thrown_out = 0
        self.still = asyncio.Lock()
        self.came = 0

    @classmethod
    async def start(cls, running: Stand, plan: Plan) -> "Churn":
        """Everybody is there, and from now on some go."""
        self = cls(running, plan.churn)
        await self._arrive(plan.viewers)
        self._task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        due = time.perf_counter()
        while True:
            due = max(due + CHURN_STEP_S, time.perf_counter())
            async with self.still:
                self._leave(self._step)
                await self._arrive(self._step)
            await asyncio.sleep(due - time.perf_counter())

    async def _arrive(self, count: int) -> None:
        """New viewers; every other one signs in."""
        requests = itertools.repeat(self._running.upgrade_request(), count)
        new = await swarm.connect(self._running.port, requests, buyers.Buyer)
        tokens = [self._running.token("viewer", next(self._users)) for _ in new[::2]]
        await buyers.say_hello(new[::2], tokens)
        self._there += new
        self.came += count

    def _leave(self, count: int) -> None:
        """The oldest go, every other one with a word."""
        for number in range(count):
            viewer = self._there.popleft()
            assert viewer.transport is not None
            self._thrown_out += viewer.lost
            if number % 2:
                viewer.transport.abort()
            else:
                viewer.send(_GOING_AWAY)
                viewer.transport.close()

    def require_all_there(self) -> None:
        """Raises RuntimeError when somebody was thrown out, or whatever ended the churn."""
        assert self._task is not None
        if self._task.done():
            self._task.result()
        thrown_out = self._thrown_out + sum(viewer.lost for viewer in self._there)
        if thrown_out:
            raise RuntimeError(f"{thrown_out} of {self.came} viewers were thrown out")

    async def stop(self) -> None:
        """All go."""
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await swarm.hang_up(self._there)


async def _show(
    running: Stand, plan: Plan, busy: Sequence[people.Person], churn: Churn
) -> tuple[list[Reading], dict[str, float]]:
    """The show at work for `plan.seconds`. Raises RuntimeError when anybody was refused or lost."""
    heard, doings = people.Heard(), people.Doings(busy, await _sale(running, plan))
    for person in busy:
        person.take_part(heard)
    await asyncio.sleep(SETTLE_SECONDS)
    rates = [(LIKES, doings.like), (LINES, doings.chat), (CLAIMS, doings.claim)]
    meanwhile = [
        asyncio.create_task(people.speak(running, HOST_LINES)),
        asyncio.create_task(_renew_sales(running, plan, doings)),
    ]
    doing = asyncio.create_task(people.evenly([*rates, (ASKED, doings.ask)], plan.seconds))
    reading = asyncio.create_task(_read(running, plan, doings, churn))
    try:
        await asyncio.wait((doing, reading), return_when=asyncio.FIRST_EXCEPTION)
        readings = reading.result() if reading.done() else []
        doing.result()
        await asyncio.sleep(SETTLE_SECONDS)  # what is on its way
    finally:
        doing.cancel()
        reading.cancel()
        await asyncio.gather(*map(people.ended, meanwhile))
    churn.require_all_there()
    people.verify(doings, heard, sum(person.lost for person in busy))
    replies = report.percentile(heard.replies, 0.99) * 1000
    return readings, {"came": float(churn.came), "reply_p99_ms": replies}


async def _sale(running: Stand, plan: Plan) -> int:
    units = 2 * round(CLAIMS * min(plan.seconds, SALE_SECONDS))
    return await running.open_sale(units, units)


async def _renew_sales(running: Stand, plan: Plan, doings: people.Doings) -> float:
    """Another sale before one ends, until cancelled; how many."""
    opened = 0.0
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(SALE_RENEWED_S)
            sale = await _sale(running, plan)
            await asyncio.sleep(SETTLE_SECONDS)  # every hub has heard of it
            doings.sale = sale
            opened += 1
    return opened


# --- Readings ---------------------------------------------------------------------------------


async def _read(running: Stand, plan: Plan, doings: people.Doings, churn: Churn) -> list[Reading]:
    """A reading now and then, until `plan.seconds` are over."""
    readings = []
    end = time.perf_counter() + plan.seconds
    async with redis.asyncio.Redis.from_url(running.valkey.url) as client:
        while time.perf_counter() < end:
            async with churn.still:
                await asyncio.sleep(STILL_SECONDS)
                memory = (await client.info("memory"))["used_memory"] / 1024
                values = {"redis_kb": memory, **await _of_processes(running)}
            readings.append(Reading(time.perf_counter(), doings.sent["claim"], values))
            told = ", ".join(f"{name} {value:,.0f}" for name, value in values.items())
            report.progress(f"{churn.came} came; {told}")
            churn.require_all_there()
            await asyncio.sleep(plan.every_s)
    return readings


async def _of_processes(running: Stand) -> dict[str, float]:
    assert running.web is not None
    assert running.worker is not None
    web, worker = running.web.pid, running.worker.pid
    viewers = await running.metric("livesale_viewers")
    return {
        "web_rss_kb": process.rss_kb(web),
        "worker_rss_kb": process.rss_kb(worker),
        "web_descriptors": psutil.Process(web).num_fds() - viewers,  # but those of the viewers
        "worker_descriptors": psutil.Process(worker).num_fds(),
        "web_tasks": await running.metric("livesale_tasks"),
    }


def _verdict(readings: Sequence[Reading], notes: list[str]) -> dict[str, float]:
    """Medians and growth over the second half; what is not flat goes to `notes`."""
    half = readings[len(readings) // 2 :]
    figures: dict[str, float] = {}
    growing = []
    for name in half[0].values:
        values = [reading.values[name] for reading in half]
        figures[name] = report.median(values)
        figure, growth, most = _growth(name, half, values)
        figures[figure] = growth
        if growth > most:
            growing.append(f"{figure} is {growth:.1f}, more than {most:g}")
    notes += growing
    return figures | {"flat": float(not growing)}


def _growth(
    name: str, half: Sequence[Reading], values: Sequence[float]
) -> tuple[str, float, float]:
    """(figure, growth, bound) of one of the things that were read."""
    if name == "redis_kb":
        per_claim = report.slope([reading.claims for reading in half], values) * 1024
        return "redis_bytes_per_claim", per_claim, REDIS_BYTES_PER_CLAIM_MAX
    in_ten_minutes = report.slope([reading.at for reading in half], values) * 600
    if not name.endswith("_kb"):
        return f"{name}_growth_in_10_min", in_ten_minutes, COUNT_MAX
    percent = in_ten_minutes / report.median(values) * 100
    return f"{name.removesuffix('_kb')}_growth_percent_in_10_min", percent, MEMORY_PERCENT_MAX
