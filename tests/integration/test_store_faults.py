"""Broken keys, a full server, forgotten scripts: scripts check everything before they write."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from server.domain.claim import KIND_CLAIM
from server.domain.presence import PresenceReport
from server.errors import Misconfigured, StoreUnavailable
from server.protocol.messages import ChatLine
from server.store import keys, scripts
from server.store.bus import Bus
from server.store.client import RedisClients
from server.store.order_stream import OrderStream
from server.store.types import Confirmation, Give, PolicyChange, PoolCounters
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

Operation = Callable[[Shop], Awaitable[object]]
ROOM = (keys.state, keys.room, keys.events)


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    """A live show with one sale and one accepted claim that is still in the stream."""
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=5)
        await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
        yield shop


async def claim_all(shop: Shop) -> object:
    """The last unit goes too, so the room's event keys are needed."""
    batch = [claim(n) for n in range(2, 7)]
    return await shop.stock.claim_batch(SHOW, HUB, EPOCH, batch)


async def refuse_repeat(shop: Shop) -> object:
    """One is sold, the other repeat is refused for good."""
    batch = [claim(2)._replace(attempt=1), claim(3, quantity=99)._replace(attempt=1)]
    return await shop.stock.claim_batch(SHOW, HUB, EPOCH, batch)


async def confirm(shop: Shop) -> object:
    cut = await shop.stock.audit_cut(SHOW)
    entries = cut.pending if cut else []
    counters = PoolCounters(1, 0, 1, 0, 1)
    await shop.stock.confirm_batch(SHOW, confirmation(entries, counters))
    return None


async def confirm_known(shop: Shop) -> object:
    """As `confirm`, without reading the stream first."""
    await shop.stock.confirm_batch(
        SHOW, Confirmation(pools=[PoolCounters(1, 0, 1, 0, 1)], entry_ids=["1-1"])
    )
    return None


async def restock(shop: Shop) -> object:
    return await shop.stock.give_batch(SHOW, [Give("g", 1, 3, "restock")])


async def release(shop: Shop) -> object:
    give = Give("r", 1, 1, "expired", "buyer-1", claim_id(1))
    return await shop.stock.give_batch(SHOW, [give])


async def close(shop: Shop) -> object:
    return await shop.stock.take(SHOW, 1, claim_id(99), None, close=True)


async def reprice(shop: Shop) -> object:
    now_ms = await shop.now_ms()
    projection = sale_projection(now_ms, revision=2, price=1, price_version=2)
    return await shop.stock.apply_sale(SHOW, projection)


async def pause(shop: Shop) -> object:
    return await shop.stock.apply_show(SHOW, show_projection(revision=2, phase="paused"))


async def say(shop: Shop) -> object:
    return await shop.room.publish_event(SHOW, "commentary", {"text": "好"}, "act")


async def like(shop: Shop) -> object:
    return await shop.room.add_likes(SHOW, HUB, 1, 5)


async def chat(shop: Shop) -> object:
    await shop.room.publish_chat(SHOW, [ChatLine("1", "u", "n", "viewer", "t")], 0)
    return None


async def report(shop: Shop) -> object:
    told = PresenceReport(number=1, after=0, came=("u",), left=(), anonymous=4)
    return await shop.room.report_presence(SHOW, HUB, told, 60_000)


async def mute(shop: Shop) -> object:
    return await shop.room.write_policy(SHOW, PolicyChange(slow_mode_s=3, mute={"u": 1}))


async def ban(shop: Shop) -> object:
    return await shop.room.write_policy(SHOW, PolicyChange(ban={"u": 7}))


async def delete(shop: Shop) -> object:
    return await shop.room.remove_line(SHOW, "1")


def pool_key(show_id: str) -> str:
    return keys.pool(show_id, 1)


def buyers_key(show_id: str) -> str:
    return keys.buyers(show_id, 1)


