"""The web process: sockets, uvicorn, signals, and a stop that no peer can hold up.

uvicorn's own way is not enough here: it raises the signal again after a clean stop, tells all
WebSockets to go in one instant, waits for ever for a stuck peer, and wakes ten times a second to
see whether it should stop. `WebServer` replaces these four and nothing else.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any, Final

import structlog
import uvicorn
import uvloop

from server import limits
from server.config import Settings
from server.hub.direct import use_io_uring
from server.memory import keep_out_of_collection
from server.telemetry import metrics
from server.web.app import WebProcess, web_process
from server.web.door import door_protocols

log = structlog.get_logger()

BACKLOG: Final = 4_096  # connections the kernel holds for us in a rush (somaxconn cuts it)
KEEP_ALIVE_SECONDS: Final = 15
DRAIN_SLACK_SECONDS: Final = 0.5  # for the drain's own steps, beside settings.drain_seconds
HTTP_STOP_SECONDS: Final = 0.5  # for requests under way once viewers are gone
YOUNG_OBJECTS: Final = 10_000  # before a garbage collection; cycles are rare here
LAG_PROBE_SECONDS: Final = 0.25  # a wake-up of an idle process costs it about 0.15 ms
IDLE_SECONDS: Final = 0.5  # between two looks at the clock and at `should_exit`
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

OnListening = Callable[[str], None]


def run(
    settings: Settings,
    *,
    sockets: Sequence[socket.socket] | None = None,
    on_listening: OnListening | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; the exit code: 0 after a clean stop.

    `sockets`: already bound ones instead of settings.host and port. `on_listening` is told the
    URL once requests are answered. Raises Misconfigured, StoreUnavailable and RecordsUnavailable
    when it cannot start, OSError when the address is taken.
    """

    def listening(url: str) -> None:
        keep_out_of_collection(YOUNG_OBJECTS)
        if on_listening is not None:
            on_listening(url)

    bound = list(sockets or (listening_socket(settings.host, settings.port),))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, bound, listening))


async def serve(
    settings: Settings, sockets: list[socket.socket], on_listening: OnListening | None = None
) -> int:
    """`run` inside a loop that runs already."""
    async with web_process(settings) as process:
        server = WebServer(process, settings, on_listening)
        watch = asyncio.create_task(watch_loop_lag())
        try:
            await server.serve(sockets)
        finally:
            watch.cancel()
    return 0


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket that several web processes may share (SO_REUSEPORT). Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def url_of(listening: socket.socket) -> str:
    """The URL under which `listening` is reached from this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class WebServer(uvicorn.Server):
    """uvicorn with our protocols, our signals and our stop; see the module docstring."""

    def __init__(
        self, process: WebProcess, settings: Settings, on_listening: OnListening | None = None
    ) -> None:
        http, ws = door_protocols(process.admission, process.usher)
        super().__init__(
            uvicorn.Config(
                process.app,
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
        )
        self._process = process
        self._asked = asyncio.Event()  # to stop
        self._stopping: asyncio.Future[None] | None = None
        self._drain_seconds = settings.drain_seconds
        self._on_listening = on_listening
        self._io_uring = use_io_uring(settings.io_uring)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        await super().startup(sockets)
        url = url_of(self.servers[0].sockets[0])
        log.info("listening", http=url, io_uring=self._io_uring)
        if self._on_listening is not None:
            self._on_listening(url)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """SIGINT and SIGTERM ask for a stop, the second one for a stop at once."""
        loop = asyncio.get_running_loop()
        try:
            for number in _SIGNALS:
                loop.add_signal_handler(number, self.ask_to_stop)
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the viewers to come back later, finish what is under way, then cut the rest.

        Takes at most settings.drain_seconds plus 1 s, whatever the peers do.
        """
        log.info("stopping", viewers=self._process.admission.viewers)
        for server in self.servers:
            server.close()
        drain_s = self._drain_seconds
        await self._bounded(self._process.drain(drain_s), drain_s + DRAIN_SLACK_SECONDS)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._bounded(self._requests_done(), HTTP_STOP_SECONDS)
        for task in list(self.server_state.tasks):
            task.cancel()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        log.info("stopped")

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
