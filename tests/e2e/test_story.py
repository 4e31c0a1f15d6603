"""A whole show, told once: a host, three viewers and a herd, from the first click to the summary.

Ming watches on a phone, Hua on a small one, Lily on a desktop in English. Hua's connection can be
cut, and the server is restarted while she has something to pay.
"""

import asyncio
import csv
import re
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
from playwright.async_api import Locator, Page, WebSocketRoute, expect

from server import clock
from server.protocol import messages as m
from tests.live import Client
from tests.pages import (
    DESKTOP,
    PHONE,
    Stage,
    act_on_sale,
    add_product,
    buy_button,
    create_sale,
    create_show,
    expect_balance,
    expect_buy,
    expect_likes,
    expect_stock,
    expect_text_fits,
    join,
    open_orders,
    pay,
    say,
    send_now,
)

SMALL_PHONE = {"width": 360, "height": 640}
LANDSCAPE = {"width": 844, "height": 390}
WIDE = {"width": 1440, "height": 900}
HERD = 20
UNITS = 6
PAY_WITHIN_S = 20
CUES = ("壶嘴细，水流稳，新手也能冲。", "今晚九十九，只有六把。")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]


@dataclass
class Wire:
    """A page's connection that a test can cut, as a lost network does."""

    routes: list[tuple[WebSocketRoute, WebSocketRoute]] = field(default_factory=list)

    def take(self, route: WebSocketRoute) -> None:
        """Frames pass as they are, both ways."""
        self.routes.append((route, route.connect_to_server()))

    async def cut(self) -> None:
        page, server = self.routes[-1]
        await page.close(code=1011)
        await server.close()


@dataclass
class Cast:
    stage: Stage
    host: Page
    ming: Page
    hua: Page
    lily: Page
    wire: Wire

    @property
    def show(self) -> str:
        return self.host.url.rsplit("/", 1)[1]

    @property
    def viewers(self) -> tuple[Page, Page, Page]:
        return self.ming, self.hua, self.lily

    @property
    def pages(self) -> tuple[Page, ...]:
        return self.host, *self.viewers

    async def expect_stock(self, **numbers: int) -> None:
        await asyncio.gather(*(expect_stock(page, **numbers) for page in self.pages))

    async def expect_live(self) -> None:
        for page in self.pages:
            await expect(page.locator("[data-link=live]").first).to_be_attached(timeout=30_000)


async def test_show_when_told_from_its_beginning_to_its_end(stage: Stage) -> None:
    cast = await gather_people(stage)
    await talk(cast)
    await explain(cast)
    await sell(cast)
    await let_the_herd_in(cast)
    await pay_or_let_go(cast)
    await restock(cast)
    await restart_the_server(cast)
    await end(cast)
    assert [fault for fault in stage.faults if not is_of_the_restart(fault)] == []
    logs = "".join(file.read_text(errors="replace") for file in stage.system.log_dir.glob("*.log"))
    assert "eyJ" not in logs  # how every token begins


def is_of_the_restart(fault: str) -> bool:
    """Chromium notes connections that are refused; nothing a page does is seen there."""
    return "ERR_CONNECTION" in fault or "WebSocket connection" in fault


async def gather_people(stage: Stage) -> Cast:
    host = await create_show(stage, "周五好物秒杀夜")
    await add_product(host, "手冲咖啡壶", "/demo/kettle.svg")
    await write_cues(host)
    path = host.url.removeprefix(stage.url).replace("/host/", "/watch/")
    wire = Wire()
    ming = await stage.open(path, PHONE)
    hua = await stage.open(path, SMALL_PHONE, socket=wire.take)
    lily = await stage.open(path, DESKTOP, lang="en")
    await join(ming, button="登录", label="昵称", go="进入", name="小明")
    await join(hua, button="登录", label="昵称", go="进入", name="小华")
    await join(lily, button="Sign in", label="Nickname", go="Join", name="Lily")
    cast = Cast(stage, host, ming, hua, lily, wire)
    for page in cast.pages:
        await expect(page.locator("[data-online]").first).to_contain_text("4")
    await stage.shoot("gathered", *cast.pages)
    return cast


