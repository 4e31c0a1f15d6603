"""The host API: flash sales from draft to closed, on real Valkey and PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server import limits
from server.audit import audit
from server.errors import ERRORS
from tests.host_stage import Stage, open_stage, request_id, show_id_of, until


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def test_sale_when_started_now_then_the_window_follows_the_countdown(stage: Stage) -> None:
    show = await stage.live_show()
    sale = await stage.sale(show, await stage.sku(show), countdown_s=30, duration_s=90)
    now = stage.clock.now_ms()
    assert (sale["status"], sale["pending"]) == ("open", False)
    assert (sale["opens_at"], sale["closes_at"]) == (now + 30_000, now + 120_000)
    state = await stage.state(show)
    seen = state[f"sale:{sale['sale']}"]
    assert (seen["opens_at"], seen["closes_at"], seen["price"]) == (
        now + 30_000,
        now + 120_000,
        9900,
    )
    assert (seen["list_price"], seen["limit_per_buyer"]) == (12900, 2)
    stock = state[f"stock:{sale['sale']}"]
    assert (stock["left"], stock["total"], stock["sold"]) == (10, 10, 0)
    early = await stage.claim(show, sale["sale"], "li")
    assert early.code == ERRORS["sale_not_open"].code


async def test_sale_when_made_for_later_then_viewers_see_it_only_once_started(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sale = await stage.sale(show, await stage.sku(show), start="later")
    assert (sale["status"], sale["pending"]) == ("draft", False)
    assert f"sale:{sale['sale']}" not in await stage.state(show)
    started = await stage.ok("POST", f"{show}/sales/{sale['sale']}/start")
    assert started["status"] == "open"
    assert f"sale:{sale['sale']}" in await stage.state(show)
    assert (await stage.claim(show, sale["sale"], "li")).code == 0
    name = await stage.refused("POST", f"{show}/sales/{sale['sale']}/start", {})
    assert name == "conflict"


async def test_sale_when_started_at_a_time_then_it_opens_by_itself(stage: Stage) -> None:
    made = await stage.ok("POST", "/api/shows", {"title": "周五"})
    show = f"/api/shows/{made['show']}"  # not live yet: a time may be set before
    at = stage.clock.now_ms() + 3_600_000
    sale = await stage.sale(show, await stage.sku(show), start="at", starts_at=at)
    assert (sale["status"], sale["opens_at"]) == ("scheduled", at)
    assert (await stage.state(show))[f"sale:{sale['sale']}"]["phase"] == "scheduled"
    assert await stage.timetable.open_due() == 0
    stage.clock.now = at
    assert await stage.timetable.open_due() == 1
    assert await stage.timetable.open_due() == 0
    assert (await stage.find_sale(show, sale["sale"]))["status"] == "open"
    assert (await stage.state(show))[f"sale:{sale['sale']}"]["phase"] == "open"
    whats = [e["what"] for e in await stage.events(show) if e["k"] == "sale_phase"]
    assert whats == ["scheduled", "opening"]


@pytest.mark.parametrize("offset_ms", [0, -1, -3_600_000, 31 * 24 * 3_600_000])
async def test_sale_when_the_start_is_over_or_too_far_then_refused(
    stage: Stage, offset_ms: int
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    body = {
        "sku": sku, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10,
        "start": "at", "starts_at": stage.clock.now_ms() + offset_ms,
    }  # fmt: skip
    assert await stage.refused("POST", f"{show}/sales", body) == "bad_field"
    assert await stage.allotted(sku) == 0
    assert (await stage.ok("GET", f"{show}/sales"))["sales"] == []


async def test_sale_when_the_show_does_not_run_then_it_cannot_start_now(stage: Stage) -> None:
    made = await stage.ok("POST", "/api/shows", {"title": "周五"})
    show = f"/api/shows/{made['show']}"
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, start="later"))["sale"]
    assert await stage.refused("POST", f"{show}/sales/{sale}/start") == "show_not_live"
    await stage.ok("POST", f"{show}/start")
    await stage.ok("POST", f"{show}/pause")
    assert await stage.refused("POST", f"{show}/sales/{sale}/start") == "show_paused"


async def test_sale_when_the_inventory_is_too_small_then_nothing_is_made(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=15)
    await stage.sale(show, sku, units=10)
    body = {"sku": sku, "price": 1, "units": 6, "limit_per_buyer": 1, "duration_s": 10}
    assert await stage.refused("POST", f"{show}/sales", body) == "out_of_stock"
    assert len((await stage.ok("GET", f"{show}/sales"))["sales"]) == 1
    assert await stage.allotted(sku) == 10
    assert await stage.refused("PATCH", f"{show}/skus/{sku}", {"inventory": 9}) == "out_of_stock"
    await stage.ok("PATCH", f"{show}/skus/{sku}", {"inventory": 16})
    await stage.ok("POST", f"{show}/sales", body)
    assert await stage.allotted(sku) == 16


async def test_sale_when_the_show_has_the_most_sales_then_no_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SALES_PER_SHOW_MAX", 2)
    show = await stage.live_show()
    sku = await stage.sku(show)
    for _ in range(2):
        await stage.sale(show, sku, start="later")
    body = {"sku": sku, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10}
    assert await stage.refused("POST", f"{show}/sales", body) == "conflict"
    assert await stage.allotted(sku) == 20


async def test_sale_when_asked_for_again_then_it_is_the_same_one(stage: Stage) -> None:
    """Also when the first answer was lost on the way, and after the show has ended."""
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=20)
    asked = {"request_id": request_id(), "countdown_s": 5}
    stage.scripts.cut.add("all")
    first = await stage.sale(show, sku, **asked)
    stage.scripts.cut.clear()
    again, *more = await asyncio.gather(*(stage.sale(show, sku, **asked) for _ in range(4)))
    assert all(one == again for one in more)
    pending = {"pending": False, "revision": again.get("revision")}
    assert {**first, **pending} == {**again, **pending}
    assert len((await stage.ok("GET", f"{show}/sales"))["sales"]) == 1
    assert await stage.allotted(sku) == 10
    acts = (await stage.ok("GET", f"{show}/acts"))["acts"]
    assert [act["action"] for act in acts].count("create_sale") == 1
    await stage.ok("POST", f"{show}/end")
    assert (await stage.sale(show, sku, **asked))["sale"] == again["sale"]
    body = {"sku": sku, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10}
    assert await stage.refused("POST", f"{show}/sales", body) == "show_ended"


async def test_sale_when_the_request_id_asked_for_something_else_then_conflict(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    body = {
        "sku": sku, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10,
        "request_id": request_id(),
    }  # fmt: skip
    await stage.ok("POST", f"{show}/sales", body)
    for other in ({"price": 2}, {"units": 2}, {"duration_s": 11}, {"pay_within_s": 1}):
        assert await stage.refused("POST", f"{show}/sales", {**body, **other}) == "conflict"
    said = {"text": "hi", "request_id": body["request_id"]}
    assert await stage.refused("POST", f"{show}/commentary", said) == "conflict"
    assert await stage.allotted(sku) == 1
    another = await stage.live_show()  # its ids are its own
    await stage.ok("POST", f"{another}/sales", {**body, "sku": await stage.sku(another)})


async def test_sale_when_the_sku_is_anothers_then_not_found(stage: Stage) -> None:
    show, other = await stage.live_show(), await stage.live_show()
    foreign = await stage.sku(other)
    body = {"sku": foreign, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10}
    assert await stage.refused("POST", f"{show}/sales", body) == "not_found"
    sale = (await stage.sale(other, foreign))["sale"]
    assert await stage.refused("POST", f"{show}/sales/{sale}/stop") == "unknown_sale"
    assert (await stage.find_sale(other, sale))["status"] == "open"


async def test_sale_when_stopped_then_unsold_units_return_to_the_inventory(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    async with stage.worker(show):
        assert (await stage.claim(show, sale, "li", 2)).code == 0
        assert (await stage.claim(show, sale, "wang")).code == 0
        stopped = await stage.ok("POST", f"{show}/sales/{sale}/stop")
        assert stopped["status"] in ("closing", "closed")
        assert (await stage.claim(show, sale, "zhao")).code == ERRORS["sale_closed"].code
        view = await stage.until_closed(show, sale)
        repeated = await stage.ok("POST", f"{show}/sales/{sale}/stop")
    assert (view["sold"], view["lowered"], view["initial"]) == (3, 7, 10)
    assert repeated["status"] == "closed"
    assert await stage.allotted(sku) == 3
    stock = (await stage.state(show))[f"stock:{sale}"]
    assert (stock["left"], stock["sold"], stock["total"]) == (0, 3, 3)
    stops = [
        a for a in (await stage.ok("GET", f"{show}/acts"))["acts"] if a["action"] == "stop_sale"
    ]
    assert len(stops) == 1


async def test_sale_when_nothing_is_left_then_stopping_closes_it_too(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, units=2))["sale"]
    async with stage.worker(show):
        assert (await stage.claim(show, sale, "li", 2)).code == 0
        await stage.ok("POST", f"{show}/sales/{sale}/stop")
        view = await stage.until_closed(show, sale)
    assert (view["sold"], view["lowered"]) == (2, 0)
    assert await stage.allotted(sku) == 2


async def test_sale_when_a_draft_is_stopped_then_its_units_are_back_at_once(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, start="later"))["sale"]
    view = await stage.ok("POST", f"{show}/sales/{sale}/stop")
    assert (view["status"], view["initial"], view["pending"]) == ("closed", 0, False)
    assert await stage.allotted(sku) == 0
    assert await stage.refused("POST", f"{show}/sales/{sale}/start") == "sale_closed"


async def test_sale_when_its_window_ends_then_it_closes_by_itself(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, duration_s=10))["sale"]
    assert await stage.timetable.close_due() == 0
    stage.clock.now += 10_000
    body = {"units": 1, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/sales/{sale}/restock", body) == "sale_closed"
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", body) == "sale_closed"
    assert await stage.refused("POST", f"{show}/sales/{sale}/price", {"price": 1}) == "sale_closed"
    async with stage.worker(show):
        assert await stage.timetable.close_due() == 1
        assert (await stage.until_closed(show, sale))["lowered"] == 10
    assert await stage.timetable.close_due() == 0
    assert await stage.allotted(sku) == 0


async def test_restock_when_sold_out_then_the_sale_goes_on(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, units=1))["sale"]
    assert (await stage.claim(show, sale, "li")).code == 0
    assert (await stage.claim(show, sale, "wang")).code == ERRORS["sold_out"].code
    body = {"units": 5, "request_id": request_id()}
    done = await stage.ok("POST", f"{show}/sales/{sale}/restock", body)
    assert done == {
        "request_id": body["request_id"], "sale": sale, "kind": "restock", "units": 5,
        "outcome": "done",
    }  # fmt: skip
    assert (await stage.claim(show, sale, "wang")).code == 0
    stock = (await stage.state(show))[f"stock:{sale}"]
    assert (stock["left"], stock["total"]) == (4, 6)
    whats = [e["what"] for e in await stage.events(show) if e["k"] == "sale_phase"]
    assert whats == ["opening", "sold_out", "restocked"]


async def test_restock_when_repeated_then_it_counts_once(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    body = {"units": 5, "request_id": request_id()}
    first = await stage.ok("POST", f"{show}/sales/{sale}/restock", body)
    assert await stage.ok("POST", f"{show}/sales/{sale}/restock", body) == first
    assert await stage.allotted(sku) == 15
    assert (await stage.state(show))[f"stock:{sale}"]["left"] == 15
    changed = {**body, "units": 6}
    assert await stage.refused("POST", f"{show}/sales/{sale}/restock", changed) == "conflict"
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", body) == "conflict"


async def test_restock_when_the_same_id_is_used_for_another_sale_then_both_count(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    one, two = (await stage.sale(show, sku))["sale"], (await stage.sale(show, sku))["sale"]
    body = {"units": 5, "request_id": request_id()}
    await stage.ok("POST", f"{show}/sales/{one}/restock", body)
    await stage.ok("POST", f"{show}/sales/{two}/restock", body)
    assert await stage.allotted(sku) == 30


async def test_restock_when_the_inventory_is_used_up_then_refused(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=12)
    sale = (await stage.sale(show, sku))["sale"]
    body = {"units": 3, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/sales/{sale}/restock", body) == "out_of_stock"
    assert await stage.allotted(sku) == 10
    await stage.ok("PATCH", f"{show}/skus/{sku}", {"inventory": 13})
    await stage.ok("POST", f"{show}/sales/{sale}/restock", body)  # refusals are not remembered


async def test_restock_when_the_sale_would_be_too_large_then_refused(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=2_000_000)
    for start in ("later", "now"):
        sale = (await stage.sale(show, sku, units=600_000, start=start))["sale"]
        body = {"units": 400_001, "request_id": request_id()}
        assert await stage.refused("POST", f"{show}/sales/{sale}/restock", body) == "bad_field"
        assert (await stage.find_sale(show, sale))["initial"] == 600_000
    assert await stage.allotted(sku) == 1_200_000


async def test_lower_when_enough_is_left_then_the_units_return(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    assert (await stage.claim(show, sale, "li", 2)).code == 0
    body = {"units": 3, "request_id": request_id()}
    first = await stage.ok("POST", f"{show}/sales/{sale}/lower", body)
    assert await stage.ok("POST", f"{show}/sales/{sale}/lower", body) == first
    stock = (await stage.state(show))[f"stock:{sale}"]
    assert (stock["left"], stock["total"]) == (5, 7)

    async def booked() -> bool:
        return bool((await stage.find_sale(show, sale))["lowered"] == 3)

    async with stage.worker(show):
        await until(booked)
    assert await stage.allotted(sku) == 7
    outcomes = [a["outcome"] for a in (await stage.ok("GET", f"{show}/acts"))["acts"]]
    assert outcomes[0] == "done"


async def test_lower_when_fewer_are_left_then_nothing_changes_for_good(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, limit_per_buyer=9))["sale"]
    assert (await stage.claim(show, sale, "li", 9)).code == 0
    body = {"units": 2, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", body) == "out_of_stock"
    restock = {"units": 5, "request_id": request_id()}
    await stage.ok("POST", f"{show}/sales/{sale}/restock", restock)
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", body) == "out_of_stock"
    assert (await stage.state(show))[f"stock:{sale}"]["left"] == 6
    assert (await stage.find_sale(show, sale))["lowering"] == 0


async def test_units_when_a_draft_is_changed_then_it_starts_with_them(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, start="later"))["sale"]
    more = {"units": 5, "request_id": request_id()}
    less = {"units": 8, "request_id": request_id()}
    for _ in range(2):
        await stage.ok("POST", f"{show}/sales/{sale}/restock", more)
        await stage.ok("POST", f"{show}/sales/{sale}/lower", less)
    assert await stage.allotted(sku) == 7
    too_many = {"units": 8, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", too_many) == "out_of_stock"
    await stage.ok("POST", f"{show}/sales/{sale}/start")
    assert (await stage.state(show))[f"stock:{sale}"]["left"] == 7


async def test_price_when_changed_then_claims_need_the_new_version(stage: Stage) -> None:
    show = await stage.live_show()
    sale = (await stage.sale(show, await stage.sku(show)))["sale"]
    view = await stage.ok("POST", f"{show}/sales/{sale}/price", {"price": 8800})
    assert (view["price"], view["price_version"]) == (8800, 2)
    refused = await stage.claim(show, sale, "li", price_version=1)
    assert (refused.code, refused.price) == (ERRORS["price_changed"].code, 8800)
    assert (await stage.claim(show, sale, "li", price_version=2)).code == 0
    same = await stage.ok("POST", f"{show}/sales/{sale}/price", {"price": 8800})
    assert same["price_version"] == 2
    prices = await stage.pool.fetch(
        "SELECT price_version, price FROM sale_prices WHERE sale_id = $1 ORDER BY 1", sale
    )
    assert [tuple(row) for row in prices] == [(1, 9900), (2, 8800)]


async def test_terms_when_they_change_then_the_audit_and_viewers_agree(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    at = stage.clock.now + 60_000
    later = (await stage.sale(show, sku, start="at", starts_at=at))["sale"]
    await stage.ok("POST", f"{show}/sales/{sale}/price", {"price": 1})
    await stage.ok("PATCH", f"{show}/skus/{sku}", {"price": 2})
    stage.clock.now = at
    await stage.timetable.open_due()
    report = await audit.audit_show(stage.clients, stage.pool, show_id_of(show))
    assert report.problems == []
    state = await stage.state(show)
    assert [state[f"stock:{s}"]["version"] for s in (sale, later)] == [
        state[f"sale:{s}"]["version"] for s in (sale, later)
    ]


async def test_list_price_when_the_sku_is_repriced_then_the_running_sale_shows_it(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    await stage.ok("PATCH", f"{show}/skus/{sku}", {"price": 15000})
    seen = (await stage.state(show))[f"sale:{sale}"]
    assert (seen["list_price"], seen["price"], seen["price_version"]) == (15000, 9900, 1)


async def test_show_when_paused_during_a_sale_then_claims_wait_and_the_window_stays(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sale = await stage.sale(show, await stage.sku(show))
    await stage.ok("POST", f"{show}/pause")
    refused = await stage.claim(show, sale["sale"], "li")
    assert refused.code == ERRORS["show_paused"].code
    await stage.ok("POST", f"{show}/resume")
    assert (await stage.claim(show, sale["sale"], "li")).code == 0
    assert (await stage.find_sale(show, sale["sale"]))["closes_at"] == sale["closes_at"]


async def test_show_when_ended_during_sales_then_all_of_them_close(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    draft = (await stage.sale(show, sku, start="later"))["sale"]
    at = stage.clock.now_ms() + 60_000
    later = (await stage.sale(show, sku, start="at", starts_at=at))["sale"]
    running = (await stage.sale(show, sku))["sale"]
    async with stage.worker(show):
        assert (await stage.claim(show, running, "li", 2)).code == 0
        await stage.ok("POST", f"{show}/end")
        refused = await stage.claim(show, running, "wang")
        assert refused.code == ERRORS["show_ended"].code
        for sale in (draft, later, running):
            await stage.until_closed(show, sale)
    assert await stage.allotted(sku) == 2
    body = {"sku": sku, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10}
    assert await stage.refused("POST", f"{show}/sales", body) == "show_ended"
    restock = {"units": 1, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/sales/{running}/restock", restock) == "sale_closed"


async def test_stats_when_orders_are_booked_then_units_and_amounts_add_up(stage: Stage) -> None:
    show = await stage.live_show()
    sale = (await stage.sale(show, await stage.sku(show)))["sale"]
    await stage.sale(show, await stage.sku(show), start="later")
    async with stage.worker(show):
        assert (await stage.claim(show, sale, "li", 2)).code == 0
        assert (await stage.claim(show, sale, "wang")).code == 0
        await stage.ok("POST", f"{show}/sales/{sale}/stop")
        await stage.until_closed(show, sale)
    stats = (await stage.ok("GET", f"{show}/stats"))["sales"]
    assert [s["orders"] for s in stats] == [0, 2]
    assert stats[1] == {
        "sale": sale, "status": "closed", "currency": "CNY", "total": 3, "left": 0,
        "reserved": 0, "sold": 3, "dead": 0, "orders": 2, "units": 3, "amount": 3 * 9900,
    }  # fmt: skip
