"""From what was asked on the command line to one run: whom it tests, who watches, what ends it."""

import argparse
import asyncio
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path

from loadtest import run as runs
from loadtest import target as targets
from loadtest.report import junit, live, prometheus
from loadtest.scenario import Scenario, Usage


async def run(asked: argparse.Namespace, scenario: Scenario) -> int:
    """Test whom was asked for, tell who asked; the exit status. Raises Usage."""
    if not targets.is_single(asked.redis_url):
        raise Usage(targets.NOT_SINGLE)
    if not asked.i_own_this_host:
        await targets.require_here([*asked.url, asked.redis_url, asked.database_url])
    stop = asyncio.Event()
    _stop_on_signals(stop)
    out = _out(asked, scenario)
    async with AsyncExitStack() as stack:
        views = _views(asked, stack)
        credentials = targets.Credentials(asked.tokens) if asked.tokens else None
        target = await _target(asked, scenario, credentials, stack)
        await targets.require_single(target.redis_url)
        name = credentials.run if credentials else ""
        summary = await runs.run(
            scenario,
            target,
            views,
            out,
            stop=stop,
            abort_on_fail=asked.abort_on_fail,
            lang=asked.lang,
            name=name,
        )
    if asked.junit is not None:
        asked.junit.write_bytes(junit.document(summary))
    views[0].note(str(out / "report.html"))
    return summary.exit


def _views(asked: argparse.Namespace, stack: AsyncExitStack) -> list[live.View]:
    views: list[live.View] = [live.view(asked.lang, as_json=asked.as_json)]
    if asked.prometheus is not None:
        try:
            scrape = prometheus.Scrape(asked.prometheus)
        except OSError as error:
            raise Usage(f"--prometheus {asked.prometheus}: {error.strerror}") from None
        stack.callback(scrape.close)
        views.append(scrape)
        views[0].note(f"http://127.0.0.1:{scrape.port}/metrics")
    return views


async def _target(
    asked: argparse.Namespace, scenario: Scenario, credentials: targets.Credentials | None,
    stack: AsyncExitStack,
) -> targets.Server:  # fmt: skip
    """What is to be tested. Raises Usage: nobody runs, or nobody may act there."""
    if asked.up:
        return await stack.enter_async_context(targets.started(scenario.rooms))
    if not asked.url:
        return targets.running_here(asked.data)
    secret = targets.secret_given()
    if credentials is None and not secret:
        raise Usage("who may act there? Set LIVESALE_SECRET, or give --tokens FILE")
    return targets.Server(
        [url.rstrip("/") for url in asked.url],
        secret=secret,
        credentials=credentials,
        redis_url=asked.redis_url,
        database_url=asked.database_url,
        started_by="--url",
    )


def _stop_on_signals(stop: asyncio.Event) -> None:
    """The first signal ends the run early, with a report; the second one at once."""
    task = asyncio.current_task()
    assert task is not None

    def on_signal() -> None:
        if stop.is_set():
            task.cancel()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)


def _out(asked: argparse.Namespace, scenario: Scenario) -> Path:
    """The folder for what is written."""
    made = asked.out or Path("loadtest-out") / f"{scenario.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(made)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
