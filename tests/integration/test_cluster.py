"""The store on a Cluster: three primaries, three replicas, shows on all of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.domain.presence import PresenceReport
from server.embedded.supervisor import answers_redis
from server.errors import Misconfigured, Unfit
from server.protocol.facts import HeartbeatFact, Resync
from server.protocol.messages import ChatLine
from server.store import keys
from server.store.bus import Bus, Told
from server.store.durability import Replicas, require_durability
from server.store.evidence import Evidence
from server.store.gate import read_all_vitals
from server.store.order_stream import OrderStream
from server.store.redis_clock import RedisClock
from server.store.stock import Stock
from tests.live import until
from tests.redis_cluster import ValkeyCluster
from tests.shop import EPOCH, HUB, Shop, claim, confirmation, open_shop

RESYNC_SECONDS = 3.0
ROOM = (keys.state, keys.room, keys.events, keys.bus_channel)
SPREAD = ("show0", "show1", "show2", "show3", "show4", "show5")  # on all three primaries


@pytest.fixture
async def shop(cluster: ValkeyCluster) -> AsyncIterator[Shop]:
    for node in await cluster.primaries():
        await node.ask("FLUSHALL")
    async with open_shop(cluster.url) as opened:
        yield opened


@asynccontextmanager
async def hearing(shop: Shop, *shows: str) -> AsyncIterator[tuple[Bus, list[Told]]]:
    """A hub's bus, subscribed to the shows, and what it has told so far (here: a Resync each)."""
    bus, told = Bus(shop.clients), []

    async def listen() -> None:
        async for one in bus.facts():
            told.append(one)

    listening = asyncio.create_task(listen())
    for show_id in shows:
        await bus.subscribe(show_id, HUB)
    await until(lambda: len(told) == len(shows), "subscribed")
    assert {show_id for show_id, _ in told} == set(shows)
    told.clear()
    yield bus, told
    await bus.aclose()
    await listening


async def opened(shop: Shop, *shows: str) -> None:
    for show_id in shows:
        await shop.open_show(show_id)
        await shop.open_sale(show_id=show_id)


