"""The audit: silent while everything is right, also under load; exact about what is not."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from server.audit import command
from server.audit.report import Problem
from server.config import Settings
from server.store import keys
from tests.bookshop import SHOW, Bookshop, open_bookshop, take


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


async def problems(shop: Bookshop) -> dict[str, Problem]:
    """The first problem of each kind."""
    found = (await shop.audit()).problems
    return {problem.kind: problem for problem in reversed(found)}


async def sold_out(shop: Bookshop, units: int = 5) -> int:
    sale = await shop.add_sale(units=units)
    await shop.claim_many(sale, [f"b{i}" for i in range(units)])
    await shop.store_all()
    return sale


async def test_audit_when_all_is_well_then_the_sum_is_shown(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=10, limit=2)
    reserved = await shop.add_sale(units=10, pay_within_s=60)
    await shop.claim(sale, "ann", 2)
    await shop.claim(reserved, "ann")
    await shop.stock.take(SHOW, sale, uuid.uuid4().bytes, 3, close=False)
    await shop.store_all()
    await shop.claim(sale, "bob")
    report = await shop.audit()
    assert report.problems == []
    assert (report.orders, report.claims) == (2, 3)
    first, second = report.pools
    assert (first.available, first.backlog, first.sold, first.lowered) == (4, 1, 2, 3)
    assert (second.available, second.reserved, second.sold) == (9, 1, 0)


async def test_audit_when_claims_and_host_acts_are_running_then_no_false_alarm(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5_000, limit=2)
    shop.start()

    async def buy(part: int) -> None:
        for number in range(40):
            await shop.claim_many(sale, [f"b{part}-{number}-{i}" for i in range(12)])
            if number % 10 == 0:
                await shop.stock.take(SHOW, sale, uuid.uuid4().bytes, 2, close=False)

    buying = asyncio.gather(*(buy(part) for part in range(3)))
    seen_backlog = 0
    while not buying.done():
        report = await shop.audit()
        assert report.problems == []
        seen_backlog = max(seen_backlog, report.pools[0].backlog)
    await buying
    await shop.settled()
    report = await shop.audit()
    assert report.problems == []
    assert report.orders == 3 * 40 * 12
    assert seen_backlog > 0


async def test_audit_when_units_were_released_then_only_the_forgotten_limit_is_named(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=5, limit=2)
    await shop.claim(sale, "ann", 2)
    await shop.clients.commands.delete(keys.buyers(SHOW, sale))
    await shop.claim(sale, "ann", 1)
    shop.start()
    await shop.settled()
    report = await shop.audit()
    assert {(p.kind, p.buyer) for p in report.problems} == {("limit", "ann")}
    assert (report.pools[0].available, report.pools[0].pending_give) == (2, 1)


async def test_audit_when_a_take_is_dead_then_its_units_are_counted(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=5)
    await shop.pool.execute("ALTER TABLE orders ADD CONSTRAINT poison CHECK (buyer <> 'poison')")
    await shop.claim_many(sale, ["ann", "poison"])
    shop.start()
    await shop.settled()
    report = await shop.audit()
    assert report.problems == []
    assert (report.pools[0].sold, report.pools[0].dead) == (1, 1)


async def test_audit_when_an_order_was_planted_then_its_claim_is_named(shop: Bookshop) -> None:
    sale = await sold_out(shop)
    planted = uuid.uuid4()
    await shop.pool.execute(
        "INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version,"
        " epoch, seq) VALUES ($1, $2, 'eve', $3, 1, 100, 1, 1, 6)",
        *(SHOW, sale, planted),
    )
    found = await problems(shop)
    assert found["order_without_claim"].claim_id == str(planted)
    assert found["take_extra"].claim_id == str(planted)
    assert found["counter"].detail.endswith("sold is 5, its rows have 6")
    assert found["buyer_units"].buyer == "eve"


async def test_audit_when_an_order_was_planted_with_counters_then_it_is_named(
    shop: Bookshop,
) -> None:
    sale = await shop.add_sale(units=10)
    await shop.claim(sale, "ann")
    await shop.store_all()
    planted = uuid.uuid4()
    await shop.pool.execute(
        "INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version,"
        " epoch, seq) VALUES ($1, $2, 'eve', $3, 1, 100, 1, 1, 2)",
        *(SHOW, sale, planted),
    )
    await shop.pool.execute("INSERT INTO pool_buyers VALUES ($1, 'eve', 1)", sale)
    await shop.pool.execute(
        "UPDATE pools SET sold = 2, taken_seq = 2, version = version + 1 WHERE pool_id = $1", sale
    )
    found = await problems(shop)
    assert found["order_without_claim"].claim_id == str(planted)


async def test_audit_when_an_order_was_deleted_then_its_claim_is_named(shop: Bookshop) -> None:
    sale = await sold_out(shop)
    gone = await shop.pool.fetchrow("DELETE FROM orders WHERE seq = 3 RETURNING *")
    assert gone is not None
    found = await problems(shop)
    assert found["claim_lost"].claim_id == str(gone["claim_id"])
    assert found["claim_lost"].order_id == gone["order_id"]
    assert (found["take_missing"].pool, found["take_missing"].seq) == (sale, 3)
    assert found["units"].detail == f"pool {sale}: Redis has 1 units too few"


@pytest.mark.parametrize(("units", "what"), [(3, "3 units too many"), (-2, "2 units too few")])
async def test_audit_when_stock_in_redis_was_changed_by_hand_then_units_are_named(
    shop: Bookshop, units: int, what: str
) -> None:
    sale = await shop.add_sale(units=10)
    await shop.claim(sale, "ann")
    await shop.clients.commands.hincrby(keys.pool(SHOW, sale), "a", units)
    found = await problems(shop)
    assert found["units"].detail == f"pool {sale}: Redis has {what}"
    assert "viewers" in found


async def test_audit_when_an_entry_was_deleted_then_the_claim_is_named(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    claim_id, _ = await shop.claim(sale, "ann")
    await shop.clients.commands.delete(keys.orders(SHOW))
    found = await problems(shop)
    assert found["claim_lost"].claim_id == str(uuid.UUID(bytes=claim_id))
    assert found["take_missing"].seq == 1
    assert found["units"].detail.endswith("1 units too few")


async def test_audit_when_a_claim_was_forgotten_then_its_order_is_named(shop: Bookshop) -> None:
    await sold_out(shop)
    (order, *_) = await shop.orders()
    field: Any = keys.claim_field(order["buyer"], order["claim_id"].bytes)
    await shop.clients.commands.hdel(keys.claims(SHOW), field)
    found = await problems(shop)
    assert set(found) == {"order_without_claim"}
    assert found["order_without_claim"].order_id == order["order_id"]


async def test_audit_when_a_claim_says_something_else_then_it_is_named(shop: Bookshop) -> None:
    await sold_out(shop)
    (order, *_) = await shop.orders()
    field: Any = keys.claim_field(order["buyer"], order["claim_id"].bytes)
    for change, kind in ((("held", None), "claim_contradicts"), ((None, 2), "claim_differs")):
        packed: Any = await shop.clients.commands.hget(keys.claims(SHOW), field)
        row = msgpack.unpackb(packed, raw=False)
        row[0] = change[0] or row[0]
        row[2] = change[1] or row[2]
        changed: Any = msgpack.packb(row)
        await shop.clients.commands.hset(keys.claims(SHOW), field, changed)
        found = await problems(shop)
        assert found[kind].claim_id == str(order["claim_id"])
        await shop.clients.commands.hset(keys.claims(SHOW), field, packed)


@pytest.mark.parametrize("name", ["left", "sold", "version"])
async def test_audit_when_viewers_see_something_else_then_it_says_so(
    shop: Bookshop, name: str
) -> None:
    sale = await sold_out(shop)
    packed: Any = await shop.clients.commands.hget(keys.state(SHOW), f"stock:{sale}")
    value = msgpack.unpackb(packed, raw=False)
    value[name] += 1
    changed: Any = msgpack.packb(value)
    await shop.clients.commands.hset(keys.state(SHOW), f"stock:{sale}", changed)
    assert set(await problems(shop)) == {"viewers"}


async def test_audit_when_redis_was_told_wrong_counters_then_it_says_so(shop: Bookshop) -> None:
    sale = await sold_out(shop)
    await shop.clients.commands.hincrby(keys.pool(SHOW, sale), "s", -1)
    assert "told" in await problems(shop)


async def test_audit_when_redis_lost_pool_or_show_then_it_says_so(shop: Bookshop) -> None:
    sale = await sold_out(shop)
    await shop.clients.commands.delete(keys.pool(SHOW, sale))
    assert (await problems(shop))["pool_missing"].pool == sale
    await shop.clients.commands.flushall()
    assert set(await problems(shop)) == {"show_missing"}


async def test_audit_when_redis_went_back_then_takes_of_the_host_and_gives_are_missed(
    shop: Bookshop,
) -> None:
    """A Redis that lost its last second balances in itself; the books remember more."""
    sale = await shop.add_sale(units=10)
    before: Any = await shop.clients.commands.dump(keys.pool(SHOW, sale))
    await shop.stock.take(SHOW, sale, uuid.uuid4().bytes, 3, close=False)
    await shop.store_all()
    assert await problems(shop) == {}
    await shop.clients.commands.restore(keys.pool(SHOW, sale), 0, before, replace=True)
    assert (await problems(shop))["went_back"].seq == 1


async def test_audit_when_redis_forgot_an_applied_give_then_it_is_named(shop: Bookshop) -> None:
    sale = await shop.add_sale(units=10)
    await shop.pool.execute(
        "INSERT INTO gives (give_id, show_id, pool_id, units, reason, applied_at)"
        " VALUES ('g1', $1, $2, 4, 'restock', now())",
        *(SHOW, sale),
    )
    await shop.pool.execute(
        "INSERT INTO stock_ledger (pool_id, reason, units, give_id)"
        " VALUES ($1, 'restocked', 4, 'g1')",
        sale,
    )
    await shop.pool.execute("UPDATE pools SET restocked = 4")
    await shop.pool.execute("UPDATE skus SET inventory = 14, allotted = 14")
    found = await problems(shop)
    assert set(found) == {"give_lost"}
    assert found["give_lost"].detail.endswith("give g1")


async def test_audit_when_show_is_halted_then_it_says_why(shop: Bookshop) -> None:
    sale = await shop.add_sale()
    await shop.put(take(sale, 2, "ann"))
    shop.start()
    while not await shop.halted():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert "seq 1 is missing" in (await problems(shop))["halted"].detail


async def test_audit_when_epochs_differ_then_it_says_so(shop: Bookshop) -> None:
    await shop.add_sale()
    await shop.pool.execute("UPDATE stock_epochs SET epoch = 2")
    assert "epoch" in await problems(shop)


async def test_audit_when_a_sku_has_other_units_then_it_says_so(shop: Bookshop) -> None:
    await shop.add_sale()
    await shop.pool.execute("UPDATE skus SET allotted = 3")
    assert set(await problems(shop)) == {"sku_units"}


async def test_run_when_all_is_well_or_not_then_exit_code_and_output_say_so(
    shop: Bookshop, redis_url: str, database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(redis_url=redis_url, database_url=database_url)
    sale = await sold_out(shop)
    assert await asyncio.to_thread(command.run, settings, None, True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is True
    assert printed["shows"][0]["pools"][0]["sold"] == 5
    await shop.clients.commands.hincrby(keys.pool(SHOW, sale), "a", 1)
    assert await asyncio.to_thread(command.run, settings, SHOW, False) == 11
    assert "1 units too many" in capsys.readouterr().out
    assert await asyncio.to_thread(command.run, settings, "nosuchshow", True) == 2
    assert json.loads(capsys.readouterr().out)["ok"] is None


def test_run_when_servers_are_away_then_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    settings = Settings(redis_url="unix:///nonexistent", database_url="postgresql:///none")
    assert command.run(settings, None, as_json=False) == 2
    assert "audit:" in capsys.readouterr().out
