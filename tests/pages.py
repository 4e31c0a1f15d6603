"""Pages of a test in a real browser, and the steps that tests of the pages have in common.

LIVESALE_TEST_SCREENSHOTS=DIR keeps a picture of every step.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.live import LiveSystem, token_of

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}
SHOTS = os.environ.get("LIVESALE_TEST_SCREENSHOTS", "")

expect.set_options(timeout=15_000)


@dataclass
class Stage:
    """Pages of one test; everything their consoles complained about is in `faults`."""

    url: str
    browser: Browser
    system: LiveSystem
    faults: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)
    shots: int = 0

    async def open(self, path: str, viewport: dict[str, int], *, lang: str = "zh") -> Page:
        """A page in a browser profile of its own."""
        locale = {"zh": "zh-CN", "en": "en-GB"}[lang]
        context = await self.browser.new_context(
            viewport={"width": viewport["width"], "height": viewport["height"]}, locale=locale
        )
        self.contexts.append(context)
        page = await context.new_page()
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.faults.append(f"{path}: {error}"))
        await page.goto(f"{self.url}{path}")
        if lang == "en":
            await page.get_by_role("button", name="Switch to English").click()
        return page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    async def shoot(self, name: str, *pages: Page) -> None:
        for number, page in enumerate(pages):
            self.shots += 1
            if SHOTS:
                file = f"{self.shots:02d}-{name}-{number}.png"
                await page.screenshot(path=Path(SHOTS) / file)


# --- Steps -----------------------------------------------------------------------------------


async def create_show(stage: Stage, title: str) -> Page:
    """The console of a new show, on its way to being live."""
    host = await stage.open(f"/host#token={token_of('host-1', '*', 'host')}", DESKTOP)
    assert "token" not in host.url
    await host.get_by_label("标题").fill(title)
    await host.get_by_role("button", name="创建直播").click()
    await host.wait_for_url(re.compile(r"/host/[a-z0-9]+$"))
    await host.get_by_role("button", name="开播").click()
    await expect(host.locator(".top .phase")).to_have_text("直播中")
    return host


async def add_product(host: Page, title: str, image: str) -> None:
    form = host.locator("details", has=host.get_by_text("添加商品", exact=True).first)
    if await form.get_attribute("open") is None:
        await form.locator("summary").click()
    await form.get_by_label("商品名").fill(title)
    await form.get_by_label("图片地址").fill(image)
    await form.get_by_label("规格", exact=True).fill("600 ml 黑色")
    await form.get_by_label("价格").fill("129")
    await form.get_by_role("button", name="添加商品").click()
    await expect(host.locator(".item h3", has_text=title)).to_be_visible()


async def create_sale(
    host: Page, *, price: str, units: int, limit: int, countdown_s: int, pay_within_s: int = 0
) -> None:
    form = host.locator("form", has=host.get_by_label("秒杀价"))
    await form.get_by_label("秒杀价").fill(price)
    await form.get_by_label("数量").fill(str(units))
    await form.get_by_label("每人限购").fill(str(limit))
    await form.get_by_label("倒计时").fill(str(countdown_s))
    await form.get_by_label("付款时限").fill(str(pay_within_s))
    await form.get_by_role("button", name="创建秒杀").click()
    await expect(host.locator(".host-sale")).to_be_visible()


async def join(viewer: Page, *, button: str, label: str, go: str, name: str) -> None:
    """Sign in by nickname, as demo mode allows."""
    await viewer.get_by_role("button", name=button, exact=True).click()
    await viewer.get_by_role("textbox", name=label).fill(name)
    await viewer.get_by_role("button", name=go, exact=True).click()
    await expect(viewer.locator(".who")).to_have_text(name)


async def say(viewer: Page, text: str) -> None:
    await viewer.locator("input[name=chat]").fill(text)
    await viewer.keyboard.press("Enter")


async def expect_stock(page: Page, **numbers: int) -> None:
    card = page.locator("[data-sale]").first
    for name, value in numbers.items():
        await expect(card.locator(f"[data-stock={name}]")).to_have_text(str(value))


def buy_button(viewer: Page) -> Locator:
    return viewer.locator(".offer [data-buy]")


async def expect_buy(viewer: Page, kind: str) -> None:
    await expect(buy_button(viewer)).to_have_attribute("data-buy", kind)


async def expect_likes(total: int, *pages: Page) -> None:
    for page in pages:
        await expect(page.locator("[data-likes]").first).to_have_attribute("data-likes", str(total))


async def expect_text_fits(page: Page) -> None:
    """No sideways scrolling, no button whose text is cut off."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    clipped = await page.evaluate(
        """[...document.querySelectorAll("button, h2, label, th, .phase, .status, .link")]
            .filter((e) => e.checkVisibility() && !e.classList.contains("composer"))
            .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
            .filter((e) => getComputedStyle(e).display !== "inline")
            .map((e) => e.textContent)"""
    )
    assert clipped == []
