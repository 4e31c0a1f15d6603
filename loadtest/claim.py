"""`bench claim`: a flash sale at full speed, from the first claim sent to the last `confirmed`.

The whole livesale runs (web, order worker, Redis, PostgreSQL) and shares the cores with this
loader. Three measurements:

- *sell-out*: every buyer sends its claims one after the other, each when the last was answered,
  until the stock is gone; the run ends when the last buyer was told `confirmed`;
- *sold out*: the same buyers go on claiming from the empty sale;
- *paced*: claims at a fixed rate that does not wait for answers, for latencies that mean
  something, and the age of the stock number at watching viewers.

What is counted here is compared with PostgreSQL's order rows at the end.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import asyncpg
import msgspec
import redis.asyncio

from loadtest import buyers, process, report, swarm, wire
from loadtest.buyers import Buyer, Tally
from loadtest.stand import Stand, stand
from server.protocol.facts import StateFact, decode_fact
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Tick, Welcome

SEGMENT_CLAIMS = 1  # claims in one TCP segment of the sell-out: as real buyers send them
SOLD_OUT_SEGMENT = 10
PACED_PER_SECOND = 4_000
PACE_SECONDS = 0.005  # claims of one pace leave together
WATCHERS = 20
KNOWN_SECONDS = 0.3  # several ticks, for the news of a sale to reach the room
RUN_SECONDS = 120.0  # no run may take longer


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement."""

    buyers: int
    rounds: int
    claims_each: int
    sold_out_each: int
    paced_s: float

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(40, 1, 5, 20, 0.5) if quick else cls(1_000, 5, 40, 60, 4.0)


async def run(*, quick: bool) -> report.Result:
    """Sell out `plan.rounds` sales, then one paced sale; medians over the rounds."""
    plan = Plan.of(quick)
    async with stand() as running:
        await running.start_web()
        running.start_worker()
        await running.open_show()
        crowd = await _crowd(running, plan.buyers)
        await _sell_out(running, crowd, 2)  # warms up every process
        rounds = [await _round(running, crowd, plan, number) for number in range(plan.rounds)]
        figures = report.medians(rounds) | await _paced(running, crowd, plan)
        sold = plan.buyers * (2 + plan.rounds * plan.claims_each) + _paced_claims(plan)
        await _check_orders(running, sold)
        await swarm.hang_up(crowd)
    return report.Result(figures, _notes(), _setting(plan))


def _setting(plan: Plan) -> dict[str, object]:
    return {
        "buyers": plan.buyers,
        "claims_per_round": plan.buyers * plan.claims_each,
        "rounds": plan.rounds,
        "paced_per_s": PACED_PER_SECOND,
    }


def _notes() -> list[str]:
    return [
        "settings: LIVESALE_CLAIMS_PER_SECOND and the caps per address and on joins raised, "
        "because 1,000 connections stand for a crowd",
        "closed loop: one claim on its way per buyer; every buyer also gets the room's ticks",
        "Valkey appendfsync everysec, PostgreSQL fsync and synchronous_commit on",
    ]


async def _crowd(running: Stand, count: int) -> list[Buyer]:
    host, path = f"127.0.0.1:{running.port}", f"/ws/{running.show_id}"
    request = wire.upgrade_request(host, path, SUBPROTOCOL_MSGPACK)
    tokens = [running.token("viewer", f"buyer-{number}") for number in range(count)]
    return await buyers.sign_in(running.port, itertools.repeat(request, count), tokens)


# --- CPU by process ---------------------------------------------------------------------------


def _cpu(running: Stand) -> dict[str, float]:
    """CPU µs used so far: web, worker, redis, postgres and this loader."""
    assert running.web is not None
    assert running.worker is not None
    servers = {"web": running.web, "worker": running.worker, "redis": running.valkey.child}
    used = {name: process.cpu(child.pid).total for name, child in servers.items()}
    used["postgres"] = process.cpu(running.postgres.child.pid).total
    return used | {"loader": time.process_time() * 1e6}


def _used(running: Stand, before: dict[str, float]) -> dict[str, float]:
    return {name: now - before[name] for name, now in _cpu(running).items()}


