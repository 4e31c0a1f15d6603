"""A host's desk with a dead letter on it.

PostgreSQL refuses a buyer's order by a constraint, as a fault of ours would make it, until `mend`.
"""

import uuid
from dataclasses import dataclass
from typing import Any

from server.audit.audit import audit
from server.protocol.messages import ClaimState
from server.records import webhooks
from server.store import keys
from server.store.types import ClaimRequest
from server.webhooks.topics import TOPICS
from tests.host_stage import Stage, show_id_of, until

FAULT = "ALTER TABLE orders ADD CONSTRAINT fault CHECK (buyer <> 'eve') NOT VALID"
MEND = "ALTER TABLE orders DROP CONSTRAINT fault"


@dataclass
class Desk:
    """A live show with one sale, in which `eve` has become a dead letter beside other orders."""

    stage: Stage
    show: str
    sale: int
    claim_id: bytes
    letter: int = 0

    @property
    def show_id(self) -> str:
        return show_id_of(self.show)

    @property
    def path(self) -> str:
        return f"{self.show}/dead-letters/{self.letter}"

    async def state(self) -> ClaimState:
        """What eve's open page and a later look-up say."""
        (found,) = await self.stage.stock.lookup(self.show_id, [("eve", self.claim_id)])
        assert found is not None
        return found

    async def counters(self) -> tuple[int, ...]:
        """(reserved, sold, dead) in the books."""
        query = "SELECT reserved, sold, dead FROM pools WHERE pool_id = $1"
        return tuple(await self.stage.pool.fetchrow(query, self.sale))

    async def left(self) -> int:
        state = await self.stage.state(self.show)
        left: int = state[f"stock:{self.sale}"]["left"]
        return left

    async def problems(self) -> list[Any]:
        report = await audit(self.stage.clients, self.stage.pool, self.show_id)
        return [problem for show in report.shows for problem in show.problems]

    async def rows(self) -> list[Any]:
        """Everything a decision could change."""
        tables = ("pools", "orders", "pool_buyers", "gives", "order_moves", "dead_letters",
                  "stock_ledger", "host_acts", "outbox")  # fmt: skip
        return [
            sorted(map(repr, await self.stage.pool.fetch(f"SELECT t::text FROM {name} t")))
            for name in tables
        ]

    async def mend(self) -> None:
        await self.stage.pool.execute(MEND)


async def buy(stage: Stage, show: str, sale: int, buyer: str, quantity: int = 1) -> bytes:
    request = ClaimRequest(buyer, uuid.uuid4().bytes, sale, quantity, 1)
    await stage.stock.claim_batch(show_id_of(show), "hub1", 1, [request])
    return request.claim_id


async def stored(stage: Stage, show: str) -> None:
    """Let a worker settle the order stream."""

    async def empty() -> bool:
        return bool(await stage.clients.commands.xlen(keys.orders(show_id_of(show))) == 0)

    async with stage.worker(show):
        await until(empty)


async def make_desk(stage: Stage, *, with_webhook: bool = False, **sale: Any) -> Desk:
    show = await stage.live_show()
    if with_webhook:
        async with stage.pool.acquire() as conn:
            where = (show_id_of(show), "https://shop.example/", "whsec_c2VjcmV0")
            await webhooks.insert_endpoint(conn, *where, TOPICS)
    made = await stage.sale(show, await stage.sku(show), **sale)
    await stage.pool.execute(FAULT)
    await buy(stage, show, made["sale"], "ann")
    claim_id = await buy(stage, show, made["sale"], "eve", 2)
    await buy(stage, show, made["sale"], "bob")
    await stored(stage, show)
    desk = Desk(stage, show, made["sale"], claim_id)
    (letter,) = (await stage.ok("GET", f"{show}/dead-letters"))["dead_letters"]
    desk.letter = letter["dead_letter"]
    return desk
