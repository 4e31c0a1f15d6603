"""Pages of a show's orders: what is read for one does not grow with the orders there are."""

import json
from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest

from server.domain.order import STATUSES, OrderStatus
from server.records import sql
from server.records.pool import Pool, open_pool

SHOW = "bigshow1"
OTHERS = 20_000  # orders of another status, and as many of another show
RARE = 3
LIMIT = 100
STATEMENT = sql.load("order_list")["order_ids"]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    opened = await open_pool(database_url, size=1)
    yield opened
    opened.terminate()


async def fill(pool: Pool, rare: str) -> None:
    """The last RARE orders of each show have that status, all others another one."""
    common = "paid" if rare != "paid" else "confirmed"
    await pool.execute(
        "INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version,"
        " epoch, seq, status)"
        " SELECT s, p, 'b' || i, gen_random_uuid(), 1, 100, 1, 1, i,"
        " CASE WHEN i > $3 THEN $4 ELSE $5 END"
        " FROM generate_series(1, $2::int) AS t (i), (VALUES ($1, 1), ('another1', 2)) AS x (s, p)",
        *(SHOW, OTHERS + RARE, OTHERS, rare, common),
    )
    await pool.execute("ANALYZE orders")


async def scanned(pool: Pool, status: str | None, mode: str) -> tuple[int, int]:
    """Rows that were found, and rows that were read for it, with a plan for these parameters
    (`force_custom_plan`) or for any (`force_generic_plan`)."""
    async with pool.acquire() as conn:
        await conn.execute(f"SET plan_cache_mode = {mode}")
        await conn.execute(f"PREPARE page (text, text[], bigint, int) AS {STATEMENT}")
        wanted = f"'{{{','.join(STATUSES if status is None else (status,))}}}'"
        plan = await conn.fetchval(
            "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON)"
            f" EXECUTE page ('{SHOW}', {wanted}, 0, {LIMIT})"
        )
        await conn.execute("DEALLOCATE page")
    root = json.loads(plan)[0]["Plan"]
    return round(root["Actual Rows"]), sum(map(read_by, nodes(root)))


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in nodes(part))]


def read_by(node: dict[str, Any]) -> int:
    """Rows of `orders` that a node of a plan looked at."""
    if node.get("Relation Name") != "orders":
        return 0
    removed = node.get("Rows Removed by Filter", 0)
    return int((node["Actual Rows"] + removed) * node["Actual Loops"])


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
@pytest.mark.parametrize("status", ["confirmed", "paid", "refunded"])
async def test_orders_when_few_have_the_status_then_the_others_are_not_read(
    pool: Pool, status: str, mode: str
) -> None:
    await fill(pool, status)
    found, read = await scanned(pool, status, mode)
    assert (found, read) == (RARE, RARE)


@pytest.mark.parametrize("mode", ["force_custom_plan", "force_generic_plan"])
async def test_orders_when_all_are_asked_for_then_a_page_of_each_status_is_read(
    pool: Pool, mode: str
) -> None:
    await fill(pool, "refunded")
    found, read = await scanned(pool, None, mode)
    assert found == LIMIT
    assert read <= LIMIT * len(get_args(OrderStatus))


async def test_orders_when_no_status_is_named_then_those_of_every_status_are_there(
    pool: Pool,
) -> None:
    for n, status in enumerate(get_args(OrderStatus)):
        await pool.execute(
            "INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price,"
            " price_version, epoch, seq, status)"
            " VALUES ($1, 1, 'b', gen_random_uuid(), 1, 100, 1, 1, $2, $3)",
            *(SHOW, n, status),
        )
    ids = [row["order_id"] for row in await pool.fetch(STATEMENT, SHOW, STATUSES, 0, LIMIT)]
    assert ids == sorted(ids)
    assert len(ids) == len(get_args(OrderStatus))
