"""The demo show: made once, kept, and followed by another one after its end."""

from collections.abc import AsyncIterator

import pytest

from server import config
from server.acts import demo
from tests.host_stage import Stage, open_stage, token


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def test_demo_when_seeded_twice_then_one_live_show_with_goods(
    stage: Stage, redis_url: str, database_url: str
) -> None:
    settings = config.load(redis_url=redis_url, database_url=database_url)
    first = await demo.seed(settings)
    assert await demo.seed(settings) == first == demo.DemoShow("demo", "demo-host")
    stage.host_token = token("demo-host", show="demo")
    show = await stage.ok("GET", "/api/shows/demo")
    assert (show["status"], show["pending"]) == ("live", False)
    products = (await stage.ok("GET", "/api/shows/demo/products"))["products"]
    assert [len(p["skus"]) for p in products] == [2, 1, 1]
    assert all(p["image_url"].startswith("/demo/") for p in products)
    assert all(p["cues"] for p in products)
    (sale,) = (await stage.ok("GET", "/api/shows/demo/sales"))["sales"]
    assert (sale["status"], sale["initial"]) == ("draft", 50)
    assert (await stage.state("demo"))["pin"]["product"] == products[0]["product"]


async def test_demo_when_the_show_was_ended_then_a_new_one_follows(
    stage: Stage, redis_url: str, database_url: str
) -> None:
    settings = config.load(redis_url=redis_url, database_url=database_url)
    await demo.seed(settings)
    stage.host_token = token("demo-host")
    await stage.ok("POST", "/api/shows/demo/end")
    assert (await demo.seed(settings)).show_id == "demo2"
    assert (await demo.seed(settings)).show_id == "demo2"


async def test_demo_when_the_seed_was_cut_short_then_the_rest_is_made(
    stage: Stage, redis_url: str, database_url: str
) -> None:
    stage.host_token = token("demo-host")
    await stage.pool.execute(
        "INSERT INTO shows (show_id, host_id, title) VALUES ('demo', 'demo-host', 'x')"
    )
    await stage.pool.execute("INSERT INTO stock_epochs (show_id) VALUES ('demo')")
    settings = config.load(redis_url=redis_url, database_url=database_url)
    await demo.seed(settings)
    assert (await stage.ok("GET", "/api/shows/demo"))["status"] == "live"
    assert len((await stage.ok("GET", "/api/shows/demo/products"))["products"]) == 3
