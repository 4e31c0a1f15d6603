"""Keys of a show that are not what they must be: it says which, and the stock is rebuilt."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog

from server.orders import metrics, worker
from server.orders.reconcile import Report, diagnose, diagnose_all, reconcile
from server.records import rebuild as books
from server.store import keys
from server.store.types import ShowProjection
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop
from tests.live import LiveSystem


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


def pool_key(show_id: str) -> str:
    return keys.pool(show_id, 1)


def buyers_key(show_id: str) -> str:
    return keys.buyers(show_id, 1)


OF_THE_STOCK = (keys.meta, keys.orders, keys.claims, keys.applied, pool_key, buyers_key)
OF_THE_REBUILD = (keys.evidence, keys.presented, keys.refusals)
OF_THE_ROOM = (keys.room, keys.state, keys.events, keys.chat)
OF_HUBS = (keys.like_batches, keys.presence, keys.people, keys.policy, keys.lease, keys.counts)
ALL = (*OF_THE_STOCK, *OF_THE_REBUILD, *OF_THE_ROOM, *OF_HUBS)


async def damage(shop: Bookshop, name: str) -> None:
    """Put there what no key of that name may be."""
    await shop.clients.commands.delete(name)
    if name == keys.lease(SHOW):
        await shop.clients.commands.rpush(name, "x")
    else:
        await shop.clients.commands.set(name, "x")


async def test_key_when_it_has_the_wrong_type_then_it_is_named_and_the_stock_rebuilt(
    shop: Bookshop,
) -> None:
    """Of whatever kind the key is, what is confirmed is there again, and buyers can go on."""
    sale = await shop.add_sale(units=100)
    for n, key in enumerate(ALL):
        await shop.claim(sale, f"ann{n}")
        await shop.store_all()
        name = key(SHOW)
        await damage(shop, name)
        complaint = (await diagnose(SHOW, shop.tools())).complaint
        assert complaint.startswith(f"damaged: {name} is a ")
        await shop.rebuilt()
        assert await shop.available(sale) == 99 - n, name


async def test_number_when_it_is_none_then_it_is_named_and_the_stock_rebuilt(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5)
    pool, meta = keys.pool(SHOW, sale), keys.meta(SHOW)
    for key, field in ((pool, "q"), (pool, "a"), (pool, "rv"), (meta, "epoch")):
        await shop.clients.commands.hset(key, field, "many")
        complaint = (await diagnose(SHOW, shop.tools())).complaint
        assert complaint == f"damaged: {key}: {field} is no integer"
        await shop.rebuilt()
        assert await shop.available(sale) == 5


CLAIM_READS = ("a", "q", "v", "n", "s", "p", "pv", "lim", "o", "c")


@pytest.mark.parametrize("value", ["many", "1.5", "-1", None])
async def test_pool_when_a_number_that_claims_read_is_bad_then_it_is_named_and_rebuilt(
    shop: Bookshop, value: str | None
) -> None:
    """Else claims would stumble over it for ever."""
    sale = await shop.add_sale(units=5)
    pool = keys.pool(SHOW, sale)
    names = [name for name in CLAIM_READS if (name, value) != ("n", "-1")]  # the books rule on that
    for name in (*names, "r", "d", "rv", "rev", "pay", "sku", "prod", "lp", "st"):
        if value is None:
            await shop.clients.commands.hdel(pool, name)
        else:
            await shop.clients.commands.hset(pool, name, value)
        complaint = (await diagnose(SHOW, shop.tools())).complaint
        assert complaint.startswith(f"damaged: {pool}: {name} is "), name
        await shop.rebuilt()
    await shop.claim(sale, "ann")


@pytest.mark.parametrize(
    ("field", "value"), [("epoch", "-1"), ("epoch", "1.5"), ("gate", "ajar"), ("rev", "new")]
)
async def test_meta_when_it_is_bad_then_it_is_named_and_the_stock_rebuilt(
    shop: Bookshop, field: str, value: str
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.clients.commands.hset(keys.meta(SHOW), field, value)
    complaint = (await diagnose(SHOW, shop.tools())).complaint
    assert complaint.startswith(f"damaged: {keys.meta(SHOW)}: {field} is ")
    await shop.rebuilt()
    await shop.claim(sale, "ann")


async def test_epoch_when_it_is_written_otherwise_then_the_stock_can_be_rebuilt(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.clients.commands.hset(keys.meta(SHOW), "epoch", "1.0")
    await shop.rebuilt()
    await shop.claim(sale, "ann")


async def lose_stream(shop: Bookshop) -> None:
    await shop.clients.commands.delete(keys.orders(SHOW))


async def spoil_stream(shop: Bookshop) -> None:
    await damage(shop, keys.orders(SHOW))


async def lose_group(shop: Bookshop) -> None:
    """And the entries with it, as when somebody trims the stream."""
    await shop.clients.commands.xtrim(keys.orders(SHOW), maxlen=0)
    await shop.clients.commands.xgroup_destroy(keys.orders(SHOW), keys.ORDER_GROUP)


@pytest.mark.parametrize("spoil", [lose_stream, spoil_stream, lose_group])
async def test_holds_when_the_order_stream_is_gone_then_the_remembered_claims_keep_them(
    shop: Bookshop, spoil: Callable[[Bookshop], Awaitable[None]]
) -> None:
    """No hub is there to hand them in."""
    sale = await shop.add_sale(units=5)
    await shop.claim(sale, "ann")
    await shop.store_all()
    await shop.claim(sale, "bob")
    await shop.claim(sale, "cid")
    await spoil(shop)
    report = await shop.rebuilt()
    assert report.orders == 2
    assert [order["buyer"] for order in await shop.orders()] == ["ann", "bob", "cid"]
    assert await shop.available(sale) == 2


async def test_claims_when_they_cannot_be_read_either_then_the_stock_is_rebuilt_all_the_same(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5)
    await shop.clients.commands.hset(keys.claims(SHOW), "x", "x")
    await spoil_stream(shop)
    await shop.rebuilt()
    assert await shop.available(sale) == 5


async def test_show_when_its_keys_were_deleted_then_an_untold_letter_has_it_rebuilt(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long after its end: else every sweep would be refused."""
    await shop.add_sale()
    await shop.pool.execute("UPDATE sales SET status = 'closed'")
    await shop.pool.execute(
        "UPDATE shows SET status = 'ended', ended_at = now() - interval '30 days'"
    )
    await shop.pool.execute("UPDATE pools SET lowered = initial")
    await shop.pool.execute(
        "INSERT INTO dead_letters (show_id, pool_id, epoch, seq, units, payload, error, status,"
        " untold_since) SELECT show_id, pool_id, 1, 1, 0, '', '', 'given_back',"
        " now() - interval '1 minute' FROM pools"
    )
    await shop.clients.commands.flushall()
    monkeypatch.setattr(worker, "DISCOVER_MS", 20)
    shop.start_discovering()

    async def is_back() -> bool:
        return await shop.clients.commands.hget(keys.meta(SHOW), "gate") == b"ended"

    await eventually(is_back)


