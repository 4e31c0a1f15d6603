"""The rehearsal card of the console: from the button to the report, in a real browser.

The people are played by a stand-in that tells what a run has found; the load tester itself is
tested elsewhere.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from playwright.async_api import Browser, expect

from server.web import host_rehearsals
from server.web.rehearsing import rehearse
from tests.pages import DESKTOP, Stage, open_book
from tests.web_stage import web_stage

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(100),
    pytest.mark.asyncio(loop_scope="module"),
]

GOLDEN = Path(__file__).parents[1] / "loadtest" / "golden" / "rehearsal.json"
STAND_IN = """
import base64, gzip, json, sys, time
sys.stdin.read()
progress = {"phase": "measure", "share": 0.5, "held": 7, "confirmed": 5, "left": 3}
print(json.dumps({"event": "progress", "progress": progress}), flush=True)
time.sleep(3)
page = gzip.compress("<!doctype html><title>report</title>".encode())
summary = json.load(open(sys.argv[1]))
print(json.dumps({"event": "done", "summary": summary,
                  "report_gz_b64": base64.b64encode(page).decode()}), flush=True)
"""


async def test_console_when_a_sale_is_rehearsed_then_its_report_can_be_saved(
    redis_url: str, database_url: str, browser: Browser, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN)
    command = (sys.executable, "-I", "-S", str(script), str(GOLDEN))
    monkeypatch.setattr(host_rehearsals, "rehearse", partial(rehearse, command=command))
    async with web_stage(redis_url, database_url) as web:
        show = await web.show()
        await web.sale(show)
        stage = Stage(web.url, browser, cast(Any, None))
        page = await stage.open(f"/host/{show}#token={web.host.token}", DESKTOP)
        card = await open_book(page, "彩排")
        assert await card.locator("select[name=buyers] option").count() == 2  # the show is on
        await card.get_by_role("button", name="彩排这场秒杀").click()
        await expect(card.locator("[data-rehearsal=running]")).to_contain_text("已抢到 7")
        await stage.shoot("running", page)
        await expect(card.locator("[data-rehearsal=done]")).to_be_visible()
        await expect(card.locator("table")).to_contain_text("抢到用时")
        await card.scroll_into_view_if_needed()
        await stage.shoot("done", page)
        async with page.expect_download() as saving:
            await card.get_by_role("button", name="下载报告").click()
        saved = await (await saving.value).path()
        assert "<title>report</title>" in saved.read_text()
        assert not stage.faults
        await stage.contexts[0].close()
