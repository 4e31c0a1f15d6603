"""The example of PROTOCOL.md ("A page of your own"), cut out of the document and run as it is."""

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from server import config
from server.acts import demo
from server.protocol import messages as m
from tests.live import SECRET, Client, Host, token_of
from tests.pages import PHONE, Stage

PROTOCOL = (Path(__file__).parents[2] / "PROTOCOL.md").read_text("utf-8")
CODE_LINES_MAX = 20

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(100)]


def block(language: str) -> str:
    """The fenced block of `language` in the section of the example."""
    section = PROTOCOL.partition("\n## A page of your own\n")[2].partition("\n## ")[0]
    (code,) = re.findall(rf"```{language}\n(.*?)```", section, re.S)
    return str(code)


def test_example_when_counted_then_has_20_lines_of_code() -> None:
    lines = [line for line in block("js").splitlines() if line.strip()]
    assert len(lines) <= CODE_LINES_MAX


async def serve(page: Page, name: str, text: str, kind: str) -> None:
    """`text` as a file of the server's origin."""

    async def answer(route: Route) -> None:
        await route.fulfill(body=text, content_type=kind)

    await page.route(f"**/{name}", answer)
    # Chromium takes what a test answers for a page of the internet, and 127.0.0.1 for another net.
    await page.context.grant_permissions(["local-network-access"])


@pytest.mark.asyncio(loop_scope="module")
async def test_example_when_run_as_written_then_shows_the_room_and_buys(stage: Stage) -> None:
    system = stage.system
    settings = config.load(
        redis_url=system.redis_url, database_url=system.database_url, secret=SECRET
    )
    await demo.seed(settings)
    host = Host(stage.url, token_of(demo.DEMO_HOST, "*", "host"))
    page = await stage.open("/host", PHONE)
    await serve(page, "example.html", block("html"), "text/html; charset=utf-8")
    await serve(page, "example.js", block("js"), "text/javascript; charset=utf-8")
    await page.goto(f"{stage.url}/example.html#token={token_of('anna', 'demo')}")
    await expect(page.locator("#link")).to_have_text("live")

    sku = {"title": "300 ml", "price": 7900, "inventory": 9}
    path = "/api/shows/demo"
    cup = await host.ask("POST", f"{path}/products", {"title": "杯子", "skus": [sku]})
    terms = {"sku": cup["skus"][0]["sku"], "price": 4900, "units": 5, "limit_per_buyer": 1}
    await host.ask("POST", f"{path}/sales", {**terms, "duration_s": 60, "start": "now"})
    await expect(page.locator("#left")).to_have_text("5")
    await page.locator("#buy").click()
    await expect(page.locator("#mine")).to_have_text("confirmed")
    await expect(page.locator("#left")).to_have_text("4")

    other = await Client.open(stage.url, "demo")
    await other.sign_in("ben", "demo")
    await other.ask(lambda ref: m.Chat(ref=ref, text="<b>hello</b>"))
    await expect(page.locator("#chat li")).to_have_text("ben: <b>hello</b>")
    await other.close()
    assert stage.faults == []
