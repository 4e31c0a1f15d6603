"""`bench claim`: a flash sale at full speed, from the first claim sent to the last `confirmed`.

The whole livesale runs (web, order worker, Redis, PostgreSQL) and shares the cores with this
loader, once for each durability profile (figures of `strict` begin with its name). A claim counts
as accepted when its buyer was told `confirmed`, which is when its order is committed. Five
measurements:

- *sell-out*: every buyer sends its claims one after the other, each when the last was answered,
  until the stock is gone; the run ends when the last buyer was told `confirmed`;
- *burst*: every buyer sends all its claims at once, one TCP segment each. `burst_accepted_per_s`
  counts until the last `held`, `burst_persisted_per_s` until the last `confirmed`;
- *evaluated*: claims on the empty sale that say they are repeats, so the script decides each and
  remembers its refusal;
- *sold out*: first claims on the empty sale, which the hub answers by itself;
- *paced*: claims at half the rate of the sell-out that do not wait for answers, for latencies that
  mean something, and the age of the stock number at watching viewers.

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

from loadtest import process, wire
from loadtest.bench import buyers, report, swarm
from loadtest.bench.buyers import Buyer, Tally
from loadtest.stand import Stand, stand
from server.protocol.facts import StateFact, decode_fact
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Tick, Welcome

PROFILES = ("fast", "strict")
WARM_UP_CLAIMS = 2
REFUSED_SEGMENT = 10  # claims in one TCP segment where all are refused; elsewhere one, as buyers do
PACE_SECONDS = 0.005  # claims of one pace leave together
WATCHERS = 20
KNOWN_SECONDS = 0.3  # several ticks, for the news of a sale to reach the room
RUN_SECONDS = 120.0  # no run may take longer


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes of one measurement; claims are per buyer."""

    buyers: int
    rounds: int
    sell_out: int
    burst: int
    refused: int
    paced_s: float

    @classmethod
    def of(cls, quick: bool) -> "Plan":
        return cls(40, 1, 5, 5, 20, 0.5) if quick else cls(1_000, 5, 40, 20, 60, 4.0)


async def run(*, quick: bool) -> report.Result:
    """Both profiles, each with servers of its own; the first only if it is only to run."""
    plan = Plan.of(quick)
    figures: dict[str, float] = {}
    for profile in PROFILES[: 1 if quick else None]:
        report.progress(f"durability {profile}")
        prefix = "" if profile == PROFILES[0] else f"{profile}_"
        found = await measure(profile, plan)
        figures |= {prefix + name: value for name, value in found.items()}
    return report.Result(figures, _notes(), _setting(plan))


async def measure(profile: str, plan: Plan) -> dict[str, float]:
    """`plan.rounds` rounds, then one paced sale; medians over the rounds."""
    async with stand(profile) as running:
        await running.start_web()
        running.start_worker()
        await running.open_show()
        sales = Sales(running, await _crowd(running, plan.buyers))
        await sales.sell_out(WARM_UP_CLAIMS)  # of every process
        rounds = [await _round(sales, plan) for _ in range(plan.rounds)]
        figures = report.medians(rounds)
        figures |= await _paced(sales, plan, figures["accepted_per_s"] / 2)
        await _check_orders(running, sales.accepted)
        await swarm.hang_up(sales.crowd)
    return figures


def _setting(plan: Plan) -> dict[str, object]:
    return {
        "buyers": plan.buyers,
        "claims_per_sell_out": plan.buyers * plan.sell_out,
        "claims_per_burst": plan.buyers * plan.burst,
        "rounds": plan.rounds,
    }


def _notes() -> list[str]:
    return [
        "settings: LIVESALE_CLAIMS_PER_SECOND and the caps per address and on joins raised, "
        "because 1,000 connections stand for a crowd",
        "sell-out: one claim on its way per buyer; every buyer also gets the room's ticks",
        "fast: Valkey appendfsync everysec; strict: always; "
        "PostgreSQL fsync and synchronous_commit on in both",
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
        **{f"{name}_cpu_us_per_accepted": value for name, value in each.items()},
    }


# --- Sales ------------------------------------------------------------------------------------


class Sales:
    """A crowd and the sales it empties. `accepted`: claims confirmed so far, of all sales."""

    def __init__(self, running: Stand, crowd: Sequence[Buyer]) -> None:
        self.running = running
        self.crowd = crowd
        self.accepted = 0

    async def open(self, units: int) -> int:
        """An open sale that the web process knows of. The limit is never what refuses."""
        sale = await self.running.open_sale(units, units)
        await asyncio.sleep(KNOWN_SECONDS)
        return sale

    async def sell_out(self, each: int, *, at_once: bool = False) -> tuple[Tally, int]:
        """Open a sale of exactly as many units as will be claimed, and claim them all."""
        sale = await self.open(len(self.crowd) * each)
        made = [buyers.segments(sale, each, 1) for _ in self.crowd]
        tally = await self._claim_all(made, at_once=at_once)
        self.expect(tally, tally.claims)
        return tally, sale

    async def refused(self, sale: int, each: int, *, attempt: int) -> Tally:
        """Claim from a sale that is empty."""
        made = [buyers.segments(sale, each, REFUSED_SEGMENT, attempt=attempt) for _ in self.crowd]
        tally = await self._claim_all(made, at_once=False)
        if set(tally.refused) != {"sold_out"}:
            raise RuntimeError(f"expected sold_out only: {dict(tally.refused)}, held {tally.held}")
        return tally

    async def _claim_all(
        self, made: Sequence[Sequence[tuple[int, bytes]]], *, at_once: bool
    ) -> Tally:
        tally = Tally(sum(claims for segments in made for claims, _ in segments))
        for buyer, segments in zip(self.crowd, made, strict=True):
            buyer.load(segments, tally, closed=not at_once)
        for _ in range(max(map(len, made)) if at_once else 1):
            for buyer in self.crowd:
                buyer.send_next()
        async with asyncio.timeout(RUN_SECONDS):
            await tally.done.wait()
        return tally

    def expect(self, tally: Tally, accepted: int) -> None:
        """All of a run's claims must have been accepted. Raises RuntimeError."""
        self.accepted += tally.confirmed
        if tally.refused or not tally.held == tally.confirmed == accepted:
            raise RuntimeError(f"{tally.held} of {accepted} held, refused {dict(tally.refused)}")


