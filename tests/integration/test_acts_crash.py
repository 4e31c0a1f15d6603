"""Host acts when Redis is away or a reply is lost: told clearly, and finished by the sweep."""

from collections.abc import AsyncIterator

import pytest

from server.errors import ERRORS, StoreUnavailable
from server.store.gate import close_for_rebuilding
from tests.host_stage import Stage, open_stage, request_id, show_id_of


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def test_show_when_redis_is_away_then_it_is_pending_until_the_sweep(stage: Stage) -> None:
    stage.scripts.lost = {"all"}
    made = await stage.ok("POST", "/api/shows", {"title": "周五"})
    show = f"/api/shows/{made['show']}"
    assert made["pending"] is True
    assert (await stage.ok("POST", f"{show}/start"))["pending"] is True
    sku = await stage.sku(show)
    sale = await stage.sale(show, sku)
    assert (sale["status"], sale["pending"]) == ("open", True)
    restock = {"units": 5, "request_id": request_id()}
    await stage.ok("POST", f"{show}/sales/{sale['sale']}/restock", restock)
    with pytest.raises(StoreUnavailable):
        await stage.acts.projector.sweep()
    stage.scripts.lost = set()
    assert await stage.acts.projector.sweep() == 3  # show, sale, give
    assert await stage.acts.projector.sweep() == 0
    assert (await stage.ok("GET", show))["pending"] is False
    assert (await stage.find_sale(show, sale["sale"]))["pending"] is False
    assert (await stage.state(show))[f"stock:{sale['sale']}"]["left"] == 15
    assert (await stage.claim(show, sale["sale"], "li")).code == 0