async def write_cues(host: Page) -> None:
    item = host.locator(".item").first
    await item.get_by_text("编辑商品").click()
    await item.locator("textarea[name=cues]").fill("\n".join(CUES))
    await item.get_by_role("button", name="保存").first.click()
    await expect(host.locator("[data-cue]")).to_have_count(len(CUES))
    await item.get_by_text("编辑商品").click()


async def talk(cast: Cast) -> None:
    """Lines reach everybody; a deleted one is gone for all, also for who comes later."""
    await say(cast.ming, "主播，蓝色的还有吗？")
    await expect(cast.ming.locator(".line-own")).to_have_attribute("data-own", "shown")
    for _ in range(3):
        await cast.lily.get_by_role("button", name="Like").click()
    await expect_likes(3, *cast.pages)
    await say(cast.hua, "加群买更便宜")
    for page in cast.pages:
        await expect(page.get_by_role("log")).to_contain_text("蓝色的还有吗")
        await expect(page.get_by_role("log")).to_contain_text("加群")
    line = cast.host.locator(".room-line", has_text="加群")
    await line.hover()
    await line.get_by_role("button", name="删除").click()
    await cast.host.mouse.move(0, 0)
    for page in cast.pages:
        await expect(page.get_by_role("log")).not_to_contain_text("加群")
    await cast.lily.reload()
    await expect(cast.lily.get_by_role("log")).to_contain_text("蓝色的还有吗")
    await expect(cast.lily.get_by_role("log")).not_to_contain_text("加群")
    await cast.stage.shoot("talked", *cast.pages)


async def explain(cast: Cast) -> None:
    """The pinned product, and what the prompter has about it."""
    await cast.host.get_by_role("button", name="讲解", exact=True).click()
    await cast.host.get_by_role("button", name="说这句").click()
    for viewer in cast.viewers:
        await expect(viewer.locator(".pin")).to_contain_text("手冲咖啡壶")
        await expect(viewer.locator(".host-line")).to_contain_text(CUES[0])
    await cast.stage.shoot("explained", *cast.pages)


async def sell(cast: Cast) -> None:
    """The three buy when it opens."""
    await create_sale(
        cast.host, price="99", units=UNITS, limit=1, countdown_s=3, pay_within_s=PAY_WITHIN_S
    )
    for viewer in cast.viewers:
        await expect_buy(viewer, "not_open")
    await cast.stage.shoot("countdown", *cast.pages)
    await asyncio.gather(*(buy_at_opening(viewer) for viewer in cast.viewers))
    await cast.expect_stock(left=3, held=3, sold=0)
    await cast.stage.shoot("selling", *cast.pages)
    await cast.stage.picture("viewer", cast.ming)
    await cast.stage.picture("desktop", cast.lily)


async def buy_at_opening(viewer: Page) -> None:
    await expect_buy(viewer, "open")
    await buy_button(viewer).click()
    await expect_buy(viewer, "pay")


async def let_the_herd_in(cast: Cast) -> None:
    """Twenty want the three units that are left: three get one, all are told the truth."""
    sale = int(await cast.host.locator(".host-sale").get_attribute("data-sale") or 0)
    names = [f"herd-{number}" for number in range(HERD)]
    herd = await asyncio.gather(*(Client.open(cast.stage.url, cast.show) for _ in names))
    for client, name in zip(herd, names, strict=True):
        await client.sign_in(name, cast.show)
    answers = await asyncio.gather(*(claim_one(client, sale) for client in herd))
    refusals = [answer.name for answer in answers if isinstance(answer, m.RefusedReply)]
    assert refusals == ["sold_out"] * (HERD - 3)
    await cast.expect_stock(left=0, held=UNITS, sold=0)
    for viewer in cast.viewers:
        await expect(viewer.locator(".stamp")).to_have_text(re.compile("已抢光|Sold out"))
    await cast.stage.shoot("sold-out", *cast.pages)
    for client in herd:
        await client.close()


async def claim_one(client: Client, sale: int) -> m.Accepted | m.RefusedReply:
    return await client.ask(
        lambda ref: m.Claim(
            ref=ref, sale=sale, claim_id=str(clock.new_uuid7()), quantity=1, price_version=1
        )
    )