async def test_pool_when_a_number_of_it_is_gone_then_it_is_not_taken_for_no_pool(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale()
    await shop.clients.commands.hdel(keys.pool(SHOW, sale), "a")
    complaint = (await diagnose(SHOW, shop.tools())).complaint
    assert complaint == f"damaged: {keys.pool(SHOW, sale)}: a is no integer"


async def test_worker_when_a_show_is_damaged_then_gauge_and_log_tell_until_it_is_rebuilt(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a show that nobody sells in."""
    await shop.add_sale()
    await shop.pool.execute("UPDATE sales SET status = 'closed'")
    rebuild_it = asyncio.Event()
    asked: list[str] = []

    async def later(show_id: str, tools: Any, reason: str, by: str) -> Report:
        asked.append(reason)
        if not rebuild_it.is_set():
            return Report(show_id, reason, by)
        return await reconcile(show_id, tools, reason, by)

    monkeypatch.setattr(worker, "reconcile", later)
    monkeypatch.setattr(worker, "QUIET_EVERY_MS", 100)
    monkeypatch.setattr(worker, "DISCOVER_MS", 20)
    await shop.clients.commands.set(keys.claims(SHOW), "x")

    async def gauge_is(shows: int) -> bool:
        return bool(metrics.closed._value.get() == shows)

    metrics.closed.set(0)  # other tests' workers have set it too
    with structlog.testing.capture_logs() as logs:
        shop.start_discovering()
        await eventually(lambda: gauge_is(1))
        assert asked[0] == f"damaged: {keys.claims(SHOW)} is a string, not a hash"
        rebuild_it.set()
        await shop.reopened()
        await eventually(lambda: gauge_is(0))
    found = [line for line in logs if line["event"] == "reconciling"]
    assert found[0]["reason"] == asked[0]


async def test_show_when_it_is_damaged_then_the_others_are_looked_at_all_the_same(
    shop: Bookshop,
) -> None:
    await shop.clients.commands.set(keys.meta(SHOW), "x")
    await add_shows(shop, 3)
    found = await diagnose_all([SHOW, *quiet_shows(3)], shop.tools())
    assert [bool(each.complaint) for each in found.values()] == [True, False, False, False]


async def test_reconcile_command_when_a_key_is_damaged_then_it_says_which(
    shop: Bookshop, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    await shop.add_sale()
    await shop.clients.commands.set(keys.orders(SHOW), "x")
    system = LiveSystem(redis_url, database_url, tmp_path)
    ended = await asyncio.to_thread(system.run, "reconcile")
    assert f"damaged: {keys.orders(SHOW)} is a string, not a stream" in ended.stdout
    assert ended.returncode == 0
    again = await asyncio.to_thread(system.run, "reconcile", "--json")
    assert json.loads(again.stdout) == {"ok": True, "shows": []}


# --- Many shows ---------------------------------------------------------------------------------


def quiet_shows(count: int) -> list[str]:
    return [f"quiet{n:04}" for n in range(count)]


async def add_shows(shop: Bookshop, count: int) -> None:
    """Shows without a sale."""
    shows = quiet_shows(count)
    await shop.pool.execute(
        "INSERT INTO shows (show_id, host_id, title, status, applied_revision)"
        " SELECT s, 'host', 'show', 'live', 1 FROM unnest($1::text[]) AS t (s)",
        shows,
    )
    await shop.pool.execute("INSERT INTO stock_epochs (show_id) SELECT unnest($1::text[])", shows)
    projection = ShowProjection(1, "live", "show", "", "", 0, 0, (), 1, True)
    for show_id in shows:
        assert await shop.stock.apply_show(show_id, projection) == "applied"


async def commands_of(shop: Bookshop) -> dict[str, int]:
    """What Redis has counted: calls of scripts, reads of sockets (round trips), CPU (µs)."""
    stats = await shop.clients.commands.info("everything")
    scripts = stats.get("cmdstat_evalsha", {"calls": 0})["calls"]
    cpu = stats["used_cpu_sys_main_thread"] + stats["used_cpu_user_main_thread"]
    reads = stats["total_reads_processed"]
    return {"scripts": scripts, "reads": reads, "cpu_us": round(cpu * 1e6)}


async def test_look_when_many_shows_are_quiet_then_few_round_trips(
    shop: Bookshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One script a show, many shows a round trip, one statement for all."""
    await add_shows(shop, 250)
    statements = 0
    read = books.read_all_expected

    async def counted(*args: Any) -> Any:
        nonlocal statements
        statements += 1
        return await read(*args)

    monkeypatch.setattr(books, "read_all_expected", counted)
    before = await commands_of(shop)
    found = await diagnose_all(quiet_shows(250), shop.tools())
    after = await commands_of(shop)
    assert {each.complaint for each in found.values()} == {""}
    assert statements == 1
    assert after["scripts"] - before["scripts"] == 250
    assert after["reads"] - before["reads"] <= 40  # large requests arrive in several pieces


async def test_look_when_redis_has_forgotten_its_scripts_then_they_are_loaded(
    shop: Bookshop,
) -> None:
    await add_shows(shop, 3)
    await shop.clients.commands.script_flush()
    found = await diagnose_all(quiet_shows(3), shop.tools())
    assert {each.complaint for each in found.values()} == {""}
