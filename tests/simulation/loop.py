"""An event loop with virtual time, in which several processes live that can freeze and die.

Nothing waits: when no callback is ready, time jumps to the next timer. Which process runs next is
drawn from a seeded generator, while inside a process callbacks keep their order, as in a real
loop. A process is known by a context variable that every task and timer inherits.

Freezing keeps a process' callbacks back until it is thawed (SIGSTOP). Killing drops them: no
`finally` of it ever runs, as with SIGKILL.
"""

import asyncio
import contextvars
import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable
from functools import partial
from typing import Any

CURRENT: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Process:
    """A simulated process. `skew_ms`: how wrong its wall clock is."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_dead = False
        self.is_frozen = False
        self.skew_ms = 0
        self.kept: list[asyncio.Handle] = []  # callbacks kept back
        self.signals: dict[int, Callable[[], object]] = {}
        self.context = contextvars.Context()
        self.context.run(CURRENT.set, self)

    def __repr__(self) -> str:
        return self.name


class Stuck(Exception):
    """Nothing is ready and no timer is set: somebody waits for what cannot happen."""


class SimLoop(asyncio.BaseEventLoop):
    """`seed` decides every order that a real machine leaves open."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.rng = random.Random(seed)
        self.now = 1_000.0
        self.processes: list[Process] = []
        self._ready: deque[asyncio.Handle]
        self._scheduled: list[asyncio.TimerHandle]

    def time(self) -> float:
        return self.now

    # --- Processes ----------------------------------------------------------------------------

    def spawn(self, process: Process, coro: Any) -> "asyncio.Task[Any]":
        """The main task of a new process."""
        self.processes.append(process)
        return self.create_task(coro, context=process.context.copy())

    def deliver(self, process: Process, seconds: float, callback: Any, *args: Any) -> None:
        """Something reaches `process` from outside in `seconds`."""
        self.call_later(seconds, callback, *args, context=process.context)

    def at(self, seconds: float, callback: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
        """Call back in `seconds`, on no process' account."""
        return self.call_later(seconds, callback, *args, context=contextvars.Context())

    def freeze(self, process: Process) -> None:
        process.is_frozen = True

    def thaw(self, process: Process) -> None:
        process.is_frozen = False
        kept, process.kept = process.kept, []
        self._ready.extend(kept)

    def revive_all(self) -> None:
        """At the very end: let even the dead run, for their cancelled tasks to end."""
        for process in self.processes:
            self.thaw(process)

    def kill(self, process: Process) -> None:
        process.is_dead = process.is_frozen = True

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: Any) -> None:
        """Signals are delivered to the process that asks for them, by `signal`."""
        process = CURRENT.get()
        assert process is not None
        process.signals[sig] = partial(callback, *args)

    def signal(self, process: Process, sig: int) -> None:
        """Send a signal that the process handles; before it does, it dies of it."""
        handler = process.signals.get(sig)
        if handler is None:
            self.kill(process)
        else:
            self.deliver(process, 0.0, handler)

    # --- Running ------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """One turn; called by run_forever."""
        if not self._ready:
            if not self._scheduled:
                raise Stuck("nothing can happen any more")
            self.now = max(self.now, self._scheduled[0].when())
        while self._scheduled and self._scheduled[0].when() <= self.now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            if not timer.cancelled():
                self._ready.append(timer)
        for handle in self._drawn():
            process = _process_of(handle)
            if process is not None and process.is_frozen:
                process.kept.append(handle)
            elif not handle.cancelled():
                handle._run()

    def _drawn(self) -> list[asyncio.Handle]:
        """What is ready, in a drawn order that keeps each process' own."""
        ready, self._ready = list(self._ready), deque()
        if len(ready) == 1:
            return ready
        queues: dict[Process | None, deque[asyncio.Handle]] = defaultdict(deque)
        for handle in ready:
            queues[_process_of(handle)].append(handle)
        if len(queues) == 1:
            return ready
        turns = [_process_of(handle) for handle in ready]
        self.rng.shuffle(turns)
        return [queues[process].popleft() for process in turns]

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are skipped when their time comes."""

    def _process_events(self, event_list: Any) -> None:
        """There is no selector."""

    def _write_to_self(self) -> None:
        """Nobody has to be woken."""


def _process_of(handle: asyncio.Handle) -> Process | None:
    context: contextvars.Context = handle._context  # type: ignore[attr-defined]
    return context.get(CURRENT)
