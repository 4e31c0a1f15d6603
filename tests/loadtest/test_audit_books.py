"""The audit's own reading of a real Redis and a real PostgreSQL, with a real order worker."""

import itertools
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from loadtest.audit.audit import audit
from loadtest.audit.books import READS_MAX, Reader, open_books
from loadtest.audit.seen import Seen, Terms, gathered
from loadtest.measures.claims import Claim
from loadtest.report.summary import Audit
from server.acts.order_projector import OrderProjector
from server.errors import ERRORS_BY_CODE
from server.records import order_life
from server.store import keys
from server.store.types import ACCEPTED, ClaimAnswer, ClaimRequest
from tests.bookshop import SHOW, Bookshop, open_bookshop

RUN, PRICE, UNITS = "t1", 100, 5


@pytest.fixture
async def shop(redis_url: str, database_url: str) -> AsyncIterator[Bookshop]:
    async with open_bookshop(redis_url, database_url) as opened:
        yield opened


class Crowd:
    """Buyers of one run, who keep a log of what the store told them."""

    def __init__(self, shop: Bookshop, redis_url: str, database_url: str) -> None:
        self.shop = shop
        self.urls = redis_url, database_url
        self.zero_us = now_us()
        self.log: list[Claim] = []
        self.sales: dict[int, Terms] = {}

    async def open_sale(self, units: int = UNITS, pay_within_s: int = 0) -> int:
        sale = await self.shop.add_sale(units=units, price=PRICE, pay_within_s=pay_within_s)
        self.sales[sale] = Terms(units, 1, PRICE, pay_within_s > 0)
        return sale

    async def buy(self, sale: int, people: int) -> None:
        """Each claims one unit; the worker stores what was held, and they are told."""
        for n in range(people):
            request = ClaimRequest(f"lt-{RUN}-b{n}", uuid.uuid4().bytes, sale, 1, 1)
            sent_us = self.t_us()
            (answer,) = await self.shop.claim_all([request])
            self.log.append(self._logged(request, sent_us, answer))
        await self.shop.store_all()
        orders = {order["claim_id"].bytes: order for order in await self.shop.orders()}
        for row, claim in enumerate(self.log):
            if order := orders.get(claim.claim_id):
                told = {"confirmed_us": self.t_us(), "order_id": order["order_id"]}
                self.log[row] = claim._replace(**told)

    def _logged(self, request: ClaimRequest, sent_us: int, answer: ClaimAnswer) -> Claim:
        won, answered_us = answer.code == ACCEPTED, self.t_us()
        return Claim(
            user=request.buyer,
            claim_id=request.claim_id,
            crowd=0,
            sale=request.pool,
            quantity=request.quantity,
            intended_us=sent_us,
            sent_us=sent_us,
            held_us=answered_us if won else 0,
            confirmed_us=0,
            ended_us=0 if won else answered_us,
            attempts=1,
            code=0 if won else answer.code,
            order_id=0,
            epoch=answer.state.epoch if answer.state else 0,
            seq=answer.state.seq if answer.state else 0,
            room=0,
        )

    def t_us(self) -> int:
        return now_us() - self.zero_us

    async def audit(self, settle_s: float = 5) -> Audit:
        seen = Seen(
            run=RUN,
            zero_us=self.zero_us,
            part_us=(0, self.t_us()),
            finish_us=self.t_us(),
            sales=self.sales,
            claims=gathered(self.log),
        )
        return await audit(seen, *self.urls, SHOW, settle_s=settle_s)


def now_us() -> int:
    return time.monotonic_ns() // 1_000


@pytest.fixture
def crowd(shop: Bookshop, redis_url: str, database_url: str) -> Crowd:
    return Crowd(shop, redis_url, database_url)


def named(found: Audit) -> set[str]:
    return {finding.name for finding in found.findings}


async def test_audit_when_a_sale_was_right_then_it_is_ok_and_names_what_it_read(
    crowd: Crowd,
) -> None:
    sale = await crowd.open_sale()
    await crowd.buy(sale, UNITS + 3)
    found = await crowd.audit()
    assert (found.scope, found.ok, found.findings, found.explained) == ("full", True, [], [])
    assert {ERRORS_BY_CODE[claim.code].name for claim in crowd.log if claim.code} == {"sold_out"}
    assert (found.checked["I4"], found.checked["I5"], found.checked["I9"]) == (UNITS, UNITS, UNITS)


