"""Pages of a test in a real browser, and the steps that tests of the pages have in common.

LIVESALE_TEST_SCREENSHOTS=DIR keeps a picture of every step.
"""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Locator,
    Page,
    WebSocketRoute,
    expect,
)

from tests.live import Host, LiveSystem, token_of, until_answer

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

    async def open(
        self, path: str, viewport: dict[str, int], *, lang: str = "zh",
        socket: Callable[[WebSocketRoute], None] | None = None,
    ) -> Page:  # fmt: skip
        """A page in a browser profile of its own; `socket` takes its connections to a show."""
        locale = {"zh": "zh-CN", "en": "en-GB"}[lang]
        context = await self.browser.new_context(
            viewport={"width": viewport["width"], "height": viewport["height"]}, locale=locale
        )
        self.contexts.append(context)
        page = await context.new_page()
        if socket:
            await page.route_web_socket(re.compile("/ws/"), socket)
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.faults.append(f"{path}: {error}"))
        await page.goto(f"{self.url}{path}")
        if lang == "en":
            await page.get_by_role("button", name="Switch to English").click()
        return page

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"{message.type}: {message.text}")

    async def stop_web(self) -> None:
        web = self.system.processes[-1]
        web.terminate()
        await asyncio.to_thread(web.wait, 20)

    def start_web(self) -> None:
        """A web process on the port of the one that was stopped."""
        self.system.start("web", PORT=self.url.rsplit(":", 1)[1])

    async def shoot(self, name: str, *pages: Page) -> None:
        for number, page in enumerate(pages):
            self.shots += 1
            if SHOTS:
                file = f"{self.shots:02d}-{name}-{number}.png"
                await page.screenshot(path=Path(SHOTS) / file)

    async def picture(self, name: str, page: Page) -> None:
        """A picture for the documents (client-demo/pictures), when pictures are kept."""
        if SHOTS:
            await page.screenshot(path=Path(SHOTS) / f"{name}.jpg", type="jpeg", quality=82)


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


async def open_sale(stage: Stage, *, playback_url: str = "", **terms: int) -> str:
    """A live show with the demo's pictures and a sale that sells (5 units, limit 1, no payment,
    unless `terms` say otherwise), made without a page."""
    host = Host(stage.url, token_of("host-1", "*", "host"))
    looks = {"cover_url": "/demo/cover.svg", "playback_url": playback_url}
    made = await host.ask("POST", "/api/shows", {"title": "周五好物秒杀夜", **looks})
    path = f"/api/shows/{made['show']}"
    sku = {"title": "300 ml 青釉", "price": 7900, "inventory": 1_000}
    product = {"title": "手工陶瓷杯", "image_url": "/demo/cup.svg", "skus": [sku]}
    cup = await host.ask("POST", f"{path}/products", product)
    await host.ask("POST", f"{path}/start")
    sale = {"sku": cup["skus"][0]["sku"], "price": 4900, "units": 5, "limit_per_buyer": 1, **terms}
    await host.ask("POST", f"{path}/sales", {**sale, "duration_s": 300, "start": "now"})
    return str(made["show"])


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


async def act_on_sale(
    host: Page, button: str, label: str, value: str, *, large: bool = False, fails: bool = False
) -> None:
    form = host.locator(".host-sale form", has=host.get_by_role("button", name=button))
    await form.get_by_label(label).fill(value)
    await form.get_by_role("button", name=button).click()
    if large:
        await send_now(host)
    told = form.get_by_role("alert" if fails else "status")
    await expect(told).to_contain_text("库存不足" if fails else "已保存")


async def send_now(host: Page) -> None:
    """Do not wait for the seconds in which a large act can be undone."""
    await host.locator("[data-undo]").get_by_role("button", name="立即执行").click()


