"""The web process whose edge is tested: one for each module of tests."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.web_stage import WebStage, shared_stage

SETTINGS = {"ping_seconds": 1, "pong_seconds": 1}  # what waits for a ping need not wait long


@pytest.fixture(scope="module")
def web(
    session_redis_url: str, session_database_url: str, template_database: str
) -> Iterator[WebStage]:
    with shared_stage(
        session_redis_url, session_database_url, template_database, **SETTINGS
    ) as stage:
        yield stage


@pytest.fixture
def show(web: WebStage) -> str:
    """A live show."""
    return asyncio.run(web.show())
