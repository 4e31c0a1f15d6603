"""The host API: orders as JSON and CSV, the served OpenAPI document, PostgreSQL away."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from server.records import order_list
from tests.host_stage import Stage, open_stage, show_id_of, token, until


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def sold_to(stage: Stage, *buyers: str) -> tuple[str, int]:
    """A show and a sale with one confirmed order of each buyer."""
    show = await stage.live_show()
    sale = (await stage.sale(show, await stage.sku(show), units=50))["sale"]
    for buyer in buyers:
        assert (await stage.claim(show, sale, buyer)).code == 0

    async def booked() -> bool:
        return bool((await stage.find_sale(show, sale))["sold"] == len(buyers))

    async with stage.worker(show):
        await until(booked)
    return show, sale


async def test_orders_when_listed_then_filters_and_pages_work(stage: Stage) -> None:
    show, sale = await sold_to(stage, "li", "wang", "li")
    listed = (await stage.ok("GET", f"{show}/orders"))["orders"]
    assert [o["buyer"] for o in listed] == ["li", "wang", "li"]
    assert {(o["sale"], o["price"], o["quantity"], o["currency"], o["status"]) for o in listed} == {
        (sale, 9900, 1, "CNY", "confirmed")
    }
    mine = (await stage.ok("GET", f"{show}/orders?buyer=wang"))["orders"]
    assert [o["order_id"] for o in mine] == [listed[1]["order_id"]]
    rest = await stage.ok("GET", f"{show}/orders?after={listed[0]['order_id']}&limit=1")
    assert rest["orders"] == [listed[1]]
    assert (await stage.ok("GET", f"{show}/orders?status=paid"))["orders"] == []


async def test_newest_orders_when_there_are_more_than_asked_for_then_the_newest_come_first(
    stage: Stage,
) -> None:
    show, _ = await sold_to(stage, "li", "wang", "li")
    rows = await order_list.list_orders(stage.pool, show_id_of(show), order_list.Wanted(buyer="li"))
    assert await order_list.newest_orders(stage.pool, show_id_of(show), "li", 1) == rows[1:]
    assert await order_list.newest_orders(stage.pool, show_id_of(show), "li", 9) == rows[::-1]
    assert await order_list.newest_orders(stage.pool, show_id_of(show), "nobody", 9) == []


async def ids(stage: Stage, show: str, query: str) -> list[int]:
    listed = await stage.ok("GET", f"{show}/orders?{query}")
    return [order["order_id"] for order in listed["orders"]]


async def test_orders_when_looked_for_then_newest_first_by_number_and_by_sale(
    stage: Stage,
) -> None:
    show, sale = await sold_to(stage, "li", "wang", "li", "zhao")
    old = await ids(stage, show, "")
    newest = f"before={2**53 - 1}"
    assert await ids(stage, show, newest) == old[::-1]
    assert await ids(stage, show, f"before={old[3]}&limit=2") == [old[2], old[1]]
    await stage.pool.execute("UPDATE orders SET status = 'paid' WHERE order_id = $1", old[1])
    assert await ids(stage, show, newest) == old[::-1]
    assert await ids(stage, show, f"{newest}&status=paid") == [old[1]]
    assert await ids(stage, show, f"{newest}&status=confirmed&limit=2") == [old[3], old[2]]
    assert await ids(stage, show, f"{newest}&buyer=li") == [old[2], old[0]]
    assert await ids(stage, show, f"before={old[2]}&buyer=li") == [old[0]]
    assert await ids(stage, show, f"sale={sale}&after={old[0]}&limit=2") == [old[1], old[2]]
    assert await ids(stage, show, f"sale={sale}&{newest}&limit=3") == old[:0:-1]
    assert await ids(stage, show, f"sale={sale}&{newest}&status=paid") == [old[1]]
    assert await ids(stage, show, f"sale={sale}&buyer=wang") == [old[1]]
    assert await ids(stage, show, f"sale={sale + 1}") == []
    assert await ids(stage, show, f"sale={sale + 1}&buyer=wang") == []
    assert await ids(stage, show, f"order={old[1]}") == [old[1]]
    assert await ids(stage, show, f"order={old[1]}&buyer=wang&status=paid&sale={sale}") == [old[1]]
    for against in ("buyer=li", "status=confirmed", f"sale={sale + 1}"):
        assert await ids(stage, show, f"order={old[1]}&{against}") == []


async def test_orders_when_both_ends_are_named_then_refused(stage: Stage) -> None:
    show, _ = await sold_to(stage, "li")
    assert await stage.refused("GET", f"{show}/orders?after=1&before=9") == "bad_field"


async def test_orders_when_one_moves_on_meanwhile_then_its_page_is_full(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short page would be taken for the last one."""
    show, _ = await sold_to(stage, "li", "wang", "zhao")
    really = order_list._orders_by_id

    async def later(*args: Any) -> list[order_list.OrderRow]:
        await stage.pool.execute("UPDATE orders SET status = 'paid' WHERE buyer = 'li'")
        return await really(*args)

    monkeypatch.setattr(order_list, "_orders_by_id", later)
    assert len(await ids(stage, show, "status=confirmed&limit=2")) == 2


