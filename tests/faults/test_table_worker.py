"""The table of faults, rows 1-4 and 22: the worker killed, PostgreSQL dying in a COMMIT or away.

tests/faults/test_table.py says where every row is.
"""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from server.embedded.postgres import PORT, USER, PostgresServer
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop
from tests.conftest import LONG, ValkeyFactory
from tests.deployment import deploy, end, freeze, thaw
from tests.live import LiveSystem, until
from tests.proxy import Proxy

pytestmark = pytest.mark.faults

POSTGRES_AWAY_S: Final = 60.0 if LONG else 1.0

# A worker that says when it comes to a point of its work and stays there.
HALTING_WORKER: Final = """
import asyncio
from server import config
from server.orders import app
from server.records import orders
from server.store.stock import Stock

async def stay(*args, **kwargs):
    print("there", flush=True)
    await asyncio.Event().wait()

{point} = stay
exit(app.run(config.load()))
"""
BEFORE_COMMIT: Final = "orders.commit_takes"
AFTER_COMMIT: Final = "Stock.confirm_batch"  # it publishes, and acknowledges the entries last


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


@asynccontextmanager
async def halting_worker(live: LiveSystem, point: str) -> "AsyncIterator[subprocess.Popen[bytes]]":
    """A real worker process that has come to `point`."""
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", HALTING_WORKER.format(point=point)],
        env=live.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = b""
        while line.strip() != b"there":  # log lines come before
            line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 30)
            assert line, "the worker ended"
        yield process
    finally:
        process.stdout.close()
        end(process)


async def killed_at(point: str, shop: Bookshop, live: LiveSystem, stored: int) -> None:
    """20 claims; the worker dies at `point`, with so many orders stored; another one follows."""
    sale = await shop.add_sale(units=20)
    await shop.claim_many(sale, [f"a{i}" for i in range(20)])
    async with halting_worker(live, point) as worker:
        assert len(await shop.orders()) == stored
        end(worker)
    shop.start("next")
    await shop.assert_all_stored(20)
    states = [claim.state.status async for claim in shop.stock.remembered_claims(SHOW)]
    assert states == ["confirmed"] * 20


@pytest.fixture
def live(redis_url: str, database_url: str, tmp_path: Path) -> Iterator[LiveSystem]:
    system = LiveSystem(redis_url, database_url, tmp_path)
    yield system
    system.stop()


async def test_row_01_worker_killed_between_commit_and_ack_then_the_next_one_stores_nothing_twice(
    shop: Bookshop, live: LiveSystem
) -> None:
    """Also between COMMIT and publishing: one script call publishes and acknowledges."""
    await killed_at(AFTER_COMMIT, shop, live, stored=20)


async def test_row_02_worker_killed_before_commit_then_the_next_one_stores_all(
    shop: Bookshop, live: LiveSystem
) -> None:
    await killed_at(BEFORE_COMMIT, shop, live, stored=0)


# --- Row 3: a COMMIT whose answer never comes ----------------------------------------------------

STOP_AT_COMMIT: Final = """
    CREATE FUNCTION wait_at_commit() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON orders
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait_at_commit();
"""
WAITING: Final = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


@pytest.mark.parametrize("committed", [True, False])
async def test_row_03_postgresql_killed_in_commit_then_the_repeat_counts_once(
    redis_url: str, postgres_server: PostgresServer, committed: bool
) -> None:
    """The COMMIT waits behind a lock of ours; the worker never hears what became of it."""
    socket = postgres_server.sockets / f".s.PGSQL.{PORT}"
    async with Proxy.before(f"unix:{socket}") as proxy:
        url = f"postgresql://{USER}@127.0.0.1:{proxy.port}/{USER}"
        async with open_bookshop(redis_url, url) as shop:
            sale = await shop.add_sale(units=20)
            holder = await asyncpg.connect(postgres_server.url())
            await holder.execute(STOP_AT_COMMIT)
            await holder.execute("SELECT pg_advisory_lock(1)")
            await shop.claim_many(sale, [f"a{i}" for i in range(20)])
            shop.start()
            await eventually(lambda: holder.fetchval(WAITING))
            proxy.stall("down")
            if committed:
                await holder.execute("SELECT pg_advisory_unlock(1)")
                await eventually(lambda: holder.fetchval("SELECT count(*) FROM orders"))
            postgres_server.kill()
            holder.terminate()
            proxy.heal()
            proxy.cut()
            await postgres_server.start()
            await eventually(lambda: is_back(shop), 30)
            assert await shop.pool.fetchval("SELECT count(*) FROM orders") in (0, 20)
            await shop.assert_all_stored(20)
            assert (await shop.counters(sale))["sold"] == 20


