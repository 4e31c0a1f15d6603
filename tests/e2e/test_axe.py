"""The pages without eyes and without a mouse: axe's rules, and a purchase by keyboard alone."""

from pathlib import Path

import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from tests.live import Host, token_of
from tests.pages import DESKTOP, PHONE, Stage, expect_buy, join, open_sale, say

AXE = Path(__file__).parents[2] / "client-demo" / "node_modules" / "axe-core" / "axe.min.js"
LANDSCAPE = {"width": 844, "height": 390}
# Text over the show's picture, and signs instead of words (×, −, +) that have names.
UNDECIDABLE = ["color-contrast", "label-content-name-mismatch"]
STOPS_MAX = 40  # Tab presses from one thing to the next

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]


async def expect_accessible(page: Page) -> None:
    """axe finds nothing serious, and nothing that it could not decide: rule, element and why, for
    each that it does find."""
    if not await page.evaluate("'axe' in window"):
        await page.evaluate(AXE.read_text("utf-8"))
    found = await page.evaluate(
        """async (undecidable) => {
            const { violations, incomplete } = await axe.run(document);
            const undecided = incomplete.filter(({ id }) => !undecidable.includes(id));
            return [...violations, ...undecided]
                .filter(({ impact }) => impact === "serious" || impact === "critical")
                .flatMap(({ id, nodes }) =>
                    nodes.map((node) => [id, node.html.slice(0, 160), node.any[0]?.message ?? ""]));
        }""",
        UNDECIDABLE,
    )
    assert found == []


@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_viewer_page_when_checked_then_axe_finds_nothing_serious(
    stage: Stage, viewport: dict[str, int]
) -> None:
    show = await open_sale(stage, units=5, limit_per_buyer=2, pay_within_s=600)
    viewer = await stage.open(f"/watch/{show}", viewport)
    await expect_buy(viewer, "sign_in")
    await expect_accessible(viewer)
    await join(viewer, button="登录", label="昵称", go="进入", name="小明")
    await viewer.locator("[data-open-buy]").first.click()
    await expect(viewer.locator(".buy-sheet")).to_be_visible()
    await expect_accessible(viewer)
    await viewer.locator(".buy-sheet [data-buy]").click()
    await viewer.keyboard.press("Escape")
    await viewer.get_by_role("button", name="订单").click()
    await expect(viewer.locator(".order")).to_have_attribute("data-status", "confirmed")
    await expect_accessible(viewer)
    async with viewer.context.expect_page() as opened:
        await viewer.locator("[data-pay]").click()
    pay = await opened.value
    await expect(pay.locator("[data-amount]")).to_be_visible()
    await expect_accessible(pay)


@pytest.mark.parametrize("viewport", [PHONE, LANDSCAPE], ids=["phone", "landscape"])
async def test_viewer_page_in_english_when_sold_out_and_cut_off_then_axe_finds_nothing_serious(
    stage: Stage, viewport: dict[str, int]
) -> None:
    routes: list[WebSocketRoute] = []

    def take(route: WebSocketRoute) -> None:
        routes.append(route)
        if len(routes) == 1:
            route.connect_to_server()

    show = await open_sale(stage, units=1)
    viewer = await stage.open(f"/watch/{show}", viewport, lang="en", socket=take)
    await join(viewer, button="Sign in", label="Nickname", go="Join", name="Lily")
    await expect_buy(viewer, "open")
    await viewer.locator("[data-open-buy]").first.click()
    await expect_accessible(viewer)
    await viewer.locator(".buy-sheet [data-buy]").click()
    await expect(viewer.locator(".stamp")).to_have_text("Sold out")
    await viewer.keyboard.press("Escape")
    await expect(viewer.locator(".buy-sheet")).to_have_count(0)
    await expect_accessible(viewer)
    await routes[0].close(code=1011)
    await expect(viewer.locator("[data-stale]")).to_be_visible()
    await say(viewer, "Is it dishwasher safe?")
    await expect(viewer.get_by_role("button", name="Send again")).to_be_visible()
    await expect_accessible(viewer)


async def test_console_when_checked_then_axe_finds_nothing_serious(stage: Stage) -> None:
    show = await open_sale(stage, units=5, limit_per_buyer=2)
    host = Host(stage.url, token_of("host-1", "*", "host"))
    listed = await stage.open(f"/host#token={host.token}", DESKTOP)
    await expect(listed.locator(".show-list li").first).to_be_visible()
    await expect_accessible(listed)
    console = await stage.open(f"/host/{show}#token={host.token}", DESKTOP)
    await expect(console.locator(".host-sale")).to_be_visible()
    await expect_accessible(console)
    await host.ask("POST", f"/api/shows/{show}/end")
    await expect(console.locator("[data-summary]")).to_be_visible()
    await expect_accessible(console)


# Whether the element with the focus, or what is drawn around it, looks another way without it.
# Read at once after the blur: nothing is painted between, and transitions do not begin.
SHOWS_FOCUS = """() => {
    const at = document.activeElement;
    if (at === document.body) return true;
    const looks = () => [at, at.parentElement, at.nextElementSibling].filter(Boolean).map((e) => {
        const { outlineStyle, outlineWidth, outlineColor, boxShadow } = getComputedStyle(e);
        return outlineStyle === "none" ? boxShadow : [outlineWidth, outlineColor, boxShadow].join();
    }).join(" / ");
    const focused = looks();
    at.blur();
    const blurred = looks();
    at.focus({ focusVisible: true, preventScroll: true });
    return focused !== blurred;
}"""


async def press_to(page: Page, selector: str) -> None:
    """Tab until `selector` has the focus; it can be seen at every stop."""
    for _ in range(STOPS_MAX):
        await page.keyboard.press("Tab")
        seen = await page.evaluate(SHOWS_FOCUS)
        stop = await page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
        assert seen, f"the focus cannot be seen: {stop}"
        if await page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
    pytest.fail(f"{selector} is not reached by Tab")


async def test_purchase_when_made_by_keyboard_alone_then_succeeds(stage: Stage) -> None:
    show = await open_sale(stage, units=5, limit_per_buyer=2)
    page = await stage.open(f"/watch/{show}", PHONE)
    await expect_buy(page, "sign_in")
    await press_to(page, ".offer [data-buy]")
    await page.keyboard.press("Enter")
    await expect(page.locator("input[name=name]").first).to_be_focused()
    await page.keyboard.type("小键")
    await page.keyboard.press("Enter")
    await expect_buy(page, "open")
    await expect(page.locator(".offer [data-buy]").first).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".outcome").first).to_contain_text("已抢到 1 件")

    await press_to(page, "[data-open-buy]")
    await page.keyboard.press("Enter")
    await expect(page.locator(".buy-sheet")).to_be_visible()
    await press_to(page, ".buy-sheet [data-buy]")
    # It rests for a second after the first purchase: a key pressed twice buys once.
    await expect(page.locator(".buy-sheet [data-buy]")).to_have_attribute("aria-disabled", "false")
    await page.keyboard.press("Enter")
    await expect(page.locator(".buy-sheet")).to_contain_text("已抢到 2 件")
    await page.keyboard.press("Escape")
    await expect(page.locator(".buy-sheet")).to_have_count(0)
    await expect(page.locator("[data-open-buy]").first).to_be_focused()
