"""A sale on a Cluster and behind Sentinels: slots move and primaries die while buyers claim."""

import asyncio
import itertools
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from server import clock
from server.embedded.binaries import Binary
from server.embedded.supervisor import answers_redis
from server.hub.hub import Hub
from server.protocol import messages as m
from server.protocol.facts import Fact, Resync
from server.store.address import parse_address
from server.store.sentinel import PrimaryPool
from tests.live import Client, LiveSystem, until, until_answer
from tests.redis_cluster import ValkeyCluster, WatchedPair
from tests.web_stage import WebStage, sees_sale, web_stage

RESYNC_SECONDS = 3.0
BUYERS = 8
CLAIMS_EACH = 12
UNITS = 60  # fewer than are claimed
SPARE = 20  # of them, for after the trouble
UNSURE = {"outcome_unknown", "stock_rebuilding", "busy", "unavailable"}  # to be asked again


@pytest.fixture
def pair(servers_directory: Path, valkey_binary: Binary) -> Iterator[WatchedPair]:
    folder = servers_directory / "failover-pair"
    folder.mkdir()
    running = asyncio.run(WatchedPair.start(valkey_binary, folder))
    yield running
    asyncio.run(running.stop())
    shutil.rmtree(folder)


@dataclass
class Market:
    """Two hubs, a worker, and a show with an open sale."""

    hubs: tuple[WebStage, WebStage]
    system: LiveSystem
    show: str
    sale: dict[str, Any]
    resyncs: list[list[float]]  # of each hub

    async def client(self, hub: int, user: str) -> Client:
        client = await self.hubs[hub].viewer(self.show, user)
        await sees_sale(client, self.sale["sale"])
        return client

    async def resynced(self, since_ms: float) -> None:
        """Both hubs subscribed anew after `since_ms`, soon enough."""
        await until(
            lambda: all(times and times[-1] > since_ms for times in self.resyncs),
            "both hubs subscribed anew", RESYNC_SECONDS,
        )  # fmt: skip


def note_resyncs(hub: Hub) -> list[float]:
    """Times (monotonic ms) of every Resync from now on."""
    times: list[float] = []
    take_fact = hub.take_fact

    def noting(show_id: str, fact: Fact | Resync) -> None:
        if isinstance(fact, Resync):
            times.append(clock.monotonic_ms())
        take_fact(show_id, fact)

    hub.take_fact = noting  # type: ignore[method-assign]
    return times


@asynccontextmanager
async def open_market(url: str, database_url: str, logs: Path) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        system = LiveSystem(url, database_url, logs)
        stack.callback(system.stop)
        system.start_worker()
        hubs = (
            await stack.enter_async_context(web_stage(url, database_url)),
            await stack.enter_async_context(web_stage(url, database_url)),
        )
        show = await hubs[0].show()
        sale = await hubs[0].sale(show, units=UNITS, limit_per_buyer=UNITS)
        yield Market(hubs, system, show, sale, [note_resyncs(hub.process.hub) for hub in hubs])


async def true_answer(
    client: Client, sale: dict[str, Any], unsure: Counter[str], claim_id: str = ""
) -> m.ClaimState | None:
    """Claim one unit, and again while the answer is not sure; None: sold out."""
    claim_id = claim_id or str(clock.new_uuid7())
    for attempt in range(200):
        reply = await client.ask(
            lambda ref, n=attempt: m.Claim(  # type: ignore[misc]
                ref=ref, sale=sale["sale"], claim_id=claim_id, quantity=1,
                price_version=sale["price_version"], attempt=n,
            )
        )  # fmt: skip
        if isinstance(reply, m.Accepted):
            assert reply.claim
            return reply.claim
        if reply.name == "sold_out":
            return None
        assert reply.name in UNSURE, reply
        unsure[reply.name] += 1
        await asyncio.sleep(0.1)
    raise AssertionError(f"no true answer: {dict(unsure)}")


async def first_confirmed(market: Market, client: Client) -> m.ClaimState:
    """The worker works, too."""
    claim = await true_answer(client, market.sale, Counter())
    assert claim
    await until(lambda: [o.status for o in client.orders] == ["confirmed"], "confirmed")
    return claim


async def buy_through(
    market: Market, trouble: Callable[[], Awaitable[object]]
) -> tuple[list[m.ClaimState], Counter[str]]:
    """Buyers on both hubs claim one unit after the other while `trouble` happens. All claims.

    However long that takes, some units are left for after it: until then the buyers ask again for
    what they have.
    """
    clients = [await market.client(n % 2, f"b{n}") for n in range(BUYERS)]
    unsure: Counter[str] = Counter()
    halfway, over = asyncio.Event(), asyncio.Event()
    won = [await first_confirmed(market, clients[0])]

    async def buy(client: Client) -> None:
        claim_id = ""
        for _ in range(CLAIMS_EACH):
            claim = await true_answer(client, market.sale, unsure)
            if claim is not None:
                won.append(claim)
                claim_id = claim.claim_id
            if len(won) >= UNITS // 3:
                halfway.set()
            await think()
            while claim_id and len(won) >= UNITS - SPARE and not over.is_set():
                assert await true_answer(client, market.sale, unsure, claim_id)
                await think()

    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(buy(client))
        await halfway.wait()
        began = clock.monotonic_ms()
        await trouble()
        over.set()
        await market.resynced(began)
    for client, other in itertools.pairwise(clients):
        await chat_is_seen(client, other)
    await all_confirmed(market, won, clients)
    for client in clients:
        await client.close()
    return won, unsure


