"""A loader process against a real livesale: what it tells agrees with the server and the books."""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from loadtest.measures.claims import Claim, rows
from loadtest.scenario import Crowd, Persona
from loadtest.swarm import pipe
from loadtest.swarm.crowds import user_of
from loadtest.swarm.pipe import CrowdSlice, Drop, Finish, Go, Harvest, Joined, Pulse, Setup
from tests.live import Host, call, token_of
from tests.loadtest.conftest import Running

RUN = "t"
UNITS = 20


class Place(NamedTuple):
    """A live show of one test, with an open sale."""

    host: Host
    url: str
    redis_url: str
    database_url: str
    show: str
    sale: int


async def a_show(running: Running, *, pay_within_s: int = 0) -> Place:
    host = Host(running.url, token_of("host", "*", "host"))
    show = (await host.ask("POST", "/api/shows", {"title": "压测"}))["show"]
    await host.ask("POST", f"/api/shows/{show}/start")
    sku = {"title": "一件", "price": 9900, "currency": "CNY", "inventory": UNITS}
    product = await host.ask(
        "POST", f"/api/shows/{show}/products", {"title": "一件", "skus": [sku]}
    )
    terms = {"sku": product["skus"][0]["sku"], "price": 990, "units": UNITS, "start": "now"}
    terms |= {"limit_per_buyer": 1, "duration_s": 600, "pay_within_s": pay_within_s}
    sale = await host.ask("POST", f"/api/shows/{show}/sales", terms)
    return Place(host, *running, show, sale["sale"])


class Loader:
    """The process, from the coordinator's side."""

    def __init__(self, process: asyncio.subprocess.Process, zero_us: int) -> None:
        self.process = process
        self.zero_us = zero_us
        self.pulses: list[Pulse] = []

    def now_us(self) -> int:
        return time.monotonic_ns() // 1000 - self.zero_us

    def tell(self, message: pipe.ToLoader) -> None:
        assert self.process.stdin
        self.process.stdin.write(pipe.frame(message))

    async def until(self, kind: type[Any], check: Callable[[], bool] = lambda: True) -> Any:
        """The next message of a kind after which `check` holds."""
        assert self.process.stdout
        while True:
            async with asyncio.timeout(30):
                message = await pipe.receive(self.process.stdout, pipe.FROM_LOADER)
            assert message is not None
            assert not isinstance(message, pipe.Failed), message
            if isinstance(message, Pulse):
                self.pulses.append(message)
            if isinstance(message, kind) and check():
                return message

    def told(self) -> Counter[str]:
        """All counts of the pulses so far."""
        total: Counter[str] = Counter()
        for pulse in self.pulses:
            total.update(pulse.counts)
        return total


def people(persona: Persona, count: int, show: str, acts: list[int], **crowd: Any) -> CrowdSlice:
    anonymous = persona in ("watcher", "slow_reader", "flapper")
    number = {"watcher": 0, "buyer": 1, "liker": 2, "commenter": 3, "bot": 4}.get(persona, 5)
    users = ["" if anonymous else user_of(RUN, number, persona, n) for n in range(count)]
    return CrowdSlice(
        Crowd(persona, count, **crowd),
        0,
        count,
        [token_of(user, show) if user else "" for user in users],
        [0] * count,
        acts,
        [0] * count,
    )


