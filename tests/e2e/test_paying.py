"""Paying on the real pages: the demo provider, the buyer's orders, what the host does with them."""

import pytest
from playwright.async_api import Page, expect

from tests.pages import (
    PHONE,
    Stage,
    add_product,
    buy_button,
    create_sale,
    create_show,
    expect_balance,
    expect_buy,
    expect_stock,
    expect_text_fits,
    join,
    open_book,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]


async def open_paid_sale(stage: Stage, title: str, pay_within_s: int) -> tuple[Page, Page]:
    """Host and a signed-in viewer; two units are on sale and have to be paid."""
    host = await create_show(stage, title)
    await add_product(host, "手冲咖啡壶", "/demo/kettle.svg")
    viewer = await stage.open(host.url.removeprefix(stage.url).replace("host", "watch", 1), PHONE)
    await join(viewer, button="登录", label="昵称", go="进入", name="小明")
    await create_sale(host, price="99", units=2, limit=2, countdown_s=0, pay_within_s=pay_within_s)
    await expect_buy(viewer, "open")
    return host, viewer


async def test_order_when_paid_on_the_pay_page_then_host_ships_it(stage: Stage) -> None:
    host, viewer = await open_paid_sale(stage, "先付款再发货", 600)
    await buy_button(viewer).click()
    await expect_stock(viewer, left=1, held=1, sold=0)
    await stage.shoot("to-pay", viewer)
    await expect_buy(viewer, "pay")
    await buy_button(viewer).click()
    async with viewer.context.expect_page() as opened:
        await viewer.locator("[data-pay]").click()
    pay = await opened.value
    await expect(pay.locator("[data-amount]")).to_have_attribute("data-amount", "9900")
    await pay.get_by_text("让支付平台出错").click()
    await pay.get_by_label("每条通知的次数").fill("3")
    await expect_text_fits(pay)
    await stage.shoot("pay-page", pay, viewer)
    await pay.get_by_role("button", name="付款", exact=True).click()
    await expect(pay.locator("[data-told=paid]")).to_be_visible()
    await expect(viewer.locator(".order")).to_have_attribute("data-status", "paid")
    await expect_stock(viewer, left=1, held=0, sold=1)

    row = host.locator("tr[data-order]")
    await expect(row.locator(".status")).to_have_text("已付款")
    await row.get_by_role("button", name="发货").click()
    await expect(row.locator(".status")).to_have_text("已发货")
    await row.get_by_role("button", name="经过").click()
    await expect(host.locator("td .acts")).to_contain_text("已收款")
    await expect(viewer.locator(".order")).to_have_attribute("data-status", "fulfilled")
    await expect_balance(host, "2 = 1 在售 + 0 待付 + 1 已售")
    await expect(host.locator("[data-pool]")).to_have_count(1)
    await stage.shoot("shipped", host, viewer)
    assert stage.faults == []


async def test_order_when_cancelled_or_late_then_its_unit_comes_back(stage: Stage) -> None:
    host, viewer = await open_paid_sale(stage, "不付款就归还", 4)
    await buy_button(viewer).click()
    await expect_stock(viewer, left=1, held=1, sold=0)
    await expect_buy(viewer, "pay")
    await buy_button(viewer).click()
    await viewer.get_by_role("button", name="取消订单").click()
    await expect(viewer.locator(".order")).to_have_attribute("data-status", "cancelled")
    await viewer.keyboard.press("Escape")
    await expect_stock(viewer, left=2, held=0, sold=0)
    await buy_button(viewer).click()
    await expect_stock(viewer, left=1, held=1, sold=0)
    await expect_stock(viewer, left=2, held=0, sold=0)
    await viewer.get_by_role("button", name="订单").click()
    await expect(viewer.locator("[data-status=expired]")).to_be_visible()
    await expect(host.locator("tr[data-order]")).to_have_count(2)
    await stage.shoot("came-back", host, viewer)
    assert stage.faults == []


async def test_webhook_when_added_by_the_host_then_its_secret_is_shown_once(stage: Stage) -> None:
    host = await create_show(stage, "通知商家")
    part = await open_book(host, "商家通知")
    await part.get_by_label("地址").fill("http://127.0.0.1:9/hook")
    await part.get_by_role("button", name="添加").click()
    await expect(part.get_by_role("alert")).to_be_visible()
    await part.get_by_label("地址").fill("https://93.184.215.14/hook")
    await part.get_by_role("button", name="添加").click()
    await expect(part.locator("[data-secret]")).to_contain_text("whsec_")
    await expect(part.locator("[data-hook]")).to_have_count(1)
    await stage.shoot("webhook", host)
    await host.reload()
    part = await open_book(host, "商家通知")
    await expect(part.locator("[data-hook]")).to_have_count(1)
    await expect(part.locator("[data-secret]")).to_have_count(0)
    assert [fault for fault in stage.faults if "422" not in fault] == []
