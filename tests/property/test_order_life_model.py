"""The whole life of orders on real servers, step by step, audited after each step.

Hypothesis draws the steps: claims and their repeats, restocks, lowerings, payments in time and too
late, expiries, cancellations, a worker that dies between its commit and its word to Redis, and a
Redis that forgets everything and is rebuilt. After each step the server's own audit is clean, and
so is a count that knows nothing of it: no pool has promised more units than it has, no buyer more
than the limit, no claim has two orders, and what was confirmed once is an order for good.
"""

import asyncio
import uuid
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from server import clock
from server.acts.host_acts import HostActs
from server.acts.messages import ChangeUnits
from server.domain.identity import Identity
from server.errors import Refused
from server.orders import reconcile as reconciliation
from server.orders.reconcile import reconcile
from server.store.room import RoomStore
from server.store.types import ACCEPTED, ACCEPTED_BEFORE, ClaimRequest
from tests.bookshop import SHOW
from tests.conftest import LONG
from tests.till import Till, open_till, viewer

HOST = Identity("host", "host", "host", SHOW, 2**50)
BUYERS = st.sampled_from(["an", "bo", "cy", "di"])
WHICH = st.integers(0, 9)
UNITS = 4
LIMIT = 2
LIVE = ("confirmed", "paid", "fulfilled")
CLEAR = """
DO $$ DECLARE names text; BEGIN
    SELECT string_agg(oid::regclass::text, ', ') INTO names FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version';
    EXECUTE 'TRUNCATE ' || names || ' RESTART IDENTITY CASCADE';
END $$
"""


class RedisTime:
    """Host acts ask for it; sales here are open for ever."""

    def now_ms(self) -> int:
        return clock.now_ms()


