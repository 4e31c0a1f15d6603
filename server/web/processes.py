"""Several web processes on one port, kept by a small parent: `livesale web --processes N`.

Each process has a slot: a listening socket of the public port, which all slots share (SO_REUSEPORT;
the kernel spreads connections evenly), and one of an internal address of its own. The parent opens
both, never serves them, and hands them to one process of the slot after the other. So the queue of
connections that the kernel has accepted outlives every process: who comes while a process is killed
or replaced waits for its successor, and nobody is reset.

    crash           a new process for the slot, with growing pauses; in the long ones the parent
                    answers in its stead: 503, come again
    SIGHUP          one slot after the other: a new process, and once that serves, the old one
                    drains. So capacity never falls, and if the new one cannot start (new code, a
                    bad certificate), the old one is still there and the restart ends here
    SIGTERM, SIGINT all drain at once; a second one kills

The parent itself knows no server and no viewer, so there is little in it that could fail. When it
is killed all the same, its processes drain and end.
"""

import asyncio
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog

from server import config
from server.config import Settings
from server.errors import Misconfigured
from server.supervision import notices
from server.supervision.child import Child, until
from server.supervision.notices import READY, STOPPING, Notices
from server.supervision.parts import LIVESALE, READY_SECONDS, Part, environment_of_ours, says
from server.supervision.signals import Signals, cancelled
from server.web.admission import RETRY_AFTER_S
from server.web.listeners import (
    BACKLOG,
    INTERNAL,
    PUBLIC,
    accept_all,
    listening_socket,
    own_socket,
    tls_context,
    tls_options,
    url_of,
)

log = structlog.get_logger()

STOP_SLACK_SECONDS: Final = 5.5  # a process' own steps at a stop, beside settings.drain_seconds
WAITING_SECONDS_MAX: Final = 0.5  # callers wait for a restart that begins sooner, else hear 503
CLOSING_SECONDS: Final = 1.0  # for a process to close its listeners after SIGTERM
LINGER_SECONDS: Final = 2.0  # for a caller to send a request, and to read that it comes too soon
EXIT_CLEAN, EXIT_FAILED = 0, 1

BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: %d\r\n"
    b"content-length: 0\r\n\r\n" % RETRY_AFTER_S
)


def run(settings: Settings, count: int) -> int:
    """Keep `count` processes until SIGINT or SIGTERM; the exit code: 0 after a clean stop.

    Raises Misconfigured when an address or the certificate cannot be used, or one of the processes
    does not start; it has said why by then.
    """
    return asyncio.run(_run(settings, count))


