"""The real pages in a real browser, against real web and worker processes."""

import asyncio
import re
from typing import Any

import msgspec
import pytest
from playwright.async_api import Page, WebSocketRoute, expect

from server import config
from server.acts import demo
from tests.live import SECRET, token_of, until_answer
from tests.live import call as http
from tests.pages import (
    DESKTOP,
    PHONE,
    Stage,
    act_on_sale,
    add_product,
    buy_button,
    create_sale,
    create_show,
    expect_buy,
    expect_stock,
    expect_text_fits,
    join,
    say,
    send_now,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]


async def test_host_when_steering_a_sale_then_viewers_follow(stage: Stage) -> None:
    host = await create_show(stage, "补货与改价")
    await add_product(host, "云南小粒咖啡豆", "/demo/beans.svg")
    viewer = await stage.open(host.url.removeprefix(stage.url).replace("host", "watch", 1), PHONE)
    await join(viewer, button="登录", label="昵称", go="进入", name="小林")
    await create_sale(host, price="59.5", units=5, limit=1, countdown_s=0)
    await expect_buy(viewer, "open")
    await host.locator(".host-sale summary").click()

    await act_on_sale(host, "补货", "件数", "2")
    await expect_stock(viewer, left=7)
    await act_on_sale(host, "减货", "件数", "1")
    await expect_stock(viewer, left=6)
    await act_on_sale(host, "减货", "件数", "100", large=True, fails=True)
    await stage.shoot("refused", host)
    await act_on_sale(host, "改价", "新价格", "49", large=True)
    await expect(viewer.locator(".price b")).to_have_text("¥49.00")
    await host.get_by_role("button", name="暂停").click()
    await expect_buy(viewer, "show_paused")
    await host.get_by_role("button", name="继续").click()
    await expect_buy(viewer, "open")

    await host.get_by_role("button", name="停止秒杀").click()
    await host.get_by_role("button", name="撤销").click()
    await expect(host.locator("[data-undo]")).to_have_count(0)
    await expect_buy(viewer, "open")
    await host.get_by_role("button", name="停止秒杀").click()
    await send_now(host)
    await expect_buy(viewer, "closed")
    await expect(host.locator("[data-sale-status]")).to_have_attribute("data-sale-status", "closed")
    await stage.shoot("stopped", host, viewer)
    assert [fault for fault in stage.faults if "409" not in fault] == []


async def test_chat_when_moderated_then_the_writer_is_told_why(stage: Stage) -> None:
    host = await create_show(stage, "弹幕管理")
    viewer = await stage.open(host.url.removeprefix(stage.url).replace("host", "watch", 1), PHONE)
    await join(viewer, button="登录", label="昵称", go="进入", name="小红")
    await say(viewer, "第一句")
    await host.get_by_text("聊天规则").click()
    await host.get_by_label("屏蔽词").fill("代购\n外挂")
    await host.locator("form", has=host.get_by_label("屏蔽词")).get_by_role("button").click()
    await expect(host.locator(".saved")).to_be_visible()
    await expect_refused(viewer, "找我代 购", "包含不允许的词")
    line = host.locator(".room-line", has_text="第一句")
    await line.get_by_role("button", name="禁言").click()
    await expect_refused(viewer, "还能说话吗", "你已被禁言")
    await stage.shoot("muted", host, viewer)
    await line.get_by_role("button", name="封禁").click()
    await send_now(host)
    await expect(viewer.locator(".over-note")).to_have_text("你已被移出直播间")
    await stage.shoot("banned", viewer)
    assert stage.faults == []


async def expect_refused(viewer: Page, text: str, why: str) -> None:
    """`text` is refused for `why`; rules reach every hub within 2 s, so it may take some tries."""

    async def refused() -> bool:
        await say(viewer, text)
        note = viewer.locator(".line-own", has_text=text).last
        await expect(note).not_to_have_attribute("data-own", "sending")
        return why in (await note.text_content() or "")

    await until_answer(refused, why)


