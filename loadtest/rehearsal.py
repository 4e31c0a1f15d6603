"""`livesale loadtest --rehearse -`: the people of a rehearsal, ordered by a running server.

The order is one JSON document on stdin (server/web/rehearsing.py starts us); events are lines of
JSON on stdout: one a second, and a last one with summary and report. The shadow show has been made
and is ended by whoever ordered. People come and claim no faster than a real show beside it bears,
and from addresses of their own; a canary in that show ends the rehearsal when it is felt there.
"""

import asyncio
import base64
import gzip
import json
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import uvloop
from msgspec import Struct

from loadtest import run as runs
from loadtest.arrivals import US_PER_S, instants
from loadtest.canary import Canary
from loadtest.report import html
from loadtest.report.summary import Second, Summary, written
from loadtest.scenario import Arrivals, Crowd, SaleTerms, Scenario
from loadtest.target import Clock, OpenedSale, Server, clock_of, is_single

CLAIM_GAP_US: Final = 1_000  # buyers: at most 1,000 claims a second
JOINS_PER_S: Final = 100.0  # what one address may always have
WARMUP_MIN_S: Final = 3.0
SETTLE_S: Final = 20.0
OPENS_AT_S: Final = 3.0
BOT_SOCKETS: Final = 2
THRESHOLDS: Final = {"claim_held.p99_ms": "<1000", "stale.p99_ms": "<1000", "errors.share": "<0.01"}


class Order(Struct, frozen=True):
    """What is to be played, and where (RehearsalOrder of the server)."""

    rehearsal: int
    url: str
    show: str
    ticket: str
    host_token: str
    live_show: str  # "": the real show is not on
    title: str
    sale: int
    price: int
    units: int
    limit: int
    buyers: int
    watchers: int
    bots: int
    reaction: Literal["human", "uniform"]
    seconds: int
    secret: str
    redis_url: str
    database_url: str


def main() -> int:
    """Play the order on stdin; the exit status."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    return uvloop.run(_played(order))


async def _played(order: Order) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    with tempfile.TemporaryDirectory(prefix="livesale-rehearsal-") as folder:
        out = Path(folder)
        async with _canary(order, stop) as canary:
            scenario, target = scenario_of(order, out), Shadow(order)
            summary = await runs.run(scenario, target, [Lines(order)], out, stop=stop, lang="zh")
    reason = ""
    if canary is not None:
        summary = msgspec.structs.replace(summary, live_room=canary.told())
        reason = canary.reason
    _say_done(summary, reason)
    return summary.exit


@asynccontextmanager
async def _canary(order: Order, stop: asyncio.Event) -> AsyncIterator[Canary | None]:
    """A viewer in the real show, who has seen how it was before; None when the show is not on."""
    if not order.live_show:
        yield None
        return
    canary, begin = Canary(f"{order.url}/ws/{order.live_show}", stop.set), asyncio.Event()
    watching = asyncio.create_task(canary.run(begin))
    try:
        await begin.wait()
        yield canary
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


# --- What is played ------------------------------------------------------------------------------


def scenario_of(order: Order, folder: Path) -> Scenario:
    """The order as a scenario. When buyers act is written to a trace in `folder`."""
    trace = folder / "buyers.trace"
    trace.write_text("\n".join(f"{ms:.3f}" for ms in reactions_ms(order)))
    crowds = [Crowd("buyer", order.buyers, acts=Arrivals("trace", file=str(trace)))]
    if order.watchers:
        crowds.append(Crowd("watcher", order.watchers))
    if order.bots:
        at_once = Arrivals("herd", reaction="bot")
        crowds.append(Crowd("bot", order.bots, sockets=BOT_SOCKETS, acts=at_once))
    people = order.buyers + order.watchers + BOT_SOCKETS * order.bots
    return Scenario(
        version=1,
        name="rehearsal",
        seconds=float(order.seconds),
        crowd=crowds,
        title={"zh": f"彩排:{order.title}", "en": f"Rehearsal: {order.title}"},
        sale=SaleTerms(order.units, order.limit, order.price, opens_at_s=OPENS_AT_S),
        warmup_s=max(WARMUP_MIN_S, people / JOINS_PER_S),
        settle_s=SETTLE_S,
        loaders=1,
        seed=order.rehearsal,
        thresholds=THRESHOLDS,
    )


def reactions_ms(order: Order) -> list[float]:
    """When each buyer claims, in ms since the sale opens: as people do, or evenly over as many ms
    as there are buyers; but never two within CLAIM_GAP_US, so that a big crowd takes longer."""
    herd = Arrivals("herd", reaction=order.reaction, spread_ms=float(order.buyers))
    part_us = (0, order.seconds * US_PER_S)
    wanted = instants(herd, order.buyers, random.Random(order.rehearsal), t0_us=0, part_us=part_us)
    at_us, made = 0, []
    for us in wanted:
        at_us = max(us, at_us + CLAIM_GAP_US)
        made.append(at_us / 1000)
    return made


class _Host(Server):
    """The host of the shadow show."""

    def __init__(self, url: str, token: str) -> None:
        super().__init__([url])
        self._token = token

    @property
    def _host_token(self) -> str:
        return self._token


class Shadow(Server):
    """A shadow show that is there already, with its sale prepared; whoever made it ends it.

    Behind Sentinels or a Cluster only what clients see is audited.
    """

    source_net = "127.0.1"

    def __init__(self, order: Order) -> None:
        door = f"{order.url}/ws/{order.show}?rehearsal={order.ticket}"
        readable = is_single(order.redis_url)
        super().__init__(
            [door],
            secret=order.secret,
            redis_url=order.redis_url if readable else "",
            database_url=order.database_url if readable else "",
            started_by="rehearsal",
        )
        self.show = order.show
        self._sale = order.sale
        self._host = _Host(order.url, order.host_token)

    async def open_show(self, run: str, title: str) -> None:
        """It is live already."""

    async def open_sale(self, terms: SaleTerms, opens_at_ms: int, duration_s: int) -> OpenedSale:
        """Start the prepared sale; it stays open for as long as it was made for."""
        path = f"/api/shows/{self.show}/sales/{self._sale}/start"
        sale = await self._host.call("POST", path, {"starts_at": opens_at_ms})
        return OpenedSale(sale["sale"], sale["price_version"], sale["opens_at"])

    async def end_show(self) -> None:
        """Not ours to end."""

    async def clock(self) -> Clock:
        return await clock_of(self.urls[0])


# --- What is told --------------------------------------------------------------------------------


class Lines:
    """Tells whoever ordered how far we are, a line a second."""

    def __init__(self, order: Order) -> None:
        self._units = order.units
        self._totals: dict[str, int] = {}

    def pulse(self, second: Second) -> None:
        self._totals |= second.totals  # nothing is counted once people went
        held = self._totals.get("held", 0)
        progress = {
            "phase": second.phase,
            "share": second.done,
            "held": held,
            "confirmed": self._totals.get("confirmed", 0),
            "left": max(0, self._units - held),
        }
        _say({"event": "progress", "progress": progress})

    def note(self, text: str) -> None:
        """Words are for people."""

    def done(self, summary: Summary) -> None:
        """Told with the report."""


def _say_done(summary: Summary, reason: str) -> None:
    page = gzip.compress(html.page(summary, "zh").encode())
    _say(
        {
            "event": "done",
            "summary": json.loads(written(summary)),
            "report_gz_b64": base64.b64encode(page).decode(),
            "reason": reason,
        }
    )


def _say(event: dict[str, Any]) -> None:
    print(json.dumps(event), flush=True)
