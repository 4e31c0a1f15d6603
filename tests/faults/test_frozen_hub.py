"""A web process that is frozen with a claim inside, while its buyer is refused elsewhere."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server import clock
from server.protocol import messages as m
from tests.deployment import freeze, thaw
from tests.faults.test_table_claims import answer, ask_for, new_id, sale_at
from tests.live import Client, Host, LiveSystem, token_of, until
from tests.web_stage import sees_sale

pytestmark = pytest.mark.faults


@dataclass
class Hubs:
    """Two web processes on one show, with a sale of one unit that is gone."""

    live: LiveSystem
    urls: list[str]
    show: str
    sale: int

    async def viewer(self, hub: int, user: str) -> Client:
        client = await Client.open(self.urls[hub], self.show)
        await client.sign_in(user, self.show)
        await sees_sale(client, self.sale)
        return client

    async def restock(self) -> None:
        body = {"units": 1, "request_id": str(clock.new_uuid7())}
        path = f"/api/shows/{self.show}/sales/{self.sale}/restock"
        await Host(self.urls[1], token_of("ming", "*", "host")).ask("POST", path, body)


@pytest.fixture
async def hubs(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[Hubs]:
    live = LiveSystem(redis_url, database_url, tmp_path)
    try:
        urls = [await live.start_web() for _ in range(2)]
        host = Host(urls[1], token_of("ming", "*", "host"))
        hubs = Hubs(live, urls, *await sale_at(host, units=1))
        bob = await hubs.viewer(1, "bob")
        state: Any = await answer(bob, bob.state[f"sale:{hubs.sale}"])
        assert state.status == "held"
        yield hubs
    finally:
        thaw([process.pid for process in live.processes if process.poll() is None])
        live.stop()


async def test_refusal_when_an_earlier_sending_is_stuck_in_a_frozen_process_then_it_is_final(
    hubs: Hubs,
) -> None:
    stuck, there = await hubs.viewer(0, "ann"), await hubs.viewer(1, "ann")
    sale, claim_id = there.state[f"sale:{hubs.sale}"], new_id()
    freeze([hubs.live.processes[0].pid])
    ref, sending = stuck.post(lambda ref: ask_for(sale, ref, claim_id))
    await sending
    assert await answer(there, sale, claim_id, attempt=1) == "sold_out"
    await hubs.restock()
    stock = f"stock:{hubs.sale}"
    await until(lambda: there.state[stock]["left"] == 1, "a unit again")
    thaw([hubs.live.processes[0].pid])
    await until(lambda: ref in stuck.replies, "the thawed process answers")
    reply = stuck.replies[ref]
    assert isinstance(reply, m.RefusedReply)
    assert reply.name == "sold_out"
    assert there.state[stock]["left"] == 1
    later: Any = await answer(there, sale, claim_id, attempt=2)
    assert later.status == "held"
