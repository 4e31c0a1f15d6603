"""What a first visit costs on the wire: from the address to the first sale card."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.pages import PHONE, Stage, open_sale

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(100),
    pytest.mark.asyncio(loop_scope="module"),
]

FIRST_PAINT_BYTES_MAX = 120 * 1024
NOT_YET = re.compile(r"hls|uplot|host")  # video, charts, the console


class Wire:
    """Bytes on the wire by path, response heads included, as Chromium counts them."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        self.bytes: dict[str, int] = {}

    def asked(self, event: dict[str, Any]) -> None:
        self.paths[event["requestId"]] = event["request"]["url"].split("/", 3)[-1]

    def finished(self, event: dict[str, Any]) -> None:
        path = self.paths.get(event["requestId"])
        if path is None:
            return  # asked for before this began, by the page that was left
        self.bytes[path] = self.bytes.get(path, 0) + int(event["encodedDataLength"])


async def test_viewer_page_when_visited_first_then_costs_at_most_120_kib(
    stage: Stage, record_property: Callable[[str, object], None]
) -> None:
    show = await open_sale(stage)
    page = await stage.open("/host", PHONE)
    wire = Wire()
    session = await page.context.new_cdp_session(page)
    session.on("Network.requestWillBeSent", wire.asked)
    session.on("Network.loadingFinished", wire.finished)
    await session.send("Network.enable")
    await session.send("Network.setCacheDisabled", {"cacheDisabled": True})
    await page.goto(f"{stage.url}/watch/{show}", wait_until="networkidle")
    await page.locator("[data-sale]").wait_for()
    assert f"watch/{show}" in wire.bytes
    assert "demo/cup.svg" in wire.bytes
    record_property("bytes", sum(wire.bytes.values()))
    assert sum(wire.bytes.values()) <= FIRST_PAINT_BYTES_MAX, wire.bytes
    assert not [path for path in wire.bytes if NOT_YET.search(path)]
    assert stage.faults == []
