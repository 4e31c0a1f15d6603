"""The room's side of the store, and the bus that carries its facts between hubs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server import limits
from server.domain.presence import PresenceReport
from server.embedded.valkey import ValkeyServer
from server.errors import StoreUnavailable
from server.protocol.facts import (
    ChatFact,
    EventFact,
    Fact,
    HeartbeatFact,
    KickFact,
    OrderFact,
    PolicyFact,
    Resync,
    StateFact,
)
from server.protocol.messages import ChatLine
from server.store import keys
from server.store.bus import Bus
from server.store.client import RedisClients
from server.store.redis_clock import RedisClock
from server.store.types import Confirmation, Give, PolicyChange, PoolCounters, RoomPulse
from tests.shop import (
    EPOCH,
    HUB,
    SHOW,
    Shop,
    claim,
    claim_id,
    confirmation,
    dump,
    open_shop,
    sale_projection,
    show_projection,
)

PRODUCT = {
    "product": 21,
    "title": "口红",
    "image_url": "/demo/1.svg",
    "skus": [{"sku": 11, "title": "正红", "price": 1990, "currency": "CNY"}],
}


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    async with open_shop(redis_url) as shop:
        await shop.open_show(products=[PRODUCT])
        yield shop


class Ear:
    """Hears what the bus of one hub says, one show at a time."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self._facts = bus.facts()

    async def next(self) -> tuple[str, Fact | Resync]:
        return await asyncio.wait_for(anext(self._facts), 20)

    async def until(self, wanted: type[Any]) -> list[Fact | Resync]:
        """Facts up to and including the first one of type `wanted`."""
        heard: list[Fact | Resync] = []
        while not heard or not isinstance(heard[-1], wanted):
            heard.append((await self.next())[1])
        return heard

    async def aclose(self) -> None:
        await self.bus.aclose()
        with pytest.raises(StopAsyncIteration):
            await self.next()


@asynccontextmanager
async def listening(shop: Shop, hub_id: str = HUB) -> AsyncIterator[Ear]:
    """A hub's bus, subscribed to the show; its Resync was heard."""
    bus = Bus(shop.clients)
    ear = Ear(bus)
    await bus.subscribe(SHOW, hub_id)
    assert await ear.next() == (SHOW, Resync("subscribed"))
    yield ear
    await ear.aclose()


# --- Snapshot and events -----------------------------------------------------------------------


async def test_snapshot_when_the_show_is_new_then_every_value_is_there(shop: Shop) -> None:
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    assert (snapshot.gate, snapshot.stock_epoch, snapshot.seq) == ("open", EPOCH, 0)
    assert set(snapshot.state) == {"show", "pin", "runlist", "room", "likes", "online"}
    assert snapshot.state["runlist"]["products"] == [PRODUCT]
    assert {value["epoch"] for value in snapshot.state.values()} == {snapshot.epoch}


async def test_snapshot_when_the_show_is_unknown_then_none(shop: Shop) -> None:
    assert await shop.room.snapshot("nowhere") is None


async def test_publish_event_when_repeated_by_the_same_act_then_once(shop: Shop) -> None:
    first = await shop.room.publish_event(SHOW, "commentary", {"text": "一"}, "act-1")
    again = await shop.room.publish_event(SHOW, "commentary", {"text": "一"}, "act-1")
    other = await shop.room.publish_event(SHOW, "commentary", {"text": "二"}, "act-2")
    assert (first, again, other) == (1, 1, 2)
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    events = await shop.room.events_after(SHOW, snapshot.epoch, 0, 10)
    assert [(e["k"], e["seq"], e["text"]) for e in events or []] == [
        ("commentary", 1, "一"),
        ("commentary", 2, "二"),
    ]


