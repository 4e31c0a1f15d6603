"""A network that falls silent without a close, and one that the browser says is gone."""

from dataclasses import dataclass, field

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.pages import PHONE, Stage, open_sale

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(100),
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass
class Line:
    """A page's connections; `silent`: nothing passes any more on those there are, and no end of a
    connection is told."""

    routes: list[tuple[WebSocketRoute, WebSocketRoute]] = field(default_factory=list)

    def take(self, route: WebSocketRoute) -> None:
        self.routes.append((route, route.connect_to_server()))

    def fall_silent(self) -> None:
        for page, server in self.routes:
            page.on_message(lambda _: None)
            server.on_message(lambda _: None)


async def watch(stage: Stage) -> tuple[Page, Line]:
    line = Line()
    show = await open_sale(stage)
    page = await stage.open(f"/watch/{show}", PHONE, socket=line.take)
    await expect(page.locator("[data-link=live]").first).to_be_attached()
    return page, line


async def test_page_when_its_connection_falls_silent_then_says_so_and_makes_a_new_one(
    stage: Stage,
) -> None:
    page, line = await watch(stage)
    line.fall_silent()
    await expect(page.locator("[data-stale]")).to_be_visible()
    await expect(page.locator("[data-link=live]").first).to_be_attached()
    await expect(page.locator("[data-stale]")).to_have_count(0)
    assert len(line.routes) == 2
    assert stage.faults == []


async def test_page_when_the_browser_is_offline_then_says_so_at_once_and_comes_back(
    stage: Stage,
) -> None:
    page, line = await watch(stage)
    line.fall_silent()
    await page.context.set_offline(True)
    await expect(page.locator("[data-link=offline]").first).to_be_attached(timeout=2_000)
    await page.context.set_offline(False)
    await expect(page.locator("[data-link=live]").first).to_be_attached()
    assert len(line.routes) > 1
    assert stage.faults == []
