"""Servers and a copy of the project for the guard-removal check, and its report."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.embedded import binaries
from tests.conftest import make_postgres, make_valkey
from tests.guards.removal import PROJECT, Tree

REPORT = PROJECT / "test-results" / "guards.md"
HEAD = (
    "# Guards taken away one at a time\n\n"
    "| guard | where | test that failed | of |\n|---|---|---|---|\n"
)
_rows: list[str] = []


@pytest.fixture(scope="session")
def tree(
    servers_directory: Path,
    valkey_binary: binaries.Binary,
    postgres_binary: binaries.Binary,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Tree]:
    """A copy of the project with a Valkey and a PostgreSQL of its own: its tests make their own
    template database, with the migrations of the copy."""
    folder = servers_directory / "g"
    (folder / "p").mkdir(parents=True)
    valkey = make_valkey(valkey_binary, folder / "v")
    postgres = make_postgres(postgres_binary, folder / "p")
    asyncio.run(valkey.start())
    asyncio.run(postgres.start())
    copy = tmp_path_factory.mktemp("guards")
    yield Tree(copy, valkey.url, postgres.url("postgres"))
    valkey.kill()
    postgres.kill()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(copy, ignore_errors=True)


@pytest.fixture(scope="session")
def report() -> list[str]:
    """Rows of the report's table."""
    return _rows


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _rows:
        return
    text = HEAD + "\n".join(_rows) + "\n"
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(text, encoding="utf-8")
    terminalreporter.write_line("")
    terminalreporter.write_line(text)