async def test_events_after_when_there_would_be_a_gap_then_none(shop: Shop) -> None:
    count = limits.HISTORY_EVENTS_MAX + 5
    for n in range(count):
        await shop.room.publish_event(SHOW, "pinned", {"product": n}, f"act-{n}")
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    epoch, room = snapshot.epoch, shop.room
    assert snapshot.seq == count
    assert await room.events_after(SHOW, epoch, count, 10) == []
    assert len(await room.events_after(SHOW, epoch, count - 7, 7) or []) == 7
    assert len(await room.events_after(SHOW, epoch, 5, 1_000) or []) == count - 5
    assert await room.events_after(SHOW, epoch, 4, 1_000) is None  # trimmed away
    assert await room.events_after(SHOW, epoch, count - 7, 6) is None  # more than wanted
    assert await room.events_after(SHOW, epoch, count + 1, 10) is None  # from the future
    assert await room.events_after(SHOW, epoch + 1, count, 10) is None
    assert await room.events_after("nowhere", epoch, 0, 10) is None


async def test_apply_show_when_phase_and_pin_change_then_events_and_values(shop: Shop) -> None:
    await shop.open_show(revision=2, phase="paused", pinned_product=21, products=[PRODUCT])
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    events = await shop.room.events_after(SHOW, snapshot.epoch, 0, 10)
    assert [(e["k"], e.get("phase"), e.get("product")) for e in events or []] == [
        ("show_phase", "paused", None),
        ("pinned", None, 21),
    ]
    assert snapshot.state["pin"]["product"] == 21
    assert snapshot.state["show"]["phase"] == "paused"


# --- Likes, chat, policy -----------------------------------------------------------------------


async def test_add_likes_when_a_batch_is_repeated_then_it_counts_once(shop: Shop) -> None:
    add = shop.room.add_likes
    totals = [await add(SHOW, *batch) for batch in (("h1", 1, 5), ("h1", 1, 5), ("h2", 1, 2))]
    totals += [await add(SHOW, *batch) for batch in (("h1", 3, 1), ("h1", 2, 9))]
    assert totals == [5, 5, 7, 8, 8]


async def test_publish_chat_when_there_is_much_then_the_newest_lines_are_kept(
    shop: Shop,
) -> None:
    count = limits.RECENT_CHAT_MAX + 10
    lines = [ChatLine(str(n), "u", "名", "viewer", f"第{n}行") for n in range(count)]
    for start in range(0, count, 10):
        await shop.room.publish_chat(SHOW, lines[start : start + 10], 0)
    await shop.room.publish_chat(SHOW, [], 3)
    snapshot = await shop.room.snapshot(SHOW)
    assert snapshot is not None
    assert snapshot.chat == lines[-limits.RECENT_CHAT_MAX :]


async def test_write_policy_when_changed_in_parts_then_the_rest_stays(shop: Shop) -> None:
    write = shop.room.write_policy
    assert (await shop.room.read_policy(SHOW)).version == 0
    assert await write(SHOW, PolicyChange(words=["坏词", "x"], mute={"张三": 5, "b": 6})) == 1
    assert await write(SHOW, PolicyChange(slow_mode_s=9, unmute=["b"], ban={"c": 7})) == 2
    policy = await shop.room.read_policy(SHOW)
    assert (policy.version, policy.slow_mode_s, policy.words) == (2, 9, ("坏词", "x"))
    assert (policy.muted, policy.banned) == ({"张三": 5}, {"c"})
    await write(SHOW, PolicyChange(slow_mode_s=0, words=[], unban=["c"]))
    policy = await shop.room.read_policy(SHOW)
    assert (policy.slow_mode_s, policy.words, policy.banned) == (0, (), set())


async def test_write_policy_when_thousands_are_muted_then_all_of_them(shop: Shop) -> None:
    users = [f"user-{n}" for n in range(4_500)]
    await shop.room.write_policy(SHOW, PolicyChange(mute=dict.fromkeys(users, 7)))
    assert len((await shop.room.read_policy(SHOW)).muted) == len(users)
    await shop.room.write_policy(SHOW, PolicyChange(unmute=users[1:]))
    assert (await shop.room.read_policy(SHOW)).muted == {users[0]: 7}