KEYS_OF: list[tuple[Operation, tuple[Callable[[str], str], ...]]] = [
    (claim_all, (keys.meta, keys.claims, keys.orders, *ROOM, pool_key, buyers_key)),
    (refuse_repeat, (keys.claims, keys.orders, keys.refusals, pool_key, buyers_key)),
    (confirm, (keys.meta, keys.claims, keys.state, pool_key)),
    (confirm_known, (keys.meta, keys.claims, keys.orders, keys.state, pool_key)),
    (restock, (keys.meta, keys.claims, keys.applied, *ROOM, pool_key, buyers_key)),
    (release, (keys.meta, keys.claims, keys.applied, *ROOM, pool_key, buyers_key)),
    (close, (keys.meta, keys.applied, keys.orders, *ROOM, pool_key)),
    (reprice, (keys.meta, *ROOM, pool_key)),
    (pause, (keys.meta, *ROOM)),
    (say, (keys.applied, *ROOM)),
    (like, (keys.like_batches, *ROOM)),
    (chat, (keys.chat,)),
    (report, (keys.presence, keys.people, keys.like_batches, *ROOM)),
    (mute, (keys.policy, keys.chat, *ROOM)),
    (ban, (keys.policy, keys.chat, *ROOM)),
    (delete, (keys.applied, keys.chat, *ROOM)),
]
PLANTED = [(operation, key) for operation, of_it in KEYS_OF for key in of_it]


@pytest.mark.parametrize(
    ("operation", "key"), PLANTED, ids=[f"{o.__name__}-{k.__name__}" for o, k in PLANTED]
)
async def test_script_when_a_key_has_the_wrong_type_then_nothing_is_written(
    shop: Shop, operation: Operation, key: Callable[[str], str]
) -> None:
    name = key(SHOW)
    await shop.clients.commands.delete(name)
    await shop.clients.commands.set(name, "not what it should be")
    before = await dump(shop)
    with pytest.raises(StoreUnavailable):
        await operation(shop)
    assert await dump(shop) == before


@pytest.mark.parametrize("field", ["a", "q", "v", "n", "s", "p", "pv", "lim", "o", "c"])
@pytest.mark.parametrize("value", ["", "x", "1.5", "1e300", "nan", "inf", None])
async def test_claim_batch_when_a_number_of_the_pool_is_none_then_nothing_is_written(
    shop: Shop, field: str, value: str | None
) -> None:
    name = keys.pool(SHOW, 1)
    if value is None:
        await shop.clients.commands.hdel(name, field)
    else:
        await shop.clients.commands.hset(name, field, value)
    before = await dump(shop)
    if (field, value) == ("a", None):  # that is how a missing pool looks
        answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(2)])
        assert answer.pools == {}
    else:
        with pytest.raises(StoreUnavailable):
            await claim_all(shop)
    assert await dump(shop) == before


async def test_claim_batch_when_a_buyers_count_is_no_number_then_nothing_is_written(
    shop: Shop,
) -> None:
    await shop.clients.commands.hset(keys.buyers(SHOW, 1), "buyer-3", "many")
    before = await dump(shop)
    with pytest.raises(StoreUnavailable):
        await claim_all(shop)
    assert await dump(shop) == before


async def test_claim_batch_when_the_event_numbers_were_lost_then_they_go_on_after_the_stream(
    shop: Shop,
) -> None:
    before = await shop.room.snapshot(SHOW)
    await shop.clients.commands.delete(keys.room(SHOW))
    await claim_all(shop)
    after = await shop.room.snapshot(SHOW)
    assert before is not None
    assert after is not None
    assert after.seq == before.seq + 1
    assert after.epoch >= before.epoch


@pytest.mark.parametrize("operation", [operation for operation, _ in KEYS_OF])
async def test_script_when_memory_is_full_then_nothing_is_written(
    shop: Shop, operation: Operation
) -> None:
    await shop.clients.commands.config_set("maxmemory", "1")
    try:
        before = await dump(shop)
        with pytest.raises(StoreUnavailable, match="OutOfMemory"):
            await operation(shop)
        assert await dump(shop) == before
    finally:
        await shop.clients.commands.config_set("maxmemory", "0")


# --- A script cut short: cannot happen by what we know, and must not sell anything twice --------

CUTTER = """
local writes, real = 0, redis
local redis = setmetatable({call = function(command, ...)
  if ('HSET XADD SPUBLISH XACK XDEL RPUSH'):find(command, 1, true) then
    writes = writes + 1
    if writes > %d then error('CUT') end
  end
  return real.call(command, ...)
end}, {__index = real})
"""


