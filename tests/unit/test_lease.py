"""The lease's holder can be cancelled at any await, also while it lets go."""

import asyncio
from typing import Any, cast

import pytest

from server.orders import lease
from server.store.order_stream import OrderStream


class Granted:
    """An order stream that grants every lease."""

    async def acquire_lease(self, *_: Any) -> bool:
        return True

    async def release_lease(self, *_: Any) -> bool:
        return True


async def test_holder_when_cancelled_while_it_lets_go_then_it_is_cancelled() -> None:
    leave = asyncio.Event()

    async def work() -> None:
        async with lease.hold(cast(OrderStream, Granted()), "w1"):
            await leave.wait()

    working = asyncio.create_task(work())
    await asyncio.sleep(0)
    leave.set()
    await asyncio.sleep(0)  # now it awaits the end of the task that renews
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