async def test_redis_clock_when_refreshed_then_it_is_near_redis_time(shop: Shop) -> None:
    clock = RedisClock(shop.clients.commands)
    await clock.refresh()
    before = await shop.now_ms()
    now_ms = clock.now_ms()
    assert before - 1_000 < now_ms < await shop.now_ms() + 1_000


# --- Facts -------------------------------------------------------------------------------------


async def test_facts_when_scripts_run_then_each_kind_can_be_decoded(shop: Shop) -> None:
    await shop.open_sale(units=1)
    line = ChatLine("1", "u", "名", "viewer", "你好")
    async with listening(shop) as ear:
        await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
        sold, event = [(await ear.next())[1] for _ in range(2)]
        assert isinstance(sold, StateFact)
        assert (sold.key, sold.value["left"], sold.edge) == ("stock:1", 0, True)
        assert isinstance(event, EventFact)
        assert (event.event["k"], event.event["what"]) == ("sale_phase", "sold_out")
        await shop.room.publish_chat(SHOW, [line], 2)
        await shop.room.kick(SHOW, "u", 4403)
        await shop.room.write_policy(SHOW, PolicyChange(ban={"u": 7}))
        heard = await ear.until(PolicyFact)
    assert heard == [ChatFact([line], 2), KickFact("u", 4403), PolicyFact(1)]


async def test_facts_when_claims_are_confirmed_then_only_their_hub_hears_of_them(
    shop: Shop,
) -> None:
    await shop.open_sale(units=20, limit_per_buyer=1)
    await shop.stock.claim_batch(SHOW, "h1", EPOCH, [claim(n) for n in range(18)])
    await shop.stock.claim_batch(SHOW, "h2", EPOCH, [claim(99, "张三")])
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    async with listening(shop, "h1") as first, listening(shop, "h2") as second:
        said = confirmation(cut.pending, PoolCounters(1, 0, 19, 0, 1))
        await shop.stock.confirm_batch(SHOW, said)
        mine = (await first.until(OrderFact))[-1]
        theirs = (await second.until(OrderFact))[-1]
    assert isinstance(mine, OrderFact)
    assert isinstance(theirs, OrderFact)
    assert [user for user, _ in mine.orders] == [f"buyer-{n}" for n in range(18)]
    ((user, state),) = theirs.orders
    assert (user, state.status, state.seq, state.order_id) == ("张三", "confirmed", 19, 1_019)


async def test_facts_when_a_claim_is_released_then_every_hub_hears_of_it(shop: Shop) -> None:
    await shop.open_sale()
    await shop.stock.claim_batch(SHOW, "h1", EPOCH, [claim(1, quantity=2)])
    give = Give("g", 1, 2, "expired", "buyer-1", claim_id(1))
    async with listening(shop, "h2") as ear:
        await shop.stock.give_batch(SHOW, [give])
        fact = (await ear.until(OrderFact))[-1]
    assert isinstance(fact, OrderFact)
    ((user, state),) = fact.orders
    assert (user, state.status, state.quantity, state.seq) == ("buyer-1", "expired", 2, 1)


async def test_snapshot_and_facts_when_put_together_then_they_equal_a_fresh_snapshot(
    shop: Shop,
) -> None:
    async with listening(shop) as ear:
        await shop.open_sale(units=6)
        start = await shop.room.snapshot(SHOW)
        assert start is not None
        await everything_happens(shop)
        heard = await ear.until(HeartbeatFact)
    end = await shop.room.snapshot(SHOW)
    assert end is not None
    state, seq = dict(start.state), start.seq
    for fact in heard:
        if isinstance(fact, StateFact):
            keep_newer(state, fact)
        elif isinstance(fact, EventFact) and fact.event["seq"] > seq:
            assert (fact.epoch, fact.event["seq"]) == (end.epoch, seq + 1)
            seq += 1
    assert state == end.state
    assert seq == end.seq


