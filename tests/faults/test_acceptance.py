"""The promise in one run: a crowd, two web processes, cut sockets, a killed worker; then the books.

A sale of 50 units, one per buyer; 200 buyers with three sockets each over two processes; every
claim sent twice on different sockets; every tenth socket cut right after sending, its claim sent
again elsewhere; the worker killed with SIGKILL in the middle.
"""

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from server import clock
from server.protocol import messages as m
from tests.live import Client, Host, LiveSystem, call, token_of, until

UNITS = 50
BUYERS = 200
SOCKETS = 3
CUT_EVERY = 10
FINAL = {"confirmed", "released_by_incident"}

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


@dataclass
class Buyer:
    """One buyer with several sockets and one claim, retried as PROTOCOL.md tells clients to."""

    user: str
    clients: list[Client]
    claim_id: str = field(default_factory=lambda: str(clock.new_uuid7()))
    attempts: int = 0
    outcomes: list[str] = field(default_factory=list)  # every answer seen, on any socket

    def final(self) -> str | None:
        """The last word on the claim: confirmed, released, or the name of a refusal."""
        self.collect()
        for outcome in self.outcomes:
            if outcome in FINAL:
                return outcome
        refusals = [o for o in self.outcomes if o in ("sold_out", "sale_closed", "limit_reached")]
        return refusals[0] if refusals and "held" not in self.outcomes else None

    def collect(self) -> None:
        for client in self.clients:
            orders, client.orders = client.orders, []
            self.outcomes += [o.status for o in orders if o.claim_id == self.claim_id]
            replies, client.replies = client.replies, {}
            for reply in replies.values():
                if isinstance(reply, m.RefusedReply):
                    self.outcomes.append(reply.name)
                elif reply.claim or reply.order:
                    state = reply.claim or reply.order
                    assert state is not None
                    assert state.claim_id == self.claim_id
                    self.outcomes.append(state.status)

    async def claim(self, client: Client, sale: int, price_version: int) -> None:
        attempt, self.attempts = self.attempts, self.attempts + 1
        _, sending = client.post(
            lambda ref: m.Claim(
                ref=ref, sale=sale, claim_id=self.claim_id, quantity=1,
                price_version=price_version, attempt=attempt,
            )
        )  # fmt: skip
        await sending


