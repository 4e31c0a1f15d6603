"""A loader process: `python -m loadtest.swarm.worker`, spoken to over stdin and stdout (pipe.py).

It connects its people when they are meant to come, lets them act at the intended instants, tells
once a second how it goes, and in the end everything it has learned.
"""

import asyncio
import random
import resource
import sys
import traceback
from contextlib import suppress
from typing import Final

import uvloop

from loadtest.measures.witness import Witness
from loadtest.swarm import pipe
from loadtest.swarm.buying import Terms, Till
from loadtest.swarm.crowds import Crowds, Timetable
from loadtest.swarm.entrance import Swarm, Target
from loadtest.swarm.health import Watch, quiet_collector
from loadtest.swarm.ledger import Ledger
from loadtest.swarm.personas import Payer
from loadtest.swarm.pipe import Drop, Finish, Go, Joined, NewSale, Pulse, Setup

JOIN_SECONDS_MAX: Final = 60.0  # after the last one was meant to come
POLL_S: Final = 0.05
WITNESS_S: Final = 0.2  # for the witness to hear what the last viewers saw
ASK_S: Final = 1.0  # how often open claims are asked for at the end


class Loader:
    """All a loader does after its Setup."""

    def __init__(self, setup: Setup, targets: list[Target], out: asyncio.StreamWriter) -> None:
        self._setup = setup
        self._out = out
        seed = setup.seed * 1000 + setup.loader
        self.swarm = Swarm(setup.zero_us, seed, targets, source_net=setup.source_net)
        self.till = Till(self.swarm, Terms(setup.sale, setup.price_version))
        self._payer = Payer(self.swarm, setup.show)
        self.crowds = Crowds(
            self.swarm, self.till, self._payer, setup.crowds, setup.run, setup.loader, setup.loaders
        )
        self._witness = Witness(setup.zero_us) if setup.bus_redis_url else None
        self.ledger = Ledger(self.swarm, self.till, self.crowds.connections, self._witness)
        self._watch = Watch(self._on_lag)
        self._acts = self._dropped = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, group: asyncio.TaskGroup) -> None:
        """Let people come, and tell how it goes, in tasks of `group` until `stop`."""
        doings = [self._await_all(), self._pulses()]
        if self._witness:
            doings.append(self._witness.run(self._setup.bus_redis_url, self._setup.show))
        self._tasks = [group.create_task(doing) for doing in doings]
        self.crowds.joins.run()

    async def _await_all(self) -> None:
        """Say when all have come, or were refused, or will not come any more."""
        people = self.crowds.connections
        last_us = max((join for each in self._setup.crowds for join in each.join_us), default=0)
        until_us = last_us + int(JOIN_SECONDS_MAX * 1e6)
        waiting = list(people)
        while waiting and self.swarm.now_us() < until_us:
            await asyncio.sleep(POLL_S)
            waiting = [each for each in waiting if not (each.settled or each.over)]
        quiet_collector()
        here = sum(each.settled and not each.over for each in people)
        self._tell(Joined(open=here, refused=len(people) - here))

    def _on_lag(self, lag_us: int) -> None:
        self.swarm.measured.record("loop_lag", self.swarm.now_us(), lag_us)

    # --- Once a second ------------------------------------------------------------------------

    async def _pulses(self) -> None:
        while True:
            left_s = 1 - self.swarm.now_us() % 1_000_000 / 1e6
            await asyncio.sleep(left_s if left_s > 0.5 else left_s + 1)  # timers may be early
            self.pulse()

    def pulse(self) -> None:
        """Fold, look after holds, and tell."""
        self.ledger.fold()
        self.till.ask()
        lags, self.swarm.lags = self.swarm.lags, []
        acts, dropped = self.swarm.counts["acts"], self.swarm.counts["dropped"]
        self._watch.collect()
        grown = {"acts": acts - self._acts, "dropped": dropped - self._dropped}
        health = self._watch.second(lags, **grown)
        self._acts, self._dropped = acts, dropped
        now_us = self.swarm.now_us()
        start, end = self.swarm.measured.part_us
        if start < now_us <= end + 1_000_000:
            self.ledger.health.append(health)
        quick = self.swarm.measured.quick()
        self._tell(Pulse(now_us, self.ledger.growth(), health, quick))

    def _tell(self, message: "pipe.FromLoader") -> None:
        self._out.write(pipe.frame(message))

    # --- What the coordinator says ------------------------------------------------------------

    def go(self, message: Go) -> None:
        """Acts begin."""
        self.swarm.measured.part_us = message.part_us
        start, end = message.part_us
        self.crowds.acts.run()
        Timetable(
            self.swarm,
            [
                (start, lambda _: self.ledger.part_begins()),
                (end, lambda _: self.ledger.part_ends()),
            ],
        ).run()

    def new_sale(self, message: NewSale) -> None:
        """From its opening on it is what people claim."""

        def now_on(_: int) -> None:
            self.till.terms = Terms(message.sale, message.price_version)

        Timetable(self.swarm, [(message.t0_us, now_on)]).run()

    def drop(self, message: Drop) -> None:
        """Cut a share of all sockets, each at its own instant, or all at once."""
        rng = random.Random(message.seed * 1000 + self._setup.loader)
        there = [each for each in self.crowds.connections if each.welcomed]
        for each in rng.sample(there, round(len(there) * message.share)):
            after_s = rng.random() * message.within_ms / 1000 if message.jitter else 0.0
            self.swarm.loop.call_later(after_s, each.abort)
            self.swarm.counts["sockets_dropped"] += 1

    async def finish(self, message: Finish) -> None:
        """No new acts; every open claim is asked for until it is answered or time is up."""
        self.crowds.joins.stopped = self.crowds.acts.stopped = True
        for turns in self.crowds.turns:
            turns.stop()
        asked_at = 0.0
        while self.till.unsettled and self.swarm.now_us() < message.settle_until_us:
            if self.swarm.loop.time() - asked_at >= ASK_S:
                asked_at = self.swarm.loop.time()
                self.till.ask(everyone=True)
            await asyncio.sleep(POLL_S)
        await self._end()

    async def _end(self) -> None:
        """Everybody goes; then the harvest is told."""
        self.pulse()
        await asyncio.sleep(WITNESS_S)
        harvest = self.ledger.harvest()
        self.swarm.ended = True
        for each in self.crowds.connections:
            each.abort()
        await self._payer.aclose()
        self._tell(harvest)
        await self._out.drain()

    def stop(self) -> None:
        """End what `start` began."""
        self._watch.stop()
        for task in self._tasks:
            task.cancel()

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Do what the coordinator says until Finish is done, or until it is gone."""
        while (message := await pipe.receive(reader, pipe.TO_LOADER)) is not None:
            match message:
                case Go():
                    self.go(message)
                case NewSale():
                    self.new_sale(message)
                case Drop():
                    self.drop(message)
                case Finish():
                    await self.finish(message)
                    return


async def serve(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
    """Be the loader of one Setup."""
    setup = await pipe.receive(reader, pipe.TO_LOADER)
    if not isinstance(setup, Setup):
        return
    targets = [await Target.of(url, setup.show) for url in setup.urls]
    loader = Loader(setup, targets, out)
    async with asyncio.TaskGroup() as group:
        loader.start(group)
        try:
            await loader.listen(reader)
        finally:
            loader.stop()


async def main() -> int:
    """Speak over stdin and stdout; the exit status."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=pipe.FRAME_BYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), sys.stdout.buffer
    )
    out = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        await serve(reader, out)
        return 0
    except Exception as error:
        traceback.print_exc()
        out.write(pipe.frame(pipe.Failed(_reason(error))))
        return 1
    finally:
        out.close()
        with suppress(ConnectionError):
            await out.wait_closed()


def _reason(error: BaseException) -> str:
    """The first of several."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