def processes_by_cores() -> int:
    """One for each core but one, which is left to Redis, PostgreSQL and the worker; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)) - 1)
    return max(1, (os.cpu_count() or 1) - 1)


async def _run(settings: Settings, count: int) -> int:
    signals = Signals()
    signals.install()
    with tempfile.TemporaryDirectory(prefix="livesale-") as folder:
        slots = open_slots(settings, count, Path(folder))
        work = asyncio.create_task(_start_and_keep(slots, signals))
        asked = asyncio.create_task(signals.stop.wait())
        try:
            await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()  # it ends by an error only
        finally:
            await cancelled(work)
            await cancelled(asked)
            notices.say(STOPPING, config.notify_socket())
            await signals.unless_forced(_stop_all(slots), lambda: _kill_all(slots))
    was_clean = signals.force.is_set() or all(slot.was_clean for slot in slots)
    return EXIT_CLEAN if was_clean else EXIT_FAILED


async def _start_and_keep(slots: "list[Slot]", signals: Signals) -> None:
    """All at once, then each as long as it takes. Raises Misconfigured."""
    started = await asyncio.gather(*(slot.start() for slot in slots), return_exceptions=True)
    for failure in started:
        if isinstance(failure, BaseException):
            raise failure
    log.info("processes_ready", count=len(slots), http=slots[0].url)
    notices.say(READY, config.notify_socket())
    async with asyncio.TaskGroup() as tasks:
        keeping = [tasks.create_task(slot.keep()) for slot in slots]
        while True:
            await signals.restart.wait()
            signals.restart.clear()
            await _replace_all(slots, keeping, tasks)


async def _replace_all(
    slots: "list[Slot]", keeping: list[asyncio.Task[None]], tasks: asyncio.TaskGroup
) -> None:
    """One after the other, until one does not start. `keeping`: what keeps each slot filled."""
    log.info("restarting", count=len(slots))
    for n, slot in enumerate(slots):
        await cancelled(keeping[n])
        replaced = await slot.replace()
        keeping[n] = tasks.create_task(slot.keep())
        if not replaced:
            return
    log.info("restarted", count=len(slots))


async def _stop_all(slots: "list[Slot]") -> None:
    await asyncio.gather(*(slot.stop() for slot in slots))


def _kill_all(slots: "list[Slot]") -> None:
    for slot in slots:
        slot.kill()


def open_slots(settings: Settings, count: int, folder: Path) -> "list[Slot]":
    """Slots with bound sockets; the kernel lets nobody in before a process listens.

    `folder`: for sockets to hear from the processes. Raises Misconfigured.
    """
    tls = tls_options(tls_context(settings))
    slots: list[Slot] = []
    port = settings.port
    for number in range(1, count + 1):
        public = listening_socket(settings.host, port)
        port = public.getsockname()[1]
        internal = own_socket(settings.internal_host, internal_port(settings, number))
        sockets = {PUBLIC: public, INTERNAL: internal}
        stop_seconds = settings.drain_seconds + STOP_SLACK_SECONDS
        slots.append(Slot(number, sockets, folder, stop_seconds, tls))
    return slots


def internal_port(settings: Settings, number: int) -> int:
    """Of the process with this number, counted from 1; 0: any free one. Raises Misconfigured."""
    if not settings.internal_port:
        return 0
    port = settings.internal_port + number - 1
    if port > 65535 or port == settings.port:
        raise Misconfigured(f"LIVESALE_INTERNAL_PORT: process {number} would have port {port}")
    return port


class Running(NamedTuple):
    """A process and what it says about itself."""

    child: Child
    notices: Notices


class Slot:
    """The place of one process: its sockets, and whoever serves them now."""

    def __init__(
        self,
        number: int,
        sockets: Mapping[str, socket.socket],
        folder: Path,
        stop_seconds: float,
        tls: Mapping[str, Any],
    ) -> None:
        """`sockets`: PUBLIC and INTERNAL, bound. `tls` is for what the parent answers itself."""
        self.name = f"web-{number}"
        self.was_clean = True
        self._number = number
        self.sockets = sockets
        self._folder = folder
        self._stop_seconds = stop_seconds
        self._tls = tls
        self._starts = 0
        self._current: Running
        self._running: list[Running] = []  # the current one, and those that start or drain
        self._answering: set[asyncio.Task[None]] = set()
        self._part = Part(self.name, self, self._tell, self._pause)

    @property
    def url(self) -> str:
        return url_of(self.sockets[PUBLIC], tls=bool(self._tls))

    @property
    def child(self) -> Child:
        return self._current.child

    # --- Keeping it filled -------------------------------------------------------------------

    async def start(self) -> None:
        """A process that serves. Raises Misconfigured and OSError; then it has ended again."""
        for crashed in [each for each in self._running if not each.child.alive]:
            self._forget(crashed)
        started = self._spawn()
        try:
            if not await says(READY, started.notices, started.child, READY_SECONDS):
                raise Misconfigured(f"{self.name} did not start")
        except BaseException:
            started.child.kill()
            self._forget(started)
            raise
        self._current = started
        internal = url_of(self.sockets[INTERNAL])
        log.info("process_serves", process=self.name, pid=started.child.pid, internal=internal)

    def _spawn(self) -> Running:
        self._starts += 1
        heard = Notices(self._folder / f"{self.name}.{self._starts}")
        try:
            child = Child.spawn(
                self.name,
                [*LIVESALE, "web", "--process", str(self._number)],
                death_signal=signal.SIGTERM,
                environment={**environment_of_ours(), "NOTIFY_SOCKET": str(heard.path)},
                sockets=self.sockets,
            )
        except OSError:
            heard.close()
            raise
        self._running.append(Running(child, heard))
        return self._running[-1]

    async def keep(self) -> None:
        """Start it again after each crash, for ever."""
        await self._part.keep()

    def _tell(self, name: str, state: str, detail: str) -> None:
        log.warning("process_state", process=name, state=state, detail=detail)

    async def _pause(self, seconds: float) -> None:
        """Before a restart. Callers wait too, unless it is long."""
        if seconds <= WAITING_SECONDS_MAX:
            await asyncio.sleep(seconds)
            return
        async with self.standing_in():
            await asyncio.sleep(seconds)

    async def replace(self) -> bool:
        """A new process, then the end of the old one. False: the new one does not start."""
        old = self._current
        try:
            await self.start()
        except (Misconfigured, OSError) as error:
            log.error("restart_failed", process=self.name, reason=str(error))
            return False
        new = self._current
        keeping = asyncio.create_task(self.keep())
        try:
            await self._end(old)
        finally:
            await cancelled(keeping)
        if self._current is not new or not new.child.alive:
            log.error("restart_failed", process=self.name, reason="the new process ended")
            return False
        return True

    # --- Ending ------------------------------------------------------------------------------

    async def _end(self, leaving: Running) -> bool:
        """Let it drain; kill it when that takes too long. False: it did not end well."""
        is_crashed = not leaving.child.alive
        status = await leaving.child.stop(signal.SIGTERM, self._stop_seconds)
        self._forget(leaving)
        if is_crashed or not status:
            return True
        log.warning("process_ended_badly", process=self.name, status=status)
        return False

    def _forget(self, ended: Running) -> None:
        ended.notices.close()
        if ended in self._running:
            self._running.remove(ended)

    async def stop(self) -> None:
        """Nobody new; all processes end."""
        endings = [self._end(each) for each in self._running]
        self.was_clean = all(await asyncio.gather(self._close(), *endings))

    async def _close(self) -> bool:
        """Close our listeners once the processes have closed theirs, and answer what is left."""
        waited_for = list(self._running)
        async with self.standing_in():
            await until(
                lambda: all(n.has(STOPPING) or not child.alive for child, n in waited_for),
                CLOSING_SECONDS,
            )
        self._take_callers()  # nobody but us has the queue now
        for each in self.sockets.values():
            each.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=LINGER_SECONDS)
        return True

    def kill(self) -> None:
        for each in self._running:
            each.child.kill()

    # --- In a process' stead -----------------------------------------------------------------

    @asynccontextmanager
    async def standing_in(self) -> AsyncIterator[None]:
        """Inside the block we answer who comes to this slot."""
        loop = asyncio.get_running_loop()
        public = self.sockets[PUBLIC]
        public.listen(BACKLOG)  # it does already, unless no process has ever served
        loop.add_reader(public, self._take_callers)
        try:
            yield
        finally:
            loop.remove_reader(public)

    def _take_callers(self) -> None:
        for connection in accept_all(self.sockets[PUBLIC]):
            answering = asyncio.create_task(self._answer(connection))
            self._answering.add(answering)
            answering.add_done_callback(self._answering.discard)

    async def _answer(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):  # gone already, or no TLS handshake
            _, told = await loop.connect_accepted_socket(ComeAgain, connection, **self._tls)
            await told.ended.wait()


class ComeAgain(asyncio.Protocol):
    """Tells a caller that there is no process for him now."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._told = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(LINGER_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """A request has begun. What comes after our answer is read, so that it is not reset."""
        if self._told:
            return
        self._told = True
        self._transport.write(BUSY)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        self.ended.set()