@pytest.fixture
async def live(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[LiveSystem]:
    system = LiveSystem(redis_url, database_url, tmp_path)
    yield system
    system.stop()


async def open_show(host: Host) -> tuple[str, int]:
    """A live show with a sale that is open now. Returns the show's and the sale's id."""
    show = (await host.ask("POST", "/api/shows", {"title": "验收之夜"}))["show"]
    product = await host.ask(
        "POST", f"/api/shows/{show}/products",
        {"title": "手冲咖啡壶", "skus": [
            {"title": "黑色", "price": 12900, "currency": "CNY", "inventory": UNITS},
        ]},
    )  # fmt: skip
    sku = product["skus"][0]["sku"]
    await host.ask("POST", f"/api/shows/{show}/start")
    sale = await host.ask(
        "POST", f"/api/shows/{show}/sales",
        {"sku": sku, "price": 9900, "units": UNITS, "limit_per_buyer": 1, "countdown_s": 0,
         "duration_s": 600, "start": "now"},
    )  # fmt: skip
    return show, sale["sale"]


async def join(urls: list[str], show: str, number: int) -> Buyer:
    user = f"buyer-{number}"
    clients = []
    for place in range(SOCKETS):
        client = await Client.open(urls[(number + place) % len(urls)], show)
        await client.sign_in(user, show)
        client.replies.clear()
        clients.append(client)
    return Buyer(user, clients)


async def buy(buyer: Buyer, number: int, sale: int) -> None:
    """The same claim on two sockets, one of them perhaps cut; again on the third until final."""
    first, second, third = buyer.clients
    await asyncio.gather(buyer.claim(first, sale, 1), buyer.claim(second, sale, 1))
    if number % CUT_EVERY == 0:
        first.cut()
        second.cut()
        await buyer.claim(third, sale, 1)


async def ask_again(buyers: list[Buyer], sale: int) -> None:
    """What a client does when no answer came: the same claim again, until each has a last word."""
    end = clock.monotonic_ms() + 60_000
    while waiting := [buyer for buyer in buyers if buyer.final() is None]:
        assert clock.monotonic_ms() < end, [(b.user, b.outcomes) for b in waiting]
        for buyer in waiting:
            if "held" not in buyer.outcomes:
                await buyer.claim(buyer.clients[-1], sale, 1)
        await asyncio.sleep(0.25)


def contradictions(buyers: list[Buyer]) -> list[tuple[str, list[str]]]:
    """Buyers who saw both an acceptance and a refusal that ends the claim."""
    accepted = {"held", "confirmed"}
    ended = {"sold_out", "sale_closed", "limit_reached", "claim_conflict", "released_by_incident"}
    return [
        (buyer.user, buyer.outcomes)
        for buyer in buyers
        if accepted & set(buyer.outcomes) and ended & set(buyer.outcomes)
    ]


async def orders_of(database_url: str, sale: int) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        return list(
            await connection.fetch("SELECT * FROM orders WHERE pool_id = $1 ORDER BY seq", sale)
        )
    finally:
        await connection.close()


def audit(live: LiveSystem) -> tuple[int, list[Any]]:
    result = live.run("audit", "--json")
    assert result.stdout, result.stderr
    report = json.loads(result.stdout)
    return result.returncode, [problem for show in report["shows"] for problem in show["problems"]]


async def execute(database_url: str, sql: str, *args: object) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute(sql, *args)
    finally:
        await connection.close()


async def test_flash_sale_when_everything_breaks_then_the_books_agree(live: LiveSystem) -> None:
    urls = [await live.start_web(), await live.start_web()]
    worker = live.start_worker()
    host = Host(urls[0], token_of("host-1", "*", role="host"))
    show, sale = await open_show(host)
    buyers = await asyncio.gather(*(join(urls, show, number) for number in range(BUYERS)))
    watcher = await Client.open(urls[1], show)  # anonymous
    await until(lambda: f"stock:{sale}" in watcher.state, "the sale is seen")

    rush = asyncio.gather(*(buy(buyer, n, sale) for n, buyer in enumerate(buyers)))
    await until(lambda: watcher.state[f"stock:{sale}"]["left"] < UNITS, "first units taken")
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    await rush
    live.start_worker()
    await ask_again(buyers, sale)

    orders = await orders_of(live.database_url, sale)
    assert len(orders) == UNITS
    assert len({order["buyer"] for order in orders}) == UNITS
    confirmed = {b.user: b.claim_id for b in buyers if b.final() == "confirmed"}
    assert confirmed == {order["buyer"]: str(order["claim_id"]) for order in orders}
    assert contradictions(buyers) == []
    watching = [c for b in buyers for c in b.clients if c.closed is None] + [watcher]
    await until(
        lambda: all(
            (c.state[f"stock:{sale}"]["left"], c.state[f"stock:{sale}"]["sold"]) == (0, UNITS)
            for c in watching
        ),
        "every viewer's counter at 0 left, all sold",
    )
    for client in watching:  # versions rise, and no value ever rose: nothing was given back
        seen = client.lefts[f"stock:{sale}"]
        assert seen == sorted(seen, key=lambda at: (at[0], at[1]))
        assert [left for *_, left in seen] == sorted((left for *_, left in seen), reverse=True)

    assert audit(live) == (0, [])
    await plant_and_remove(live, orders[0])

    await asyncio.gather(*(client.close() for client in watching))
    assert live.stop() == [0, 0, 0], live.logs()


async def plant_and_remove(live: LiveSystem, order: asyncpg.Record) -> None:
    """One order too many, then one too few: the audit fails and names the claim."""
    extra = uuid.uuid4()
    copied = "show_id, pool_id, buyer, quantity, price, price_version, epoch, status, confirmed_at"
    await execute(
        live.database_url,
        f"INSERT INTO orders (claim_id, seq, {copied}) "
        f"SELECT $1, 0, {copied} FROM orders WHERE order_id = $2",
        extra, order["order_id"],
    )  # fmt: skip
    code, problems = audit(live)
    assert code == 11
    assert str(extra) in json.dumps(problems), problems
    await execute(live.database_url, "DELETE FROM orders WHERE claim_id = $1", extra)
    assert audit(live)[0] == 0

    await execute(live.database_url, "DELETE FROM orders WHERE order_id = $1", order["order_id"])
    code, problems = audit(live)
    assert code == 11
    assert str(order["claim_id"]) in json.dumps(problems), problems


async def test_show_when_unknown_then_the_door_says_404(live: LiveSystem) -> None:
    url = await live.start_web()
    assert (await call("GET", f"{url}/api/shows/nosuchshow"))[0] == 404
