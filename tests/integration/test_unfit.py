"""Servers that keep less than was promised: nothing is sold on such a Redis, and production does
not start on such a PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
import structlog

from server.embedded.postgres import PostgresServer
from server.embedded.valkey import ValkeyServer
from server.errors import Misconfigured, Unfit
from server.orders import worker
from server.orders.reconcile import Report, diagnose, reconcile
from server.records.durability import require_durability as require_books
from server.records.pool import open_pool
from server.store.durability import require_durability
from server.store.types import ClaimRequest
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop
from tests.conftest import run_sql
from tests.live import LiveSystem, call, until_answer
from tests.web_stage import web_stage

STOCK_REBUILDING = 1403
PRODUCTION = {"demo": "false", "durability": "fast"}


@pytest.fixture
async def shop(durable_valkey: ValkeyServer, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(durable_valkey.url, database_url) as opened:
        yield opened


@pytest.fixture
def require_fit(shop: Bookshop) -> Callable[[], Awaitable[None]]:
    """As production asks."""
    client = shop.clients.commands
    return partial(require_durability, client, "fast", vouched=False, demo=False)


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "RECLAIM_EVERY_MS", 50)
    monkeypatch.setattr(worker, "HALTED_RETRY_MS", 50)


async def refusal(shop: Bookshop, sale: int, n: int) -> int:
    (answer,) = await shop.claim_all([ClaimRequest("x", n.to_bytes(16, "big"), sale, 1, 1)])
    return answer.code


async def configure(shop: Bookshop, name: str, value: str) -> None:
    await shop.clients.commands.config_set(name, value)


# --- Redis --------------------------------------------------------------------------------------


async def test_redis_when_restarted_with_less_then_nothing_is_sold_until_it_is_mended(
    shop: Bookshop, durable_valkey: ValkeyServer, require_fit: Callable[[], Awaitable[None]]
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.claim(sale, "ann")
    await shop.store_all()
    await durable_valkey.stop()
    durable_valkey.config["appendonly"] = "no"
    await durable_valkey.start()
    with structlog.testing.capture_logs() as logs:
        shop.start(require_fit=require_fit)
        await eventually(lambda: logged(logs, "redis_unfit"))
        assert await refusal(shop, sale, 1) == STOCK_REBUILDING
        assert (await diagnose(SHOW, shop.tools())).complaint != ""
        await configure(shop, "appendonly", "yes")
        await shop.reopened()
    unfit = [line for line in logs if line["event"] == "redis_unfit"]
    assert len(unfit) == 1
    assert "durability fast needs appendonly yes" in unfit[0]["reason"]
    assert await shop.available(sale) == 4


async def logged(logs: list[Any], event: str) -> bool:
    return any(line["event"] == event for line in logs)


@pytest.mark.parametrize(
    ("name", "bad", "good"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendfsync", "no", "everysec")],
)
async def test_redis_when_it_is_set_to_keep_less_then_the_gate_closes_until_it_is_mended(
    shop: Bookshop,
    require_fit: Callable[[], Awaitable[None]],
    name: str,
    bad: str,
    good: str,
) -> None:
    """While it runs, so that no other process id tells."""
    sale = await shop.add_sale(units=5)
    shop.start(require_fit=require_fit)
    await shop.claim(sale, "ann")
    await shop.settled()
    await configure(shop, name, bad)

    async def is_closed() -> bool:
        return await shop.gate() == "rebuilding"

    await eventually(is_closed)
    assert await refusal(shop, sale, 1) == STOCK_REBUILDING
    await configure(shop, name, good)
    await shop.reopened()
    await shop.claim(sale, "bob")
    await shop.assert_all_stored(2)


async def test_reconcile_when_redis_became_unfit_meanwhile_then_it_is_not_opened(
    shop: Bookshop,
) -> None:
    await shop.add_sale()
    asked = 0

    async def fit_once() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise Unfit("keeps nothing")

    with pytest.raises(Unfit):
        await reconcile(SHOW, shop.tools(require_fit=fit_once), "test: asked", "a test")
    assert await shop.gate() == "rebuilding"


async def test_worker_when_the_show_is_unknown_then_redis_is_not_called_unfit(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.add_sale()
    await shop.set_gate("rebuilding")

    async def unknown(*_: Any) -> Report:
        raise Misconfigured("there is no such show")

    monkeypatch.setattr(worker, "reconcile", unknown)
    with structlog.testing.capture_logs() as logs:
        shop.start()
        await eventually(lambda: logged(logs, "consumer_failed"))
    assert not await logged(logs, "redis_unfit")


async def test_reconcile_command_when_redis_keeps_too_little_then_it_refuses(
    redis_url: str, database_url: str, tmp_path: Path
) -> None:
    async with open_bookshop(redis_url, database_url) as shop:
        await shop.add_sale()
        await shop.set_gate("rebuilding")
        system = LiveSystem(redis_url, database_url, tmp_path, PRODUCTION)
        ended = await asyncio.to_thread(system.run, "reconcile")
        assert ended.returncode == 2
        assert "durability fast needs appendonly yes" in ended.stdout
        assert await shop.gate() == "rebuilding"


async def test_ready_when_redis_keeps_less_than_at_the_start_then_503_until_it_is_mended(
    durable_valkey: ValkeyServer, durable_books: PostgresServer
) -> None:
    async with (
        web_stage(durable_valkey.url, durable_books.url(), demo=False, durability="fast") as web,
        redis.asyncio.Redis.from_url(durable_valkey.url) as client,
    ):

        async def answers(status: int) -> bool:
            found, body = await call("GET", f"{web.url}/readyz")
            assert (found == 200) == (body["parts"]["redis"] == "ok")
            return found == status

        assert await answers(200)
        await client.config_set("appendonly", "no")
        await until_answer(lambda: answers(503), "not ready")
        await client.config_set("appendonly", "yes")
        await until_answer(lambda: answers(200), "ready again")


# --- PostgreSQL ---------------------------------------------------------------------------------


@pytest.mark.parametrize("process", ["web", "worker"])
async def test_process_when_postgresql_may_lose_commits_then_it_does_not_start(
    durable_valkey: ValkeyServer, database_url: str, tmp_path: Path, process: str
) -> None:
    """The tests' own PostgreSQL keeps nothing."""
    system = LiveSystem(durable_valkey.url, database_url, tmp_path, PRODUCTION)
    ended = await asyncio.to_thread(system.run, process)
    assert ended.returncode == 2
    assert "PostgreSQL has fsync, full_page_writes off" in ended.stderr
    assert "ALTER SYSTEM SET" in ended.stderr


async def test_postgresql_when_commits_are_not_waited_for_then_refused_and_a_demo_is_warned(
    durable_books: PostgresServer,
) -> None:
    url = durable_books.url()

    async def require(profile: str, demo: bool) -> None:
        pool = await open_pool(url, size=1)
        try:
            await require_books(pool, profile, demo=demo)
        finally:
            await pool.close()

    await require("fast", False)
    await run_sql(url, "ALTER DATABASE livesale SET synchronous_commit = off")
    with pytest.raises(Misconfigured, match="PostgreSQL has synchronous_commit off"):
        await require("strict", False)
    with structlog.testing.capture_logs() as logs:
        await require("fast", True)
        await require("none", True)
    assert [line["event"] for line in logs] == ["postgresql_not_durable"]
    await run_sql(url, "ALTER DATABASE livesale SET synchronous_commit = remote_write")
    await require("fast", False)
