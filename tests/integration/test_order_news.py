"""What viewers and buyers see of an order's life: real web processes and a real worker."""

from typing import Any

from server import clock
from server.protocol import messages as m
from tests.live import Client, LiveSystem, token_of, until
from tests.web_stage import WebStage, sees_sale

SOON_S = 15.0  # a generous bound for what takes about a second


async def claim(client: Client, sale: dict[str, Any], claim_id: str = "") -> m.ClaimState | None:
    """The accepted claim, None when it was refused. Sent as for the first time."""
    claim_id = claim_id or str(clock.new_uuid7())
    reply = await client.ask(
        lambda ref: m.Claim(
            ref=ref,
            sale=sale["sale"],
            claim_id=claim_id,
            quantity=1,
            price_version=sale["price_version"],
        )
    )
    return reply.claim if isinstance(reply, m.Accepted) else None


def seen(client: Client, sale: int) -> tuple[int, int, int]:
    """left, held, sold on the page."""
    stock = client.state[f"stock:{sale}"]
    return stock["left"], stock["held"], stock["sold"]


def assert_exact(client: Client, sale: int) -> None:
    """Versions rose, and what the page showed last adds up."""
    lefts = client.lefts[f"stock:{sale}"]
    assert [version for _, version, _ in lefts] == sorted(version for _, version, _ in lefts)
    stock = client.state[f"stock:{sale}"]
    assert stock["left"] + stock["held"] + stock["sold"] == stock["total"]


async def test_order_when_it_is_not_paid_then_every_page_shows_the_unit_again(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    """The sale was sold out; the unit goes to somebody who is told so by no reload."""
    here, there = hubs
    show = await here.show()
    sale = await here.sale(show, units=1, pay_within_s=2)
    buyer, elsewhere = await here.viewer(show, "u1"), await there.viewer(show, "u1")
    other = await there.viewer(show, "u2")
    for client in (buyer, elsewhere, other):
        await sees_sale(client, sale["sale"])
    assert await claim(buyer, sale)
    assert await claim(other, sale) is None  # sold out
    system.start_worker()
    await until(lambda: len(buyer.orders) > 0, "confirmed")
    confirmed = buyer.orders[0]
    assert confirmed.status == "confirmed"
    assert confirmed.pay_by > 0
    for client in (buyer, elsewhere, other):
        await until(lambda c=client: seen(c, sale["sale"]) == (1, 0, 0), "left again", SOON_S)
    for client in (buyer, elsewhere):  # all hubs are told, wherever the claim was made
        await until(lambda c=client: c.orders[-1].status == "expired", "expired", SOON_S)
        assert client.orders[-1].order_id == confirmed.order_id
    assert await claim(other, sale)
    for client in (buyer, elsewhere, other):
        assert_exact(client, sale["sale"])
        await client.close()


async def test_order_when_the_host_cancels_then_its_buyer_and_all_pages_know(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    here, there = hubs
    show = await here.show()
    sale = await here.sale(show, units=2)
    buyer, other = await here.viewer(show, "u1"), await there.viewer(show, "u2")
    for client in (buyer, other):
        await sees_sale(client, sale["sale"])
    system.start_worker()
    held = await claim(buyer, sale)
    assert held
    await until(lambda: bool(buyer.orders), "confirmed")
    for client in (buyer, other):
        await until(lambda c=client: seen(c, sale["sale"]) == (1, 0, 1), "sold", SOON_S)
    order = buyer.orders[0].order_id
    await there.host.ask("POST", f"/api/shows/{show}/orders/{order}/cancel")
    await until(lambda: buyer.orders[-1].status == "cancelled", "cancelled", SOON_S)
    for client in (buyer, other):
        await until(lambda c=client: seen(c, sale["sale"]) == (2, 0, 0), "left again", SOON_S)
        assert_exact(client, sale["sale"])
    again = await buyer.ask(lambda ref: m.OrderStatus(ref=ref, claim_id=held.claim_id))
    assert isinstance(again, m.Accepted)
    assert again.order
    assert (again.order.status, again.order.order_id) == ("cancelled", order)
    for client in (buyer, other):
        await client.close()


async def test_order_when_its_buyer_cancels_while_the_show_is_paused_then_the_unit_waits(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    """A pause stops claims, not what happens to orders."""
    here, _ = hubs
    show = await here.show()
    sale = await here.sale(show, units=1, pay_within_s=600)
    buyer = await here.viewer(show, "u1")
    await sees_sale(buyer, sale["sale"])
    system.start_worker()
    assert await claim(buyer, sale)
    await until(lambda: bool(buyer.orders), "confirmed")
    await here.host.ask("POST", f"/api/shows/{show}/pause")
    mine = f"/api/shows/{show}/my-orders/{buyer.orders[0].order_id}/cancel"
    me = type(here.host)(here.url, token_of("u1", show))
    assert (await me.ask("POST", mine))["status"] == "cancelled"
    await until(lambda: seen(buyer, sale["sale"]) == (1, 0, 0), "left again", SOON_S)
    assert await claim(buyer, sale) is None
    await here.host.ask("POST", f"/api/shows/{show}/resume")
    assert await claim(buyer, sale)
    await buyer.close()
