"""Redis loses everything while two hubs have buyers with holds that nobody has stored yet."""

import shutil
from typing import Any

import pytest

from server import clock
from server.embedded.valkey import ValkeyServer
from server.protocol import messages as m
from tests.conftest import ValkeyFactory
from tests.live import Client, LiveSystem, until
from tests.web_stage import WebStage, sees_sale, web_stage


@pytest.fixture
async def valkey(valkey_factory: ValkeyFactory) -> ValkeyServer:
    return await valkey_factory()


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """Of a server that the test may end."""
    return valkey.url


async def lose_everything(valkey: ValkeyServer) -> None:
    """The server dies and comes back empty, at the same address."""
    valkey.kill()
    shutil.rmtree(valkey.directory)
    await valkey.start()


async def buy(client: Client, sale: dict[str, Any], **fields: Any) -> m.Accepted | m.RefusedReply:
    claim_id = fields.pop("claim_id", None) or str(clock.new_uuid7())
    return await client.ask(
        lambda ref: m.Claim(
            ref=ref, sale=sale["sale"], claim_id=claim_id, quantity=1,
            price_version=sale["price_version"], **fields,
        )
    )  # fmt: skip


async def held(client: Client, sale: dict[str, Any]) -> m.ClaimState:
    reply = await buy(client, sale)
    assert isinstance(reply, m.Accepted), reply
    assert reply.claim is not None
    assert reply.claim.status == "held"
    return reply.claim


async def buyer(hub: WebStage, show: str, name: str, sale: dict[str, Any]) -> Client:
    client = await hub.viewer(show, name)
    await sees_sale(client, sale["sale"])
    return client


def statuses(client: Client, claim: m.ClaimState) -> list[str]:
    return [state.status for state in client.orders if state.claim_id == claim.claim_id]


async def test_holds_when_redis_comes_back_empty_then_the_hubs_save_them(
    valkey: ValkeyServer, hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    show = await hubs[0].show()
    sale = await hubs[0].sale(show, units=5)
    clients = [await buyer(hubs[n % 2], show, f"b{n}", sale) for n in range(4)]
    claims = [await held(client, sale) for client in clients]
    await lose_everything(valkey)
    system.start_worker()
    for client, claim in zip(clients, claims, strict=True):
        await until(lambda c=client, k=claim: statuses(c, k) == ["confirmed"], "confirmed")  # type: ignore[misc]
    key = f"stock:{sale['sale']}"
    for client in clients:
        await until(lambda c=client: c.lefts[key][-1][0] == 2, "the new epoch's stock")  # type: ignore[misc]
        assert client.lefts[key] == sorted(client.lefts[key], key=lambda seen: seen[:2])
        assert client.lefts[key][-1][2] == 1
        assert client.welcome is not None
        assert "show" in client.welcome.state  # nobody was shown a half-empty page meanwhile
    last = await held(clients[0], sale)
    assert last.epoch == 2
    refused = await buy(clients[1], sale)
    assert isinstance(refused, m.RefusedReply)
    assert refused.name == "sold_out"
    await until(lambda: "confirmed" in statuses(clients[0], last), "the last unit confirmed")
    assert system.run("audit").returncode == 0


async def test_hold_when_its_hub_is_gone_too_then_the_buyers_receipt_brings_it_back_or_ends_it(
    valkey: ValkeyServer, hubs: tuple[WebStage, WebStage], system: LiveSystem, database_url: str
) -> None:
    show = await hubs[0].show()
    sale = await hubs[0].sale(show, units=2, limit_per_buyer=1)
    async with web_stage(valkey.url, database_url) as third:
        ann, bob = [await buyer(third, show, name, sale) for name in ("ann", "bob")]
        claims = [await held(client, sale) for client in (ann, bob)]
    await lose_everything(valkey)
    assert system.run("reconcile", "--json").returncode == 0
    system.start_worker()
    cid = await buyer(hubs[0], show, "cid", sale)
    await until(lambda: cid.state[f"stock:{sale['sale']}"]["epoch"] == 2, "rebuilt")
    await held(cid, sale)
    outcomes = []
    for name, claim in zip(("ann", "bob"), claims, strict=True):
        client = await buyer(hubs[1], show, name, sale)
        asked = await client.ask(
            lambda ref, c=claim: m.OrderStatus(ref=ref, claim_id=c.claim_id)  # type: ignore[misc]
        )
        assert isinstance(asked, m.Accepted)
        assert asked.order is not None
        assert asked.order.status == "not_seen"
        proof = m.Proof(claim.receipt, claim.epoch, claim.seq, claim.price)
        told = await buy(client, sale, claim_id=claim.claim_id, attempt=1, proof=proof)
        assert isinstance(told, m.Accepted), told
        assert told.claim is not None
        outcomes.append(told.claim.status)
    assert outcomes == ["held", "released_by_incident"]
