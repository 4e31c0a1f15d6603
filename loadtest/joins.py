"""`bench joins`: what it costs the web process to take viewers in and to keep them.

Joining: TCP, handshake, `welcome`. Signing in: `hello` with a token. Keeping: resident memory of
viewers who are signed in and idle (kernel memory of their sockets is not in it). Asking: one
`time` command and its reply.
"""

import asyncio
import itertools
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from loadtest import buyers, peers, process, report, swarm, wire
from loadtest.stand import Stand, stand
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Time

VIEWERS = 4_000
WARM_UP = 500
ASKS = 10  # `time` commands per viewer
QUIET_SECONDS = 0.3
ANSWER_SECONDS = 30.0


async def run(*, quick: bool) -> report.Result:
    """Measure a web process alone on one core."""
    count, warm = (60, 10) if quick else (VIEWERS, WARM_UP)
    process.pin(0, process.LOADER_CORE)
    figures = await _ours(count, warm)
    with tempfile.TemporaryDirectory(prefix="livesale-bench-") as folder:
        references, notes = peers.available()
        for name in references:
            figures |= await _theirs(name, Path(folder), count, warm)
    return report.Result(figures, notes, {"viewers": count, "already_there": warm})


async def _ours(count: int, warm: int) -> dict[str, float]:
    async with stand() as running:
        process.pin(running.valkey.child.pid, process.LOADER_CORE)
        web = await running.start_web(core=process.SERVER_CORE)
        await running.open_show()
        early = await _join(running, 0, warm)  # arenas, caches and first-time imports are paid
        await _ask(early[: max(10, warm // 10)])
        figures = await _measure(running, web, warm, count)
        await swarm.hang_up(early)
    return figures


async def _theirs(name: str, folder: Path, count: int, warm: int) -> dict[str, float]:
    """A reference: joining and keeping. Its viewers sign in nowhere and are told nothing."""
    async with peers.reference(name, folder) as peer:
        pid, figure = peer.child.pid, peer.figure
        request = wire.upgrade_request(f"127.0.0.1:{peer.port}", "/")
        early = await swarm.connect(peer.port, itertools.repeat(request, warm), swarm.Receiver)
        before, memory = process.cpu(pid), process.rss_kb(pid)
        viewers = await swarm.connect(peer.port, itertools.repeat(request, count), swarm.Receiver)
        await asyncio.sleep(QUIET_SECONDS)
        joined = process.cpu(pid).since(before).total
        kept = process.rss_kb(pid) - memory
        await swarm.hang_up([*early, *viewers])
    return {
        f"{figure}_cpu_us_per_join": joined / count,
        f"{figure}_rss_kb_per_viewer": kept / count,
    }


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
