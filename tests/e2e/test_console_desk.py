"""The console as a moderator has it, signing out, and large acts that give time to decide."""

import re

import pytest
from playwright.async_api import Page, Response, expect

from tests.e2e.test_axe import expect_accessible
from tests.live import Host, token_of
from tests.pages import PHONE, Stage, expect_text_fits, join, open_sale, say

WIDE = {"width": 1440, "height": 900}
SMALL = {"width": 1024, "height": 768}

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]


async def open_desk(
    stage: Stage, show: str, role: str, lang: str = "zh", viewport: dict[str, int] = SMALL
) -> Page:
    """The console of `show` as its host or a moderator, ready."""
    token = token_of("host-1" if role == "host" else "小管", show, role)
    desk = await stage.open(f"/host/{show}#token={token}", viewport, lang=lang)
    await expect(desk.locator("[data-link=live]")).to_be_visible()
    await expect(desk.locator(".host-sale")).to_be_visible()
    return desk


@pytest.mark.parametrize("viewport", [WIDE, SMALL], ids=["wide", "small"])
@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_console_when_a_moderator_has_it_then_nothing_is_offered_or_asked_that_is_refused(
    stage: Stage, lang: str, viewport: dict[str, int]
) -> None:
    show = await open_sale(stage, units=5)
    viewer = await stage.open(f"/watch/{show}", PHONE)
    await join(viewer, button="登录", label="昵称", go="进入", name="小红")
    desk = await stage.open("/host", viewport, lang=lang)
    refused: list[str] = []

    def note(response: Response) -> None:
        if response.status == 403:
            refused.append(response.url)

    desk.on("response", note)
    await desk.goto(f"{stage.url}/host#token={token_of('小管', show, 'moderator')}")
    await desk.reload()
    await desk.wait_for_url(re.compile(f"/host/{show}$"))  # there is no list for moderators
    await expect(desk.locator("[data-link=live]")).to_be_visible()
    await say(viewer, "多少钱")
    await expect(desk.locator(".room-line")).to_contain_text("多少钱")
    await expect(desk.get_by_role("log")).to_have_attribute("aria-live", "off")
    await expect(desk.locator("[data-chat-news]")).to_contain_text("多少钱")
    await expect(desk.locator(".signed-in")).to_contain_text("管理" if lang == "zh" else "Mod")
    hidden = ".stop, .turns button, .back, .handle, .prompter, [data-books], .audit-badge"
    for selector in (*hidden.split(", "), "[data-amount]", ".sales form", ".goods form"):
        await expect(desk.locator(selector)).to_have_count(0)
    await desk.locator(".item .accent").click()
    await expect(desk.locator(".item-pinned")).to_have_count(1)
    await desk.locator(".room-tools button").first.click()
    await expect(desk.locator(".room-line")).to_have_count(0)
    await expect_text_fits(desk)
    await expect_accessible(desk)
    await stage.shoot(f"moderator-{lang}-{viewport['width']}", desk)
    await Host(stage.url, token_of("host-1", "*", "host")).ask("POST", f"/api/shows/{show}/end")
    await expect(desk.locator("[data-summary] .headlines").first).to_be_visible()
    await expect(desk.locator("[data-headline=amount], .again, .verdict")).to_have_count(0)
    await expect_text_fits(desk)
    await stage.shoot(f"moderator-over-{lang}-{viewport['width']}", desk)
    assert (refused, stage.faults) == ([], [])


@pytest.mark.parametrize(("role", "lang"), [("host", "zh"), ("host", "en"), ("moderator", "en")])
async def test_console_when_signed_out_then_the_token_and_the_connection_are_gone(
    stage: Stage, role: str, lang: str
) -> None:
    show = await open_sale(stage)
    desk = await open_desk(stage, show, role, lang)
    await expect_text_fits(desk)
    await stage.shoot(f"signed-in-{role}-{lang}", desk)
    await desk.get_by_role("button", name={"zh": "退出", "en": "Sign out"}[lang]).click()
    await desk.wait_for_url(re.compile("/host$"))
    await expect(desk.locator("input[name=token]")).to_be_visible()
    assert await desk.evaluate("JSON.stringify([sessionStorage, localStorage])") in (
        '[{},{"livesale.lang":"en"}]',
        "[{},{}]",
    )
    await desk.go_back()
    await expect(desk.locator("input[name=token]")).to_be_visible()


@pytest.mark.parametrize(("lang", "viewport"), [("zh", WIDE), ("en", SMALL)])
async def test_large_act_when_attended_then_time_stands_still(
    stage: Stage, lang: str, viewport: dict[str, int]
) -> None:
    show = await open_sale(stage)
    desk = await open_desk(stage, show, "host", lang, viewport)
    stop, bar, act = desk.locator(".stop"), desk.locator(".undos"), desk.locator("[data-undo]")
    stands = re.compile("暂停计时" if lang == "zh" else "time stopped")

    await stop.press("Enter")
    await expect(act.get_by_role("alert")).to_contain_text("F8")
    await desk.keyboard.press("F8")
    await expect(act.locator(".undo-back")).to_be_focused()
    await expect(act.locator(".undo-what")).to_contain_text(stands, use_inner_text=True)
    await expect(bar.get_by_role("status")).not_to_be_empty()
    await expect_text_fits(desk)
    await expect_accessible(desk)
    await stage.shoot(f"undo-{lang}-{viewport['width']}", desk)
    await desk.keyboard.press("Enter")
    await expect(act).to_have_count(0)
    await expect(stop).to_be_focused()  # where the focus was

    await stop.click()
    await act.evaluate("act => Promise.all(act.getAnimations().map(rise => rise.finished))")
    places = [await button.bounding_box() for button in await act.get_by_role("button").all()]
    await act.hover()
    await expect(bar).to_have_class(re.compile("undos-paused"))
    await expect(act.locator(".undo-what")).to_contain_text(stands, use_inner_text=True)
    # A click is for the button that was aimed at, though coming to it has stopped the time.
    assert places == [await one.bounding_box() for one in await act.get_by_role("button").all()]
    await desk.mouse.move(5, 5)
    await expect(bar).not_to_have_class(re.compile("undos-paused"))
    await stage.shoot(f"undo-runs-{lang}-{viewport['width']}", desk)
    await expect(act).to_have_count(0)  # its time is over, it was sent
    await expect(desk.locator("[data-sale-status=closed]")).to_be_visible()
    assert stage.faults == []