async def _round(sales: Sales, plan: Plan) -> dict[str, float]:
    before = _cpu(sales.running)
    tally, sale = await sales.sell_out(plan.sell_out)
    used = _used(sales.running, before)
    figures = {"accepted_per_s": tally.confirmed / tally.seconds}
    figures |= _cpu_figures(used, tally.confirmed)
    figures["saturated_held_p99_ms"] = report.percentile(tally.held_after, 0.99) * 1000
    figures["saturated_confirm_p99_ms"] = report.percentile(tally.confirmed_after, 0.99) * 1000
    figures |= await _burst(sales, plan.burst)
    figures |= await _refusals(sales, sale, plan.refused)
    report.progress(
        f"{figures['accepted_per_s']:,.0f} accepted/s for "
        f"{figures['server_cpu_us_per_accepted']:.1f} us of CPU each, "
        f"burst {figures['burst_accepted_per_s']:,.0f}/s, "
        f"evaluated {figures['evaluated_per_s']:,.0f}/s, "
        f"sold out {figures['sold_out_per_s']:,.0f}/s"
    )
    return figures


async def _burst(sales: Sales, each: int) -> dict[str, float]:
    before = _cpu(sales.running)
    tally, _ = await sales.sell_out(each, at_once=True)
    used = _cpu_figures(_used(sales.running, before), tally.confirmed)
    return {
        "burst_accepted_per_s": tally.held / tally.seconds_held,
        "burst_persisted_per_s": tally.confirmed / tally.seconds,
        "burst_server_cpu_us_per_accepted": used["server_cpu_us_per_accepted"],
    }


async def _refusals(sales: Sales, sale: int, each: int) -> dict[str, float]:
    before = _cpu(sales.running)
    evaluated = await sales.refused(sale, each, attempt=1)
    between = _cpu(sales.running)
    sold_out = await sales.refused(sale, each, attempt=0)
    web = _used(sales.running, between)["web"]
    return {
        "evaluated_per_s": evaluated.claims / evaluated.seconds,
        "web_cpu_us_per_evaluated": (between["web"] - before["web"]) / evaluated.claims,
        "redis_cpu_us_per_evaluated": (between["redis"] - before["redis"]) / evaluated.claims,
        "sold_out_per_s": sold_out.claims / sold_out.seconds,
        "web_cpu_us_per_sold_out": web / sold_out.claims,
    }


# --- Paced ------------------------------------------------------------------------------------


async def _paced(sales: Sales, plan: Plan, per_second: float) -> dict[str, float]:
    each = max(1, round(per_second * plan.paced_s / len(sales.crowd)))
    claims = each * len(sales.crowd)
    sale = await sales.open(claims)
    stale = await Staleness.start(sales.running, sale)
    tally = Tally(claims)
    for buyer in sales.crowd:
        buyer.load(buyers.segments(sale, each, 1), tally, closed=False)
    await _send_evenly(sales.crowd, claims, per_second)
    async with asyncio.timeout(RUN_SECONDS):
        await tally.done.wait()
    await asyncio.sleep(0.5)  # the last stock number on its way to the watchers
    await stale.stop()
    sales.expect(tally, claims)
    return {
        "paced_per_s": per_second,
        "held_p99_ms": report.percentile(tally.held_after, 0.99) * 1000,
        "confirm_p50_ms": report.percentile(tally.confirmed_after, 0.5) * 1000,
        "confirm_p99_ms": report.percentile(tally.confirmed_after, 0.99) * 1000,
        "stale_p50_ms": report.percentile(stale.ages, 0.5) * 1000,
        "stale_p99_ms": report.percentile(stale.ages, 0.99) * 1000,
    }


async def _send_evenly(crowd: Sequence[Buyer], claims: int, per_second: float) -> None:
    """`per_second` claims a second, buyers in turn, whatever is answered meanwhile."""
    loop = asyncio.get_running_loop()
    turn = itertools.cycle(crowd)
    start, sent = loop.time(), 0
    while sent < claims:
        due = min(claims, int((loop.time() - start + PACE_SECONDS) * per_second))
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
    connection = await asyncpg.connect(running.database_url)
    try:
        rows = await connection.fetchval("SELECT count(*) FROM orders")
        units = await connection.fetchval("SELECT sum(sold) FROM pools")
    finally:
        await connection.close()
    if not rows == units == expected:
        raise RuntimeError(f"{expected} confirmations, {rows} orders, {units} units sold")
