"""The witness against a real Redis: hears what scripts publish, also after its connection broke."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import redis.asyncio

from loadtest.measures.witness import Witness
from server.store import keys
from server.supervision.child import until

SHOW = "s1"
# As server/store/lua/_room.lua publishes a state value.
PUBLISH = """
local value = cmsgpack.pack({epoch = 3, version = tonumber(ARGV[1]), left = tonumber(ARGV[2])})
redis.call('SPUBLISH', KEYS[1],
  '\\148' .. cmsgpack.pack('s', 'stock:7') .. value .. cmsgpack.pack(false))
"""


@asynccontextmanager
async def listening(redis_url: str, witness: Witness) -> AsyncIterator[redis.asyncio.Redis]:
    task = asyncio.create_task(witness.run(redis_url, SHOW))
    try:
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await witness.hearing.wait()
            yield client
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def publish(client: redis.asyncio.Redis, version: int, left: int) -> None:
    await client.eval(PUBLISH, 1, keys.bus_channel(SHOW), version, left)


async def test_witness_when_a_script_publishes_then_heard_between_before_and_after(
    redis_url: str,
) -> None:
    zero_us = time.monotonic_ns() // 1000
    witness = Witness(zero_us)
    async with listening(redis_url, witness) as client:
        await publish(client, 1, 4)
        assert await until(lambda: witness.at(7, (3, 1)) is not None, 10)
        await publish(client, 2, 0)
        assert await until(lambda: 7 in witness.sold_out_us, 10)
    first, second = (t_us for _, t_us in witness.history(7))
    assert 0 < first < second <= time.monotonic_ns() // 1000 - zero_us
    assert witness.sold_out_us == {7: second}
    assert witness.deaf == 0


async def test_witness_when_its_connection_breaks_then_deaf_once_and_hears_again(
    redis_url: str,
) -> None:
    witness = Witness(0)
    async with listening(redis_url, witness) as client:
        await client.client_kill_filter(_type="pubsub")
        assert await until(lambda: witness.deaf == 1 and witness.hearing.is_set(), 10)
        await publish(client, 5, 2)
        assert await until(lambda: witness.at(7, (3, 5)) is not None, 10)
    assert witness.deaf == 1