def _cpu_figures(used: dict[str, float], accepted: int) -> dict[str, float]:
    each = {name: value / accepted for name, value in used.items()}
    return {
        "server_cpu_us_per_accepted": sum(each.values()) - each["loader"],
        "hub_cpu_us_per_claim": each["web"],
        **{f"{name}_cpu_us_per_accepted": value for name, value in each.items()},
    }


# --- Sell-out and sold out --------------------------------------------------------------------


async def _round(
    running: Stand, crowd: Sequence[Buyer], plan: Plan, number: int
) -> dict[str, float]:
    before = _cpu(running)
    tally, sale = await _sell_out(running, crowd, plan.claims_each)
    used = _used(running, before)
    figures = {"accepted_per_s": tally.confirmed / tally.seconds}
    figures |= _cpu_figures(used, tally.confirmed)
    figures["saturated_held_p99_ms"] = report.percentile(tally.held_after, 0.99) * 1000
    figures["saturated_confirm_p99_ms"] = report.percentile(tally.confirmed_after, 0.99) * 1000
    figures |= await _sold_out(running, crowd, sale, plan.sold_out_each)
    report.progress(
        f"round {number + 1}: {figures['accepted_per_s']:,.0f} accepted/s, "
        f"{figures['sold_out_per_s']:,.0f} sold out/s"
    )
    return figures


async def _sell_out(running: Stand, crowd: Sequence[Buyer], each: int) -> tuple[Tally, int]:
    """Open a sale of exactly as many units as will be claimed, and claim them all."""
    sale = await _open_sale(running, len(crowd) * each)
    tally = Tally(len(crowd) * each)
    await _claim_all(crowd, tally, sale, each, SEGMENT_CLAIMS)
    if tally.refused or tally.held != tally.claims:
        raise RuntimeError(f"{tally.held} of {tally.claims} held, refused: {dict(tally.refused)}")
    return tally, sale


async def _sold_out(
    running: Stand, crowd: Sequence[Buyer], sale: int, each: int
) -> dict[str, float]:
    before = _cpu(running)
    tally = Tally(len(crowd) * each)
    await _claim_all(crowd, tally, sale, each, SOLD_OUT_SEGMENT)
    if set(tally.refused) != {"sold_out"}:
        raise RuntimeError(f"expected sold_out only: {dict(tally.refused)}, held {tally.held}")
    used = _used(running, before)
    return {
        "sold_out_per_s": tally.claims / tally.seconds,
        "hub_cpu_us_per_sold_out": used["web"] / tally.claims,
        "loader_cpu_us_per_sold_out": used["loader"] / tally.claims,
    }


async def _open_sale(running: Stand, units: int) -> int:
    """An open sale that the web process knows of. The limit is never what refuses."""
    sale = await running.open_sale(units, units)
    await asyncio.sleep(KNOWN_SECONDS)
    return sale


async def _claim_all(
    crowd: Sequence[Buyer], tally: Tally, sale: int, each: int, per_segment: int
) -> None:
    for buyer in crowd:
        buyer.load(buyers.segments(sale, each, per_segment), tally, closed=True)
    for buyer in crowd:
        buyer.send_next()
    async with asyncio.timeout(RUN_SECONDS):
        await tally.done.wait()


# --- Paced ------------------------------------------------------------------------------------


def _paced_claims(plan: Plan) -> int:
    """Claims of the paced run: the same number for every buyer."""
    return max(1, round(PACED_PER_SECOND * plan.paced_s / plan.buyers)) * plan.buyers


