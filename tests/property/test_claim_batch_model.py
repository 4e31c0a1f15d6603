"""claim_batch.lua and the scripts around it against a plain Python model, on a real Valkey."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.domain.claim import KIND_CLAIM, KIND_CLOSING, KIND_LOWERING, Take
from server.errors import ERRORS, Refused
from server.store import keys, packing
from server.store.types import (
    ACCEPTED,
    ACCEPTED_BEFORE,
    ClaimRequest,
    Confirmation,
    Give,
    PoolCounters,
    Settled,
)
from tests.shop import EPOCH, HUB, PRICE, Shop, claim_id, open_shop, sale_projection

POOLS = (1, 2)
UNKNOWN_POOL = 3
UNITS = {1: 6, 2: 3}
LIMITS = {1: 2, 2: 3}
BUYERS = ("a", "b", "c", "张三")
FAR_MS = 10_000_000
WINDOWS = {
    "open": (-FAR_MS, FAR_MS),
    "future": (FAR_MS, 2 * FAR_MS),
    "past": (-2 * FAR_MS, -FAR_MS),
}
GATE_OF_PHASE = {"scheduled": "show_not_live", "paused": "show_paused", "ended": "show_ended"}

# --- The model: what must be true, without any regard to speed ---------------------------------


@dataclass
class ModelPool:
    pool: int
    available: int
    total: int
    limit: int
    price_version: int = 1
    window: str = "open"
    closed: bool = False
    seq: int = 0
    sold: int = 0
    version: int = 0  # of its row in PostgreSQL
    revision: int = 1
    buyers: Counter[str] = field(default_factory=Counter)


@dataclass
class ModelClaim:
    request: ClaimRequest
    seq: int
    status: str = "held"


class ModelShow:
    def __init__(self) -> None:
        self.pools = {p: ModelPool(p, UNITS[p], UNITS[p], LIMITS[p]) for p in POOLS}
        self.phase = "live"
        self.revision = 1
        self.claims: dict[tuple[str, bytes], ModelClaim] = {}
        self.refused: dict[tuple[str, bytes], tuple[int, int]] = {}  # newest attempt, its code
        self.takes: list[tuple[int, int, int, str, bytes, int, int]] = []
        self.done: dict[Any, Any] = {}

    def claim_batch(self, epoch: int, batch: list[ClaimRequest]) -> list[tuple[int, int]]:
        """(code, seq) per claim."""
        return [self.claim(epoch, request) for request in batch]

    def claim(self, epoch: int, request: ClaimRequest) -> tuple[int, int]:
        known = self.claims.get((request.buyer, request.claim_id))
        if known is not None:
            same = known.request[:5] == request[:5]  # all but the attempt
            return (ACCEPTED_BEFORE, known.seq) if same else (ERRORS["claim_conflict"].code, 0)
        refusal = self.refusal(epoch, request)
        last, code = self.refused.get((request.buyer, request.claim_id), (-1, 0))
        if request.attempt <= last:
            return code, 0
        if refusal:
            code = ERRORS[refusal].code
            if request.attempt and refusal != "stock_rebuilding":
                self.refused[request.buyer, request.claim_id] = (request.attempt, code)
            return code, 0
        pool = self.pools[request.pool]
        pool.available -= request.quantity
        pool.buyers[request.buyer] += request.quantity
        seq = self.record(pool, KIND_CLAIM, request.buyer, request.claim_id, request.quantity)
        self.claims[request.buyer, request.claim_id] = ModelClaim(request, seq)
        return ACCEPTED, seq

    def refusal(self, epoch: int, request: ClaimRequest) -> str | None:
        if self.phase != "live":
            return GATE_OF_PHASE[self.phase]
        if epoch != EPOCH:
            return "stock_rebuilding"
        pool = self.pools.get(request.pool)
        if pool is None:
            return "unknown_sale"
        if pool.closed or pool.window == "past":
            return "sale_closed"
        if pool.window == "future":
            return "sale_not_open"
        if request.price_version != pool.price_version:
            return "price_changed"
        if pool.buyers[request.buyer] + request.quantity > pool.limit:
            return "limit_reached"
        if pool.available == 0:
            return "sold_out"
        return "out_of_stock" if request.quantity > pool.available else None

    def record(self, pool: ModelPool, kind: int, buyer: str, ident: bytes, units: int) -> int:
        pool.seq += 1
        row = (kind, pool.pool, pool.seq, buyer, ident, units, pool.price_version)
        self.takes.append(row)
        return pool.seq

    def take(self, pool: ModelPool, act: bytes, units: int | None, close: bool) -> str | None:
        """Name of the refusal, if any."""
        if act in self.done:
            return None
        units = pool.available if units is None else units
        if units > pool.available:
            return "out_of_stock"
        pool.available -= units
        pool.total -= units
        pool.closed = pool.closed or close
        kind = KIND_CLOSING if close else KIND_LOWERING
        self.done[act] = (units, self.record(pool, kind, "", act, units))
        return None

    def give(self, give: Give) -> None:
        if give.give_id in self.done:
            return
        self.done[give.give_id] = True
        pool = self.pools[give.pool]
        pool.available += give.units
        if give.reason == "restock":
            pool.total += give.units
        else:
            pool.buyers[give.buyer] -= give.units
            self.claims[give.buyer, give.claim_id].status = give.reason


# --- Steps -------------------------------------------------------------------------------------

claims = st.builds(
    ClaimRequest,
    buyer=st.sampled_from(BUYERS),
    claim_id=st.integers(0, 7).map(claim_id),
    pool=st.sampled_from((*POOLS, *POOLS, UNKNOWN_POOL)),
    quantity=st.sampled_from((1, 1, 1, 2, 3)),
    price_version=st.sampled_from((1, 1, 1, 2)),
    attempt=st.sampled_from((0, 0, 0, 1, 2, 3)),
)
batches = st.lists(claims, min_size=1, max_size=12)
pools = st.sampled_from(POOLS)
few = st.integers(0, 3)
phases = st.sampled_from(("live", "live", "live", "paused", "scheduled", "ended"))
ask = st.tuples(st.just("claims"), st.just(EPOCH), batches)
ask_in_epoch = st.tuples(st.just("claims"), st.sampled_from((EPOCH, EPOCH + 1)), batches)
change = st.one_of(
    st.tuples(st.just("phase"), phases),
    st.tuples(st.just("terms"), pools, st.sampled_from(tuple(WINDOWS)), st.booleans()),
    st.tuples(st.just("restock"), pools, few, st.integers(1, 4)),
    st.tuples(st.just("take"), pools, few, st.one_of(st.none(), st.integers(1, 3)), st.booleans()),
    st.tuples(st.just("release"), st.integers(0, 20)),
    st.tuples(st.just("confirm"), st.integers(1, 4)),
)
# Selling, one or two changes, then selling again shows what a change did.
rounds = st.tuples(ask, change, ask_in_epoch, change)
plans = st.lists(rounds, min_size=1, max_size=6).map(lambda parts: [*chain(*parts)])


class Run:
    """One example: the same steps on the model and on Redis."""

    def __init__(self, shop: Shop, show_id: str) -> None:
        self.shop, self.show_id, self.model = shop, show_id, ModelShow()
        self.settled: list[Take] = []

    async def start(self) -> None:
        await self.shop.open_show(self.show_id)
        for pool in POOLS:
            await self.shop.open_sale(
                pool, self.show_id, units=UNITS[pool], limit_per_buyer=LIMITS[pool]
            )

    async def step(self, step: tuple[Any, ...]) -> None:
        await getattr(self, f"do_{step[0]}")(*step[1:])
        await self.compare()

    async def do_claims(self, epoch: int, batch: list[ClaimRequest]) -> None:
        answer = await self.shop.stock.claim_batch(self.show_id, HUB, epoch, batch)
        found = [(a.code, a.state.seq if a.state else 0) for a in answer.answers]
        assert found == self.model.claim_batch(epoch, batch)
        for request, single in zip(batch, answer.answers, strict=True):
            if single.state is not None:
                assert single.state.claim_id == packing.claim_id_text(request.claim_id)
                assert (single.state.sale, single.state.quantity) == request[2:4]
        levels = {pool: level.available for pool, level in answer.pools.items()}
        named = {request.pool for request in batch} - {UNKNOWN_POOL}
        assert levels == {pool: self.model.pools[pool].available for pool in named}

    async def do_phase(self, phase: str) -> None:
        self.model.revision += 1
        self.model.phase = phase
        await self.shop.open_show(self.show_id, revision=self.model.revision, phase=phase)

    async def do_terms(self, number: int, window: str, new_price: bool) -> None:
        pool = self.model.pools[number]
        pool.revision += 1
        pool.window = window
        pool.price_version += new_price
        opens, closes = WINDOWS[window]
        now_ms = await self.shop.now_ms()
        projection = sale_projection(
            now_ms,
            sale=number,
            revision=pool.revision,
            opens_at=now_ms + opens,
            closes_at=now_ms + closes,
            price_version=pool.price_version,
            limit_per_buyer=pool.limit,
            may_create=False,
            units=1_000,
        )
        assert await self.shop.stock.apply_sale(self.show_id, projection) == "applied"

    async def do_restock(self, number: int, ident: int, units: int) -> None:
        give = Give(f"restock-{ident}", number, units, "restock")
        self.model.give(give)
        assert await self.shop.stock.give_batch(self.show_id, [give, give]) == [True, True]

    async def do_take(self, number: int, ident: int, units: int | None, close: bool) -> None:
        act = claim_id(1_000 + ident)
        refused = self.model.take(self.model.pools[number], act, units, close)
        take = self.shop.stock.take(self.show_id, number, act, units, close=close)
        if refused is None:
            answer = await take
            assert (answer.units, answer.seq) == self.model.done[act]
        else:
            with pytest.raises(Refused, match=refused):
                await take

    async def do_release(self, index: int) -> None:
        """A claim that is not released yet returns its units."""
        live = [c for c in self.model.claims.values() if c.status != "expired"]
        if not live:
            return
        request = live[index % len(live)].request
        give = Give(
            f"expired-{request.buyer}-{request.claim_id.hex()}",
            request.pool,
            request.quantity,
            "expired",
            request.buyer,
            request.claim_id,
        )
        confirmed = live[index % len(live)].status == "confirmed"
        pool = self.model.pools[request.pool]
        self.model.give(give)
        if confirmed:  # its units were counted as sold, and PostgreSQL says so in the same commit
            pool.sold -= request.quantity
            pool.version += 1
        await self.shop.stock.give_batch(self.show_id, [give], [self.counters(pool)])

    async def do_confirm(self, count: int) -> None:
        """The order worker commits the oldest entries."""
        cut = await self.shop.stock.audit_cut(self.show_id)
        assert cut is not None
        entries = cut.pending[:count]
        settled = [self.settle(take) for entry in entries for take in entry.takes]
        counters = [self.counters(pool) for pool in self.model.pools.values()]
        ids = [entry.entry_id for entry in entries]
        claims_of = [claim for claim in settled if claim is not None]
        confirmation = Confirmation(claims_of, counters, ids)
        for _ in range(2):
            await self.shop.stock.confirm_batch(self.show_id, confirmation)

    def settle(self, take: Take) -> Settled | None:
        self.settled.append(take)
        if take.kind != KIND_CLAIM:
            return None
        pool, claim = self.model.pools[take.pool], self.model.claims[take.buyer, take.claim_id]
        pool.version += 1
        if claim.status == "held":
            claim.status = "confirmed"
            pool.sold += take.quantity
        _, number, seq, buyer, ident, quantity, price, price_version, at = take
        return Settled(
            *(HUB, buyer, ident, "confirmed", number, quantity, price, price_version),
            *(EPOCH, seq, 1_000 + seq, 0, at),
        )

    def counters(self, pool: ModelPool) -> PoolCounters:
        return PoolCounters(pool.pool, 0, pool.sold, 0, pool.version)

    # --- Comparing -----------------------------------------------------------------------------

    async def compare(self) -> None:
        cut = await self.shop.stock.audit_cut(self.show_id)
        snapshot = await self.shop.room.snapshot(self.show_id)
        assert cut is not None
        assert snapshot is not None
        for number, pool in self.model.pools.items():
            found = cut.pools[number]
            assert (found.available, found.units, found.seq) == (
                *(pool.available, pool.total, pool.seq),
            )
            assert found.available >= 0
            assert (found.sold, found.records_version) == (pool.sold, pool.version)
            assert found.status == ("closed" if pool.closed else "open")
            taken = sum(units for units in pool.buyers.values())
            assert found.available + taken == found.units  # conservation
            await self.compare_buyers(pool)
            stock = snapshot.state[f"stock:{number}"]
            assert stock["left"] + stock["held"] + stock["sold"] == stock["total"]
            assert (stock["left"], stock["sold"], stock["total"]) == (
                *(pool.available, pool.sold, pool.total),
            )
            assert stock["version"] <= found.version
        self.compare_stream([*self.settled, *(t for e in cut.pending for t in e.takes)])
        await self.compare_claims()

    async def compare_buyers(self, pool: ModelPool) -> None:
        raw = await self.shop.clients.commands.hgetall(keys.buyers(self.show_id, pool.pool))
        found = {buyer.decode(): int(units) for buyer, units in raw.items()}
        assert {b: n for b, n in found.items() if n} == {b: n for b, n in pool.buyers.items() if n}
        assert all(0 <= units <= pool.limit for units in found.values())

    def compare_stream(self, takes: list[Take]) -> None:
        """Every take is in the stream exactly once, in order, seq without a gap."""
        found = [(*take[:6], take.price_version) for take in takes]
        assert found == self.model.takes
        assert all(take.price == PRICE for take in takes)
        for pool in POOLS:
            assert [t.seq for t in takes if t.pool == pool] == list(
                range(1, self.model.pools[pool].seq + 1)
            )

    async def compare_claims(self) -> None:
        found = {
            (claim.buyer, claim.claim_id): (claim.state.status, claim.state.seq)
            async for claim in self.shop.stock.remembered_claims(self.show_id)
        }
        assert found == {key: (c.status, c.seq) for key, c in self.model.claims.items()}


# --- The test ----------------------------------------------------------------------------------


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


NUMBERS = itertools.count()


@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(plans)
def test_scripts_when_anything_is_asked_then_they_agree_with_the_model(
    redis_url: str, runner: asyncio.Runner, plan: list[tuple[Any, ...]]
) -> None:
    async def follow() -> None:
        async with open_shop(redis_url) as shop:
            run = Run(shop, f"model{next(NUMBERS)}")
            await run.start()
            for step in plan:
                await run.step(step)

    runner.run(follow())
