"""The process that plays the people of a rehearsal: started, listened to, ended.

It is `livesale loadtest --rehearse -`: the order as one JSON document on its stdin, then events as
lines of JSON on its stdout, one a second and a last one. It runs at a low priority, in a session of
its own, and dies with this process, as its own children do with it.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
import structlog
from msgspec import Struct

from server import config, limits
from server.acts.rehearsals import Outcome, Progress
from server.config import Settings
from server.supervision.child import LEASH

log = structlog.get_logger()

COMMAND: Final = (sys.executable, "-m", "server.cli", "loadtest", "--rehearse", "-")
NICENESS: Final = 10
BEAT_S: Final = 1.0
REST_S: Final = 150.0  # for all but the measured part: joining, settling, auditing, the report
LINE_BYTES_MAX: Final = 16 * 1024 * 1024  # the last event brings summary and report

Beat = Callable[[Progress], Awaitable[str | None]]


class RehearsalOrder(Struct, frozen=True):
    """What is to be played, and where. `host_token` and `ticket` are for the shadow `show` alone;
    `live_show` ('': none) is a real one that is on; the loader watches it as one anonymous viewer.
    `secret` signs tokens of the people; the books and Redis are read by the audit."""

    rehearsal: int
    url: str
    show: str
    ticket: str
    host_token: str
    live_show: str
    title: str
    sale: int
    price: int
    units: int
    limit: int
    buyers: int
    watchers: int
    bots: int
    reaction: str
    seconds: int
    secret: str
    redis_url: str
    database_url: str


class OnTheWay(Struct, frozen=True, tag_field="event", tag="progress"):
    progress: Progress


class Done(Struct, frozen=True, tag_field="event", tag="done"):
    """`reason`: why it ended early by itself, or empty. `report_gz_b64`: base64 of a gzip."""

    summary: msgspec.Raw
    report_gz_b64: bytes
    reason: str = ""


_EVENTS: Final = msgspec.json.Decoder(OnTheWay | Done)


async def rehearse(
    settings: Settings, order: RehearsalOrder, beat: Beat, command: Sequence[str] = COMMAND
) -> Outcome:
    """Have it played. `beat` is called once a second and says why to stop
    ('': go on; None: at once).

    Raises OSError when the process cannot be made. The process has ended when this returns.
    """
    process = await _spawn(settings, command)
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        assert process.stdin is not None  # a pipe
        process.stdin.write(msgspec.json.encode(order))
        process.stdin.close()
        async with asyncio.timeout(order.seconds + REST_S):
            return await _attend(process, beat)
    except TimeoutError:
        return Outcome("failed", "took_too_long")
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _spawn(settings: Settings, command: Sequence[str]) -> asyncio.subprocess.Process:
    leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), str(int(signal.SIGKILL)))
    return await asyncio.create_subprocess_exec(
        *(*leash, "-", "-", *command),
        env=config.environment(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=LINE_BYTES_MAX,
    )


class _News:
    """What the process has said so far."""

    def __init__(self) -> None:
        self.progress = Progress()
        self.done: Done | None = None

    async def read(self, lines: asyncio.StreamReader) -> None:
        """Until its end. Raises ValueError for what is no event or too long."""
        while line := await lines.readline():
            event = _EVENTS.decode(line)
            if isinstance(event, Done):
                self.done = event
            else:
                self.progress = event.progress


async def _attend(process: asyncio.subprocess.Process, beat: Beat) -> Outcome:
    news = _News()
    assert process.stdout is not None  # a pipe
    reading = asyncio.create_task(news.read(process.stdout))
    stopped_by = ""
    try:
        while not (await asyncio.wait([reading], timeout=BEAT_S))[0]:
            why = await beat(news.progress)
            if why is None:
                return Outcome("failed", "lost")
            if why and not stopped_by:
                stopped_by = why
                process.send_signal(signal.SIGINT)
        reading.result()
    except ValueError as error:
        log.warning("rehearsal_not_understood", reason=str(error)[:200])
        return Outcome("failed", "load_test_failed")
    finally:
        reading.cancel()
    return _outcome(news.done, stopped_by)


def _outcome(done: Done | None, stopped_by: str) -> Outcome:
    if done is None or len(done.report_gz_b64) > limits.REHEARSAL_REPORT_BYTES_MAX:
        return (
            Outcome("stopped", stopped_by) if stopped_by else Outcome("failed", "load_test_failed")
        )
    reason = stopped_by or done.reason
    found = bytes(done.summary).decode()
    return Outcome("stopped" if reason else "done", reason, found, done.report_gz_b64)
