"""From a claim to its confirmation, over two hubs, real servers and a real worker."""

import asyncio
from pathlib import Path
from typing import Any

import redis

from server import clock
from server.hub.receipts import Receipts
from server.protocol import messages as m
from server.telemetry import metrics
from tests.conftest import ValkeyFactory
from tests.live import SECRET, Client, LiveSystem, call, token_of, until
from tests.web_stage import WebStage, sees_sale, web_stage

RECEIPTS = Receipts(SECRET.encode())


def claim(ref: int, sale: dict[str, Any], claim_id: str, **fields: Any) -> m.Claim:
    values = {"quantity": 1, "price_version": sale["price_version"], **fields}
    return m.Claim(ref=ref, sale=sale["sale"], claim_id=claim_id, **values)


def new_id() -> str:
    return str(clock.new_uuid7())


async def buy(client: Client, sale: dict[str, Any], claim_id: str, **fields: Any) -> m.ClaimState:
    reply = await client.ask(lambda ref: claim(ref, sale, claim_id, **fields))
    assert isinstance(reply, m.Accepted), reply
    assert reply.claim
    return reply.claim


async def refusal(client: Client, sale: dict[str, Any], **fields: Any) -> m.RefusedReply:
    claim_id = fields.pop("claim_id", new_id())
    reply = await client.ask(lambda ref: claim(ref, sale, claim_id, **fields))
    assert isinstance(reply, m.RefusedReply), reply
    return reply


def statuses(client: Client, claim_id: str) -> list[str]:
    return [order.status for order in client.orders if order.claim_id == claim_id]