async def pay_or_let_go(cast: Cast) -> None:
    """Ming and Lily pay; Hua's connection is cut, she comes back, and lets her time run out."""
    await pay(cast.ming, "付款")
    await pay(cast.lily, "Pay")
    await cast.stage.shoot("paid", cast.ming, cast.lily)
    await cast.wire.cut()
    await expect(cast.hua.locator("[data-link]").first).not_to_have_attribute("data-link", "live")
    await cast.stage.shoot("cut", cast.hua)
    await cast.host.get_by_label("对观众说").fill("没付款的，库存会放回来")
    await cast.host.get_by_role("button", name="发布").click()
    await expect(cast.hua.locator("[data-link=live]").first).to_be_attached()
    await expect(cast.hua.locator(".host-line")).to_contain_text("库存会放回来")
    await expect_stock(cast.hua, left=UNITS - 2, timeout_s=PAY_WITHIN_S + 20)
    await cast.expect_stock(left=UNITS - 2, held=0, sold=2)
    orders = await open_orders(cast.hua)
    await expect(orders.first).to_have_attribute("data-status", "expired")
    await cast.stage.shoot("expired", *cast.pages)
    await cast.hua.keyboard.press("Escape")


async def restock(cast: Cast) -> None:
    await cast.host.locator(".host-sale summary").click()
    await act_on_sale(cast.host, "补货", "件数", "2")
    await cast.expect_stock(left=UNITS, held=0, sold=2)
    await shoot_all_shapes(cast)


async def shoot_all_shapes(cast: Cast) -> None:
    """The sale on a phone upright and on its side, on a small one and on a wide screen."""
    await expect_buy(cast.hua, "open")
    await cast.ming.set_viewport_size(LANDSCAPE)
    await cast.lily.set_viewport_size(WIDE)
    await cast.host.set_viewport_size(WIDE)
    await cast.stage.shoot("shapes", *cast.pages)
    await cast.stage.picture("host", cast.host)
    for page in cast.pages:
        await expect_text_fits(page)
    await cast.ming.set_viewport_size(PHONE)
    await cast.stage.shoot("shapes", cast.ming)


async def restart_the_server(cast: Cast) -> None:
    """Hua has something to pay when the server goes; all come back by themselves, and she pays."""
    await buy_button(cast.hua).click()
    await expect_buy(cast.hua, "pay")
    await cast.expect_stock(left=UNITS - 1, held=1, sold=2)
    await cast.stage.stop_web()
    await expect(cast.hua.locator("[data-stale]")).to_be_visible()
    await cast.stage.shoot("stopped", *cast.pages)
    cast.stage.start_web()
    await cast.expect_live()
    await pay(cast.hua, "付款")
    await cast.expect_stock(left=UNITS - 1, held=0, sold=3)


async def end(cast: Cast) -> None:
    """The summary, the books and the export tell the same."""
    async with cast.host.expect_download() as download:
        await cast.host.get_by_role("button", name="下载 CSV").click()
    rows = read_csv(await (await download.value).path())
    sold = [row for row in rows if row["status"] == "paid"]
    assert (len(rows), len(sold)) == (7, 3)
    await expect_balance(cast.host, "8 = 5 在售 + 0 待付 + 3 已售")
    await cast.stage.shoot("before-the-end", cast.host)
    await cast.host.get_by_role("button", name="结束直播").click()
    await send_now(cast.host)
    for viewer in cast.viewers:
        await expect(viewer.locator(".phase-ended").first).to_be_attached()
        await expect_buy(viewer, "closed")
        await expect(viewer.locator(".stamp")).to_have_count(0)  # it was closed with units left
    summary = cast.host.locator("[data-summary]")
    amount = summary.locator("[data-headline=amount] dd")
    await expect(amount).to_contain_text(str(sum(Decimal(row["total"]) for row in sold)))
    await expect(headline(summary, "orders")).to_have_text("3")
    await expect(headline(summary, "units")).to_have_text("3")
    await expect(headline(summary, "likes")).to_have_text("3")
    await expect(headline(summary, "expired")).to_have_text("4")
    await cast.stage.shoot("summary", *cast.pages)
    await cast.stage.picture("summary", cast.host)


def headline(summary: Locator, name: str) -> Locator:
    return summary.locator(f"[data-headline={name}] dd")


def read_csv(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text("utf-8-sig").splitlines()))
