"""One seed from its first event to its verdict."""

import asyncio
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.audit.audit import audit_show
from server.records.pool import open_pool
from server.store import keys
from server.store.client import RedisClients
from tests.simulation.bank import Bank
from tests.simulation.buyers import Buyer
from tests.simulation.faults import Faults
from tests.simulation.invariants import check_all
from tests.simulation.postgres import Server
from tests.simulation.shop import Host, draw_sales, insert_rows
from tests.simulation.watch import Watch
from tests.simulation.world import SETTINGS, SHOW, World, simulated

# Virtual seconds in which everything must come to rest. The longest way there: a worker that froze,
# its lease, the back-off of repeated reconciliations, a show's next look.
CALM_S: Final = 150.0


@dataclass
class Outcome:
    """What became of a seed. `trace`: its events, newest last."""

    seed: int
    failures: list[str]
    trace: list[str]
    numbers: dict[str, int]


def run_seed(seed: int, server: Server) -> Outcome:
    """Simulate one seed."""
    server.clear()
    with simulated(seed, server) as world:
        numbers: dict[str, int] = {}
        try:
            numbers = world.loop.run_until_complete(_live(world))
        except Exception:
            world.fail(f"the run itself failed: {traceback.format_exc()}")
        finally:
            world.loop.run_until_complete(world.end())
        return Outcome(seed, world.failures, list(world.trace), numbers)


async def _live(world: World) -> dict[str, int]:
    rng = world.rng
    sales = draw_sales(world)
    insert_rows(world, sales)
    world.note(f"sales {sales}")
    Watch(world, [sale.sale for sale in sales])
    bank = Bank(world)
    world.open_providers = bank.providers
    for _ in range(2):
        world.start_web()
    for _ in range(2):
        world.start_worker()
    buyers = [Buyer(world, f"b{n}", sales, bank) for n in range(rng.randint(2, 8))]
    host = Host(world, sales)
    faults = Faults(world)
    tasks = [asyncio.create_task(buyer.run(rng.randint(1, 3))) for buyer in buyers]
    tasks.append(asyncio.create_task(host.run(rng.randint(0, 4))))
    trouble = asyncio.create_task(faults.run(until_s=world.loop.now + rng.uniform(1.0, 6.0)))
    await trouble
    world.note("calm")
    faults.heal()
    try:
        async with asyncio.timeout(CALM_S):
            await asyncio.gather(*tasks)
            await _at_rest(world, bank)
    except TimeoutError:
        world.fail(f"no rest within {CALM_S} s: {_unfinished(buyers, host, bank)} {_unrest(world)}")
        return {}
    await _audit(world)
    return check_all(world, sales, buyers, bank)


def _unfinished(buyers: Sequence[Buyer], host: Host, bank: Bank) -> str:
    """Who still waits for something."""
    waiting = [
        f"{buyer.name} {[str(p) for p in buyer.purchases.values() if not p.is_settled]}"
        for buyer in buyers
        if not buyer.is_done
    ]
    waiting += ["the host"] * (not host.is_done) + [f"the bank {len(bank.telling)}"]
    return ", ".join(waiting)


async def _at_rest(world: World, bank: Bank) -> None:
    """Wait until nothing is pending anywhere."""
    while bank.telling or _unrest(world):  # noqa: ASYNC110  (nothing tells us)
        await asyncio.sleep(0.25)


def _unrest(world: World) -> str:
    """What is still pending; "" at rest."""
    redis = world.redis.model
    if redis.execute(b"XLEN", keys.orders(SHOW).encode()):
        return "the order stream is not empty"
    gate, run = redis.execute(b"HMGET", keys.meta(SHOW).encode(), b"gate", b"run")
    if gate == b"rebuilding" or run != redis.run_id:
        return "the stock is not rebuilt"
    server = world.postgres.server
    row = server.drive(server.monitor.fetchrow(PENDING, redis.now_ms + SOON_MS))
    return ", ".join(name for name, count in row.items() if count)


SOON_MS: Final = 2_000  # what happens by the clock until the checks are done is pending, too
# $1 Redis ms.
PENDING: Final = """
SELECT (SELECT count(*) FROM gives WHERE applied_at IS NULL) AS gives,
       (SELECT count(*) FROM order_moves WHERE told_at IS NULL) AS moves,
       (SELECT count(*) FROM stock_requests WHERE status = 'pending') AS requests,
       (SELECT count(*) FROM sales WHERE revision > applied_revision) AS projections,
       (SELECT count(*) FROM sales WHERE status NOT IN ('draft', 'closed')
        AND closes_at_ms < $1) AS closing,
       (SELECT count(*) FROM stock_epochs WHERE halted_by <> '') AS halted,
       (SELECT count(*) FROM payments WHERE status IN ('retake_pending', 'refund_requested'))
           AS payments,
       (SELECT count(*) FROM payment_events WHERE handled_at IS NULL) AS events,
       (SELECT count(*) FROM orders WHERE status = 'confirmed' AND pay_by IS NOT NULL) AS unpaid
"""


async def _audit(world: World) -> None:
    """The server's own audit, in the calm."""
    clients = await RedisClients.open(SETTINGS.redis_url)
    pool = await open_pool("", size=1)
    report = await audit_show(clients, pool, SHOW)
    for problem in report.problems:
        world.fail(f"audit: {problem.kind}: {problem.detail}")