def keep_newer(state: dict[str, dict[str, Any]], fact: StateFact) -> None:
    old, new = state.get(fact.key), fact.value
    if old is None or (new["epoch"], new["version"]) > (old["epoch"], old["version"]):
        state[fact.key] = new


async def everything_happens(shop: Shop) -> None:
    await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(n) for n in range(8)])
    await shop.stock.give_batch(SHOW, [Give("g1", 1, 4, "restock")])
    await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(10)])
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    said = confirmation(cut.pending, PoolCounters(1, 0, 7, 0, 1))
    await shop.stock.confirm_batch(SHOW, said)
    await shop.stock.take(SHOW, 1, claim_id(50), 1, close=False)
    now_ms = await shop.now_ms()
    await shop.stock.apply_sale(SHOW, sale_projection(now_ms, revision=2, price_version=2))
    await shop.room.add_likes(SHOW, HUB, 1, 5)
    told = PresenceReport(number=1, after=0, came=("ann",), left=(), anonymous=4)
    await shop.room.report_presence(SHOW, HUB, told, 60_000)
    await shop.room.write_policy(SHOW, PolicyChange(slow_mode_s=5))
    await shop.stock.apply_show(SHOW, show_projection(revision=2, phase="paused"))
    await shop.stock.take(SHOW, 1, claim_id(51), None, close=True)
    await shop.room.heartbeat(SHOW, HUB, 1)


# --- Bus ---------------------------------------------------------------------------------------


async def test_bus_when_the_server_restarts_then_resync_and_facts_again(
    valkey_factory: Callable[..., Awaitable[ValkeyServer]],
) -> None:
    server = await valkey_factory()
    async with open_shop(server.url) as shop, listening(shop) as ear:
        server.kill()
        await server.stop()
        await server.start()
        assert await ear.next() == (SHOW, Resync("subscribed"))
        await shop.room.heartbeat(SHOW, HUB, 1)
        assert await ear.until(HeartbeatFact) == [HeartbeatFact(HUB, 1)]


async def test_bus_when_the_connection_is_cut_then_resync_and_facts_again(shop: Shop) -> None:
    async with listening(shop) as ear:
        await shop.clients.commands.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert await ear.next() == (SHOW, Resync("subscribed"))
        await shop.room.heartbeat(SHOW, HUB, 1)
        assert (await ear.next())[1] == HeartbeatFact(HUB, 1)


async def test_bus_when_found_deaf_then_reconnect_brings_a_resync(shop: Shop) -> None:
    async with listening(shop) as ear:
        reading = asyncio.ensure_future(ear.next())
        await asyncio.sleep(0)
        await ear.bus.reconnect([SHOW])
        assert await reading == (SHOW, Resync("subscribed"))


async def test_bus_when_shows_come_and_go_then_only_the_wanted_are_heard(shop: Shop) -> None:
    async with listening(shop) as ear:
        await ear.bus.subscribe("other", HUB)
        assert await ear.next() == ("other", Resync("subscribed"))
        await ear.bus.unsubscribe(SHOW)
        await ear.bus.unsubscribe(SHOW)
        await shop.room.heartbeat(SHOW, HUB, 1)
        await shop.room.heartbeat("other", HUB, 2)
        assert await ear.next() == ("other", HeartbeatFact(HUB, 2))


async def test_bus_when_a_fact_cannot_be_read_then_resync(shop: Shop) -> None:
    async with listening(shop) as ear:
        await shop.clients.commands.execute_command("SPUBLISH", keys.bus_channel(SHOW), b"?")
        assert await ear.next() == (SHOW, Resync("unreadable fact"))


