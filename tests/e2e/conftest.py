"""Real web and worker processes, and a real browser, for the tests of the pages."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.conftest import run_sql, with_database
from tests.live import LiveSystem
from tests.pages import Stage

DIST = Path(__file__).parents[2] / "client-demo" / "dist"
ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def system(
    session_redis_url: str,
    session_database_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveSystem]:
    """Web and worker for all tests of this file: each test has a show of its own."""
    name = f"livesale_pages_{os.getpid()}"
    create = f"CREATE DATABASE {name} TEMPLATE {template_database}"
    asyncio.run(run_sql(session_database_url, create))
    settings = {"demo": "true", "drain_seconds": "0"}
    database_url = with_database(session_database_url, name)
    logs = tmp_path_factory.mktemp("logs")
    live = LiveSystem(session_redis_url, database_url, logs, settings)
    yield live
    live.stop()
    asyncio.run(run_sql(session_database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(system: LiveSystem) -> str:
    if not (DIST / "viewer.html").is_file():
        pytest.fail("the pages are not built: make client")
    system.start_worker()
    return await system.start_web()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(url: str, browser: Browser, system: LiveSystem) -> AsyncIterator[Stage]:
    stage = Stage(url, browser, system)
    yield stage
    for context in stage.contexts:
        await context.close()
