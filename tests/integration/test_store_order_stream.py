"""The order stream: nothing is lost, nothing is read by two, and losses are noticed."""

from collections.abc import AsyncIterator

import pytest

from server.store import keys
from server.store.order_stream import OrderStream
from server.store.types import StreamLost
from tests.shop import EPOCH, HUB, SHOW, Shop, claim, claim_id, confirmation, open_shop


@pytest.fixture
async def shop(redis_url: str) -> AsyncIterator[Shop]:
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=100)
        yield shop


@pytest.fixture
async def stream(shop: Shop) -> AsyncIterator[OrderStream]:
    stream = OrderStream(SHOW, shop.clients, shop.scripts)
    yield stream
    await stream.aclose()


async def accept(shop: Shop, *numbers: int) -> None:
    batch = [claim(n) for n in numbers]
    await shop.stock.claim_batch(SHOW, HUB, EPOCH, batch)


async def test_read_when_claims_came_before_the_worker_then_they_are_read(
    shop: Shop, stream: OrderStream
) -> None:
    await accept(shop, 1, 2)
    await accept(shop, 3)
    entries = await stream.read("worker", 10, 1)
    assert [[take.claim_id for take in entry.takes] for entry in entries] == [
        [claim_id(1), claim_id(2)],
        [claim_id(3)],
    ]
    assert await stream.read("worker", 10, 1) == []


async def test_read_when_there_is_more_than_wanted_then_the_oldest_first(
    shop: Shop, stream: OrderStream
) -> None:
    for n in range(5):
        await accept(shop, n)
    seqs = [[e.takes[0].seq for e in await stream.read("worker", 2, 1)] for _ in range(3)]
    assert seqs == [[1, 2], [3, 4], [5]]


async def test_confirm_batch_when_done_then_the_entries_are_neither_pending_nor_there(
    shop: Shop, stream: OrderStream
) -> None:
    for n in range(3):
        await accept(shop, n)
    entries = await stream.read("worker", 10, 1)
    assert (await stream.autoclaim("worker", 0)).entries == entries
    assert await stream.backlog() == 3
    await shop.stock.confirm_batch(SHOW, confirmation(entries))
    assert (await stream.autoclaim("worker", 0)).entries == []
    assert await stream.backlog() == 0


async def test_autoclaim_when_a_worker_died_then_its_entries_move(
    shop: Shop, stream: OrderStream
) -> None:
    for n in range(250):  # more than one call of XAUTOCLAIM returns
        await accept(shop, n)
    entries = await stream.read("dead", 1_000, 1)
    assert (await stream.autoclaim("worker", 60_000)).entries == []
    reclaimed = await stream.autoclaim("worker", 0)
    assert reclaimed.entries == entries
    assert reclaimed.lost_ids == []


async def test_autoclaim_when_an_entry_was_deleted_by_force_then_it_is_told(
    shop: Shop, stream: OrderStream
) -> None:
    await accept(shop, 1)
    await accept(shop, 2)
    first, second = await stream.read("dead", 10, 1)
    await shop.clients.commands.xdel(keys.orders(SHOW), first.entry_id)
    reclaimed = await stream.autoclaim("worker", 0)
    assert (reclaimed.entries, reclaimed.lost_ids) == ([second], [first.entry_id])


@pytest.mark.parametrize(
    "fields",
    [
        {"e": "1", "h": "x"},
        {"e": "1", "h": "x", "t": b"\xc1"},
        {"e": "one", "h": "x", "t": b"\x90"},
        {"e": "1", "h": "x", "t": b"\x91\x91\x00"},
        {"e": "1", "h": b"\xff", "t": b"\x90"},
        {"e": "1", "h": "x", "t": b"\x05"},
    ],
)
async def test_read_when_an_entry_cannot_be_read_then_it_has_a_fault_and_the_next_is_fine(
    shop: Shop, stream: OrderStream, fields: dict[str, str | bytes]
) -> None:
    await shop.clients.commands.xadd(keys.orders(SHOW), fields)  # type: ignore[arg-type]
    await accept(shop, 1)
    broken, fine = await stream.read("worker", 10, 1)
    assert broken.fault
    assert broken.takes == []
    assert set(broken.raw) == {name.encode() for name in fields}
    assert fine.fault == ""


async def test_read_when_the_group_is_gone_then_stream_lost(
    shop: Shop, stream: OrderStream
) -> None:
    await shop.clients.commands.delete(keys.orders(SHOW))
    with pytest.raises(StreamLost):
        await stream.read("worker", 10, 1)
    with pytest.raises(StreamLost):
        await stream.autoclaim("worker", 0)


async def test_lease_when_held_then_nobody_else_gets_it_until_it_lapses(
    shop: Shop, stream: OrderStream
) -> None:
    assert await stream.acquire_lease("a", 60_000)
    assert await stream.acquire_lease("a", 60_000)
    assert not await stream.acquire_lease("b", 60_000)
    assert not await stream.renew_lease("b", 60_000)
    assert not await stream.release_lease("b")
    assert await stream.renew_lease("a", 60_000)
    await shop.clients.commands.pexpire(keys.lease(SHOW), 0)
    assert not await stream.renew_lease("a", 60_000)
    assert await stream.acquire_lease("b", 60_000)
    assert not await stream.release_lease("a")
    assert await stream.release_lease("b")
    assert await stream.acquire_lease("a", 60_000)
    assert 0 < await shop.clients.commands.pttl(keys.lease(SHOW)) <= 60_000