async def open_book(host: Page, name: str) -> Locator:
    """The panel of one of the console's books (订单, 对账, 彩排, 商家通知, 操作记录)."""
    await host.get_by_role("tab", name=name, exact=True).click()
    return host.get_by_role("tabpanel", name=name, exact=True)


async def expect_balance(host: Page, equation: str) -> None:
    """The audit says `equation`. The server keeps an audit for a while: it is asked until it does
    a new one."""
    audit = await open_book(host, "对账")

    async def told() -> bool:
        await audit.get_by_role("button", name="刷新").click()
        return equation in (await host.locator(".audit-badge").text_content() or "")

    await until_answer(told, equation)
    await expect(host.locator(".audit-badge")).to_have_attribute("data-audit", "ok")


async def join(viewer: Page, *, button: str, label: str, go: str, name: str) -> None:
    """Sign in by nickname, as demo mode allows."""
    await viewer.get_by_role("button", name=button, exact=True).click()
    await viewer.get_by_role("textbox", name=label).fill(name)
    await viewer.get_by_role("button", name=go, exact=True).click()
    await expect(viewer.locator(".who")).to_have_text(name)


async def say(viewer: Page, text: str) -> None:
    await viewer.locator("input[name=chat]").fill(text)
    await viewer.keyboard.press("Enter")


async def open_orders(viewer: Page) -> Locator:
    """Rows of the buyer's own orders, newest first."""
    await viewer.get_by_role("button", name=re.compile("^(订单|Orders)")).click()
    return viewer.locator(".order")


async def pay(viewer: Page, button: str) -> None:
    """Pay what the buy button asks for, with the demo provider."""
    await expect_buy(viewer, "pay")
    await buy_button(viewer).click()
    async with viewer.context.expect_page() as opened:
        await viewer.locator("[data-pay]").click()
    provider = await opened.value
    await provider.get_by_role("button", name=button, exact=True).click()
    await expect(provider.locator("[data-told=paid]")).to_be_visible()
    await provider.close()
    await expect(viewer.locator(".order").first).to_have_attribute("data-status", "paid")
    await viewer.keyboard.press("Escape")


async def expect_stock(page: Page, *, timeout_s: float = 15, **numbers: int) -> None:
    card = page.locator("[data-sale]").first
    for name, value in numbers.items():
        shown = card.locator(f"[data-stock={name}]")
        await expect(shown).to_have_text(str(value), timeout=timeout_s * 1000)


def buy_button(viewer: Page) -> Locator:
    return viewer.locator(".offer [data-buy]")


async def expect_buy(viewer: Page, kind: str) -> None:
    await expect(buy_button(viewer)).to_have_attribute("data-buy", kind)


async def expect_likes(total: int, *pages: Page) -> None:
    for page in pages:
        await expect(page.locator("[data-likes]").first).to_have_attribute("data-likes", str(total))


async def expect_text_fits(page: Page) -> None:
    """No sideways scrolling, no button whose text leaves it or is cut off. What hangs over an edge
    on purpose (a badge, a larger area for fingers) is not text of the button's own line."""
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    clipped = await page.evaluate(
        """() => {
            const spills = (e) => {
                const { left, right } = e.getBoundingClientRect();
                const texts = document.createTreeWalker(e, NodeFilter.SHOW_TEXT);
                while (texts.nextNode()) {
                    const text = texts.currentNode;
                    if (getComputedStyle(text.parentElement).position === "absolute") continue;
                    const range = document.createRange();
                    range.selectNodeContents(text);
                    const at = range.getBoundingClientRect();
                    if (at.left < left - 1 || at.right > right + 1) return true;
                }
                return false;
            };
            return [...document.querySelectorAll("button, h2, label, th, .phase, .status, .link")]
                .filter((e) => e.checkVisibility() && !e.classList.contains("composer"))
                .filter((e) => e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
                .filter((e) => getComputedStyle(e).display !== "inline" && spills(e))
                .map((e) => e.textContent);
        }"""
    )
    assert clipped == [], clipped
