"""What hosts and buyers do with single orders over HTTP, and what they may not."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from server.records.order_life import move_orders
from server.records.transaction import transaction
from tests.host_stage import Stage, open_stage, show_id_of, token, until


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


@dataclass
class Sold:
    """A show with a sale of 10 units and one order of `li`; `url` and `mine` are the order's."""

    stage: Stage
    show: str
    sale: int
    order: int

    @property
    def url(self) -> str:
        return f"{self.show}/orders/{self.order}"

    @property
    def mine(self) -> str:
        return f"{self.show}/my-orders/{self.order}"

    def buyer(self, user: str = "li") -> str:
        return token(user, role="viewer", show=show_id_of(self.show))

    async def pay(self) -> None:
        """As a payment that was captured."""
        async with transaction(self.stage.pool) as conn:
            moved = await move_orders(
                conn, show_id_of(self.show), [self.order], status_from="confirmed",
                status_to="paid", reason="payment", actor="demo",
            )  # fmt: skip
            assert moved
            await conn.execute(
                "INSERT INTO payments (payment_id, order_id, provider, external_id, amount,"
                " currency, status, show_id, buyer) VALUES (gen_random_uuid(), $1, 'demo', 'x1',"
                " 9900, 'CNY', 'captured', $2, 'li')",
                *(self.order, show_id_of(self.show)),
            )
        await self.stage.acts.projector.orders.tell(show_id_of(self.show))

    async def seen(self) -> tuple[int, int, int]:
        """left, held, sold as viewers see them."""
        stock = (await self.stage.state(self.show))[f"stock:{self.sale}"]
        return stock["left"], stock["held"], stock["sold"]

    async def audit_lines(self) -> list[tuple[str, dict[str, Any]]]:
        acts = (await self.stage.ok("GET", f"{self.show}/acts"))["acts"]
        return [(act["action"], act["detail"]) for act in acts if "order" in act["action"]]


async def sold(stage: Stage, pay_within_s: int = 900) -> Sold:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, pay_within_s=pay_within_s))["sale"]
    assert (await stage.claim(show, sale, "li")).code == 0

    async def booked() -> bool:
        view = await stage.find_sale(show, sale)
        return bool(view["sold"] + view["reserved"] == 1)

    async with stage.worker(show):
        await until(booked)
    (order,) = (await stage.ok("GET", f"{show}/orders"))["orders"]
    return Sold(stage, show, sale, order["order_id"])


async def test_cancel_when_the_host_asks_then_units_come_back_and_it_is_on_record(
    stage: Stage,
) -> None:
    it = await sold(stage)
    for _ in range(2):  # a repeat is answered as done
        view = await stage.ok("POST", f"{it.url}/cancel")
        assert (view["order_id"], view["status"]) == (it.order, "cancelled")
        assert await it.seen() == (10, 0, 0)
    assert await it.audit_lines() == [("cancel_order", {"order": it.order})]
    assert await stage.refused("POST", f"{it.url}/refund") == "conflict"
    assert await stage.refused("POST", f"{it.url}/fulfil") == "conflict"


async def test_refund_when_an_order_is_paid_then_its_payment_is_to_go_back(stage: Stage) -> None:
    it = await sold(stage)
    assert await stage.refused("POST", f"{it.url}/refund") == "conflict"
    await it.pay()
    assert await it.seen() == (9, 0, 1)
    assert await stage.refused("POST", f"{it.url}/cancel") == "conflict"
    assert (await stage.ok("POST", f"{it.url}/refund"))["status"] == "refunded"
    assert await it.seen() == (10, 0, 0)
    history = await stage.ok("GET", it.url)
    assert history["status"] == "refunded"
    assert [(m["status_to"], m["reason"], m["actor"]) for m in history["moves"]] == [
        ("paid", "payment", "demo"), ("refunded", "host", "ming"),
    ]  # fmt: skip
    (payment,) = history["payments"]
    assert (payment["status"], payment["amount"], payment["currency"]) == (
        "refund_requested", 9900, "CNY",
    )  # fmt: skip


async def test_fulfil_when_an_order_is_paid_then_it_cannot_be_refunded(stage: Stage) -> None:
    it = await sold(stage)
    await it.pay()
    assert (await stage.ok("POST", f"{it.url}/fulfil"))["status"] == "fulfilled"
    assert await it.seen() == (9, 0, 1)
    assert await stage.refused("POST", f"{it.url}/refund") == "conflict"
    assert await it.audit_lines() == [("fulfil_order", {"order": it.order})]


