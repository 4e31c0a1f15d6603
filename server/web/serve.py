"""The web process: sockets, uvicorn, signals, and a stop that no peer can hold up.

uvicorn's own way is not enough here: it raises the signal again after a clean stop, tells all
WebSockets to go in one instant, waits for ever for a stuck peer, resets connections that the kernel
has accepted already, knows no deadline for a TLS handshake, and wakes ten times a second to see
whether it should stop. `WebServer` replaces these and nothing else.
"""

import asyncio
import contextlib
import itertools
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final, cast

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from uvicorn.server import ServerState

from server import config, limits
from server.config import Settings
from server.hub.direct import use_io_uring
from server.memory import keep_out_of_collection
from server.supervision import notices
from server.telemetry import metrics
from server.web.admission import Admission
from server.web.app import WebProcess, web_process
from server.web.door import Usher, door_protocols, nobody_in
from server.web.listeners import (
    BACKLOG,
    Listeners,
    accept_all,
    open_listeners,
    tls_context,
    tls_options,
    url_of,
)

log = structlog.get_logger()

KEEP_ALIVE_SECONDS: Final = 15
DRAIN_SLACK_SECONDS: Final = 0.5  # for the drain's own steps, beside settings.drain_seconds
HTTP_STOP_SECONDS: Final = 0.5  # for requests under way once viewers are gone
YOUNG_OBJECTS: Final = 10_000  # before a garbage collection; cycles are rare here
LAG_PROBE_SECONDS: Final = 0.25  # a wake-up of an idle process costs it about 0.15 ms
IDLE_SECONDS: Final = 0.5  # between two looks at the clock and at `should_exit`
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

OnListening = Callable[[str], None]