async def test_cluster_when_many_shows_run_then_each_is_on_its_own_server(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    await opened(shop, *SPREAD)
    ports = {(await cluster.primary_of(show_id)).port for show_id in SPREAD}
    assert len(ports) == 3
    assert (await shop.clients.check_server()).cluster
    async with hearing(shop, *SPREAD) as (_, told):
        for show_id in SPREAD:
            answer = await shop.stock.claim_batch(show_id, HUB, EPOCH, [claim(1)])
            assert answer.answers[0].code == 0
            assert await shop.room.add_likes(show_id, HUB, 1, 7) == 7
            await shop.room.publish_chat(show_id, [ChatLine("1", "u", "名", "viewer", "好")], 0)
            await shop.room.report_counts(show_id, HUB, 1, 1)
            await shop.room.heartbeat(show_id, HUB, 1)
        pulses = [await shop.room.pulse(show_id) for show_id in SPREAD]
        assert [(p.likes, p.lines, p.claims, p.backlog) for p in pulses if p] == [(7, 1, 1, 1)] * 6
        beats = [(show_id, HeartbeatFact(HUB, 1)) for show_id in SPREAD]
        await until(lambda: all(beat in told for beat in beats), "a heartbeat of every show")
        counted = [await Evidence(shop.scripts).count_hubs(show_id) for show_id in SPREAD]
        assert counted == [(0, 1)] * len(SPREAD)
    vitals = await read_all_vitals(shop.scripts, dict.fromkeys(SPREAD, (1,)))
    assert [(v.epoch, v.same_run, v.seqs) for v in vitals.values()] == [(1, True, {1: 1})] * 6


async def test_up_when_it_is_given_a_cluster_then_it_knows_whether_that_answers(
    cluster: ValkeyCluster,
) -> None:
    assert await answers_redis(cluster.url)
    assert not await answers_redis("redis+cluster://127.0.0.1:1")
    with pytest.raises(Misconfigured, match="REDIS_URL"):
        await answers_redis("redis+cluster://")


async def test_cluster_when_servers_forgot_the_scripts_then_they_are_loaded_again(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    await opened(shop, *SPREAD)
    for node in await cluster.primaries():
        await node.ask("SCRIPT", "FLUSH")
    vitals = await read_all_vitals(shop.scripts, dict.fromkeys(SPREAD, (1,)))
    assert all(one.same_run for one in vitals.values())


async def test_cluster_when_the_worker_consumes_then_takes_are_settled_and_told(shop: Shop) -> None:
    (show_id,) = SPREAD[:1]
    await opened(shop, show_id)
    stream = OrderStream(show_id, shop.clients, shop.scripts)
    assert await stream.acquire_lease("worker", 5_000)
    reading = asyncio.create_task(stream.read("worker", 10, 5_000))
    await shop.stock.claim_batch(show_id, HUB, EPOCH, [claim(1)])
    entries = await reading
    await shop.stock.confirm_batch(show_id, confirmation(entries))
    (state,) = await shop.stock.lookup(show_id, [("buyer-1", claim(1).claim_id)])
    assert state
    assert state.status == "confirmed"
    assert await stream.backlog() == 0
    await stream.aclose()


async def test_cluster_when_strict_then_the_replica_of_the_shows_own_server_acknowledges(
    shop: Shop,
) -> None:
    await opened(shop, *SPREAD)
    stock = Stock(shop.scripts, Replicas(shop.scripts))
    for show_id in SPREAD:
        answer = await stock.claim_batch(show_id, HUB, EPOCH, [claim(1)])
        assert answer.answers[0].code == 0
        assert await shop.clients.commands.exists(keys.fence(show_id))


async def test_cluster_when_one_server_keeps_nothing_then_durability_is_refused(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    clock = RedisClock(shop.clients.commands)
    await clock.refresh()
    assert abs(clock.now_ms() - await shop.now_ms()) < 1_000
    node = await cluster.primary_of(SPREAD[0])
    with pytest.raises(Unfit, match="appendonly"):
        await require_durability(shop.clients.commands, "fast", vouched=False, demo=False)
    await node.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(Misconfigured, match="noeviction"):
            await shop.clients.check_server()
    finally:
        await node.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


async def test_cluster_when_a_slot_is_on_its_way_then_commands_follow_the_keys(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    """ASK leads to keys that have gone ahead. Scripts, of which some keys do not exist yet, are
    told TRYAGAIN by both servers and wait for the end of the move, then MOVED leads them."""
    (show_id,) = SPREAD[:1]
    await opened(shop, show_id)
    source, target = await cluster.begin_move(show_id)
    await cluster.carry(show_id, source, target, keys.meta(show_id))
    assert await shop.clients.commands.hget(keys.meta(show_id), "gate") == b"open"
    assert await shop.clients.commands.exists(keys.room(show_id))
    names = [keys.like_batches(show_id), *(key(show_id) for key in ROOM)]
    size = ("HLEN", keys.room(show_id))
    liking = asyncio.create_task(shop.scripts.run_with("add_likes", names, (HUB, 1, 7), size))
    chatting = asyncio.create_task(shop.room.publish_event(show_id, "commentary", {}, "act"))
    await cluster.carry(show_id, source, target)
    assert not liking.done()
    assert not chatting.done()
    await cluster.end_move(show_id, source, target)
    likes, fields = await liking
    assert (int(likes), fields > 3, await chatting) == (7, True, 2)
    assert await shop.room.add_likes(show_id, HUB, 1, 7) == 7  # a repeat, at the new place
    assert await cluster.primary_of(show_id) is target


async def test_bus_when_slots_move_then_each_show_is_resynced_and_heard_at_its_new_place(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    await opened(shop, *SPREAD)
    async with hearing(shop, *SPREAD) as (_, told):
        for show_id in SPREAD[:3]:
            await cluster.move(show_id)
            resync = (show_id, Resync("subscribed"))
            await until(lambda r=resync: r in told, "resync", RESYNC_SECONDS)  # type: ignore[misc]
        for show_id in SPREAD:
            await shop.room.heartbeat(show_id, HUB, 5)
            beat = (show_id, HeartbeatFact(HUB, 5))
            await until(lambda b=beat: b in told, "heard", RESYNC_SECONDS)  # type: ignore[misc]
            assert await Evidence(shop.scripts).count_hubs(show_id) == (0, 1)


async def test_bus_when_a_replica_takes_over_in_peace_then_it_is_heard_there(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    """The old primary, a replica now, goes on telling: nothing breaks, but rebuilding asks the
    new one which hubs listen."""
    (show_id,) = SPREAD[:1]
    await opened(shop, show_id)
    old = await cluster.primary_of(show_id)
    async with hearing(shop, show_id) as (_, told):
        await (await cluster.replica_of(old)).ask("CLUSTER", "FAILOVER")
        await cluster.served_by_another(show_id, old)
        report = PresenceReport(number=1, after=0, came=(), left=(), anonymous=1)
        await shop.room.report_presence(show_id, HUB, report, 60_000)  # as hubs do
        await until(lambda: (show_id, Resync("subscribed")) in told, "resync", RESYNC_SECONDS)
        assert await Evidence(shop.scripts).count_hubs(show_id) == (0, 1)
    await cluster.healthy()


async def test_cluster_when_a_primary_dies_then_its_replica_goes_on_and_others_notice_nothing(
    shop: Shop, cluster: ValkeyCluster
) -> None:
    await opened(shop, *SPREAD)
    (show_id,) = SPREAD[:1]
    dying = await cluster.primary_of(show_id)
    others = [s for s in SPREAD if await cluster.primary_of(s) is not dying]
    async with hearing(shop, show_id, *others) as (_, told):
        await cluster.kill(dying)
        for other in others:
            assert await shop.room.add_likes(other, HUB, 1, 7) == 7
        await cluster.served_by_another(show_id, dying)
        await until(lambda: (show_id, Resync("subscribed")) in told, "resync", RESYNC_SECONDS)
        assert not [who for who, what in told if who != show_id and what == Resync("subscribed")]
        assert await shop.room.add_likes(show_id, HUB, 1, 7) == 7
    await cluster.revive()
