"""What Redis must keep: servers that keep too little are refused, and replicas are waited for."""

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis.asyncio
import structlog

from server.embedded.valkey import CONFIGS, ValkeyServer
from server.errors import Misconfigured, StoreUnavailable
from server.store.client import RedisClients
from server.store.durability import Profile, Replicas, require_durability
from server.store.stock import Stock
from server.store.types import ACCEPTED, ACCEPTED_BEFORE
from tests.conftest import ValkeyFactory
from tests.live import LiveSystem, free_port, until_answer
from tests.shop import EPOCH, HUB, SHOW, Shop, claim, open_shop

STRICT = CONFIGS["strict"]


async def require(url: str, profile: Profile, *, vouched: bool = False, demo: bool = False) -> None:
    clients = await RedisClients.open(url)
    try:
        await require_durability(clients.commands, profile, vouched=vouched, demo=demo)
    finally:
        await clients.aclose()


# --- Which servers are refused -----------------------------------------------------------------


@pytest.mark.parametrize("profile", ["fast", "strict", "none"])
async def test_durability_when_the_server_is_set_up_for_a_profile_then_it_fits(
    valkey_factory: ValkeyFactory, profile: Profile
) -> None:
    server = await valkey_factory(**CONFIGS[profile])
    await require(server.url, profile, demo=profile == "none")


@pytest.mark.parametrize(
    ("profile", "config"),
    [
        ("fast", {"appendonly": "no"}),
        ("fast", {"appendonly": "yes", "appendfsync": "no"}),
        ("strict", {"appendonly": "yes", "appendfsync": "everysec"}),
    ],
)
async def test_durability_when_the_server_keeps_less_then_it_says_what_to_change(
    valkey_factory: ValkeyFactory, profile: Profile, config: dict[str, str]
) -> None:
    server = await valkey_factory(**config)
    with pytest.raises(Misconfigured, match=f"durability {profile} needs appendonly yes"):
        await require(server.url, profile)
    with pytest.raises(Misconfigured):
        await require(server.url, profile, vouched=True)  # what is known is not vouched away
    with structlog.testing.capture_logs() as logs:
        await require(server.url, profile, demo=True)
    assert [line["event"] for line in logs] == ["redis_not_durable"]


async def test_durability_when_none_is_asked_for_outside_of_a_demo_then_it_is_refused(
    redis_url: str,
) -> None:
    with pytest.raises(Misconfigured, match="for demos and tests"):
        await require(redis_url, "none")


async def test_durability_when_the_service_forbids_to_ask_then_somebody_must_vouch(
    valkey_factory: ValkeyFactory,
) -> None:
    server = await valkey_factory(**CONFIGS["fast"])
    async with redis.asyncio.Redis.from_url(server.url) as admin:
        await admin.execute_command(
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-config"
        )  # type: ignore[no-untyped-call]
    url = f"unix://app@{server.socket}?password=pw"
    with pytest.raises(Misconfigured, match="LIVESALE_DURABILITY_VOUCHED=true"):
        await require(url, "strict")
    await require(url, "strict", vouched=True)


@pytest.mark.parametrize("process", ["web", "worker"])
async def test_process_when_redis_keeps_nothing_then_it_does_not_start(
    redis_url: str, database_url: str, tmp_path: Path, process: str
) -> None:
    production = {"demo": "false", "durability": "fast"}
    system = LiveSystem(redis_url, database_url, tmp_path, production)
    ended = await asyncio.to_thread(system.run, process)
    assert ended.returncode == 2
    assert "durability fast needs appendonly yes" in ended.stderr


# --- Replicas ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary with a replica in sync, and a shop on the primary whose stock waits for it."""

    shop: Shop
    primary: ValkeyServer
    replica: ValkeyServer

    def signal_replica(self, number: int) -> None:
        os.kill(self.replica.child.pid, number)