async def think() -> None:
    """What people do between two claims."""
    await asyncio.sleep(random.uniform(0.02, 0.06))


async def all_confirmed(market: Market, won: list[m.ClaimState], clients: list[Client]) -> None:
    """Their buyers are told: by an event, or by the answer to a claim that was asked again after
    the worker had confirmed it."""
    open_ids = {claim.claim_id for claim in won if claim.status != "confirmed"}

    def missing() -> set[str]:
        told = {o.claim_id for c in clients for o in c.orders if o.status == "confirmed"}
        return open_ids - told

    try:
        await until(lambda: not missing(), "all confirmed")
    except AssertionError as error:
        held = [claim for claim in won if claim.claim_id in missing()]
        audit = market.system.run("audit").stdout
        raise AssertionError(f"nobody was told of {held}\n{audit}{market.system.logs()}") from error


async def chat_is_seen(speaker: Client, listener: Client) -> None:
    text = clock.new_short_id(8)
    assert isinstance(await speaker.ask(lambda ref: m.Chat(ref=ref, text=text)), m.Accepted)
    await until(lambda: text in [line.text for line in listener.chat], "the line")


def assert_true(market: Market, won: list[m.ClaimState]) -> None:
    """Every unit was sold exactly once, and Redis and the books agree."""
    assert len({claim.claim_id for claim in won}) == len(won) == UNITS
    audit = market.system.run("audit")
    assert audit.returncode == 0, audit.stdout + market.system.logs()


async def test_cluster_when_a_sale_runs_on_two_hubs_then_claims_likes_and_chat_work(
    cluster: ValkeyCluster, database_url: str, tmp_path: Path
) -> None:
    async with open_market(cluster.url, database_url, tmp_path) as market:
        ann, bob = await market.client(0, "ann"), await market.client(1, "bob")
        await first_confirmed(market, ann)
        key = f"stock:{market.sale['sale']}"
        await until(lambda: bob.state[key]["left"] == UNITS - 1, "the stock at the other hub")
        for client in (ann, bob):
            assert isinstance(await client.ask(lambda ref: m.Like(ref=ref, taps=7)), m.Accepted)
        await until(lambda: bob.state["likes"]["total"] == 14, "all likes")
        await chat_is_seen(ann, bob)
        await chat_is_seen(bob, ann)
        for client in (ann, bob):
            await client.close()


async def test_claims_when_the_shows_slot_moves_then_all_get_true_answers(
    cluster: ValkeyCluster, database_url: str, tmp_path: Path
) -> None:
    async with open_market(cluster.url, database_url, tmp_path) as market:
        won, unsure = await buy_through(market, lambda: cluster.move(market.show))
        assert_true(market, won)
        assert unsure["stock_rebuilding"]  # a server it does not know: the stock is checked first


async def test_claims_when_the_shows_primary_dies_then_all_get_true_answers(
    cluster: ValkeyCluster, database_url: str, tmp_path: Path
) -> None:
    async with open_market(cluster.url, database_url, tmp_path) as market:

        async def kill() -> None:
            primary = await cluster.primary_of(market.show)
            await cluster.kill(primary)
            await cluster.served_by_another(market.show, primary)

        won, unsure = await buy_through(market, kill)
        await cluster.revive()
        assert_true(market, won)
        assert unsure["outcome_unknown"] or unsure["unavailable"]


async def test_claims_when_sentinels_promote_the_replica_then_all_get_true_answers(
    pair: WatchedPair, database_url: str, tmp_path: Path
) -> None:
    assert await answers_redis(pair.url)  # as `livesale up` asks
    async with open_market(pair.url, database_url, tmp_path) as market:

        async def kill() -> None:
            pair.nodes[0].server.kill()
            await pair.nodes[0].server.stop()
            await pair.promoted()

        won, unsure = await buy_through(market, kill)
        assert_true(market, won)
        assert unsure["outcome_unknown"] or unsure["unavailable"]


async def test_sentinels_when_many_ask_at_once_while_one_hangs_then_none_is_forgotten(
    pair: WatchedPair,
) -> None:
    """Two askers that looked past the one that hung made redis-py forget it for good."""
    hung, *others = [child.process for _, child in pair.sentinels]
    pool = PrimaryPool(parse_address(pair.url))

    async def is_answered() -> bool:
        with suppress(RedisError):
            return await pool.get_master_address() == ("127.0.0.1", pair.nodes[0].port)
        return False

    with stopped(hung):
        assert all(await asyncio.gather(*(is_answered() for _ in range(8))))
    with stopped(*others):
        await until_answer(is_answered, "the address from the one that hung")
    await pool.aclose()


@contextmanager
def stopped(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """They stand still in the block."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)
