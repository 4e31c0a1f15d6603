"""Expiry cut off after each of its steps, inside the transaction too.

The worker that stopped there is dead and followed by another, or frozen with another beside it; the
books end up the same.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.orders.expirer import Expirer
from server.records import order_life
from server.store.stock import Stock
from tests.halting import halting_at
from tests.order_stage import OrderStage, all_of, open_order_stage

pytestmark = pytest.mark.faults

POINTS = [
    (order_life, "due_orders"),
    (order_life._Step, "note"),  # inside the transaction
    (order_life, "expire"),
    (order_life, "read_untold"),
    (Stock, "give_batch"),
    (Stock, "take"),  # of units that came back to a sale that is over
    (Stock, "confirm_batch"),
    (order_life, "mark_told"),
]


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[OrderStage]:
    async with open_order_stage(redis_url, database_url) as opened:
        yield opened


@pytest.mark.parametrize("frozen", [False, True], ids=["dead", "frozen"])
@pytest.mark.parametrize(("owner", "name"), POINTS, ids=[name for _, name in POINTS])
async def test_expirer_when_it_stops_after_a_step_then_units_come_back_once(
    stage: OrderStage, owner: Any, name: str, frozen: bool
) -> None:
    over, *late = await stage.sold("ann", "bob")
    await stage.shop.pool.execute("UPDATE sales SET status = 'closing', revision = revision + 1")
    await stage.projector.project_sale(over)
    await stage.book()
    running, *due = await stage.sold("cid", "dan", "eve")
    await stage.move([due.pop()], ("confirmed", "paid"), "payment")  # to be told on the way
    await stage.make_due(*late, *due)
    with halting_at(owner, name, after=True) as reached:
        victim = asyncio.create_task(stage.expirer().round())
        await asyncio.wait_for(reached.wait(), 10)
        if not frozen:
            victim.cancel()
            await asyncio.gather(victim, return_exceptions=True)
    other = type(stage.orders)(stage.shop.pool, stage.shop.stock)  # of another process
    rounds = [Expirer(stage.shop.pool, other).round() for _ in range(2)]
    if frozen and name == "note":
        await release(victim, rounds)
    else:
        await all_of(*rounds)
    victim.cancel()
    await asyncio.gather(victim, return_exceptions=True)
    await stage.projector.sweep()
    await stage.book()
    assert sorted(give["give_id"] for give in await stage.gives()) == sorted(
        f"expired:{order}" for order in (*late, *due)
    )
    assert await stage.seen(running) == (9, 0, 1, 10)
    assert await stage.seen(over) == (0, 0, 0, 0)
    await stage.assert_conserved()


async def release(victim: asyncio.Task[int], rounds: list[Any]) -> None:
    """One that stopped in its transaction holds the rows: the others wait until it is gone."""
    waiting = asyncio.gather(*rounds)
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    assert not done
    victim.cancel()
    await waiting
