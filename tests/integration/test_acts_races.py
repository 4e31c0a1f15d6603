"""Host acts at the same time: units are shared by nobody, repeats count once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.records import products
from tests.host_stage import Stage, open_stage, request_id


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def test_sales_when_two_are_made_of_the_last_units_then_one_gets_them(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    for _ in range(5):
        sku = await stage.sku(show, inventory=10)
        body = {"sku": sku, "price": 1, "units": 7, "limit_per_buyer": 1, "duration_s": 10}
        calls = [stage.call("POST", f"{show}/sales", body) for _ in range(4)]
        answers = await asyncio.gather(*calls)
        assert sorted(a.status_code for a in answers) == [201, 409, 409, 409]
        assert await stage.allotted(sku) == 7


async def test_units_when_creating_and_restocking_race_then_the_inventory_holds(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=30)
    first = (await stage.sale(show, sku, units=10))["sale"]
    sale = {"sku": sku, "price": 1, "units": 8, "limit_per_buyer": 1, "duration_s": 10}
    calls = [stage.call("POST", f"{show}/sales", sale) for _ in range(3)]
    for _ in range(3):
        body = {"units": 8, "request_id": request_id()}
        calls.append(stage.call("POST", f"{show}/sales/{first}/restock", body))
    done = sum(answer.is_success for answer in await asyncio.gather(*calls))
    assert done == 2
    assert await stage.allotted(sku) == 26
    pooled = await stage.pool.fetchval("SELECT sum(initial + restocked - lowered) FROM pools")
    assert pooled == 26


async def test_restock_when_the_same_request_comes_many_times_at_once_then_once(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    for kind, left in (("restock", 17), ("lower", 10)):
        body = {"units": 7, "request_id": request_id()}
        calls = [stage.call("POST", f"{show}/sales/{sale}/{kind}", body) for _ in range(8)]
        answers = await asyncio.gather(*calls)
        assert {a.status_code for a in answers} == {200}
        assert len({a.text for a in answers}) == 1
        assert (await stage.state(show))[f"stock:{sale}"]["left"] == left
    assert await stage.allotted(sku) == 17  # the lowering is not booked yet


async def test_units_when_restocks_lowerings_and_the_stop_race_with_buyers_then_all_add_up(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=1000)
    sale = (await stage.sale(show, sku, units=50, limit_per_buyer=5))["sale"]
    codes: list[int] = []

    async def buy(buyer: str) -> None:
        for _ in range(3):
            codes.append((await stage.claim(show, sale, buyer)).code)

    async def change(kind: str) -> None:
        body = {"units": 3, "request_id": request_id()}
        await stage.call("POST", f"{show}/sales/{sale}/{kind}", body)

    async def stop() -> None:
        await asyncio.sleep(0)
        for _ in range(2):
            await stage.ok("POST", f"{show}/sales/{sale}/stop")

    async with stage.worker(show):
        await asyncio.gather(
            *(buy(f"b{n}") for n in range(20)),
            *(change("restock") for _ in range(6)),
            *(change("lower") for _ in range(6)),
            stop(),
            *(stage.acts.projector.sweep() for _ in range(3)),
        )
        await stage.sweep()
        view = await stage.until_closed(show, sale)
    accepted = codes.count(0)
    assert view["sold"] == accepted == await stage.allotted(sku)
    assert view["initial"] + view["restocked"] - view["lowered"] == accepted
    stock = (await stage.state(show))[f"stock:{sale}"]
    assert (stock["left"], stock["held"], stock["total"]) == (0, 0, accepted)


async def test_show_when_started_and_ended_at_once_then_it_ends_in_one_state(
    stage: Stage,
) -> None:
    for _ in range(3):
        made = await stage.ok("POST", "/api/shows", {"title": "周五"})
        show = f"/api/shows/{made['show']}"
        verbs = ("start", "end", "start", "end")
        await asyncio.gather(*(stage.call("POST", f"{show}/{verb}") for verb in verbs))
        assert (await stage.ok("GET", show))["status"] == "ended"
        assert (await stage.state(show))["show"]["phase"] == "ended"


async def test_policy_when_acts_of_two_moderators_race_then_redis_has_both(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    calls = [stage.ok("POST", f"{show}/ban", {"user": f"u{n}"}) for n in range(6)]
    calls += [stage.ok("POST", f"{show}/mute", {"user": f"m{n}", "seconds": 60}) for n in range(6)]
    await asyncio.gather(*calls)
    policy = await stage.room_store.read_policy(show.rsplit("/", 1)[-1])
    assert policy.banned == {f"u{n}" for n in range(6)}
    assert set(policy.muted) == {f"m{n}" for n in range(6)}


async def test_products_when_one_is_added_while_they_are_listed_then_the_list_is_of_one_instant(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = await stage.live_show()
    await stage.sku(show)
    list_products = products.list_products

    async def slowly(*args: Any) -> list[products.ProductRow]:
        rows = await list_products(*args)
        monkeypatch.undo()
        await stage.sku(show)  # its skus are there when they are read, it is not
        return rows

    monkeypatch.setattr(products, "list_products", slowly)
    answers = [await stage.call("GET", f"{show}/products") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [len(answer.json()["products"]) for answer in answers] == [1, 2]
