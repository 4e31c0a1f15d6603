"""Paying over HTTP: a real web process and a real order worker's parts, with the demo provider."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from server.acts.order_projector import OrderProjector
from server.acts.payments import PaymentActs
from server.config import Settings
from server.embedded.postgres import PostgresServer
from server.embedded.valkey import ValkeyServer
from server.orders.payer import Payer
from server.orders.worker import ShowConsumer, Tools
from server.payments.demo import DemoProvider, SignedWebhook
from server.payments.registry import Providers
from server.records.pool import Pool, open_pool
from server.store.client import RedisClients
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import ClaimRequest
from server.web.app import RECORDS_CONNECTIONS
from tests.bookshop import eventually
from tests.live import SECRET, call, token_of
from tests.web_stage import WebStage, web_stage

BODY_MAX = 64 * 1024


@dataclass
class Counter:
    """A shop's counter: the web process, and the worker's parts for one show."""

    stage: WebStage
    pool: Pool
    stock: Stock
    show: str = ""
    sale: int = 0

    async def order(self, buyer: str = "an") -> int:
        claim = ClaimRequest(buyer, b"%16d" % id(buyer), self.sale, 1, 1)
        await self.stock.claim_batch(self.show, "", 1, [claim])

        async def found() -> Any:
            return await self.pool.fetchval("SELECT order_id FROM orders WHERE buyer = $1", buyer)

        return int(await eventually(found))

    async def status(self, order: int) -> str:
        return str(await self.pool.fetchval("SELECT status FROM orders WHERE order_id = $1", order))

    async def becomes(self, order: int, status: str) -> None:
        async def is_so() -> bool:
            return await self.status(order) == status

        await eventually(is_so)

    async def begin(self, order: int, buyer: str = "an") -> tuple[int, Any]:
        path = f"{self.stage.url}/api/shows/{self.show}/my-orders/{order}/payment"
        return await call("POST", path, token_of(buyer, self.show))

    async def pay(self, pay_url: str, outcome: str = "paid", **more: Any) -> Any:
        body = {"token": pay_url.split("#")[1], "outcome": outcome, **more}
        status, answer = await call("POST", f"{self.stage.url}/demo/pay", None, body)
        assert status == 202, answer
        return answer["webhooks"]

    async def captured(self, order: int) -> SignedWebhook:
        """The news that the order is paid for, to be sent by the test."""
        _, payment = await self.begin(order)
        provider = DemoProvider(SECRET.encode())
        intent = provider.intent_of(payment["pay_url"].split("#")[1])
        return provider.webhook("payment.captured", intent)

    async def events(self) -> list[str]:
        rows = await self.pool.fetch("SELECT outcome FROM payment_events ORDER BY received_at")
        return [row["outcome"] for row in rows]


@asynccontextmanager
async def open_counter(
    redis_url: str, database_url: str, **settings: Any
) -> AsyncIterator[Counter]:
    clients = await RedisClients.open(redis_url)
    scripts, pool = Scripts(clients.commands), await open_pool(database_url, size=4)
    stock = Stock(scripts)
    async with web_stage(redis_url, database_url, **{"demo": True, **settings}) as stage:
        counter = Counter(stage, pool, stock)
        counter.show = await stage.show()
        sale = await stage.sale(counter.show, pay_within_s=600)
        counter.sale = sale["sale"]
        tools = Tools("w1", clients, scripts, stock, pool, 64)
        provider = DemoProvider(SECRET.encode())
        acts = PaymentActs(
            pool, stock, OrderProjector(pool, stock), Providers(provider, {"demo": provider})
        )
        stopping = asyncio.Event()
        parts = [
            asyncio.create_task(ShowConsumer(counter.show, tools).run(stopping)),
            asyncio.create_task(Payer(acts).run(stopping)),
        ]
        try:
            yield counter
        finally:
            stopping.set()
            await asyncio.wait(parts, timeout=10)
    pool.terminate()
    await clients.aclose()


@pytest.fixture
async def counter(redis_url: str, database_url: str) -> AsyncIterator[Counter]:
    async with open_counter(redis_url, database_url) as opened:
        yield opened


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """Raw bytes, as a provider posts them; the HTTP status."""
    request = urllib.request.Request(url, body, headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_demo_when_a_buyer_pays_then_the_order_is_paid_and_the_page_sees_it(
    counter: Counter,
) -> None:
    viewer = await counter.stage.viewer(counter.show, "an")
    order = await counter.order()
    status, payment = await counter.begin(order)
    assert (status, payment["status"], payment["amount"]) == (200, "created", 9_900)
    token = payment["pay_url"].removeprefix("/pay.html#")
    shown = await call("POST", f"{counter.stage.url}/demo/pay/intent", None, {"token": token})
    assert shown[0] == 200
    assert shown[1]["amount"] == 9_900
    assert shown[1]["order_id"] == order
    assert await counter.pay(payment["pay_url"]) == 1
    await counter.becomes(order, "paid")

    async def seen() -> bool:
        return any(one.status == "paid" and one.order_id == order for one in viewer.orders)

    await eventually(seen)
    await viewer.close()


async def test_demo_when_it_misbehaves_in_every_way_then_the_order_is_paid_once(
    counter: Counter,
) -> None:
    order = await counter.order()
    _, payment = await counter.begin(order)
    assert await counter.pay(payment["pay_url"], "silent") == 0
    assert await counter.pay(payment["pay_url"], "failed", repeat=3) == 3
    await eventually(lambda: _has(counter, ["failed"]))
    assert await counter.pay(payment["pay_url"], repeat=20, reorder=True, delay_ms=50) == 40
    await counter.becomes(order, "paid")
    await eventually(lambda: _has(counter, ["failed", "order_paid", "nothing:captured"]))


async def _has(counter: Counter, outcomes: list[str]) -> bool:
    return await counter.events() == outcomes


async def test_begin_when_asked_wrongly_then_refused(counter: Counter) -> None:
    order = await counter.order()
    status, answer = await counter.begin(order, "bo")
    assert (status, answer["error"]["name"]) == (404, "not_found")
    path = f"{counter.stage.url}/api/shows/{counter.show}/my-orders/{order}/payment"
    assert (await call("POST", path))[0] == 401


async def test_webhook_when_it_is_not_right_then_its_status_says_why(counter: Counter) -> None:
    url = f"{counter.stage.url}/webhooks/payments"
    ask = asyncio.to_thread
    assert await ask(post, f"{url}/demo", b"{}", {}) == 400
    assert await ask(post, f"{url}/demo", b"x" * (BODY_MAX + 1), {}) == 413
    assert await ask(post, f"{url}/nobody", b"{}", {}) == 404
    assert await counter.events() == []


async def test_webhook_when_its_type_is_any_then_the_raw_body_counts(counter: Counter) -> None:
    made = await counter.captured(await counter.order())
    odd = {**made.headers, "content-type": "text/plain; charset=utf-16"}
    url = f"{counter.stage.url}/webhooks/payments/demo"
    assert await asyncio.to_thread(post, url, made.body, odd) == 200
    spaced = json.dumps(json.loads(made.body), indent=2).encode()
    assert await asyncio.to_thread(post, url, spaced, odd) == 400


async def test_demo_pay_when_not_in_demo_mode_then_there_is_no_such_thing(
    durable_valkey: ValkeyServer, durable_books: PostgresServer
) -> None:
    production = {"demo": False, "durability": "fast"}
    async with web_stage(durable_valkey.url, durable_books.url(), **production) as stage:
        body = {"token": "x", "outcome": "paid"}
        assert (await call("POST", f"{stage.url}/demo/pay", None, body))[0] in (404, 405)
        url = f"{stage.url}/webhooks/payments/demo"
        assert await asyncio.to_thread(post, url, b"{}", {}) == 404


async def test_webhook_when_postgresql_is_away_then_503_and_taken_later(
    redis_url: str, postgres_server: PostgresServer
) -> None:
    async with open_counter(redis_url, postgres_server.url()) as counter:
        order = await counter.order()
        made = await counter.captured(order)
        url = f"{counter.stage.url}/webhooks/payments/demo"
        postgres_server.kill()
        assert await asyncio.to_thread(post, url, made.body, made.headers) == 503
        await postgres_server.start()

        async def taken() -> bool:
            return await asyncio.to_thread(post, url, made.body, made.headers) == 200

        await eventually(taken, 30)
        await counter.becomes(order, "paid")


async def test_webhook_when_a_thousand_copies_come_at_once_then_one_effect(
    counter: Counter,
) -> None:
    order = await counter.order()
    made = await counter.captured(order)
    url = f"{counter.stage.url}/webhooks/payments/demo"
    gate = asyncio.Semaphore(64)

    async def one() -> int:
        async with gate:
            return await asyncio.to_thread(post, url, made.body, made.headers)

    statuses = await asyncio.gather(*(one() for _ in range(1_000)))
    assert set(statuses) == {200}
    assert await counter.events() == ["order_paid"]
    moves = await counter.pool.fetchval("SELECT count(*) FROM order_moves")
    assert (moves, await counter.status(order)) == (1, "paid")
    assert RECORDS_CONNECTIONS < 64  # the copies did compete


def test_settings_when_the_provider_cannot_be_then_said() -> None:
    from server.errors import Misconfigured
    from server.payments.registry import open_providers

    for wrong in (
        {"payment_provider": "demo"},
        {"payment_provider": "stripe"},
        {"stripe_secret_key": "sk_test_1"},
    ):
        with pytest.raises(Misconfigured):
            open_providers(Settings(secret=SECRET, **wrong))
    assert open_providers(Settings(secret=SECRET)).chosen is None
    found = open_providers(
        Settings(
            secret=SECRET, demo=True, payment_provider="stripe", stripe_secret_key="sk_test_1",
            stripe_webhook_secret="whsec_1", public_url="https://shop.example",
        )
    )  # fmt: skip
    assert found.chosen is found.by_name["stripe"]
    assert found.demo is found.by_name["demo"]