class OrderLife(RuleBasedStateMachine):
    """One sale. `claims`: all that were accepted; `confirmed`: claims known to be orders."""

    urls: ClassVar[tuple[str, str]]
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.confirmed: set[uuid.UUID] = set()
        self.payments: list[uuid.UUID] = []
        self.till: Till

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.run(self._open())

    async def _open(self) -> None:
        self.till = await self.stack.enter_async_context(open_till(*self.urls))
        await self.till.open_sale(units=UNITS, limit=LIMIT)
        await self.till.shop.pool.execute("UPDATE skus SET inventory = 1000")
        shop = self.till.shop
        self.acts = HostActs(shop.pool, shop.stock, RoomStore(shop.scripts), RedisTime())

    def teardown(self) -> None:
        self.run(self._close())
        self.runner.close()

    async def _close(self) -> None:
        pool, clients = self.till.shop.pool, self.till.shop.clients
        await pool.execute(CLEAR)
        await clients.commands.flushall()
        await self.stack.aclose()

    # --- Buyers -------------------------------------------------------------------------------

    @rule(target=claims, buyer=BUYERS, quantity=st.sampled_from([1, 1, 2, 3]))
    def claim(self, buyer: str, quantity: int) -> Any:
        request = ClaimRequest(buyer, uuid.uuid4().bytes, self.till.sale, quantity, 1)
        (answer,) = self.run(self.till.shop.claim_all([request]))
        return request if answer.code == ACCEPTED else multiple()

    @rule(requests=st.lists(claims, min_size=1, max_size=4))
    def claim_again(self, requests: list[ClaimRequest]) -> None:
        """Also the same claim twice in one batch."""
        answers = self.run(self.till.shop.claim_all([*requests, *requests]))
        for request, answer in zip([*requests, *requests], answers, strict=True):
            if uuid.UUID(bytes=request.claim_id) in self.confirmed:
                assert answer.code == ACCEPTED_BEFORE, (request, answer)

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        if order := self._some_order(which):
            with suppress(Refused):
                cancel = self.acts.orders.cancel_own
                self.run(cancel(viewer(order["buyer"]), SHOW, order["order_id"]))

    @rule(which=WHICH)
    def begin_payment(self, which: int) -> None:
        if order := self._some_order(which):
            with suppress(Refused):
                payment = self.run(self.till.begin(order["order_id"]))
                self.payments.append(payment)

    @rule(which=WHICH, what=st.sampled_from(["captured", "captured", "failed"]))
    def provider_tells(self, which: int, what: str) -> None:
        if self.payments:
            self.run(self.till.tell(self.payments[which % len(self.payments)], what))

    # --- Time and the host --------------------------------------------------------------------

    @rule(which=WHICH, tell=st.booleans())
    def expire(self, which: int, tell: bool) -> None:
        order = self._some_order(which)
        if order is not None and order["status"] == "confirmed":
            self.run(self.till.expire(order["order_id"], tell=tell))

    @rule(step=st.sampled_from(["refund", "fulfil", "cancel"]), which=WHICH)
    def host_moves(self, step: Any, which: int) -> None:
        if order := self._some_order(which):
            with suppress(Refused):
                self.run(self.acts.orders.move(HOST, SHOW, order["order_id"], step))

    @rule(units=st.integers(1, 3), times=st.integers(1, 2), lower=st.booleans())
    def change_units(self, units: int, times: int, lower: bool) -> None:
        """Asked once or twice under one id."""
        body = ChangeUnits(request_id=uuid.uuid4(), units=units)
        act = self.acts.sales.lower if lower else self.acts.sales.restock
        for _ in range(times):
            with suppress(Refused):
                self.run(act(HOST, SHOW, self.till.sale, body))

    # --- The order worker ---------------------------------------------------------------------

    @rule(confirm=st.sampled_from([True, True, False]))
    def work(self, confirm: bool) -> None:
        """Store what is in the stream; without `confirm` the worker dies after the commit."""
        self.run(self.till.book(confirm=confirm))

    @rule()
    def tell(self) -> None:
        self.run(self.till.projector.tell(SHOW))

    @rule()
    def finish_payments(self) -> None:
        self.run(self.till.round())

    # --- Redis --------------------------------------------------------------------------------

    @rule(forget=st.booleans())
    def rebuild(self, forget: bool) -> None:
        """Reconcile, with Redis as it is or with an empty one."""
        self.run(self._rebuild(forget))

    async def _rebuild(self, forget: bool) -> None:
        shop = self.till.shop
        if forget:
            await shop.clients.commands.flushall()
        report = await reconcile(SHOW, shop.tools(), "test: asked", "a test")
        assert report.outcome == "done"
        shop.epoch = report.epoch

    # --- What must be true --------------------------------------------------------------------

    @invariant()
    def everything_is_accounted_for(self) -> None:
        self.run(self._check())

    async def _check(self) -> None:
        shop = self.till.shop
        report = await shop.audit()
        assert not report.problems, report.problems
        row = await shop.counters(self.till.sale)
        orders = await shop.orders()
        bought: Counter[str] = Counter()
        for order in orders:
            bought[order["buyer"]] += order["quantity"] * (order["status"] in LIVE)
        room = row["initial"] + row["restocked"] - row["lowered"] - row["dead"]
        assert bought.total() == row["reserved"] + row["sold"] <= room
        assert all(units <= LIMIT for units in bought.values()), bought
        claims = [order["claim_id"] for order in orders]
        assert len(claims) == len(set(claims))
        assert self.confirmed <= set(claims)
        self.confirmed = set(claims)

    def _some_order(self, which: int) -> dict[str, Any] | None:
        orders = self.run(self.till.shop.orders())
        return orders[which % len(orders)] if orders else None


@pytest.mark.timeout(3_600 if LONG else 300)
def test_order_life_when_anything_happens_in_any_order_then_every_unit_is_accounted_for(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciliation, "REBUILD_GRACE_MS", 0)  # no hubs here would come back
    OrderLife.urls = (redis_url, database_url)
    run_state_machine_as_test(
        OrderLife,
        settings=settings(
            max_examples=400 if LONG else 12,
            stateful_step_count=40 if LONG else 25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
