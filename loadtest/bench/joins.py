"""`bench joins`: what it costs the web process to take viewers in and to keep them.

Joining: TCP, handshake, `welcome`. Signing in: `hello` with a token. Keeping: resident memory of
viewers who are signed in and idle (kernel memory of their sockets is not in it). Asking: one
`time` command and its reply.

`rush_s` is how long 10,000 viewers take who all want to join at once: a crowd in C (crowd.c) with
64 handshakes on their way, from its first connect until the last one is answered.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from loadtest import process, wire
from loadtest.bench import buyers, peers, report, swarm
from loadtest.bench.crowd import crowd
from loadtest.stand import Stand, live_show
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Time

ASKS = 10  # `time` commands per viewer
QUIET_SECONDS = 0.3
ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement: `viewers` join one after the other, `warm` are there already."""

    viewers: int
    warm: int
    rush: int  # viewers who come at once; 0 where there is no C compiler

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        rush = 10_000 if peers.has_compiler() else 0
        return cls(60, 10, min(rush, 60)) if quick else cls(4_000, 500, rush)


async def run(*, quick: bool) -> report.Result:
    """Measure a web process alone on one core, then each reference."""
    plan = Plan.of(quick)
    with tempfile.TemporaryDirectory(prefix="livesale-bench-") as directory:
        folder = Path(directory)
        figures = await _ours(plan, folder)
        references, notes = peers.available()
        for name in references[:1] if quick else references:
            figures |= await _theirs(name, folder, plan)
    if not plan.rush:
        notes.append("no C compiler: 10,000 joins at once were not measured")
    setting: dict[str, object] = {"viewers": plan.viewers, "already_there": plan.warm}
    return report.Result(figures, notes, setting | {"rush": plan.rush})


async def _ours(plan: Plan, folder: Path) -> dict[str, float]:
    async with live_show() as running:
        assert running.web is not None
        early = await _join(running, 0, plan.warm)  # arenas, caches, first-time imports are paid
        await _ask(early[: max(10, plan.warm // 10)])
        figures = await _measure(running, running.web, plan.warm, plan.viewers)
        await swarm.hang_up(early)
        return figures | await _rush(folder, running.port, running.upgrade_request(), plan.rush)


async def _theirs(name: str, folder: Path, plan: Plan) -> dict[str, float]:
    """A reference: joining and keeping. Its viewers sign in nowhere and are told nothing."""
    async with peers.reference(name, folder) as peer:
        pid, count = peer.child.pid, plan.viewers
        request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/")
        early = await swarm.connect(peer.port, itertools.repeat(request, plan.warm), swarm.Receiver)
        before, memory = process.cpu(pid), process.rss_kb(pid)
        viewers = await swarm.connect(peer.port, itertools.repeat(request, count), swarm.Receiver)
        await asyncio.sleep(QUIET_SECONDS)
        joined = process.cpu(pid).since(before).total
        kept = process.rss_kb(pid) - memory
        await swarm.hang_up([*early, *viewers])
        figures = {"cpu_us_per_join": joined / count, "rss_kb_per_viewer": kept / count}
        figures |= await _rush(folder, peer.port, request, plan.rush)
    return {f"{peer.figure}_{figure}": value for figure, value in figures.items()}


async def _rush(folder: Path, port: int, request: bytes, count: int) -> dict[str, float]:
    """All at once; nothing when there are none."""
    if not count:
        return {}
    await asyncio.sleep(QUIET_SECONDS)  # who was there before is gone
    async with crowd(folder, port, request, count) as many:
        return {"rush_s": many.joined_s}


async def _measure(running: Stand, web: process.Process, warm: int, count: int) -> dict[str, float]:
    before, memory = process.cpu(web.pid), process.rss_kb(web.pid)
    viewers = await swarm.connect(running.port, _requests(running, count), buyers.Buyer)
    await _welcomed(viewers)
    joined = process.cpu(web.pid)
    await buyers.say_hello(viewers, _tokens(running, warm, count))
    signed_in = process.cpu(web.pid)
    await asyncio.sleep(1.0)
    kept = process.rss_kb(web.pid) - memory
    quiet = process.cpu(web.pid)
    await _ask(viewers)
    asked = process.cpu(web.pid).since(quiet).total
    await swarm.hang_up(viewers)
    return {
        "cpu_us_per_join": joined.since(before).total / count,
        "cpu_us_per_hello": signed_in.since(joined).total / count,
        "rss_kb_per_viewer": kept / count,
        "cpu_us_per_request": asked / count / ASKS,
    }


def _requests(running: Stand, count: int) -> list[bytes]:
    host, path = f"127.0.0.1:{running.port}", f"/ws/{running.show_id}"
    return [wire.upgrade_request(host, path, SUBPROTOCOL_MSGPACK) for _ in range(count)]


def _tokens(running: Stand, first: int, count: int) -> list[str]:
    return [running.token("viewer", f"viewer-{n}") for n in range(first, first + count)]


async def _join(running: Stand, first: int, count: int) -> list[buyers.Buyer]:
    tokens = _tokens(running, first, count)
    return await buyers.sign_in(running.port, _requests(running, count), tokens)


async def _welcomed(viewers: Sequence[swarm.Receiver]) -> None:
    """Wait until each has its first frame."""
    await process.wait_for(lambda: all(v.size for v in viewers), ANSWER_SECONDS, "welcome to all")


async def _ask(people: Sequence[buyers.Buyer]) -> None:
    """Send ASKS `time` commands per viewer, one per segment, and await the replies."""
    frame = wire.client_frame(msgspec.msgpack.encode(Time(ref=1, sent_at=1.0)))
    tally = buyers.Tally(len(people) * ASKS)
    for person in people:
        person.load([(1, frame)] * ASKS, tally, closed=True)
    for person in people:
        person.send_next()
    await process.wait_for(lambda: tally.held == tally.claims, ANSWER_SECONDS, "all replies")
    for person in people:
        person.tally = None