def run(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; the exit code: 0 after a clean stop.

    Raises Misconfigured, StoreUnavailable and RecordsUnavailable when it cannot start.
    """
    listeners = open_listeners(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, listeners))


async def serve(settings: Settings, listeners: Listeners) -> int:
    """`run` inside a loop that runs already."""
    starter = config.notify_socket()

    def listening(_: str) -> None:
        keep_out_of_collection(YOUNG_OBJECTS)
        notices.say(notices.READY, starter)

    async with web_process(settings, has_internal=listeners.internal is not None) as process:
        server = WebServer(process, settings, listening, listeners)
        watch = asyncio.create_task(watch_loop_lag())
        try:
            await server.serve([listeners.public])
        finally:
            watch.cancel()
    return 0


def config_of(app: Starlette, admission: Admission, usher: Usher = nobody_in) -> uvicorn.Config:
    """uvicorn's settings for one listener, loaded."""
    http, ws = door_protocols(admission, usher)
    made = uvicorn.Config(
        app,
        http=http,
        ws=ws,
        ws_per_message_deflate=False,
        ws_ping_interval=None,  # the hub's wheel pings
        ws_max_size=limits.COMMAND_BYTES_MAX,
        lifespan="off",  # web_process owns every resource
        log_config=None,
        access_log=False,
        proxy_headers=False,  # the door reads X-Forwarded-For itself
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    made.load()
    return made


def connecting(made: uvicorn.Config, state: ServerState) -> Callable[[], asyncio.Protocol]:
    """Makes the protocol of each new connection."""
    return partial(cast(Any, made.http_protocol_class), made, state, {})


class WebServer(uvicorn.Server):
    """uvicorn with our protocols, our signals and our stop; see the module docstring.

    `listeners`: whose the sockets are that `serve` is given, and the internal one. Whoever handed
    us sockets also says when a stop takes too long, so a signal that comes twice, as a group of
    processes may get it, is no hurry. Raises Misconfigured when the certificate cannot be used.
    """

    def __init__(
        self,
        process: WebProcess,
        settings: Settings,
        on_listening: OnListening | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        super().__init__(config_of(process.app, process.admission, process.usher))
        self._process = process
        self._asked = asyncio.Event()  # to stop
        self._stopping: asyncio.Future[None] | None = None
        self._drain_seconds = settings.drain_seconds
        self._on_listening = on_listening
        self._io_uring = use_io_uring(settings.io_uring)
        self._owns_sockets = listeners is None or not listeners.inherited
        self._internal = None if listeners is None else listeners.internal
        self._internal_state = ServerState()  # what crowds the public port is not in its way
        self._internal_admission = Admission(settings)
        self._tls = tls_options(tls_context(settings))

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        loop = asyncio.get_running_loop()
        public = sockets or []
        connect = connecting(self.config, self.server_state)
        self.servers = [
            await loop.create_server(connect, sock=each, backlog=BACKLOG, **self._tls)
            for each in public
        ]
        if self._internal is not None:
            app = config_of(self._process.internal, self._internal_admission)
            connect = connecting(app, self._internal_state)
            server = await loop.create_server(connect, sock=self._internal, backlog=BACKLOG)
            self.servers.append(server)
        self.started = True
        self._tell(public[0])

    def _tell(self, public: socket.socket) -> None:
        url = url_of(public, tls=bool(self._tls))
        internal = None if self._internal is None else url_of(self._internal)
        log.info("listening", http=url, internal=internal, io_uring=self._io_uring)
        if self._on_listening is not None:
            self._on_listening(url)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Each signal asks for a stop, the second one for a stop at once. One of several processes
        is only asked by SIGTERM or SIGINT, and once; SIGHUP is for its parent."""
        loop = asyncio.get_running_loop()
        try:
            for number in _SIGNALS:
                loop.add_signal_handler(number, self._on_signal, number)
        except (RuntimeError, ValueError):  # not in the main thread, where there are no signals
            yield
            return
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def main_loop(self) -> None:
        """Keep the Date header fresh until asked to stop."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):
                    await self._asked.wait()

    def ask_to_stop(self) -> None:
        """Stop well; asked a second time: stop at once. Call it in the server's own loop."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._asked.set()
        if self.force_exit and self._stopping is not None:
            self._stopping.cancel()

    def _on_signal(self, number: signal.Signals) -> None:
        if self._owns_sockets or (number != signal.SIGHUP and not self.should_exit):
            self.ask_to_stop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the viewers to come back later, finish what is under way, then cut the rest.

        Takes at most settings.drain_seconds plus 1 s, whatever the peers do.
        """
        log.info("stopping", viewers=self._process.admission.viewers)
        self._process.admission.draining = True
        if self._owns_sockets:
            self._accept_waiting(sockets or [])
        for server in self.servers:
            server.close()
        notices.say(notices.STOPPING, config.notify_socket())
        drain_s = self._drain_seconds
        await self._bounded(self._process.drain(drain_s), drain_s + DRAIN_SLACK_SECONDS)
        for connection in self._connections():
            connection.shutdown()
        await self._bounded(self._requests_done(), HTTP_STOP_SECONDS)
        for task in (*self.server_state.tasks, *self._internal_state.tasks):
            task.cancel()
        for connection in self._connections():
            connection.transport.abort()
        log.info("stopped")

    def _connections(self) -> list[Any]:
        return [*self.server_state.connections, *self._internal_state.connections]

    def _accept_waiting(self, listening: list[socket.socket]) -> None:
        """Take the connections that wait for us. They are answered like all others now: pages
        come, viewers are told to come again."""
        for connection in itertools.chain.from_iterable(map(accept_all, listening)):
            taking = asyncio.ensure_future(self._take(connection))
            self.server_state.tasks.add(taking)
            taking.add_done_callback(self.server_state.tasks.discard)

    async def _take(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        connect = connecting(self.config, self.server_state)
        with contextlib.suppress(OSError):  # gone already, or no TLS handshake
            await loop.connect_accepted_socket(connect, connection, **self._tls)

    async def _bounded(self, step: Coroutine[Any, Any, None], seconds: float) -> None:
        """One step of the stop: for at most `seconds`, and not beyond a second signal."""
        self._stopping = asyncio.ensure_future(step)
        if self.force_exit:
            self._stopping.cancel()
        done, _ = await asyncio.wait((self._stopping,), timeout=seconds)
        if not done:
            log.warning("stop_step_took_too_long", seconds=seconds)
            self._stopping.cancel()
        elif not self._stopping.cancelled() and self._stopping.exception():
            log.error("stop_step_failed", exc_info=self._stopping.exception())

    async def _requests_done(self) -> None:
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)


async def watch_loop_lag() -> None:
    """Keep livesale_loop_lag_seconds at the worst delay of the last second, for ever."""
    loop = asyncio.get_running_loop()
    while True:
        worst = 0.0
        for _ in range(round(1 / LAG_PROBE_SECONDS)):
            due = loop.time() + LAG_PROBE_SECONDS
            await asyncio.sleep(LAG_PROBE_SECONDS)
            worst = max(worst, loop.time() - due)
        metrics.loop_lag_seconds.set(worst)
