"""Work cut off at a step, as by SIGKILL: nothing of it runs after that."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def halting_at(owner: Any, name: str, *, after: bool) -> Iterator[asyncio.Event]:
    """In the block whoever comes to this step stops there for ever, before or `after` it is done;
    the event is set when somebody has."""
    step, reached = getattr(owner, name), asyncio.Event()

    async def halt(*args: Any, **kwargs: Any) -> None:
        if after:
            await step(*args, **kwargs)
        reached.set()
        await asyncio.Event().wait()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, halt)
        yield reached