class LosesReply:
    """A connection that breaks when the first answer to a claim comes back."""

    def __init__(self) -> None:
        self.claims: list[dict[str, Any]] = []
        self.lost = 0
        self.closing: list[asyncio.Future[None]] = []

    def take(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        route.on_message(lambda data: self._to_server(server, data))
        server.on_message(lambda data: self._to_page(route, server, data))

    def _to_server(self, server: WebSocketRoute, data: str | bytes) -> None:
        command = msgspec.msgpack.decode(data)
        if command["t"] == "claim":
            self.claims.append(command)
        server.send(data)

    def _to_page(self, route: WebSocketRoute, server: WebSocketRoute, data: str | bytes) -> None:
        message = msgspec.msgpack.decode(data)
        if self.lost or not (message["t"] == "accepted" and "claim" in message):
            route.send(data)
            return
        self.lost += 1
        for end in (route.close(code=1011), server.close()):
            self.closing.append(asyncio.ensure_future(end))


async def test_purchase_when_its_reply_is_lost_then_the_same_claim_finds_the_answer(
    stage: Stage,
) -> None:
    host = await create_show(stage, "断线也不重复下单")
    await add_product(host, "手工陶瓷杯", "/demo/cup.svg")
    viewer = await stage.open("/host", PHONE)
    lossy = LosesReply()
    await viewer.route_web_socket(re.compile("/ws/"), lossy.take)
    show = host.url.rsplit("/", 1)[1]
    await viewer.goto(f"{stage.url}/watch/{show}#token={token_of('小何', show)}")
    await create_sale(host, price="66", units=5, limit=3, countdown_s=0)
    await buy_button(viewer).click()
    await expect(viewer.locator(".outcome")).to_contain_text("已抢到 1 件")
    assert lossy.lost == 1
    first, second = lossy.claims
    assert (first["claim_id"], first["attempt"]) == (second["claim_id"], 0)
    assert second["attempt"] == 1
    await expect_stock(host, left=4, held=0, sold=1)
    await viewer.reload()
    await expect(viewer.locator(".outcome")).to_contain_text("已抢到 1 件")
    await expect(host.locator("tr[data-order]")).to_have_count(1)
    assert len(lossy.claims) == 2


async def test_pages_when_narrow_or_wide_then_no_text_is_cut(stage: Stage) -> None:
    system = stage.system
    await demo.seed(
        config.load(redis_url=system.redis_url, database_url=system.database_url, secret=SECRET)
    )
    token = token_of("demo-host", "*", "host")
    for viewport in (PHONE, DESKTOP):
        viewer = await stage.open("/watch/demo", viewport)
        shows = await stage.open(f"/host#token={token}", viewport)
        host = await stage.open(f"/host/demo#token={token}", viewport)
        await expect(viewer.locator("[data-link=live]")).to_be_visible()
        await expect(shows.locator(".show-list li")).to_have_count(1)
        await expect(host.locator(".item")).to_have_count(3)
        for folded in await host.locator("details").all():
            await folded.evaluate("(e) => { e.open = true; }")
        for lang in ("zh", "en"):
            for page in (viewer, shows, host):
                await expect(page.locator("html")).to_have_attribute("lang", re.compile(lang))
                await expect_text_fits(page)
            await viewer.locator(".tool").first.click()
            await expect(viewer.locator(".product")).to_have_count(3)
            await expect_text_fits(viewer)
            await stage.shoot(f"{lang}-{viewport['width']}", viewer, shows, host)
            await viewer.keyboard.press("Escape")
            await expect(viewer.locator(".sheet")).to_have_count(0)
            for page in (viewer, shows, host):
                await page.locator(".lang").click()
    assert stage.faults == []


async def test_viewer_when_the_server_restarts_then_goes_on_by_itself(stage: Stage) -> None:
    token = token_of("host-1", "*", "host")
    _, show = await http("POST", f"{stage.url}/api/shows", token, {"title": "重启不掉线"})
    await http("POST", f"{stage.url}/api/shows/{show['show']}/start", token)
    viewer_token = token_of("小周", show["show"])
    viewer = await stage.open(f"/watch/{show['show']}#token={viewer_token}", PHONE)
    await expect(viewer.locator(".who")).to_have_text("小周")
    await say(viewer, "重启前")
    await expect(viewer.locator(".line-own").last).to_have_attribute("data-own", "shown")
    await stage.stop_web()
    await expect(viewer.locator("[data-link]").first).not_to_have_attribute("data-link", "live")
    await expect(viewer.locator("[data-stale]")).to_be_visible()
    await stage.shoot("offline", viewer)
    stage.start_web()
    await expect(viewer.locator("[data-link=live]").first).to_be_attached(timeout=30_000)
    await expect(viewer.locator("[data-stale]")).to_have_count(0)
    await expect(viewer.locator(".who")).to_have_text("小周")
    await say(viewer, "重启后")
    await expect(viewer.locator(".line-own").last).to_have_attribute("data-own", "shown")
