"""`bench room`: a busy show in one web process on one core, and what its viewers feel of it.

10,000 viewers watch while 500 likes, 200 danmaku and 200 claims (each a change of the stock) come
in per second and the host says 2 lines. Everything is real: people are signed in and send what a
browser sends, claims go through Redis, the order worker and PostgreSQL. The web process has one
core, all else the other. Most viewers are a crowd in C (crowd.c); measured at a sample here:

- the age of the stock number: from the moment Redis tells a version on the show's channel until
  the tick with it arrives (`stale_`);
- own replies: the round trip of `time` commands (`reply_`);
- `turn_max_ms`: the longest turn of the web process' loop, by a timer in it that rings a thousand
  times a second (turns.py); `turn_cpu_max_ms`: the most CPU time in one. The first is what a viewer
  may have to wait for, the second what the server is to blame for. `loop_lag_max_ms` is the worst
  that the process saw itself, four times a second (livesale_loop_lag_seconds, read every second as
  a Prometheus would); `probe_max_ms`, the slowest of all replies, is a bound from outside.

All clocks are in this process, which shares its core with the crowd, Redis, PostgreSQL and the
worker: its own delay is in the numbers (`loader_lag_p99_ms` says how much). `web_waited_share` is
how long the web process could have run and others had its core: above a few percent the run says
more about the machine than about the server.

Beside it, the same room on a server that publishes every message to every viewer at once
(references/picows_send.py). It cannot keep up: `per_message_lag_growth` is by how many seconds its
viewers fall behind per second (1: it stands still for ever).
"""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from loadtest import process, wire
from loadtest.bench import peers, people, report, swarm
from loadtest.bench.claim import Staleness
from loadtest.bench.crowd import Crowd, crowd
from loadtest.bench.turns import Turns
from loadtest.stand import Stand, live_show