async def test_cancel_when_the_sale_has_no_payment_step_then_the_host_may_and_the_buyer_may_not(
    stage: Stage,
) -> None:
    it = await sold(stage, pay_within_s=0)
    assert await it.seen() == (9, 0, 1)
    assert await stage.refused("POST", f"{it.mine}/cancel", token=it.buyer()) == "conflict"
    await stage.ok("POST", f"{it.url}/cancel")
    assert await it.seen() == (10, 0, 0)


async def test_cancel_when_the_buyer_asks_then_only_their_own_unpaid_order(stage: Stage) -> None:
    it = await sold(stage)
    for other in (it.buyer("wang"), token("li", role="viewer", show="another1")):
        assert await stage.refused("POST", f"{it.mine}/cancel", token=other) in (
            "not_found", "forbidden",
        )  # fmt: skip
    assert (await stage.ok("POST", f"{it.mine}/cancel", token=it.buyer()))["status"] == "cancelled"
    assert (await stage.ok("POST", f"{it.mine}/cancel", token=it.buyer()))["status"] == "cancelled"
    assert await it.seen() == (10, 0, 0)
    (mine,) = (await stage.ok("GET", f"{it.show}/my-orders", token=it.buyer()))["orders"]
    assert mine["status"] == "cancelled"
    assert await it.audit_lines() == []  # hosts' acts only


async def test_cancel_when_the_buyer_has_paid_then_refused(stage: Stage) -> None:
    it = await sold(stage)
    await it.pay()
    assert await stage.refused("POST", f"{it.mine}/cancel", token=it.buyer()) == "conflict"


@pytest.mark.parametrize("step", ["cancel", "refund", "fulfil"])
async def test_step_when_somebody_else_asks_then_refused_and_nothing_moves(
    stage: Stage, step: str
) -> None:
    it = await sold(stage)
    moderator = token("mo", role="moderator", show=show_id_of(it.show))
    for other in (it.buyer(), moderator, token("eve")):
        assert await stage.refused("POST", f"{it.url}/{step}", token=other) == "forbidden"
    assert await stage.refused("POST", f"{it.url}/{step}", token="") == "token_required"
    assert await stage.refused("POST", f"{it.show}/orders/999999/{step}") == "not_found"
    assert (await stage.ok("GET", it.url))["moves"] == []


async def test_history_when_the_order_is_of_another_show_then_not_found(stage: Stage) -> None:
    it = await sold(stage)
    other = await stage.live_show()
    assert await stage.refused("GET", f"{other}/orders/{it.order}") == "not_found"
    assert await stage.refused("POST", f"{other}/orders/{it.order}/cancel") == "not_found"


async def test_cancel_when_redis_is_away_then_done_and_told_later(stage: Stage) -> None:
    it = await sold(stage)
    stage.scripts.lost = {"all"}
    assert (await stage.ok("POST", f"{it.url}/cancel"))["status"] == "cancelled"
    stage.scripts.lost = set()
    assert await it.seen() == (9, 1, 0)
    assert await stage.sweep() == 1
    assert await it.seen() == (10, 0, 0)


async def test_cancel_when_the_show_has_ended_then_units_go_to_the_inventory(stage: Stage) -> None:
    it = await sold(stage)
    await stage.ok("POST", f"{it.show}/end")
    sku = (await stage.find_sale(it.show, it.sale))["sku"]
    async with stage.worker(it.show):
        await stage.until_closed(it.show, it.sale)
        assert await stage.allotted(sku) == 1
        await stage.ok("POST", f"{it.url}/cancel")

        async def returned() -> bool:
            return await stage.allotted(sku) == 0

        await until(returned)
    assert await it.seen() == (0, 0, 0)


async def test_steps_when_host_and_buyer_race_then_one_of_them_is_on_record(stage: Stage) -> None:
    it = await sold(stage)
    answers = await asyncio.gather(
        stage.call("POST", f"{it.url}/cancel"),
        *(stage.call("POST", f"{it.mine}/cancel", token=it.buyer()) for _ in range(3)),
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len((await stage.ok("GET", it.url))["moves"]) == 1
    assert await it.seen() == (10, 0, 0)
