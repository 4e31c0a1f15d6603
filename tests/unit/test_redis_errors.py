"""What goes wrong below the Redis client has one name above it."""

import asyncio

import pytest
import uvloop

from server.errors import StoreUnavailable
from server.store.client import redis_errors


def test_redis_errors_when_uvloop_writes_to_a_closed_connection_then_unavailable() -> None:
    async def write_until_it_is_told(writer: asyncio.StreamWriter) -> None:
        with redis_errors():
            while True:  # the transport closes its handle in one of the next turns
                writer.writelines([b"PING"])
                await asyncio.sleep(0)

    async def write_to_closed() -> None:
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.transport.abort()
            with pytest.raises(StoreUnavailable, match="the connection is closed"):
                await write_until_it_is_told(writer)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(write_to_closed(), 10))


def test_redis_errors_when_a_runtime_error_is_not_of_a_connection_then_it_stays() -> None:
    with pytest.raises(RuntimeError, match="our own fault"), redis_errors():
        raise RuntimeError("our own fault")