@asynccontextmanager
async def a_loader(place: Place, *slices: CrowdSlice) -> AsyncIterator[Loader]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "loadtest.swarm.worker",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    loader = Loader(process, time.monotonic_ns() // 1000)
    loader.tell(
        Setup(
            RUN, 0, 1, 1, loader.zero_us, list(slices), [place.url],
            place.show, place.sale, 1, place.redis_url,
        )
    )  # fmt: skip
    try:
        yield loader
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def finish(loader: Loader) -> Harvest:
    loader.tell(Finish(loader.now_us() + 15_000_000))
    harvest: Harvest = await loader.until(Harvest)
    assert await asyncio.wait_for(loader.process.wait(), 15) == 0
    return harvest


async def room_writes(place: Place) -> float:
    """Ticks that the server has written so far, one per viewer and tick."""
    _, text = await call("GET", f"{place.url}/metrics")
    head = 'livesale_writes_total{lane="room"}'
    return next(float(row.split()[1]) for row in str(text).splitlines() if row.startswith(head))


async def orders(place: Place) -> dict[str, int]:
    """Claim id -> order id, of the sale."""
    connection = await asyncpg.connect(place.database_url)
    try:
        found = await connection.fetch(
            "SELECT claim_id::text, order_id FROM orders WHERE pool_id = $1", place.sale
        )
    finally:
        await connection.close()
    return {row["claim_id"]: row["order_id"] for row in found}


def in_books(claims: list[Claim]) -> dict[str, int]:
    """What the claims that clients saw confirmed must be there as."""
    text = [(claim.claim_id.hex(), claim.order_id) for claim in claims if claim.confirmed_us]
    return {f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}": order for h, order in text}


async def test_all_personas_when_they_meet_a_sale_then_what_they_saw_is_what_happened(
    running: Running,
) -> None:
    place = await a_show(running)
    at = list(range(0, 1_000_000, 20_000))
    slices = (
        people("watcher", 100, place.show, []),
        people("buyer", 50, place.show, [3_000_000 + each for each in at]),
        people("liker", 10, place.show, [3_000_000 + each for each in at]),
        people("commenter", 10, place.show, [3_000_000 + each for each in at[:10]]),
        people("bot", 2, place.show, [3_000_000] * 2, sockets=3),
        people("flapper", 5, place.show, [], up_s=0.5, down_s=0.1),
        people("slow_reader", 5, place.show, [], reads_bytes_per_s=500),
    )
    async with a_loader(place, *slices) as loader:
        joined = await loader.until(Joined)
        assert (joined.open, joined.refused) == (186, 0)
        part = loader.now_us(), loader.now_us() + 5_000_000
        loader.tell(Go(3_000_000, part))
        await loader.until(Pulse, lambda: loader.told()["confirmed"] == UNITS)
        harvest = await finish(loader)
    claims = list(rows(harvest.claims))
    assert len(claims) == 50 + 2 * 3
    assert sum(claim.held_us > 0 for claim in claims) == UNITS
    assert all(claim.confirmed_us or claim.ended_us for claim in claims)
    assert in_books(claims) == await orders(place)
    assert {claim.user for claim in claims if claim.is_bot} == {"lt-t-x4_0", "lt-t-x4_1"}
    assert not harvest.offences
    assert harvest.counts["taps"] > 0
    assert harvest.counts["lines_sent"] == 10
    assert harvest.counts["reconnects"] > 0
    assert harvest.counts["levels_witnessed"] > 0
    assert {"stale@0", "age@0", "claim_held@0", "join@0", "schedule_lag@0"} <= set(
        harvest.histograms
    )
    [shown] = [each for each in harvest.shown if each.sale == place.sale]
    assert (shown.left, shown.viewers) == (0, 100 + 50 + 10 + 10 + 6)
    assert len(harvest.awareness[place.sale]) // 8 == shown.viewers
    assert len(harvest.traces) == 2


async def test_frames_when_nobody_is_slow_then_the_server_has_sent_as_many(
    running: Running,
) -> None:
    place = await a_show(running)
    before = await room_writes(place)
    async with a_loader(place, people("watcher", 200, place.show, [])) as loader:
        await loader.until(Joined)
        for number in range(3):
            path = f"/api/shows/{place.show}/commentary"
            await place.host.ask("POST", path, {"text": f"第 {number} 句"})
        await loader.until(Pulse, lambda: not loader.pulses[-1].counts.get("frames"))
        written = await room_writes(place) - before
        harvest = await finish(loader)
    assert not harvest.offences
    assert harvest.counts["joins"] == 200
    assert harvest.counts["frames"] == written + 200  # welcomes are not the room's
    assert harvest.counts["frames_read"] < harvest.counts["frames"] / 5


async def test_sockets_when_cut_in_the_middle_of_claims_then_each_claim_becomes_one_order(
    running: Running,
) -> None:
    place = await a_show(running)
    acts = [2_500_000 + 1_000 * n for n in range(UNITS)]
    async with a_loader(place, people("buyer", UNITS, place.show, acts)) as loader:
        await loader.until(Joined)
        loader.tell(Go(2_500_000, (loader.now_us(), loader.now_us() + 10_000_000)))
        await asyncio.sleep(max(0, 2_505_000 - loader.now_us()) / 1e6)
        loader.tell(Drop(1.0, 15, True, 1))
        await loader.until(Pulse, lambda: loader.told()["confirmed"] == UNITS)
        harvest = await finish(loader)
    claims = list(rows(harvest.claims))
    assert harvest.counts["reconnects"] == UNITS
    assert len(claims) == UNITS
    assert in_books(claims) == await orders(place)
    assert not harvest.offences


async def test_hesitant_buyers_when_they_remember_then_they_pay_late_and_are_told(
    running: Running,
) -> None:
    place = await a_show(running, pay_within_s=60)
    pays = people("hesitant", 3, place.show, [1_500_000] * 3, pay_after_s=(0.1, 0.3))
    never = people("buyer", 3, place.show, [1_500_000] * 3, pays=0.0)
    async with a_loader(place, pays, never) as loader:
        await loader.until(Joined)
        loader.tell(Go(1_500_000, (loader.now_us(), loader.now_us() + 10_000_000)))
        await loader.until(Pulse, lambda: loader.told()["told.paid"] == 3)
        harvest = await finish(loader)
    assert harvest.counts["payments"] == 3
    assert harvest.counts["told.confirmed"] == 6
    assert not harvest.offences


async def test_loader_when_the_coordinator_is_gone_then_it_ends(running: Running) -> None:
    place = await a_show(running)
    async with a_loader(place, people("watcher", 3, place.show, [])) as loader:
        await loader.until(Joined)
        assert loader.process.stdin
        loader.process.stdin.close()
        assert await asyncio.wait_for(loader.process.wait(), 15) == 0
