"""The show's picture: HLS from another origin, its player loaded only then, and when it breaks."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.live import until_answer
from tests.pages import PHONE, Stage, open_sale
from tests.tiny_video import video_host

PLAYER = re.compile(r"/assets/hls[^/]*\.js$")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(100),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(loop_scope="module")
async def video_url() -> AsyncIterator[str]:
    async with video_host() as url:
        yield url


# As phones that save power do it: no picture moves before somebody touched the page.
REFUSE_AUTOPLAY = """
    const { play } = HTMLMediaElement.prototype;
    HTMLMediaElement.prototype.play = function () {
        if (navigator.userActivation.hasBeenActive) return play.call(this);
        return Promise.reject(new DOMException("", "NotAllowedError"));
    };
"""


async def watch(
    stage: Stage, playback_url: str, *, native: bool = True, autoplay: bool = True
) -> tuple[Page, list[str]]:
    """The viewer page of a show with that picture, and all that it asks for. Not `native`: in a
    browser that knows no HLS itself, as most did until 2025."""
    show = await open_sale(stage, playback_url=playback_url)
    page = await stage.open("/host", PHONE)
    if not native:
        await page.add_init_script("HTMLMediaElement.prototype.canPlayType = () => ''")
    if not autoplay:
        await page.add_init_script(REFUSE_AUTOPLAY)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{stage.url}/watch/{show}")
    await expect(page.locator("[data-link=live]").first).to_be_visible()
    return page, asked


async def expect_moving(page: Page) -> None:
    async def moves() -> bool:
        return bool(await page.evaluate("document.querySelector('video').currentTime > 0.5"))

    await until_answer(moves, "the video plays")


@pytest.mark.parametrize("native", [True, False], ids=["browser", "library"])
async def test_video_when_the_show_has_hls_then_plays(
    stage: Stage, video_url: str, native: bool
) -> None:
    page, asked = await watch(stage, f"{video_url}/live.m3u8", native=native)
    await expect_moving(page)
    assert await page.evaluate("document.querySelector('video').videoWidth") == 64
    plays_itself = await page.evaluate(
        "document.createElement('video').canPlayType('application/vnd.apple.mpegurl') !== ''"
    )
    assert native or not plays_itself
    assert bool([url for url in asked if PLAYER.search(url)]) == (not plays_itself)
    await stage.shoot("playing", page)
    assert stage.faults == []


@pytest.mark.parametrize("native", [True, False], ids=["browser", "library"])
async def test_video_when_the_browser_refuses_autoplay_then_the_sound_button_starts_it(
    stage: Stage, video_url: str, native: bool
) -> None:
    page, _ = await watch(stage, f"{video_url}/live.m3u8", native=native, autoplay=False)
    await page.locator(".sound").click()
    await expect_moving(page)
    assert await page.evaluate("document.querySelector('video').muted") is False
    await expect(page.locator(".sound")).to_have_count(0)
    assert stage.faults == []


async def test_video_when_its_playlist_is_missing_then_cover_and_text_say_so(
    stage: Stage, video_url: str
) -> None:
    page, _ = await watch(stage, f"{video_url}/gone.m3u8", native=False)
    await expect(page.locator(".stage")).to_contain_text("画面中断")
    await expect(page.locator(".stage video")).to_have_attribute("poster", "/demo/cover.svg")
    await stage.shoot("broken", page)
    assert [fault for fault in stage.faults if "404" not in fault] == []


async def test_video_when_the_show_has_none_then_no_player_is_loaded(stage: Stage) -> None:
    page, asked = await watch(stage, "")
    await expect(page.locator(".stage img.stage-cover")).to_be_visible()
    await expect(page.locator("video")).to_have_count(0)
    assert not [url for url in asked if PLAYER.search(url)]