async def test_bus_when_the_server_accepts_and_is_silent_then_it_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stuck Redis greets nobody: neither the reader nor who subscribes may wait for ever."""
    monkeypatch.setattr("server.store.bus.OPEN_SECONDS", 0.05)
    callers: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.put_nowait(writer)

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        clients = RedisClients(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        bus = Bus(clients)
        await bus.subscribe(SHOW, HUB)
        reading = asyncio.ensure_future(anext(bus.facts()))
        async with asyncio.timeout(10):
            waiting = [await callers.get() for _ in range(2)]
            await bus.subscribe("other", HUB)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        for writer in waiting:
            writer.close()
    await clients.aclose()


async def test_bus_when_redis_is_away_at_first_then_it_waits_for_it(
    valkey_factory: Callable[..., Awaitable[ValkeyServer]],
) -> None:
    server = await valkey_factory()
    async with open_shop(server.url) as shop:
        await server.stop()
        ear = Ear(Bus(shop.clients))
        await ear.bus.subscribe(SHOW, HUB)
        reading = asyncio.ensure_future(ear.next())
        with pytest.raises(StoreUnavailable):
            await shop.room.heartbeat(SHOW, HUB, 1)
        await server.start()
        assert await reading == (SHOW, Resync("subscribed"))
        await ear.aclose()


async def test_confirm_batch_when_there_is_nothing_then_nothing_is_written(shop: Shop) -> None:
    before = await dump(shop)
    await shop.stock.confirm_batch(SHOW, Confirmation())
    assert await dump(shop) == before


# --- Pulse ------------------------------------------------------------------------------------


async def test_pulse_when_hubs_tell_their_totals_then_the_last_of_each_counts(shop: Shop) -> None:
    await shop.room.add_likes(SHOW, HUB, 1, 30)
    for hub, lines, claims in ((HUB, 3, 1), ("hub2", 10, 0), (HUB, 5, 2), (HUB, 5, 2)):
        await shop.room.report_counts(SHOW, hub, lines, claims)
    pulse = await shop.room.pulse(SHOW)
    assert pulse == RoomPulse("open", 0, 30, lines=15, claims=2, backlog=0, oldest_at=0)


async def test_counts_when_the_show_ends_then_they_get_a_time_to_live_and_never_fall(
    shop: Shop,
) -> None:
    """Also those that are told, or told for the first time, after the end."""
    name, redis = keys.counts(SHOW), shop.clients.commands
    await shop.room.report_counts(SHOW, HUB, 5, 2)
    assert await redis.ttl(name) == -1
    await shop.stock.apply_show(SHOW, show_projection(revision=2, phase="paused"))
    assert await redis.ttl(name) == -1
    await shop.stock.apply_show(SHOW, show_projection(revision=3, phase="ended"))
    assert 0 < await redis.ttl(name) <= limits.COUNTS_KEPT_S
    await redis.expire(name, 100)
    await shop.room.report_counts(SHOW, HUB, 1, 3)  # of a hub that had forgotten the show
    assert await redis.ttl(name) <= 100
    pulse = await shop.room.pulse(SHOW)
    assert pulse is not None
    assert (pulse.lines, pulse.claims) == (5, 3)
    await redis.delete(name)
    await shop.room.report_counts(SHOW, HUB, 1, 3)
    assert 100 < await redis.ttl(name) <= limits.COUNTS_KEPT_S


async def test_counts_when_redis_lost_them_then_the_next_report_has_them_back(shop: Shop) -> None:
    await shop.room.report_counts(SHOW, HUB, 5, 2)
    await shop.clients.commands.delete(keys.counts(SHOW))
    await shop.room.report_counts(SHOW, HUB, 6, 2)
    assert await shop.clients.commands.hgetall(keys.counts(SHOW)) == {
        b"hub1:lines": b"6", b"hub1:claims": b"2",
    }  # fmt: skip


async def test_pulse_when_takes_wait_then_the_oldest_tells_since_when(shop: Shop) -> None:
    await shop.open_sale()
    before = await shop.now_ms()
    for n in range(3):
        await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(n)])
    after = await shop.now_ms()
    pulse = await shop.room.pulse(SHOW)
    assert pulse is not None
    assert pulse.backlog == 3
    assert before <= pulse.oldest_at <= after


async def test_pulse_when_the_show_is_not_there_then_none(shop: Shop) -> None:
    assert await shop.room.pulse("nosuch") is None