async def is_back(shop: Bookshop) -> bool:
    try:
        return bool(await shop.pool.fetchval("SELECT true"))
    except Exception:
        return False


# --- Row 4: PostgreSQL away in the burst ---------------------------------------------------------


@pytest.mark.timeout(240)
async def test_row_04_postgresql_down_in_the_burst_then_held_goes_on_and_all_is_confirmed_later(
    valkey_factory: ValkeyFactory, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    units, buyers = 150, 250
    valkey = await valkey_factory()
    async with (
        deploy(valkey, postgres_server, tmp_path, webs=1) as deployment,
        deployment.sale(units) as crowd,
    ):
        await crowd.gather(buyers)
        crowd.rush(over_s=2.0)
        await until(lambda: crowd.count("confirmed") > 0, "the first confirmation")
        postgres_server.kill()
        before = crowd.count("confirmed")

        def held() -> int:
            return sum(shopper.hold is not None for shopper in crowd.shoppers)

        await until(lambda: held() == units, "every unit held without PostgreSQL")
        assert crowd.count("confirmed") <= before + units // 2
        await asyncio.sleep(POSTGRES_AWAY_S)
        await postgres_server.start()
        await crowd.answered(90)
        assert (crowd.count("confirmed"), crowd.count("sold_out")) == (units, buyers - units)
        await deployment.assert_sound(crowd)


# --- Frozen across an epoch ----------------------------------------------------------------------


async def test_row_worker_frozen_across_an_epoch_then_it_writes_nothing_into_the_next_one(
    shop: Bookshop, live: LiveSystem
) -> None:
    """Frozen with a batch in hand; the stock is reconciled meanwhile; then it goes on."""
    sale = await shop.add_sale(units=20)
    live.start_worker()
    await shop.claim(sale, "first")
    await shop.settled()
    worker = live.processes[0]
    freeze([worker.pid])
    try:
        await shop.claim_many(sale, [f"a{i}" for i in range(9)])
        result = await asyncio.to_thread(live.run, "reconcile", "--show", SHOW, "--json")
        assert result.returncode == 0, result.stderr
        epoch = await shop.pool.fetchval("SELECT epoch FROM stock_epochs")
        assert epoch == 2
        entered = len(await shop.orders())
        assert entered == 10
    finally:
        thaw([worker.pid])
    shop.epoch = 2
    await shop.claim_many(sale, [f"b{i}" for i in range(10)])
    await shop.assert_all_stored(20)
    assert live.stop() == [0]


# --- PostgreSQL comes back older -----------------------------------------------------------------


async def test_row_postgresql_comes_back_older_then_its_lost_orders_are_made_again(
    redis_url: str, postgres_server: PostgresServer
) -> None:
    """A fail-over to a standby that lagged. Redis remembers what it was told is confirmed, and the
    books get it back before anything else is sold."""
    async with open_bookshop(redis_url, postgres_server.url()) as shop:
        sale = await shop.add_sale(units=20)
        shop.start()
        await shop.claim_many(sale, [f"a{i}" for i in range(5)])
        await shop.settled()
        await shop.stop()
        older = await copy_of(postgres_server)
        shop.start()
        await eventually(lambda: is_back(shop), 30)
        await shop.claim_many(sale, [f"lost{i}" for i in range(5)])
        await shop.settled(60)
        await put_back(postgres_server, older)
        await eventually(lambda: is_back(shop), 30)
        await eventually(lambda: raised(shop), 30)
        await eventually(lambda: is_open(shop), 30)
        assert await shop.pool.fetchval("SELECT count(*) FROM orders WHERE epoch = 2") == 5
        shop.epoch = 2
        await shop.claim_many(sale, [f"b{i}" for i in range(10)])
        await shop.assert_all_stored(20)


async def copy_of(server: PostgresServer) -> Path:
    """Its data directory as it is now; the server is stopped for that."""
    await server.stop()
    older = server.directory.with_name("older")
    shutil.copytree(server.directory, older)
    for path in (older, *older.rglob("*")):
        shutil.chown(path, *owner_of(server.directory))
    await server.start()
    return older


async def put_back(server: PostgresServer, older: Path) -> None:
    server.kill()
    shutil.rmtree(server.directory)
    shutil.move(older, server.directory)
    await server.start()


def owner_of(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


async def raised(shop: Bookshop) -> bool:
    return bool(await shop.pool.fetchval("SELECT epoch > 1 FROM stock_epochs"))


async def is_open(shop: Bookshop) -> bool:
    return await shop.gate() == "open"