@contextmanager
def cut_after(writes: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Scripts fail before they write more than `writes` times."""
    whole = scripts.load

    def load_cut(name: str) -> scripts.Script:
        source = CUTTER % writes + whole(name).source
        return scripts.Script(source, hashlib.sha1(source.encode()).hexdigest())

    with monkeypatch.context() as patch:
        patch.setattr(scripts, "load", load_cut)
        yield


async def assert_stingy(shop: Shop) -> None:
    """No unit is available and taken at once, no claim is remembered that is not recorded."""
    cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    takes = [take for entry in cut.pending for take in entry.takes]
    recorded = {(take.buyer, take.claim_id) for take in takes if take.kind == KIND_CLAIM}
    remembered = [claim async for claim in shop.stock.remembered_claims(SHOW)]
    live = [c for c in remembered if c.state.status in ("held", "confirmed")]
    ended = {(c.buyer, c.claim_id) for c in remembered} - {(c.buyer, c.claim_id) for c in live}
    taken = {(t.buyer, t.claim_id): t.quantity for t in takes if t.kind == KIND_CLAIM}
    pool = cut.pools[1]
    assert 0 <= pool.available <= pool.units - sum(c.state.quantity for c in live)
    recorded_units = sum(units for claim, units in taken.items() if claim not in ended)
    assert pool.available <= pool.units - recorded_units
    held = {(c.buyer, c.claim_id) for c in live if c.state.status == "held"}
    assert held <= recorded


@pytest.mark.parametrize("writes", range(8))
@pytest.mark.parametrize("operation", [claim_all, refuse_repeat, restock, release, close, confirm])
async def test_script_when_cut_short_then_units_are_stranded_but_never_sold_twice(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, operation: Operation, writes: int
) -> None:
    with cut_after(writes, monkeypatch), suppress(StoreUnavailable):
        await operation(shop)
    await assert_stingy(shop)
    await operation(shop)
    await assert_stingy(shop)


async def test_script_when_redis_forgot_it_then_it_is_loaded_again(shop: Shop) -> None:
    await shop.clients.commands.script_flush()
    answer = await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(2)])
    assert answer.answers[0].code == 0


async def test_preload_when_done_then_redis_knows_every_script(shop: Shop) -> None:
    await shop.clients.commands.script_flush()
    await shop.scripts.preload()
    shas = [scripts.load(name).sha for name in scripts.names()]
    assert all(await shop.clients.commands.script_exists(*shas))


async def test_run_when_redis_is_gone_then_the_outcome_is_unknown(shop: Shop) -> None:
    clients = RedisClients("unix:///nowhere/valkey.sock")
    with pytest.raises(StoreUnavailable):
        await scripts.Scripts(clients.commands).run("lease", ["x"], ("acquire", "me", 1))
    await clients.aclose()


async def test_open_when_the_url_is_no_url_then_misconfigured() -> None:
    with pytest.raises(Misconfigured, match="REDIS_URL"):
        await RedisClients.open("http://example.test")


async def test_open_when_nobody_listens_then_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await RedisClients.open("unix:///nowhere/valkey.sock")


async def test_check_server_when_it_may_evict_then_misconfigured(shop: Shop) -> None:
    facts = await shop.clients.check_server()
    assert facts.version >= (7, 0, 0)
    await shop.clients.commands.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(Misconfigured, match="noeviction"):
            await shop.clients.check_server()
    finally:
        await shop.clients.commands.config_set("maxmemory-policy", "noeviction")


async def test_every_script_when_on_a_cluster_then_all_its_keys_are_in_one_slot(
    valkey_factory: Callable[..., Awaitable[object]],
) -> None:
    server = await valkey_factory(cluster_enabled="yes")
    async with open_shop(server.url) as shop:  # type: ignore[attr-defined]
        await shop.clients.commands.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        while b"cluster_state:ok" not in await shop.clients.commands.execute_command(
            "CLUSTER", "INFO"
        ):
            pass
        await shop.open_show()
        await shop.open_sale(units=5)
        await shop.stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
        for operation, _ in KEYS_OF:
            await operation(shop)
        snapshot = await shop.room.snapshot(SHOW)
        assert snapshot is not None
        assert await shop.room.events_after(SHOW, snapshot.epoch, 0, 100)
        stream = OrderStream(SHOW, shop.clients, shop.scripts)
        assert await stream.acquire_lease("worker", 1_000)
        await stream.aclose()
        bus = Bus(shop.clients)
        shows = {SHOW, "other", "third"}
        for show_id in shows:
            await bus.subscribe(show_id, HUB)
        facts = bus.facts()
        assert {(await anext(facts))[0] for _ in shows} == shows
        await facts.aclose()  # type: ignore[attr-defined]