async def test_order_when_it_is_of_another_show_then_it_is_not_found(stage: Stage) -> None:
    show, _ = await sold_to(stage, "li")
    other, sale = await sold_to(stage, "wang")
    (theirs,) = await ids(stage, other, "")
    assert await ids(stage, show, f"order={theirs}") == []
    assert await ids(stage, show, f"sale={sale}") == []


# (statement, its parameters) of lists of a few orders; `b7` has ten of the show's 20,000.
SMALL_READS = [
    ("orders_by_id", "'bigshow', ARRAY[12]"),
    ("newest_ids_of_buyer", "'bigshow', 'b7', 100"),
    ("order_ids_of_buyer", "'bigshow', 'b7', NULL, NULL, 0, false, 100"),
    ("order_ids_of_buyer", f"'bigshow', 'b7', NULL, NULL, {2**53 - 1}, true, 100"),
    ("order_ids", "'bigshow', ARRAY['confirmed', 'paid'], 0, 20"),
    ("order_ids_before", f"'bigshow', ARRAY['confirmed', 'paid'], {2**53 - 1}, 20"),
    ("order_ids_of_sale", "3, ARRAY['confirmed', 'paid'], 0, 20"),
    ("order_ids_of_sale_before", f"3, ARRAY['confirmed', 'paid'], {2**53 - 1}, 20"),
]


def rows_dropped(plan: dict[str, Any]) -> int:
    """Rows that a plan read for nothing."""
    dropped = plan.get("Rows Removed by Filter", 0) * plan["Actual Loops"]
    return int(dropped + sum(rows_dropped(below) for below in plan.get("Plans", ())))


def rows_read(plan: dict[str, Any]) -> int:
    """Rows that the plan's scans brought up."""
    below = plan.get("Plans", ())
    return sum(map(rows_read, below)) if below else int(plan["Actual Rows"] * plan["Actual Loops"])


async def test_orders_when_the_show_is_big_then_a_short_list_reads_little(
    database_url: str,
) -> None:
    conn = await asyncpg.connect(database_url)
    await conn.execute("""
        INSERT INTO orders (show_id, pool_id, buyer, claim_id, quantity, price, price_version,
                            epoch, seq)
        SELECT 'bigshow', 1 + i % 5, 'b' || i % 2000, gen_random_uuid(), 1, 1, 1, 1, i
        FROM generate_series(1, 20000) AS i
    """)
    await conn.execute("ANALYZE")
    # PostgreSQL turns to a plan for any parameters after a few calls.
    await conn.execute("SET plan_cache_mode = force_generic_plan")
    for name, parameters in SMALL_READS:
        await conn.execute("DEALLOCATE ALL")
        await conn.execute(f"PREPARE {name} AS {order_list.SQL[name]}")
        explain = "EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE"
        ((plan,),) = await conn.fetch(f"{explain} {name} ({parameters})")
        top = json.loads(plan)[0]["Plan"]
        assert rows_dropped(top) < 100, name
        assert 0 < rows_read(top) < 200, name
    await conn.close()


async def test_csv_when_texts_look_like_formulas_then_they_are_text(stage: Stage) -> None:
    show, _ = await sold_to(stage, "=HYPERLINK(1)", "@sum", "li")
    await stage.pool.execute("UPDATE products SET title = '-2+3,\"x\"'")
    response = await stage.call("GET", f"{show}/orders.csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    disposition = response.headers["content-disposition"]
    assert disposition == f'attachment; filename="orders-{show_id_of(show)}.csv"'
    assert response.content.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(response.content.decode("utf-8-sig"))))
    assert [row["buyer"] for row in rows] == ["'=HYPERLINK(1)", "'@sum", "li"]
    assert rows[0]["product"] == '\'-2+3,"x"'
    assert (rows[0]["unit_price"], rows[0]["total"], rows[0]["currency"]) == (
        "99.00",
        "99.00",
        "CNY",
    )


async def test_csv_when_the_show_is_anothers_then_refused_before_any_row(stage: Stage) -> None:
    show, _ = await sold_to(stage, "li")
    assert await stage.refused("GET", f"{show}/orders.csv", token=token("eve")) == "forbidden"


async def test_openapi_when_served_then_it_is_the_document(stage: Stage) -> None:
    document = await stage.ok("GET", "/openapi.json", token="")
    assert document["openapi"].startswith("3.1")
    assert "/api/shows/{show}/sales/{sale}/restock" in document["paths"]


async def test_api_when_postgresql_is_away_then_reads_and_writes_say_so(stage: Stage) -> None:
    show = await stage.live_show()
    await stage.pool.close()
    assert await stage.refused("GET", show) == "unavailable"
    assert await stage.refused("POST", f"{show}/pause") == "outcome_unknown"