@asynccontextmanager
async def strict_shop(primary: ValkeyServer) -> AsyncIterator[Shop]:
    async with open_shop(primary.url) as shop:
        stock = Stock(shop.scripts, Replicas(shop.scripts))
        shop = dataclasses.replace(shop, stock=stock)
        await shop.open_show()
        await shop.open_sale()
        yield shop


@pytest.fixture
async def pair(valkey_factory: ValkeyFactory) -> AsyncIterator[Pair]:
    port = str(free_port())  # replication needs TCP
    primary = await valkey_factory(**STRICT, port=port, **{"repl-diskless-sync-delay": "0"})
    replica = await valkey_factory(**STRICT, replicaof=f"127.0.0.1 {port}")
    async with strict_shop(primary) as shop:
        await until_answer(lambda: replica_is_online(shop), "replica in sync")
        yield Pair(shop, primary, replica)
        with contextlib.suppress(ProcessLookupError):
            os.kill(replica.child.pid, signal.SIGCONT)


async def replica_is_online(shop: Shop) -> bool:
    info = await shop.clients.commands.info("replication")
    return bool(info["connected_slaves"]) and info["slave0"]["state"] == "online"


async def test_claim_when_held_with_a_replica_then_the_loss_of_the_primary_loses_nothing(
    pair: Pair,
) -> None:
    answer = await pair.shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1), claim(2)])
    assert [one.code for one in answer.answers] == [ACCEPTED, ACCEPTED]
    pair.primary.kill()
    async with redis.asyncio.Redis.from_url(pair.replica.url) as client:
        await client.replicaof("NO", "ONE")
    async with open_shop(pair.replica.url) as promoted:
        states = await promoted.stock.lookup(SHOW, [c[:2] for c in (claim(1), claim(2))])
    assert [state and state.status for state in states] == ["held", "held"]


async def test_claim_when_the_replica_is_silent_then_unknown_and_later_the_true_answer(
    pair: Pair,
) -> None:
    """Also for a claim that Redis remembers from an earlier call on another connection."""
    stock = pair.shop.stock
    await stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
    pair.signal_replica(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="no replica acknowledged"):
            await stock.claim_batch(SHOW, HUB, EPOCH, [claim(2)])
        await pair.shop.clients.commands.connection_pool.disconnect()
    with pytest.raises(StoreUnavailable, match="no replica acknowledged"):
        await stock.lookup(SHOW, [claim(2)[:2]])
    pair.signal_replica(signal.SIGCONT)
    answer = await stock.claim_batch(SHOW, HUB, EPOCH, [claim(2)])
    assert [one.code for one in answer.answers] == [ACCEPTED_BEFORE]
    (state,) = await stock.lookup(SHOW, [claim(2)[:2]])
    assert state is not None
    assert state.status == "held"


async def test_claim_when_the_script_was_forgotten_then_it_is_loaded_and_acknowledged(
    pair: Pair,
) -> None:
    await pair.shop.clients.commands.script_flush()
    answer = await pair.shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
    assert [one.code for one in answer.answers] == [ACCEPTED]


async def test_claim_when_redis_demands_a_replica_and_has_none_then_nothing_is_sold(
    valkey_factory: ValkeyFactory,
) -> None:
    primary = await valkey_factory(**STRICT)
    async with strict_shop(primary) as shop:
        await shop.clients.commands.config_set("min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailable):
            await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
        await shop.clients.commands.config_set("min-replicas-to-write", 0)
        assert await shop.stock.lookup(SHOW, [claim(1)[:2]]) == [None]


async def test_claim_when_there_is_no_replica_then_a_batch_is_one_command(
    valkey_factory: ValkeyFactory,
) -> None:
    primary = await valkey_factory(**STRICT)
    async with strict_shop(primary) as shop:
        await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])  # asks once for replicas
        await shop.clients.commands.config_resetstat()
        await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(2)])
        stats = await shop.clients.commands.info("commandstats")
    assert not {"cmdstat_wait", "cmdstat_set"} & set(stats)