LIKES, LINES, CLAIMS, HOST_LINES, ASKED = 500, 200, 200, 2, 100  # per second
TICK_MS = 100
SETTLE_SECONDS = 1.0
PER_MESSAGE = "picows_send"
PAYLOAD_BYTES = 200  # of one message published by itself


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement. `people` of the `viewers` are signed in and take part."""

    viewers: int
    people: int
    seconds: float
    share: float  # of the rates above

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(100, 40, 1.0, 0.1) if quick else cls(10_000, 500, 20.0, 1.0)


async def run(*, quick: bool) -> report.Result:
    """Our room, then the one that publishes by the message."""
    plan = Plan.of(quick)
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="livesale-bench-") as directory:
        figures = await _ours(plan, Path(directory))
        if PER_MESSAGE in peers.available()[0]:
            figures |= await _per_message(plan, Path(directory))
        else:
            notes.append("picows is not installed: publishing by the message was not measured")
    setting: dict[str, object] = {"viewers": plan.viewers, "seconds": plan.seconds}
    rates = {"likes": LIKES, "danmaku": LINES, "claims": CLAIMS, "host_lines": HOST_LINES}
    setting |= {f"{name}_per_s": rate * plan.share for name, rate in rates.items()}
    return report.Result(figures, notes, setting | {"tick_ms": TICK_MS})


# --- Ours -------------------------------------------------------------------------------------


async def _ours(plan: Plan, folder: Path) -> dict[str, float]:
    async with AsyncExitStack() as stack:
        turns = Turns(folder / "turns")
        show = live_show(worker=True, LIVESALE_TICK_MS=str(TICK_MS), PYTHONPATH=turns.path,
                         BENCH_TURNS=str(turns.file))  # fmt: skip
        running = await stack.enter_async_context(show)
        busy = await people.sign_in(running, plan.people)
        stack.push_async_callback(swarm.hang_up, busy)
        others = await stack.enter_async_context(
            crowd(folder, running.port, running.upgrade_request(), plan.viewers - plan.people)
        )
        return await _show(running, plan, busy, others, turns)


async def _show(
    running: Stand,
    plan: Plan,
    busy: Sequence[people.Person],
    others: Crowd,
    turns: Turns,
) -> dict[str, float]:
    """The room at work for `plan.seconds`. Raises RuntimeError when anybody was refused or lost."""
    assert running.web is not None
    units = 2 * round(CLAIMS * plan.share * plan.seconds)
    sale = await running.open_sale(units, units)
    heard, doings = people.Heard(), people.Doings(busy, sale)
    for person in busy:
        person.take_part(heard)
    stale = await Staleness.start(running, sale)
    await asyncio.sleep(SETTLE_SECONDS)
    share = plan.share
    rates = [(LIKES * share, doings.like), (LINES * share, doings.chat)]
    rates += [(CLAIMS * share, doings.claim), (ASKED * share, doings.ask)]
    await others.mark()
    turns.mark()
    before, waited = process.cpu(running.web.pid), process.waited_us(running.web.pid)
    start = time.perf_counter()
    speaking = asyncio.create_task(people.speak(running, HOST_LINES * share))
    watching = asyncio.create_task(_worst_lag(running))
    late = await people.evenly(rates, plan.seconds)
    seconds = time.perf_counter() - start
    used = process.cpu(running.web.pid).since(before).total
    waited = process.waited_us(running.web.pid) - waited
    counts = await others.counts()
    worst = turns.worst()
    await asyncio.sleep(SETTLE_SECONDS)  # what is on its way
    lag, said = await people.ended(watching), await people.ended(speaking)
    await stale.stop()
    people.verify(doings, heard, counts.lost)
    return {
        "stale_p50_ms": report.percentile(stale.ages, 0.5) * 1000,
        "stale_p99_ms": report.percentile(stale.ages, 0.99) * 1000,
        "reply_p50_ms": report.percentile(heard.replies, 0.5) * 1000,
        "reply_p99_ms": report.percentile(heard.replies, 0.99) * 1000,
        "probe_max_ms": max(heard.replies) * 1000,
        "turn_max_ms": worst.by_clock,
        "turn_cpu_max_ms": worst.cpu,
        "loop_lag_max_ms": lag * 1000,
        "host_lines": said,
        "loader_lag_p99_ms": report.percentile(late, 0.99) * 1000,
        "frames_per_viewer_per_s": counts.frames / counts.open / seconds,
        "bytes_per_frame": counts.size / max(1, counts.frames),
        "web_cpu_us_per_frame": used / max(1, counts.frames),  # with all else that it does
        "web_cpu_share": used / seconds / 1e6,
        "web_waited_share": waited / seconds / 1e6,
    }


async def _worst_lag(running: Stand) -> float:
    """The worst livesale_loop_lag_seconds until cancelled."""
    worst = 0.0
    with suppress(asyncio.CancelledError):
        while True:
            await asyncio.sleep(1)
            worst = max(worst, await running.metric("livesale_loop_lag_seconds"))
    return worst


# --- Publishing by the message ----------------------------------------------------------------


class Aged:
    """How old messages are when they arrive, and how many came."""

    def __init__(self) -> None:
        self.ages: list[float] = []

    def __call__(self, payload: bytes) -> None:
        self.ages.append(time.perf_counter() - int.from_bytes(payload[:8], "big") / 1e6)


async def _per_message(plan: Plan, folder: Path) -> dict[str, float]:
    """The same messages, each sent to everybody as it comes, for a third of the time."""
    seconds = plan.seconds / 3
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(peers.reference(PER_MESSAGE, folder))
        request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/")
        sender, watcher = await swarm.connect(peer.port, [request] * 2, swarm.Receiver)
        stack.push_async_callback(swarm.hang_up, (sender, watcher))
        await stack.enter_async_context(crowd(folder, peer.port, request, plan.viewers - 2))
        watcher.check = aged = Aged()

        def publish() -> None:
            stamp = int(time.perf_counter() * 1e6).to_bytes(8, "big")
            sender.send(wire.client_frame(stamp.ljust(PAYLOAD_BYTES, b".")))

        per_second = (LIKES + LINES + CLAIMS + HOST_LINES) * plan.share
        before = process.cpu(peer.child.pid)
        await people.evenly([(per_second, publish)], seconds)
        used = process.cpu(peer.child.pid).since(before).total
        delivered = len(aged.ages)
    return {
        "per_message_delivered_share": delivered / (per_second * seconds),
        "per_message_last_age_ms": (aged.ages[-1] if aged.ages else seconds) * 1000,
        "per_message_lag_growth": (aged.ages[-1] if aged.ages else seconds) / seconds,
        "per_message_cpu_us_per_frame": used / max(1, delivered) / plan.viewers,
    }
