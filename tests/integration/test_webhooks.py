"""Webhooks to merchants on real servers: what is sent, how often, to whom, and what is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
from aiohttp import web

from server import limits
from server.embedded.postgres import PostgresServer
from server.orders.sender import PLACES_FIRST, RETRY_S, Sender, open_sender
from server.records import webhooks
from server.records.order_life import move_orders
from server.webhooks.sign import new_secret
from server.webhooks.topics import TOPICS
from tests.bookshop import SHOW, Bookshop, eventually, open_bookshop
from tests.receiver import Receiver, receiving

ORDER_TOPICS = [topic for topic in TOPICS if topic.startswith("order.")]


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


async def register(shop: Bookshop, receiver: Receiver, *topics: str) -> int:
    """The receiver as an endpoint of the show, by default for everything about orders."""
    receiver.secret = new_secret()
    wanted = topics or ORDER_TOPICS
    async with shop.pool.acquire() as conn:
        return await webhooks.insert_endpoint(conn, SHOW, receiver.url, receiver.secret, wanted)


@asynccontextmanager
async def running(shop: Bookshop) -> AsyncIterator[Sender]:
    """A sender that works during the block."""
    stopping = asyncio.Event()
    async with open_sender(shop.pool, allow_private=True) as sender:
        task = asyncio.create_task(sender.run(stopping))
        try:
            yield sender
        finally:
            stopping.set()
            await asyncio.wait_for(task, 10)


@asynccontextmanager
async def dying(shop: Bookshop) -> AsyncIterator[asyncio.Task[None]]:
    """A sender that is killed at the end, wherever it is."""
    async with open_sender(shop.pool, allow_private=True) as sender:
        task = asyncio.create_task(sender.run(asyncio.Event()))
        yield task
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def buy(shop: Bookshop, buyers: int = 3, **sale: Any) -> int:
    """Orders of so many buyers, stored; their sale."""
    made = await shop.add_sale(units=max(10, buyers), **sale)
    await shop.claim_many(made, [f"b{n}" for n in range(buyers)])
    shop.start()
    await shop.settled()
    return made


async def deliveries(shop: Bookshop) -> list[dict[str, Any]]:
    rows = await shop.pool.fetch("SELECT * FROM webhook_deliveries ORDER BY delivery_id")
    return [dict(row) for row in rows]


async def all_are(shop: Bookshop, status: str, count: int) -> None:
    async def there() -> bool:
        try:
            rows = await deliveries(shop)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # it is just coming back
            return False
        return [row["status"] for row in rows] == [status] * count

    await eventually(there)


async def make_due(shop: Bookshop) -> None:
    """Let the time until the next attempts pass."""
    await shop.pool.execute("UPDATE webhook_deliveries SET next_at = now() WHERE NOT in_hand")


async def test_orders_when_confirmed_then_each_is_told_once_with_a_good_signature(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    sale = await buy(shop, buyers=20, price=250)
    async with running(shop):
        await receiver.until(20)
        await all_are(shop, "delivered", 20)
    messages = receiver.messages()
    orders = {row["order_id"]: row for row in await shop.orders()}
    assert len({message["id"] for message in messages}) == 20
    assert {message["data"]["order_id"] for message in messages} == orders.keys()
    for message in messages:
        order = orders[message["data"]["order_id"]]
        assert message["type"] == "order.confirmed"
        assert message["timestamp"] == order["confirmed_at"].isoformat(timespec="milliseconds")
        assert message["data"] == {
            "show": SHOW, "order_id": order["order_id"], "status": "confirmed", "rank": 1,
            "reason": "", "sale": sale, "product": message["data"]["product"],
            "product_title": "杯", "sku": message["data"]["sku"], "sku_title": "红",
            "buyer": order["buyer"], "claim_id": str(order["claim_id"]), "quantity": 1,
            "price": 250, "amount": 250, "currency": "CNY", "pay_by": 0,
            "confirmed_at": int(order["confirmed_at"].timestamp() * 1000),
        }  # fmt: skip


async def test_orders_when_the_show_has_no_endpoint_then_nothing_is_kept(shop: Bookshop) -> None:
    await buy(shop, pay_within_s=60)
    ids = [row["order_id"] for row in await shop.orders()]
    async with shop.pool.acquire() as conn, conn.transaction():
        await move_orders(
            conn, SHOW, ids, status_from="confirmed", status_to="cancelled", reason="host"
        )
    assert await shop.pool.fetchval("SELECT count(*) FROM outbox") == 0


async def test_orders_when_they_move_then_each_step_has_its_message_and_a_higher_rank(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    await buy(shop, buyers=2, pay_within_s=600)
    first, second = [row["order_id"] for row in await shop.orders()]
    steps: list[tuple[int, Any, Any, Any]] = [
        (first, "confirmed", "paid", "payment"),
        (first, "paid", "fulfilled", "host"),
        (second, "confirmed", "cancelled", "buyer"),
    ]
    for order_id, before, after, reason in steps:
        async with shop.pool.acquire() as conn, conn.transaction():
            await move_orders(
                conn, SHOW, [order_id], status_from=before, status_to=after, reason=reason
            )
    async with running(shop):
        await receiver.until(5)
    told = sorted(
        (m["data"]["order_id"], m["data"]["rank"], m["type"], m["data"]["reason"])
        for m in receiver.messages()
    )
    assert told == [
        (first, 1, "order.confirmed", ""),
        (first, 3, "order.paid", "payment"),
        (first, 4, "order.fulfilled", "host"),
        (second, 1, "order.confirmed", ""),
        (second, 2, "order.cancelled", "buyer"),
    ]


async def test_claims_when_the_books_cannot_keep_them_then_order_released_is_told(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver, "order.released")
    sale = await shop.add_sale(units=3)
    await shop.claim_many(sale, ["b1", "b2", "b3"])
    await shop.pool.execute("UPDATE pools SET initial = 2")
    shop.start()
    await shop.settled()
    async with running(shop):
        await receiver.until(1)
        await all_are(shop, "delivered", 1)
    (message,) = receiver.messages()
    assert message["type"] == "order.released"
    data = message["data"]
    assert (data["sale"], data["buyer"], data["reason"]) == (sale, "b3", "no_room")


async def test_endpoints_when_they_ask_for_topics_then_they_get_only_these(
    shop: Bookshop, receiver: Receiver
) -> None:
    async with receiving() as other:
        await register(shop, receiver, "order.paid")
        await register(shop, other, "order.confirmed", "order.paid")
        await buy(shop, buyers=1, pay_within_s=60)
        (order,) = await shop.orders()
        async with shop.pool.acquire() as conn, conn.transaction():
            await move_orders(
                conn, SHOW, [order["order_id"]], status_from="confirmed", status_to="paid",
                reason="payment",
            )  # fmt: skip
        async with running(shop):
            await asyncio.gather(receiver.until(1), other.until(2))
            await all_are(shop, "delivered", 3)
        paid = next(m for m in other.messages() if m["type"] == "order.paid")
        assert [m["id"] for m in receiver.messages()] == [paid["id"]]


async def test_stock_when_it_changes_often_then_a_second_has_one_message_with_the_newest(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver, "stock.changed")
    sale = await shop.add_sale(units=10)
    async with running(shop) as sender:
        await receiver.until(1)
        shop.start()
        for buyer in ("b1", "b2", "b3"):
            await shop.claim(sale, buyer)
            await shop.settled()
            sender._stock_due = 0
            await sender.round()
        assert await shop.pool.fetchval("SELECT count(*) FROM webhook_messages") <= 2
        version = (await shop.counters(sale))["version"]

        async def newest() -> bool:
            await shop.pool.execute("UPDATE stock_notices SET at = at - interval '1 second'")
            sender._stock_due = 0
            return receiver.messages()[-1]["data"]["version"] == version

        await eventually(newest)
    data = receiver.messages()[-1]["data"]
    assert (data["sale"], data["left"], data["sold"], data["total"]) == (sale, 7, 3, 10)
    versions = [message["data"]["version"] for message in receiver.messages()]
    assert len(versions) == len(set(versions))


# --- Again ------------------------------------------------------------------------------------


async def test_delivery_when_the_target_fails_then_it_is_repeated_with_the_same_id_and_body(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    receiver.answer(500, 404, 200)
    await buy(shop, buyers=1)
    async with running(shop):
        for attempt, status in ((1, 500), (2, 404)):
            await receiver.until(attempt)
            await eventually(lambda status=status: seen_status(shop, status))
            await make_due(shop)
        await all_are(shop, "delivered", 1)
    assert len({message["id"] for message in receiver.messages()}) == 1
    assert len({body for _, body in receiver.requests}) == 1
    (row,) = await deliveries(shop)
    assert (row["attempts"], row["http_status"], row["last_error"]) == (3, 200, "")


async def seen_status(shop: Bookshop, status: int) -> bool:
    rows = await deliveries(shop)
    return any(row["http_status"] == status and not row["in_hand"] for row in rows)


async def test_delivery_when_every_attempt_fails_then_it_ends_after_three_days_and_can_be_resent(
    shop: Bookshop, receiver: Receiver
) -> None:
    assert 2.5 < sum(RETRY_S) / 86_400 < 3.5
    endpoint = await register(shop, receiver)
    receiver.answer(500)
    await buy(shop, buyers=1)
    async with running(shop):
        for attempt in range(1, len(RETRY_S) + 2):
            await receiver.until(attempt)
            await eventually(lambda: seen_status(shop, 500))
            await make_due(shop)
        await all_are(shop, "failed", 1)
        (row,) = await deliveries(shop)
        assert (row["attempts"], row["last_error"]) == (len(RETRY_S) + 1, "HTTP 500")
        receiver.answer(200)
        async with shop.pool.acquire() as conn:
            assert await webhooks.resend(conn, endpoint, None) == 1
        await all_are(shop, "delivered", 1)
    assert len({message["id"] for message in receiver.messages()}) == 1


async def test_endpoint_when_it_is_gone_then_it_is_removed_and_told_nothing_more(
    shop: Bookshop, receiver: Receiver
) -> None:
    endpoint = await register(shop, receiver)
    receiver.answer(410)
    sale = await buy(shop, buyers=1)
    async with running(shop):

        async def removed() -> bool:
            query = "SELECT removed_by FROM webhook_endpoints WHERE endpoint_id = $1"
            return bool(await shop.pool.fetchval(query, endpoint) == "gone")

        await eventually(removed)
        await shop.claim(sale, "later")
        await shop.settled()
        await all_are(shop, "failed", 1)
        assert await shop.pool.fetchval("SELECT count(*) FROM outbox") == 0
    assert len(receiver.requests) == 1


async def test_endpoint_when_its_messages_cannot_be_signed_then_others_get_theirs(
    shop: Bookshop, receiver: Receiver
) -> None:
    async with shop.pool.acquire() as conn:
        broken = await webhooks.insert_endpoint(conn, SHOW, receiver.url, "", ORDER_TOPICS)
    sound = await register(shop, receiver)
    await buy(shop, buyers=2 * PLACES_FIRST)
    ended = (
        "SELECT count(*) = $2 FROM webhook_deliveries"
        " WHERE endpoint_id = $1 AND NOT in_hand AND attempts > 0"
    )
    async with running(shop) as sender:
        await eventually(lambda: shop.pool.fetchval(ended, sound, 2 * PLACES_FIRST))
        await eventually(lambda: shop.pool.fetchval(ended, broken, PLACES_FIRST))
    assert sender._endpoints[broken].under_way == 0
    errors = {d["last_error"] for d in await deliveries(shop) if d["endpoint_id"] == broken}
    assert errors == {"EmptyWebhookSecretError", ""}  # some are not tried yet


async def test_redirect_when_answered_then_it_is_not_followed(
    shop: Bookshop, receiver: Receiver
) -> None:
    async with receiving() as inside:
        await register(shop, receiver)

        async def redirect(_: web.Request) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(inside.url)

        receiver.reply = redirect
        await buy(shop, buyers=1)
        async with running(shop):
            await eventually(lambda: seen_status(shop, 307))
        assert inside.requests == []


# --- Several at once --------------------------------------------------------------------------


async def test_senders_when_there_are_several_then_nothing_is_sent_twice(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    await buy(shop, buyers=150)
    async with running(shop), running(shop), running(shop):
        await all_are(shop, "delivered", 150)
    assert len(receiver.requests) == 150
    assert len({message["id"] for message in receiver.messages()}) == 150


async def test_worker_when_killed_in_the_middle_of_an_attempt_then_another_repeats_it(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    silent = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        await silent.wait()
        return web.Response()

    receiver.reply = never
    await buy(shop, buyers=1)
    async with dying(shop):
        await receiver.until(1)
    silent.set()
    receiver.reply = None
    async with running(shop) as sender:
        await sender.round()
        assert len(receiver.requests) == 1  # still in the other one's hands
        await shop.pool.execute("UPDATE webhook_deliveries SET next_at = now()")
        await receiver.until(2)
        await all_are(shop, "delivered", 1)
    assert len({message["id"] for message in receiver.messages()}) == 1


async def test_worker_when_frozen_during_an_attempt_then_its_late_outcome_is_not_written(
    shop: Bookshop, receiver: Receiver
) -> None:
    endpoint = await register(shop, receiver)
    await buy(shop, buyers=1)
    async with shop.pool.acquire() as conn:
        await webhooks.make_messages(conn, 10)
        (frozen,) = await webhooks.take_in_hand(conn, endpoint, 10, 0)
        (other,) = await webhooks.take_in_hand(conn, endpoint, 10, 60)
        done = webhooks.Outcome(other.delivery_id, other.attempts, "delivered", 200, "", 0)
        late = webhooks.Outcome(frozen.delivery_id, frozen.attempts, "failed", 500, "late", 0)
        await webhooks.settle(conn, [done])
        await webhooks.settle(conn, [late])
    assert frozen.body == other.body
    (row,) = await deliveries(shop)
    assert (row["status"], row["http_status"]) == ("delivered", 200)


async def test_endpoints_when_some_are_silent_then_the_others_get_theirs(
    shop: Bookshop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WEBHOOKS_IN_HAND_MAX", 10)
    for_ever = asyncio.Event()

    async def never(_: web.Request) -> web.StreamResponse:
        await for_ever.wait()
        return web.Response()

    async with receiving() as silent:
        silent.reply = never
        for _ in range(3):
            await register(shop, silent)
        await register(shop, receiver)
        await buy(shop, buyers=60)
        async with dying(shop):
            await receiver.until(60)
            assert len(receiver.messages()) == 60
            assert silent.most_under_way == 3 * PLACES_FIRST
        for_ever.set()


async def test_endpoint_when_it_does_not_answer_then_it_is_left_alone_for_longer_and_longer(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    receiver.answer(503)
    await buy(shop, buyers=30)
    async with dying(shop):
        await receiver.until(1)
        (manners,) = await eventually(lambda: resting(shop))
    assert manners == 0
    assert len(receiver.requests) <= PLACES_FIRST


async def resting(shop: Bookshop) -> list[int]:
    """[deliveries in hand] once an attempt has failed."""
    rows = await deliveries(shop)
    in_hand = sum(row["in_hand"] for row in rows)
    return [in_hand] if in_hand == 0 and any(row["http_status"] for row in rows) else []


async def test_messages_when_older_than_the_log_then_they_are_forgotten(
    shop: Bookshop, receiver: Receiver
) -> None:
    await register(shop, receiver)
    await buy(shop, buyers=3)
    async with running(shop) as sender:
        await all_are(shop, "delivered", 3)
        await shop.pool.execute(
            "UPDATE webhook_messages SET at = at - interval '31 days' WHERE message_id IN"
            " (SELECT message_id FROM webhook_messages ORDER BY message_id LIMIT 2)"
        )
        sender._forget_due = 0
        await all_are(shop, "delivered", 1)


async def test_postgres_when_away_during_an_attempt_then_its_outcome_is_written_later(
    redis_url: str, postgres_server: PostgresServer, receiver: Receiver
) -> None:
    answering = asyncio.Event()

    async def late(_: web.Request) -> web.StreamResponse:
        await answering.wait()
        return web.Response()

    receiver.reply = late
    async with open_bookshop(redis_url, postgres_server.url()) as shop:
        await register(shop, receiver)
        await buy(shop, buyers=1)
        await shop.kill()
        async with running(shop):
            await receiver.until(1)
            await postgres_server.stop()
            answering.set()
            await postgres_server.start()
            await all_are(shop, "delivered", 1)
    assert len(receiver.requests) == 1
