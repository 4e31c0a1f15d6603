"""The signals that a supervisor understands: stop, insist, and start everything anew."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

STOPS: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """The first of `stops` asks to stop, the second insists; SIGHUP, unless it is one of these,
    asks for a restart."""

    def __init__(self, stops: tuple[signal.Signals, ...] = STOPS) -> None:
        self.stop = asyncio.Event()
        self.force = asyncio.Event()
        self.restart = asyncio.Event()
        self._stops = stops

    def install(self) -> None:
        """For the running loop, which is the main thread's."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.restart.set)
        for number in self._stops:
            loop.add_signal_handler(number, self._asked_to_stop)

    def _asked_to_stop(self) -> None:
        (self.force if self.stop.is_set() else self.stop).set()

    async def unless_forced(
        self, orderly: Coroutine[Any, Any, None], kill: Callable[[], None]
    ) -> None:
        """Stop the `orderly` way; when a second signal comes meanwhile, `kill` shortens it."""
        stopping = asyncio.create_task(orderly)
        forced = asyncio.create_task(self.force.wait())
        await asyncio.wait({stopping, forced}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():
            kill()
        await cancelled(forced)
        await stopping


async def cancelled(task: "asyncio.Task[Any]") -> None:
    """Cancel and wait; whatever the task ended with stays in it."""
    task.cancel()
    await asyncio.wait({task})