async def _paced(running: Stand, crowd: Sequence[Buyer], plan: Plan) -> dict[str, float]:
    claims = _paced_claims(plan)
    sale = await _open_sale(running, claims)
    stale = await Staleness.start(running, sale)
    tally = Tally(claims)
    for buyer in crowd:
        made = buyers.segments(sale, claims // plan.buyers, 1)
        buyer.load(made, tally, closed=False)
    await _send_evenly(crowd, claims)
    async with asyncio.timeout(RUN_SECONDS):
        await tally.done.wait()
    await asyncio.sleep(0.5)  # the last stock number on its way to the watchers
    await stale.stop()
    if tally.refused:
        raise RuntimeError(f"paced: refused {dict(tally.refused)}")
    return {
        "held_p99_ms": report.percentile(tally.held_after, 0.99) * 1000,
        "confirm_p50_ms": report.percentile(tally.confirmed_after, 0.5) * 1000,
        "confirm_p99_ms": report.percentile(tally.confirmed_after, 0.99) * 1000,
        "stale_p50_ms": report.percentile(stale.ages, 0.5) * 1000,
        "stale_p99_ms": report.percentile(stale.ages, 0.99) * 1000,
    }


async def _send_evenly(crowd: Sequence[Buyer], claims: int) -> None:
    """PACED_PER_SECOND claims a second, buyers in turn, whatever is answered meanwhile."""
    loop = asyncio.get_running_loop()
    turn = itertools.cycle(crowd)
    start, sent = loop.time(), 0
    while sent < claims:
        due = min(claims, int((loop.time() - start + PACE_SECONDS) * PACED_PER_SECOND))
        for _ in range(due - sent):
            next(turn).send_next()
        sent = max(sent, due)
        await asyncio.sleep(PACE_SECONDS)


class Staleness:
    """How old the stock number on a viewer's screen is.

    Every version of the stock is timed when Redis tells it on the show's channel; at a watching
    viewer it has aged until the first tick with that version or a newer one arrives.
    """

    def __init__(self, running: Stand, sale: int) -> None:
        self.ages: list[float] = []
        self._running = running
        self._key = f"stock:{sale}"
        self._births: list[tuple[int, float]] = []  # (version, when), in order
        self._watchers: list[swarm.Receiver] = []
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, running: Stand, sale: int) -> "Staleness":
        """Subscribe and connect the watchers."""
        self = cls(running, sale)
        subscribed = asyncio.Event()
        self._listener = asyncio.create_task(self._listen(subscribed))
        await asyncio.wait_for(subscribed.wait(), 10)
        host, path = f"127.0.0.1:{running.port}", f"/ws/{running.show_id}"
        request = wire.upgrade_request(host, path, SUBPROTOCOL_MSGPACK)
        self._watchers = await swarm.connect(
            running.port, itertools.repeat(request, WATCHERS), swarm.Receiver
        )
        for watcher in self._watchers:
            watcher.check = Watch(self)
        return self

    async def stop(self) -> None:
        """Leave. `ages` (s) is complete then."""
        if self._listener is not None:
            self._listener.cancel()
            with suppress(asyncio.CancelledError):
                await self._listener
        await swarm.hang_up(self._watchers)

    async def _listen(self, subscribed: asyncio.Event) -> None:
        async with redis.asyncio.Redis.from_url(self._running.valkey.url) as client:
            pubsub = client.pubsub()
            await pubsub.ssubscribe(self._running.bus_channel)
            async for message in pubsub.listen():
                if message["type"] == "ssubscribe":
                    subscribed.set()
                elif message["type"] == "smessage":
                    self._heard(message["data"])

    def _heard(self, payload: bytes) -> None:
        fact = decode_fact(payload)
        if isinstance(fact, StateFact) and fact.key == self._key:
            self._births.append((int(fact.value["version"]), time.perf_counter()))

    def seen(self, state: dict[str, dict[str, int]], since: int) -> int:
        """A watcher that knows births up to number `since` got `state`; the number it knows now."""
        value = state.get(self._key)
        if value is None:
            return since
        now, version = time.perf_counter(), value["version"]
        while since < len(self._births) and self._births[since][0] <= version:
            self.ages.append(now - self._births[since][1])
            since += 1
        return since


class Watch:
    """Follows the stock number in one viewer's ticks."""

    def __init__(self, staleness: Staleness) -> None:
        self._staleness = staleness
        self._since = 0
        self._decoder = msgspec.msgpack.Decoder(Tick | Welcome)

    def __call__(self, payload: bytes) -> None:
        self._since = self._staleness.seen(self._decoder.decode(payload).state, self._since)


# --- The books --------------------------------------------------------------------------------


async def _check_orders(running: Stand, expected: int) -> None:
    """Every confirmation told must be a row, and no row may be untold. Raises RuntimeError."""
    connection = await asyncpg.connect(running.postgres.url())
    try:
        rows = await connection.fetchval("SELECT count(*) FROM orders")
        units = await connection.fetchval("SELECT sum(sold) FROM pools")
    finally:
        await connection.close()
    if not rows == units == expected:
        raise RuntimeError(f"{expected} confirmations, {rows} orders, {units} units sold")
