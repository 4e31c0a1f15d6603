"""The report in a real browser, without JavaScript: on a desk and on a phone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from loadtest.report import html, summary

GOLDEN = Path(__file__).with_name("golden")
pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield browser
        await browser.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["pass", "audit", "invalid", "empty"])
async def test_report_when_opened_then_fits_and_switches_language_without_script(
    browser: Browser, tmp_path: Path, width: int, name: str
) -> None:
    run = summary.read((GOLDEN / f"{name}.json").read_bytes())
    file = tmp_path / "report.html"
    file.write_text(html.page(run), "utf-8")
    context = await browser.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=False, offline=True
    )
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(file.as_uri())
    heading = page.locator(".banner b")
    texts = {"zh": heading.locator("[lang=zh]"), "en": heading.locator("[lang=en]")}
    assert [await texts[lang].is_visible() for lang in ("zh", "en")] == [True, False]
    await page.locator("label[for=en]").click()
    assert [await texts[lang].is_visible() for lang in ("zh", "en")] == [False, True]
    for box in [await part.bounding_box() for part in await page.locator("section").all()]:
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    body = await page.locator(".page").bounding_box()
    assert body is not None
    assert body["width"] <= width
    assert asked == [file.as_uri()]
    await context.close()