async def test_audit_when_unpaid_units_came_back_then_it_is_ok(crowd: Crowd) -> None:
    sale = await crowd.open_sale(pay_within_s=60)
    await crowd.buy(sale, UNITS)
    await crowd.shop.pool.execute("UPDATE orders SET pay_by = now() - interval '1 s'")
    orders = [order["order_id"] for order in await crowd.shop.orders()]
    assert await order_life.expire(crowd.shop.pool, SHOW, orders[:2]) == 2
    await OrderProjector(crowd.shop.pool, crowd.shop.stock).tell(SHOW)
    found = await crowd.audit()
    assert (found.scope, found.findings) == ("full", [])
    assert await crowd.shop.available(sale) == 2


async def test_audit_when_an_order_vanished_then_the_claim_is_named_with_its_timeline(
    crowd: Crowd,
) -> None:
    await crowd.buy(await crowd.open_sale(), UNITS)
    victim = crowd.log[1]
    await crowd.shop.pool.execute("DELETE FROM orders WHERE buyer = $1", victim.user)
    found = await crowd.audit()
    assert {"confirmed_without_order", "seq_hole", "counters_differ"} <= named(found)
    (finding,) = (each for each in found.findings if each.name == "confirmed_without_order")
    (timeline,) = finding.claims
    assert timeline.user == victim.user
    assert timeline.claim_id == str(uuid.UUID(bytes=victim.claim_id))
    assert {where for _, where, _ in timeline.steps} == {"client", "redis"}


async def test_audit_when_redis_has_a_unit_too_many_then_units_found(crowd: Crowd) -> None:
    sale = await crowd.open_sale()
    await crowd.buy(sale, UNITS)
    await crowd.shop.clients.commands.hincrby(keys.pool(SHOW, sale), "a", 1)
    assert {"units_found", "shown_wrong"} == named(await crowd.audit())


async def test_audit_when_nobody_stores_the_orders_then_not_quiescent(crowd: Crowd) -> None:
    sale = await crowd.open_sale()
    await crowd.shop.claim(sale, f"lt-{RUN}-b0")
    found = await crowd.audit(settle_s=0.3)
    assert "not_quiescent" in named(found)


async def test_audit_when_a_stranger_bought_then_foreign_order(crowd: Crowd) -> None:
    sale = await crowd.open_sale()
    await crowd.buy(sale, 2)
    await crowd.shop.claim(sale, "somebody")
    await crowd.shop.store_all()
    assert named(await crowd.audit()) == {"foreign_order"}


async def test_audit_when_a_server_is_away_then_only_clients_and_not_ok(crowd: Crowd) -> None:
    await crowd.open_sale()
    crowd.urls = ("redis://127.0.0.1:1/0", crowd.urls[1])
    found = await crowd.audit()
    assert (found.scope, found.ok, found.findings) == ("clients", False, [])


async def test_books_when_opened_then_instants_of_both_servers_are_the_runs(
    crowd: Crowd,
) -> None:
    sale = await crowd.open_sale()
    before_us = crowd.t_us()
    await crowd.buy(sale, 1)
    after_us = crowd.t_us()
    async with open_books(*crowd.urls, SHOW, crowd.zero_us) as reader:
        books = await reader.books(5)
    (order,), (claim,) = books.records.orders.values(), books.store.claims.values()
    slack_us = 20_000  # the servers' clocks count in ms, and the offset is as good as a round trip
    for t_us in (order.t_us, claim.t_us):
        assert before_us - slack_us <= t_us <= after_us + slack_us
    assert books.is_at_rest


class Restless(Reader):
    """Books that look as `looks` says, one after the other, whenever they are looked at."""

    looks: Iterator[int]

    async def _at_rest(self, until: float) -> tuple[Any, ...] | None:
        return (next(self.looks),)

    async def _activity(self) -> tuple[Any, ...]:
        return (next(self.looks),)

    async def _records(self) -> Any:
        return None

    async def _store(self) -> Any:
        return None


@pytest.mark.parametrize(
    ("looks", "is_at_rest"),
    [
        (range(2 * READS_MAX), False),
        ([1, 1], True),
        ([1, 2, 3, 3], True),
    ],
)
async def test_books_when_they_change_during_every_read_then_they_are_not_at_rest(
    looks: list[int], is_at_rest: bool
) -> None:
    nobody: Any = None
    reader = Restless(nobody, nobody, SHOW, 0, 0)
    Restless.looks = itertools.chain(looks)
    assert (await reader.books(1)).is_at_rest is is_at_rest