@pytest.mark.parametrize("script", ["apply_show", "apply_sale", "give_batch", "take"])
async def test_acts_when_the_reply_of_a_script_is_lost_then_its_effect_counts_once(
    stage: Stage, script: str
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    stage.scripts.cut = {script}
    sale = (await stage.sale(show, sku))["sale"]
    await stage.ok("POST", f"{show}/sales/{sale}/price", {"price": 1})
    restock = {"units": 5, "request_id": request_id()}
    await stage.ok("POST", f"{show}/sales/{sale}/restock", restock)
    lower = {"units": 2, "request_id": request_id()}
    answer = await stage.call("POST", f"{show}/sales/{sale}/lower", lower)
    assert answer.is_success == (script not in ("take", "apply_sale"))
    stage.scripts.cut = set()
    for _ in range(2):
        await stage.sweep()
    await stage.ok("POST", f"{show}/sales/{sale}/lower", lower)
    stock = (await stage.state(show))[f"stock:{sale}"]
    assert (stock["left"], stock["total"]) == (13, 13)
    seen = (await stage.state(show))[f"sale:{sale}"]
    assert (seen["price"], seen["price_version"]) == (1, 2)
    async with stage.worker(show):
        await stage.ok("POST", f"{show}/sales/{sale}/stop")
        await stage.until_closed(show, sale)
    assert await stage.allotted(sku) == 0


async def test_lower_when_redis_is_away_then_unknown_and_decided_by_the_sweep(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    stage.scripts.lost = {"take"}
    body = {"units": 4, "request_id": request_id()}
    response = await stage.call("POST", f"{show}/sales/{sale}/lower", body)
    assert response.status_code == 503
    assert response.json()["error"]["name"] == "outcome_unknown"
    assert "recorded" in response.json()["error"]["detail"]
    assert int(response.headers["retry-after"]) >= 1
    assert (await stage.find_sale(show, sale))["lowering"] == 4
    assert (await stage.ok("GET", f"{show}/acts"))["acts"][0]["outcome"] == "pending"
    stage.scripts.lost = set()
    assert await stage.acts.projector.sweep() == 0  # its request may still be asking
    assert await stage.sweep() == 1
    assert (await stage.state(show))[f"stock:{sale}"]["left"] == 6
    assert (await stage.find_sale(show, sale))["lowering"] == 0
    assert (await stage.ok("POST", f"{show}/sales/{sale}/lower", body))["outcome"] == "done"
    assert (await stage.state(show))[f"stock:{sale}"]["left"] == 6


async def test_lower_when_buyers_were_quicker_then_the_sweep_refuses_it_for_good(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sale = (await stage.sale(show, await stage.sku(show), limit_per_buyer=9))["sale"]
    stage.scripts.lost = {"take"}
    body = {"units": 4, "request_id": request_id()}
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", body) == "outcome_unknown"
    stage.scripts.lost = set()
    assert (await stage.claim(show, sale, "li", 8)).code == 0
    await stage.sweep()
    assert await stage.refused("POST", f"{show}/sales/{sale}/lower", body) == "out_of_stock"
    assert (await stage.ok("GET", f"{show}/acts"))["acts"][0]["outcome"] == "refused"
    assert (await stage.state(show))[f"stock:{sale}"]["left"] == 2


async def test_stop_when_redis_is_away_then_the_sale_closes_with_the_sweep(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    stage.scripts.lost = {"all"}
    restock = {"units": 5, "request_id": request_id()}
    await stage.ok("POST", f"{show}/sales/{sale}/restock", restock)
    stopped = await stage.ok("POST", f"{show}/sales/{sale}/stop")
    assert (stopped["status"], stopped["pending"]) == ("closing", True)
    stage.scripts.lost = set()
    await stage.sweep()
    assert (await stage.claim(show, sale, "li")).code == ERRORS["sale_closed"].code
    async with stage.worker(show):
        view = await stage.until_closed(show, sale)
    assert (view["lowered"], view["restocked"]) == (15, 5)
    assert await stage.allotted(sku) == 0


async def test_stop_when_the_sale_never_reached_redis_then_an_old_start_cannot_open_it(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    stage.scripts.lost = {"apply_sale"}
    sale = (await stage.sale(show, sku))["sale"]
    await stage.ok("POST", f"{show}/sales/{sale}/stop")
    stage.scripts.lost = set()
    await stage.sweep()
    assert await stage.scripts.deliver() == [b"stale", b"applied"]  # start, stop
    assert (await stage.claim(show, sale, "li")).code == ERRORS["sale_closed"].code
    async with stage.worker(show):
        await stage.until_closed(show, sale)
    assert await stage.allotted(sku) == 0


async def test_commentary_when_redis_is_away_then_the_same_request_says_it_once(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    body = {"text": "马上开抢", "request_id": request_id()}
    stage.scripts.lost = {"publish_event"}
    assert await stage.refused("POST", f"{show}/commentary", body) == "outcome_unknown"
    stage.scripts.lost, stage.scripts.cut = set(), {"publish_event"}
    assert await stage.refused("POST", f"{show}/commentary", body) == "outcome_unknown"
    stage.scripts.cut = set()
    await stage.ok("POST", f"{show}/commentary", body)
    said = [e["text"] for e in await stage.events(show) if e["k"] == "commentary"]
    assert said == ["马上开抢"]


async def test_ban_when_redis_is_away_then_the_sweep_brings_the_policy(stage: Stage) -> None:
    show = await stage.live_show()
    show_id = show.rsplit("/", 1)[-1]
    stage.scripts.lost = {"write_policy"}
    policy = await stage.ok("POST", f"{show}/ban", {"user": "troll"})
    assert (policy["banned"], policy["pending"]) == (["troll"], True)
    stage.scripts.lost = set()
    assert await stage.sweep() == 1
    assert (await stage.room_store.read_policy(show_id)).banned == {"troll"}
    assert (await stage.ok("GET", f"{show}/chat-policy"))["pending"] is False


async def test_sweep_when_redis_lost_a_show_then_it_is_never_made_from_nothing(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    await stage.clients.commands.flushall()
    await stage.ok("PATCH", show, {"title": "x"})
    await stage.ok("POST", f"{show}/sales/{sale}/price", {"price": 1})
    await stage.sweep()
    assert (await stage.ok("GET", show))["pending"] is True
    assert (await stage.find_sale(show, sale))["pending"] is True
    refused = await stage.claim(show, sale, "li")
    assert refused.code == ERRORS["stock_rebuilding"].code


async def test_sweep_when_one_show_is_broken_then_the_others_are_finished(stage: Stage) -> None:
    broken, fine = await stage.live_show(), await stage.live_show()
    stage.scripts.lost = {"all"}
    for show in (broken, fine):
        await stage.ok("PATCH", show, {"title": "neu"})
    stage.scripts.lost = set()
    show_id = broken.rsplit("/", 1)[-1]
    key = f"ls:{{{show_id}}}:meta"
    await stage.clients.commands.delete(key)
    await stage.clients.commands.set(key, "wrong type")
    assert await stage.acts.projector.sweep() == 1  # and it is no outage
    assert (await stage.ok("GET", fine))["pending"] is False
    assert (await stage.ok("GET", broken))["pending"] is True


async def test_gives_when_one_show_is_halted_then_the_others_get_theirs(stage: Stage) -> None:
    halted, fine = await stage.live_show(), await stage.live_show()
    sales = []
    for show in (halted, fine):
        sales.append((show, (await stage.sale(show, await stage.sku(show)))["sale"]))
    stage.scripts.lost = {"give_batch"}
    for show, sale in sales:  # the halted show's give is the older one
        body = {"units": 5, "request_id": request_id()}
        await stage.ok("POST", f"{show}/sales/{sale}/restock", body)
    stage.scripts.lost = set()
    await close_for_rebuilding(stage.scripts, show_id_of(halted))
    assert await stage.sweep() == 1
    left = [(await stage.state(show))[f"stock:{sale}"]["left"] for show, sale in sales]
    assert left == [10, 15]
