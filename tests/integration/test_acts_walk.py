"""Random walks of host acts, buyers and faults: whatever happened, the units add up."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from server.audit.audit import audit
from server.errors import LivesaleError
from tests.host_stage import Stage, open_stage, request_id, show_id_of, until

STEPS = 50
SCRIPTS = ["apply_show", "apply_sale", "give_batch", "take"]
INVENTORY = 200


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


@dataclass
class Walk:
    """One host and many buyers around one sku."""

    stage: Stage
    show: str
    sku: int
    dice: random.Random
    sales: list[int] = field(default_factory=list)
    accepted: int = 0
    requests: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    async def create(self) -> None:
        units = self.dice.randint(1, 60)
        body = {
            "sku": self.sku, "price": 1, "units": units, "limit_per_buyer": 9,
            "duration_s": self.dice.choice([10, 600]),
            "start": self.dice.choice(["now", "now", "later"]),
        }  # fmt: skip
        answer = await self.stage.call("POST", f"{self.show}/sales", body)
        if answer.is_success:
            self.sales.append(answer.json()["sale"])

    async def units(self) -> None:
        """A new restock or lowering, or an old one again."""
        if self.requests and self.dice.random() < 0.3:
            path, body = self.dice.choice(self.requests)
        else:
            verb = self.dice.choice(["restock", "lower"])
            path = f"{self.show}/sales/{self.dice.choice(self.sales)}/{verb}"
            body = {"units": self.dice.randint(1, 20), "request_id": request_id()}
            self.requests.append((path, body))
        await self.stage.call("POST", path, body)

    async def sale_verb(self) -> None:
        verb = self.dice.choice(["start", "start", "start", "start", "stop"])
        sale = self.dice.choice(self.sales)
        await self.stage.call("POST", f"{self.show}/sales/{sale}/{verb}")

    async def reprice(self) -> None:
        sale = self.dice.choice(self.sales)
        path = f"{self.show}/sales/{sale}/price"
        await self.stage.call("POST", path, {"price": self.dice.randint(1, 3)})

    async def pause_or_resume(self) -> None:
        await self.stage.call("POST", f"{self.show}/{self.dice.choice(['pause', 'resume'])}")

    async def buy(self) -> None:
        for _ in range(5):
            buyer = f"b{self.dice.randint(1, 5)}"
            sale = self.dice.choice(self.sales)
            version = (await self.stage.find_sale(self.show, sale))["price_version"]
            try:
                answer = await self.stage.claim(
                    self.show, sale, buyer, self.dice.randint(1, 3), version
                )
            except LivesaleError:
                return
            if answer.code == 0:
                assert answer.state is not None
                self.accepted += answer.state.quantity

    async def fault(self) -> None:
        scripts = self.stage.scripts
        scripts.lost, scripts.cut = set(), set()
        if self.dice.random() < 0.6:
            self.dice.choice([scripts.lost, scripts.cut]).add(self.dice.choice(SCRIPTS))

    async def sweep(self) -> None:
        try:
            await self.stage.sweep()
        except LivesaleError:
            return

    async def pass_time(self) -> None:
        """The clock of the timetable moves on; windows of ten seconds end."""
        self.stage.clock.now += 2_000
        try:
            await self.stage.timetable.close_due()
        except LivesaleError:
            return

    async def step(self) -> None:
        acts: list[Callable[[], Awaitable[None]]] = [
            self.units, self.units, self.sale_verb, self.buy, self.buy, self.fault, self.sweep,
            self.pass_time, self.reprice, self.pause_or_resume,
        ]  # fmt: skip
        await (self.dice.choice(acts) if self.sales else self.create)()
        if self.dice.random() < 0.1:
            await self.create()
        assert 0 <= await self.stage.allotted(self.sku) <= INVENTORY

    async def assert_audit_finds_nothing(self) -> None:
        """The conservation of units holds at every instant, pending acts included."""
        report = await audit(self.stage.clients, self.stage.pool, show_id_of(self.show))
        assert report.is_ok, report.to_json()

    async def finish(self) -> None:
        """No more faults; the show ends; what is left over is finished."""
        self.stage.scripts.lost, self.stage.scripts.cut = set(), set()
        await self.stage.sweep()
        async with self.stage.worker(self.show):
            await self.stage.ok("POST", f"{self.show}/end")
            await self.stage.sweep()
            for sale in self.sales:
                await self.stage.until_closed(self.show, sale)
            await self.stage.sweep()

            async def booked() -> bool:
                return await self.stage.allotted(self.sku) == self.accepted

            await until(booked)


@pytest.mark.parametrize("seed", range(5))
async def test_units_when_acts_buyers_and_faults_mix_then_all_are_sold_or_back(
    stage: Stage, seed: int
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show, inventory=INVENTORY)
    walk = Walk(stage, show, sku, random.Random(seed))
    for number in range(STEPS):
        await walk.step()
        if number % 10 == 9:
            await walk.assert_audit_finds_nothing()
    await walk.finish()
    await walk.assert_audit_finds_nothing()
    row = await stage.pool.fetchrow(
        "SELECT sum(initial + restocked - lowered) AS units, sum(sold) AS sold FROM pools"
    )
    assert row is not None
    assert row["units"] == row["sold"] == walk.accepted
    assert await stage.pool.fetchval("SELECT count(*) FROM gives WHERE applied_at IS NULL") == 0
    pending = "SELECT count(*) FROM stock_requests WHERE status = 'pending'"
    assert await stage.pool.fetchval(pending) == 0
    ledger = await stage.pool.fetch(
        "SELECT reason, sum(units) AS units FROM stock_ledger GROUP BY reason"
    )
    books = {entry["reason"]: entry["units"] for entry in ledger}
    entered = books.get("allotted", 0) + books.get("restocked", 0) - books.get("lowered", 0)
    assert entered == books.get("taken", 0) == walk.accepted
