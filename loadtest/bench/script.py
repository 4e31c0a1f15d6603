"""`bench script`: µs per claim of the claim script, by claims per call.

One client in a closed loop through server.store against a Valkey with its append-only file.
`call_` figures are wall time until the answers are decoded, `redis_` figures CPU of the server
process; `accept`, `known` (the same claims again) and `sold_out` are the three ways through.
"""

import time
from collections.abc import Sequence

import uuid_utils

from loadtest import process
from loadtest.bench import report
from loadtest.stand import valkey_alone
from server.errors import ERRORS
from server.store.client import RedisClients
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import (
    ACCEPTED,
    ACCEPTED_BEFORE,
    ClaimRequest,
    SaleProjection,
    ShowProjection,
)

SIZES = (1, 16, 128, 512)
CLAIMS = {1: 2_000, 16: 16_000, 128: 50_000, 512: 50_000}
ROUNDS = 5
SHOW = "bench"
EPOCH = 1
DAY_MS = 24 * 3600 * 1000

Batches = Sequence[Sequence[ClaimRequest]]


async def run(*, quick: bool) -> report.Result:
    """Every size, `ROUNDS` times; medians."""
    rounds = 1 if quick else ROUNDS
    async with valkey_alone() as valkey:
        clients = await RedisClients.open(valkey.url)
        try:
            bench = ScriptBench(Stock(Scripts(clients.commands)), valkey.child.pid)
            await bench.open_show()
            measured = [await bench.round(quick) for _ in range(rounds)]
        finally:
            await clients.aclose()
    return report.Result(report.medians(measured), setting={"rounds": rounds})


class ScriptBench:
    """Calls the claim script and reads the CPU of the Redis process around the calls."""

    def __init__(self, stock: Stock, redis_pid: int) -> None:
        self._stock = stock
        self._redis_pid = redis_pid
        self._sales = 0

    async def open_show(self) -> None:
        """One live show, straight into Redis."""
        terms = {"title": "bench", "cover_url": "", "playback_url": "", "starts_at": 0}
        await self._stock.apply_show(
            SHOW,
            ShowProjection(
                revision=1,
                phase="live",
                pinned_product=0,
                products=(),
                stock_epoch=EPOCH,
                may_create=True,
                **terms,  # type: ignore[arg-type]
            ),
        )

    async def round(self, quick: bool) -> dict[str, float]:
        """All sizes and all three ways once."""
        figures: dict[str, float] = {}
        for size in SIZES:
            claims = size * 4 if quick else CLAIMS[size]
            sale = await self._open_sale(claims)
            batches = _batches(sale, claims, size, first_buyer=0)
            figures |= await self._timed(f"accept_{size}", batches, ACCEPTED)
            figures |= await self._timed(f"known_{size}", batches, ACCEPTED_BEFORE)
            late = _batches(sale, claims, size, first_buyer=claims)
            figures |= await self._timed(f"sold_out_{size}", late, ERRORS["sold_out"].code)
        return figures

    async def _timed(self, name: str, batches: Batches, code: int) -> dict[str, float]:
        claims = sum(map(len, batches))
        cpu, start = process.cpu(self._redis_pid).total, time.perf_counter()
        for batch in batches:
            answer = await self._stock.claim_batch(SHOW, "bench", EPOCH, batch)
            if answer.answers[0].code != code or answer.answers[-1].code != code:
                raise RuntimeError(f"{name}: {answer.answers[0]}")
        wall = time.perf_counter() - start
        redis = process.cpu(self._redis_pid).total - cpu
        return {f"call_us_{name}": wall * 1e6 / claims, f"redis_us_{name}": redis / claims}

    async def _open_sale(self, units: int) -> int:
        self._sales += 1
        now = int(time.time() * 1000)
        await self._stock.apply_sale(
            SHOW,
            SaleProjection(
                sale=self._sales,
                revision=1,
                status="open",
                sku=1,
                product=1,
                price=990,
                list_price=9900,
                currency="CNY",
                price_version=1,
                limit_per_buyer=1,
                opens_at=now - 1000,
                closes_at=now + DAY_MS,
                pay_within_s=0,
                units=units,
                may_create=True,
            ),
        )
        return self._sales


def _batches(sale: int, claims: int, size: int, *, first_buyer: int) -> Batches:
    made = [
        ClaimRequest(f"buyer-{number}", uuid_utils.uuid7().bytes, sale, 1, 1)
        for number in range(first_buyer, first_buyer + claims)
    ]
    return [made[at : at + size] for at in range(0, claims, size)]