async def test_claim_when_it_is_accepted_then_held_and_confirmed_on_every_socket_of_the_hub(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    web, _ = hubs
    show = await web.show()
    sale = await web.sale(show)
    asking, other = await web.viewer(show, "u1"), await web.viewer(show, "u1")
    await sees_sale(asking, sale["sale"])
    claim_id = new_id()
    held = await buy(asking, sale, claim_id, quantity=2)
    assert (held.status, held.quantity, held.price, held.seq) == ("held", 2, 9900, 1)
    assert RECEIPTS.verify(show, "u1", held)
    system.start_worker()
    await until(lambda: "confirmed" in statuses(asking, claim_id), "confirmed")
    await until(lambda: statuses(other, claim_id) == ["held", "confirmed"], "both on the other")
    assert statuses(asking, claim_id) == ["confirmed"]
    confirmed = asking.orders[-1]
    assert confirmed.order_id > 0
    stock = f"stock:{sale['sale']}"
    await until(lambda: other.state[stock]["sold"] == 2, "sold on the page")
    assert (other.state[stock]["left"], other.state[stock]["held"]) == (8, 0)
    status, mine = await call("GET", f"{web.url}/api/shows/{show}/my-orders", token_of("u1", show))
    assert status == 200
    assert [order["order_id"] for order in mine["orders"]] == [confirmed.order_id]
    assert mine == await web.host.ask("GET", f"/api/shows/{show}/orders")
    for client in (asking, other):
        await client.close()


async def test_claim_when_it_is_sent_to_both_hubs_then_one_take_and_the_same_answer(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    first, second = hubs
    show = await first.show()
    sale = await first.sale(show, limit_per_buyer=1)
    here, there = await first.viewer(show, "u1"), await second.viewer(show, "u1")
    for client in (here, there):
        await sees_sale(client, sale["sale"])
    claim_id = new_id()
    answers = await asyncio.gather(buy(here, sale, claim_id), buy(there, sale, claim_id))
    assert answers[0] == answers[1]
    limit = await refusal(there, sale)
    assert limit.name == "limit_reached"
    system.start_worker()
    for client in (here, there):  # the hub that was not named in the entry looks it up
        await until(lambda c=client: "confirmed" in statuses(c, claim_id), "confirmed on both")
    again = await buy(there, sale, claim_id, attempt=1)
    assert again.status == "confirmed"
    assert again.order_id == here.orders[-1].order_id
    other_fields = await refusal(there, sale, claim_id=claim_id, quantity=2, attempt=2)
    assert other_fields.name == "claim_conflict"
    for client in (here, there):
        await client.close()


async def test_order_status_when_asked_then_what_is_remembered_and_nobody_elses(
    hubs: tuple[WebStage, WebStage],
) -> None:
    first, second = hubs
    show = await first.show()
    sale = await first.sale(show)
    here, there = await first.viewer(show, "u1"), await second.viewer(show, "u1")
    stranger = await second.viewer(show, "u2")
    await sees_sale(here, sale["sale"])
    claim_id = new_id()
    held = await buy(here, sale, claim_id)

    async def status_for(client: Client, asked: str) -> m.ClaimState:
        reply = await client.ask(lambda ref: m.OrderStatus(ref=ref, claim_id=asked))
        assert isinstance(reply, m.Accepted)
        assert reply.order
        return reply.order

    assert await status_for(there, claim_id) == held
    assert (await status_for(stranger, claim_id)).status == "not_seen"
    assert (await status_for(here, new_id())).status == "not_seen"
    for client in (here, there, stranger):
        await client.close()


async def test_claims_when_the_stock_is_gone_then_sold_out_until_the_restock(
    hubs: tuple[WebStage, WebStage],
) -> None:
    web, other = hubs
    show = await web.show()
    sale = await web.sale(show, units=2)
    clients = [
        await web.viewer(show, "u1"),
        await web.viewer(show, "u2"),
        await other.viewer(show, "u3"),
    ]
    for client in clients:
        await sees_sale(client, sale["sale"])
    await buy(clients[0], sale, new_id(), quantity=2)
    for client in clients[1:]:
        assert (await refusal(client, sale)).name == "sold_out"
    stock = f"stock:{sale['sale']}"
    for client in clients:
        await until(lambda c=client: c.state[stock]["left"] == 0, "left 0 everywhere")
    body = {"units": 3, "request_id": new_id()}
    await web.host.ask("POST", f"/api/shows/{show}/sales/{sale['sale']}/restock", body)
    for client in clients:
        await until(lambda c=client: c.state[stock]["left"] == 3, "restocked everywhere")
    await buy(clients[1], sale, new_id())
    await buy(clients[2], sale, new_id())
    for client in clients:
        await client.close()


async def test_claims_when_gate_price_or_window_say_no_then_the_name_tells_which(
    hubs: tuple[WebStage, WebStage],
) -> None:
    web, _ = hubs
    show = await web.show()
    sale = await web.sale(show)
    later = await web.sale(show, countdown_s=120)
    client = await web.viewer(show, "u1")
    await sees_sale(client, later["sale"])
    assert (await refusal(client, later)).name == "sale_not_open"
    changed = await web.host.ask(
        "POST", f"/api/shows/{show}/sales/{sale['sale']}/price", {"price": 8800}
    )
    old_price = await refusal(client, sale)
    assert (old_price.name, old_price.price) == ("price_changed", 8800)
    assert old_price.price_version == changed["price_version"]
    await web.host.ask("POST", f"/api/shows/{show}/pause")
    assert (await refusal(client, changed)).name == "show_paused"
    await web.host.ask("POST", f"/api/shows/{show}/resume")
    assert (await buy(client, changed, new_id())).price == 8800
    await web.host.ask("POST", f"/api/shows/{show}/end")
    assert (await refusal(client, changed)).name == "show_ended"
    await client.close()


async def test_claim_when_redis_dies_with_it_then_outcome_unknown_and_the_same_id_is_safe(
    valkey_factory: ValkeyFactory, database_url: str, tmp_path: Path
) -> None:
    valkey = await valkey_factory(tmp_path / "v", appendonly="yes", appendfsync="always")
    async with web_stage(valkey.url, database_url) as web:
        show = await web.show()
        sale = await web.sale(show, limit_per_buyer=1)
        client = await web.viewer(show, "u1")
        await sees_sale(client, sale["sale"])
        claim_id = new_id()
        held = await buy(client, sale, claim_id)
        valkey.kill()
        unknown = await refusal(client, sale, claim_id=claim_id, attempt=1)
        assert (unknown.name, unknown.retryable) == ("outcome_unknown", True)
        status = await client.ask(lambda ref: m.OrderStatus(ref=ref, claim_id=claim_id))
        assert isinstance(status, m.RefusedReply)
        assert status.name == "unavailable"
        assert (await call("GET", f"{web.url}/readyz"))[0] == 503
        assert (await call("GET", f"{web.url}/livez"))[0] == 200
        again = await valkey_factory(tmp_path / "v", appendonly="yes", appendfsync="always")
        assert again.url == valkey.url

        async def answered() -> bool:
            reply = await client.ask(lambda ref: claim(ref, sale, claim_id, attempt=2))
            if isinstance(reply, m.RefusedReply):
                assert reply.name == "outcome_unknown", reply
                return False
            assert reply.claim == held
            return True

        end = clock.monotonic_ms() + 20_000
        while not await answered():
            assert clock.monotonic_ms() < end
            await asyncio.sleep(0.2)
        await client.close()


async def test_stop_when_claims_are_under_way_then_they_are_answered_first(
    redis_url: str, database_url: str
) -> None:
    claims = 50
    async with web_stage(redis_url, database_url, drain_seconds=2, claims_per_second=claims) as web:
        show = await web.show()
        sale = await web.sale(show, units=claims, limit_per_buyer=claims)
        client = await web.viewer(show, "u1")
        await sees_sale(client, sale["sale"])
        before = metrics.commands.count("claim")
        with redis.Redis.from_url(redis_url) as admin:
            admin.client_pause(400, all=True)
        for _ in range(claims):
            await client.post(lambda ref: claim(ref, sale, new_id()))[1]
        refs = range(client.next_ref - claims + 1, client.next_ref + 1)
        await until(lambda: metrics.commands.count("claim") > before, "claims at the hub")
        web.loop.call_soon_threadsafe(web.server.ask_to_stop)
        await until(lambda: client.closed is not None, "closed")
        assert client.closed
        assert client.closed[0] == 1012
        answers = [client.replies.get(ref) for ref in refs]
        assert all(isinstance(answer, m.Accepted) for answer in answers), answers
