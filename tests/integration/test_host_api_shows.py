"""The host API: shows, products, run-list, commentary, the audit log."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.limits import SKUS_PER_PRODUCT_MAX, SKUS_PER_SHOW_MAX
from tests.host_stage import Stage, open_stage, request_id, show_id_of, token


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def test_show_when_created_then_viewers_see_it_scheduled(stage: Stage) -> None:
    made = await stage.ok("POST", "/api/shows", {"title": "周五好物", "starts_at": 1790000000000})
    assert made["status"] == "scheduled"
    assert made["host"] == "ming"
    assert made["pending"] is False
    state = await stage.state(made["show"])
    assert state["show"]["title"] == "周五好物"
    assert state["show"]["phase"] == "scheduled"
    assert state["show"]["starts_at"] == 1790000000000


async def test_show_when_asked_for_again_then_it_is_the_same_one_of_this_host(
    stage: Stage,
) -> None:
    body = {"title": "周五好物", "request_id": request_id()}
    made = await asyncio.gather(*(stage.ok("POST", "/api/shows", body) for _ in range(4)))
    (show,) = {one["show"] for one in made}
    await stage.ok("PATCH", f"/api/shows/{show}", {"title": "x"}, token=made[-1]["host_token"])
    assert (await stage.ok("POST", "/api/shows", body))["title"] == "x"  # as it is by now
    assert len((await stage.ok("GET", "/api/shows"))["shows"]) == 1
    other = {**body, "starts_at": 1790000000000}
    assert await stage.refused("POST", "/api/shows", other) == "conflict"
    assert (await stage.ok("POST", "/api/shows", body, token=token("eve")))["show"] != show
    acts = (await stage.ok("GET", f"/api/shows/{show}/acts"))["acts"]
    assert [act["action"] for act in acts] == ["edit_show", "create_show"]


async def test_product_when_asked_for_again_then_it_is_the_same_one(stage: Stage) -> None:
    show = await stage.live_show()
    skus = [{"title": name, "price": 1, "inventory": 1} for name in ("a", "b")]
    body = {"title": "壶", "skus": skus, "cues": ["好"], "request_id": request_id()}
    first, *more = await asyncio.gather(
        *(stage.ok("POST", f"{show}/products", body) for _ in range(4))
    )
    assert all(one == first for one in more)
    assert (await stage.ok("GET", f"{show}/products"))["products"] == [first]
    for other in ({"skus": skus[:1]}, {"cues": []}, {"title": "x"}):
        assert await stage.refused("POST", f"{show}/products", {**body, **other}) == "conflict"
    await stage.ok("POST", f"{show}/end")
    assert await stage.ok("POST", f"{show}/products", body) == first
    anew = {**body, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/products", anew) == "show_ended"


async def test_show_when_created_then_its_token_is_for_it_alone(stage: Stage) -> None:
    one = await stage.ok("POST", "/api/shows", {"title": "one"})
    two = await stage.ok("POST", "/api/shows", {"title": "two"})
    own = one["host_token"]
    await stage.ok("PATCH", f"/api/shows/{one['show']}", {"title": "1"}, token=own)
    name = await stage.refused("PATCH", f"/api/shows/{two['show']}", {"title": "2"}, token=own)
    assert name == "forbidden"
    assert await stage.refused("POST", "/api/shows", {"title": "3"}, token=own) == "forbidden"
    assert [s["title"] for s in (await stage.ok("GET", "/api/shows", token=own))["shows"]] == ["1"]
    listed = (await stage.ok("GET", "/api/shows"))["shows"]
    assert [s["title"] for s in listed] == ["two", "1"]
    assert "host_token" not in listed[0]


async def test_show_when_it_is_edited_then_only_the_fields_sent_change(stage: Stage) -> None:
    show = await stage.live_show(cover_url="/demo/cover.svg")
    view = await stage.ok("PATCH", show, {"playback_url": "https://cdn.example/live.m3u8"})
    assert view["cover_url"] == "/demo/cover.svg"
    assert view["playback_url"] == "https://cdn.example/live.m3u8"
    assert (await stage.state(show))["show"]["playback_url"] == "https://cdn.example/live.m3u8"
    acts = (await stage.ok("GET", f"{show}/acts"))["acts"]
    assert acts[0]["detail"] == {"playback_url": "https://cdn.example/live.m3u8"}


async def test_product_when_it_has_cues_then_its_crew_sees_them_and_no_viewer(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = {"title": "600 ml", "price": 1, "inventory": 1}
    body = {"title": "壶", "skus": [sku], "cues": ["先讲温度", "<b>再讲手柄</b>"]}
    made = await stage.ok("POST", f"{show}/products", body)
    assert made["cues"] == ["先讲温度", "<b>再讲手柄</b>"]
    path = f"{show}/products/{made['product']}"
    assert (await stage.ok("PATCH", path, {"title": "陶壶"}))["cues"] == made["cues"]
    edited = await stage.ok("PATCH", path, {"cues": ["x" * 500] * 20})
    assert (edited["title"], len(edited["cues"])) == ("陶壶", 20)
    assert (await stage.ok("PATCH", path, {"cues": []}))["cues"] == []
    await stage.ok("PATCH", path, {"cues": ["秘密"]})
    moderator = token("mod", "moderator", show_id_of(show))
    (listed,) = (await stage.ok("GET", f"{show}/products", token=moderator))["products"]
    assert listed["cues"] == ["秘密"]
    (shown,) = (await stage.state(show))["runlist"]["products"]
    assert "cues" not in shown
    assert "秘密" not in repr(await stage.state(show)) + repr(await stage.events(show))


async def test_show_when_it_goes_through_its_life_then_viewers_hear_every_step(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    for verb, status in (("pause", "paused"), ("resume", "live"), ("end", "ended")):
        assert (await stage.ok("POST", f"{show}/{verb}"))["status"] == status
    phases = [e["phase"] for e in await stage.events(show) if e["k"] == "show_phase"]
    assert phases == ["live", "paused", "live", "ended"]
    assert (await stage.ok("POST", f"{show}/end"))["status"] == "ended"  # a repeat
    assert await stage.refused("POST", f"{show}/start") == "show_ended"
    assert await stage.refused("PATCH", show, {"title": "late"}) == "show_ended"


async def test_show_when_the_step_does_not_fit_then_it_is_refused(stage: Stage) -> None:
    made = await stage.ok("POST", "/api/shows", {"title": "周五"})
    show = f"/api/shows/{made['show']}"
    assert await stage.refused("POST", f"{show}/pause") == "show_not_live"
    assert await stage.refused("POST", f"{show}/resume") == "show_not_live"
    await stage.ok("POST", f"{show}/start")
    await stage.ok("POST", f"{show}/start")
    assert [a["action"] for a in (await stage.ok("GET", f"{show}/acts"))["acts"]] == [
        "start",
        "create_show",
    ]


async def test_public_show_when_asked_without_token_then_only_the_public_part(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    public = await stage.ok("GET", show, token="")
    assert set(public) == {"show", "title", "cover_url", "playback_url", "starts_at", "status"}
    assert await stage.ok("GET", show, token=token("li", "viewer", show_id_of(show))) == public
    assert (await stage.ok("GET", show))["host"] == "ming"
    assert await stage.refused("GET", show, token="rubbish") == "token_invalid"


async def test_products_when_made_then_they_are_on_the_run_list_in_order(stage: Stage) -> None:
    show = await stage.live_show()
    for title in ("壶", "豆", "杯"):
        sku = {"title": "一", "price": 100, "inventory": 5}
        await stage.ok("POST", f"{show}/products", {"title": title, "skus": [sku]})
    products = (await stage.ok("GET", f"{show}/products"))["products"]
    assert [p["title"] for p in products] == ["壶", "豆", "杯"]
    ids = [p["product"] for p in products]
    await stage.ok("PUT", f"{show}/runlist", {"products": [ids[2], ids[0]]})
    listed = (await stage.state(show))["runlist"]["products"]
    assert [p["title"] for p in listed] == ["杯", "壶"]
    assert listed[0]["skus"][0]["price"] == 100
    after = (await stage.ok("GET", f"{show}/products"))["products"]
    assert [(p["title"], p["listed"]) for p in after] == [("杯", True), ("壶", True), ("豆", False)]


async def test_products_when_the_show_has_the_most_skus_then_no_more(stage: Stage) -> None:
    show = await stage.live_show()
    skus = [{"title": f"{n}", "price": 100, "inventory": 5} for n in range(SKUS_PER_PRODUCT_MAX)]
    for n in range(SKUS_PER_SHOW_MAX // SKUS_PER_PRODUCT_MAX):
        await stage.ok("POST", f"{show}/products", {"title": f"壶{n}", "skus": skus})
    body = {"title": "杯", "skus": skus[:1]}
    assert await stage.refused("POST", f"{show}/products", body) == "conflict"
    products = (await stage.ok("GET", f"{show}/products"))["products"]
    assert sum(len(product["skus"]) for product in products) == SKUS_PER_SHOW_MAX
    path = f"{show}/products/{products[0]['product']}/skus"
    response = await stage.call("POST", path, skus[0])
    assert response.json()["error"]["detail"] == "A product has at most 50 skus"


async def test_run_list_when_it_names_others_products_then_it_is_refused(stage: Stage) -> None:
    show = await stage.live_show()
    other = await stage.live_show()
    await stage.sku(other)
    foreign = (await stage.ok("GET", f"{other}/products"))["products"][0]["product"]
    assert await stage.refused("PUT", f"{show}/runlist", {"products": [foreign]}) == "not_found"
    await stage.sku(show)
    own = (await stage.ok("GET", f"{show}/products"))["products"][0]["product"]
    assert await stage.refused("PUT", f"{show}/runlist", {"products": [own, own]}) == "bad_field"
    assert await stage.refused("PUT", f"{show}/pin", {"product": foreign}) == "not_found"


async def test_product_when_edited_then_viewers_see_the_new_text(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    product = (await stage.ok("GET", f"{show}/products"))["products"][0]["product"]
    await stage.ok("PATCH", f"{show}/products/{product}", {"title": "新壶", "image_url": "/a.svg"})
    await stage.ok("PATCH", f"{show}/skus/{sku}", {"price": 1})
    more = await stage.ok(
        "POST", f"{show}/products/{product}/skus", {"title": "大", "price": 2, "inventory": 0}
    )
    view = (await stage.state(show))["runlist"]["products"][0]
    assert (view["title"], view["image_url"]) == ("新壶", "/a.svg")
    assert [(s["sku"], s["price"]) for s in view["skus"]] == [(sku, 1), (more["sku"], 2)]
    assert await stage.refused("PATCH", f"{show}/products/999", {"title": "x"}) == "not_found"
    assert await stage.refused("PATCH", f"{show}/skus/999", {"title": "x"}) == "not_found"


async def test_pin_when_set_and_cleared_then_viewers_follow(stage: Stage) -> None:
    show = await stage.live_show()
    await stage.sku(show)
    product = (await stage.ok("GET", f"{show}/products"))["products"][0]["product"]
    moderator = token("mod", "moderator", show_id_of(show))
    await stage.ok("PUT", f"{show}/pin", {"product": product}, token=moderator)
    assert (await stage.state(show))["pin"]["product"] == product
    await stage.ok("PUT", f"{show}/pin", {"product": 0})
    assert (await stage.state(show))["pin"]["product"] == 0
    pinned = [e["product"] for e in await stage.events(show) if e["k"] == "pinned"]
    assert pinned == [product, 0]


async def test_commentary_when_the_request_is_repeated_then_it_is_said_once(stage: Stage) -> None:
    show = await stage.live_show()
    body = {"text": "下一件:手冲壶", "request_id": request_id()}
    first = await stage.ok("POST", f"{show}/commentary", body)
    assert await stage.ok("POST", f"{show}/commentary", body) == first
    other = {**body, "text": "别的"}
    assert await stage.refused("POST", f"{show}/commentary", other) == "conflict"
    await stage.ok("POST", f"{show}/commentary", {"text": "下一件:手冲壶"})
    said = [e["text"] for e in await stage.events(show) if e["k"] == "commentary"]
    assert said == ["下一件:手冲壶", "下一件:手冲壶"]


async def test_acts_when_there_are_many_then_pages_reach_all_of_them(stage: Stage) -> None:
    show = await stage.live_show()
    for n in range(5):
        await stage.ok("POST", f"{show}/commentary", {"text": f"line {n}"})
    seen: list[str] = []
    page = (await stage.ok("GET", f"{show}/acts?limit=3"))["acts"]
    while page:
        seen += [act["act"] for act in page]
        last = seen[-1]
        page = (await stage.ok("GET", f"{show}/acts?limit=3&before={last}"))["acts"]
    assert len(seen) == len(set(seen)) == 7
    actors = {(a["actor"], a["role"]) for a in (await stage.ok("GET", f"{show}/acts"))["acts"]}
    assert actors == {("ming", "host")}
