"""Whatever Redis loses, at whatever moment: after the reconciliation the audit is clean, nothing
confirmed is lost, nothing is oversold, and what was presented in time has a fate."""

import asyncio
import random
import uuid
from typing import Any

import pytest

from server.orders import reconcile as reconciliation
from server.protocol.messages import ClaimState
from server.store import keys
from server.store.types import ACCEPTED, ClaimRequest
from tests.bookshop import SHOW, Bookshop, open_bookshop

ROUNDS = 5
UNITS = 40
LIMIT = 3


class History:
    """What buyers were told."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, bytes], ClaimState] = {}


async def sell(shop: Bookshop, sale: int, history: History, rng: random.Random) -> None:
    """Some claims, as many as come before the next loss."""
    for _ in range(rng.randrange(1, 5)):
        claims = [
            ClaimRequest(f"b{rng.randrange(20)}", uuid.uuid4().bytes, sale, rng.randrange(1, 3), 1)
            for _ in range(rng.randrange(1, 6))
        ]
        for claim, answer in zip(claims, await shop.claim_all(claims), strict=True):
            if answer.code == ACCEPTED and answer.state:
                history.held[claim.buyer, claim.claim_id] = answer.state


async def store_some(shop: Bookshop, rng: random.Random) -> None:
    """A worker that is killed after a while."""
    shop.start(batch_claims=rng.choice([1, 8]))
    await asyncio.sleep(rng.random() / 20)
    await shop.kill()


async def lose(shop: Bookshop, sale: int, rng: random.Random) -> None:
    """Everything, a key, or the newest entries of the stream."""
    redis = shop.clients.commands
    match rng.choice(["everything", "meta", "pool", "claims", "orders", "entries", "nothing"]):
        case "everything":
            await redis.flushall()
        case "pool":
            await redis.delete(keys.pool(SHOW, sale), keys.buyers(SHOW, sale))
        case "entries":
            newest = await redis.xrevrange(keys.orders(SHOW), count=rng.randrange(1, 4))
            for entry_id, _ in newest:
                await redis.xdel(keys.orders(SHOW), entry_id)
        case "meta" | "claims" | "orders" as name:
            await redis.delete(getattr(keys, name)(SHOW))
        case _:
            return


async def present(shop: Bookshop, history: History, rng: random.Random) -> set[tuple[str, bytes]]:
    """Hubs present some of the holds they know; those, when they were in time."""
    known = [(key, state) for key, state in history.held.items() if rng.random() < 0.7]
    claims = [(buyer, state) for (buyer, _), state in known]
    return {key for key, _ in known} if await shop.present(*claims) else set()


async def fates(shop: Bookshop, keys_: set[tuple[str, bytes]]) -> set[str]:
    claims = sorted(keys_)
    states = await shop.stock.lookup(SHOW, claims)
    return {state.status if state else "not_seen" for state in states}


@pytest.mark.parametrize("seed", range(4))
async def test_losses_when_reconciled_then_no_unit_and_no_purchase_is_lost(
    redis_url: str, database_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "REBUILD_GRACE_MS", 200)
    rng, history = random.Random(seed), History()
    async with open_bookshop(redis_url, database_url) as shop:
        sale = await shop.add_sale(units=UNITS, limit=LIMIT)
        confirmed: set[Any] = set()
        for _ in range(ROUNDS):
            await sell(shop, sale, history, rng)
            await store_some(shop, rng)
            confirmed |= {order["claim_id"] for order in await shop.orders()}
            await lose(shop, sale, rng)
            _, presented = await asyncio.gather(shop.rebuilt(), present(shop, history, rng))
            assert confirmed <= {order["claim_id"] for order in await shop.orders()}
            if presented:
                assert await fates(shop, presented) <= {"confirmed", "released_by_incident"}
        bought = sum(order["quantity"] for order in await shop.orders())
        left = await shop.available(sale)
        assert bought + left == UNITS
