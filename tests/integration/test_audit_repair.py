"""`livesale audit --repair`: Redis follows the books, the books are never changed."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from server.config import Settings
from server.errors import StoreUnavailable
from server.orders import repair
from server.orders.reconcile import reconcile
from server.store import keys
from tests.bookshop import SHOW, Bookshop, open_bookshop
from tests.live import LiveSystem


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


async def sold(shop: Bookshop, buyers: int = 3) -> int:
    sale = await shop.add_sale(units=10)
    await shop.claim_many(sale, [f"b{n}" for n in range(buyers)])
    await shop.store_all()
    return sale


async def test_repair_when_all_is_well_then_nothing_is_done(shop: Bookshop) -> None:
    await sold(shop)
    done, report = await repair.repair(shop.tools(), SHOW)
    assert (done, report.is_ok) == ([], True)


@pytest.mark.parametrize("units", [4, -4])
async def test_repair_when_stock_was_changed_by_hand_then_redis_follows_the_books(
    shop: Bookshop, units: int
) -> None:
    sale = await sold(shop)
    await shop.clients.commands.hincrby(keys.pool(SHOW, sale), "a", units)
    done, report = await repair.repair(shop.tools(), SHOW)
    assert report.is_ok
    assert report.shows[0].pools[0].available == 7
    assert done[0].startswith(f"{SHOW}: reconciled for viewers, units: epoch 2")


async def test_repair_when_redis_is_empty_then_every_order_is_there_again(shop: Bookshop) -> None:
    await sold(shop)
    await shop.clients.commands.flushall()
    _, report = await repair.repair(shop.tools(), None)
    assert report.is_ok
    assert (report.shows[0].orders, report.shows[0].claims) == (3, 3)


async def test_repair_when_a_give_was_never_told_then_it_is_finished(shop: Bookshop) -> None:
    sale = await sold(shop)
    await shop.pool.execute(
        "WITH give AS (INSERT INTO gives (give_id, show_id, pool_id, units, reason, created_at)"
        " VALUES ('g1', $1, $2, 5, 'restock', now() - interval '1 hour') RETURNING *),"
        " ledger AS (INSERT INTO stock_ledger (pool_id, reason, units, give_id)"
        " SELECT pool_id, 'restocked', units, give_id FROM give),"
        " sku AS (UPDATE skus SET inventory = inventory + 5, allotted = allotted + 5)"
        " UPDATE pools SET restocked = 5",
        *(SHOW, sale),
    )
    assert {p.kind for p in (await shop.audit()).problems} == {"late"}
    done, report = await repair.repair(shop.tools(), SHOW)
    assert report.is_ok
    assert (report.shows[0].epoch, report.shows[0].pools[0].available) == (1, 12)
    assert done == [f"{SHOW}: told Redis of 1 gives and steps of orders"]


async def test_repair_when_the_books_are_wrong_then_they_are_named_and_left_alone(
    shop: Bookshop,
) -> None:
    await sold(shop)
    await shop.pool.execute("UPDATE pools SET sold = sold + 1, version = version + 1")
    before = await shop.pool.fetch("SELECT * FROM pools")
    _, report = await repair.repair(shop.tools(), SHOW)
    assert "counter" in {problem.kind for problem in report.shows[0].problems}
    assert await shop.pool.fetch("SELECT * FROM pools") == before


async def test_run_when_repaired_or_not_then_exit_code_and_output_say_so(
    shop: Bookshop, redis_url: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    unsafe: Any = {"demo": True, "durability": "none"}  # the tests' Redis keeps nothing
    settings = Settings(redis_url=redis_url, database_url=database_url, **unsafe)
    sale = await sold(shop)
    await shop.clients.commands.hincrby(keys.pool(SHOW, sale), "a", 1)
    assert await asyncio.to_thread(repair.run, settings, SHOW, True) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["ok"] is True
    assert "reconciled for" in printed["repaired"][0]
    await shop.pool.execute("UPDATE skus SET allotted = allotted - 1")
    assert await asyncio.to_thread(repair.run, settings, SHOW, False) == 11
    assert "PROBLEM sku_units" in capsys.readouterr().out
    assert await asyncio.to_thread(repair.run, settings, "nosuchshow", False) == 2


async def test_audit_command_when_told_to_repair_then_it_does(
    shop: Bookshop, redis_url: str, database_url: str, tmp_path: Path
) -> None:
    sale = await sold(shop)
    await shop.clients.commands.hincrby(keys.pool(SHOW, sale), "a", 1)
    system = LiveSystem(redis_url, database_url, tmp_path)
    for arguments, code in ((("--json",), 11), (("--json", "--repair"), 0), (("--json",), 0)):
        ended = await asyncio.to_thread(system.run, "audit", *arguments)
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert json.loads(ended.stdout)["ok"] is (code == 0)


async def test_audit_when_the_stock_is_rebuilt_meanwhile_then_only_that_is_said(
    shop: Bookshop,
) -> None:
    await sold(shop)

    async def rebuild() -> None:
        for _ in range(5):
            await reconcile(SHOW, shop.tools(), "asked: by a test", "test")

    rebuilding = asyncio.create_task(rebuild())
    seen: set[str] = set()
    while not rebuilding.done():
        with contextlib.suppress(StoreUnavailable):  # rebuilt again and again
            report = await shop.audit()
            seen |= {problem.kind for problem in report.problems}
    await rebuilding
    assert seen <= {"halted"}
    assert (await shop.audit()).is_ok
