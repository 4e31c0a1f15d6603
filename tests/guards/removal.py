"""Takes one guard at a time out of a copy of the project and runs the tests that must notice."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

PROJECT: Final = Path(__file__).parents[2]
PARTS: Final = ("server", "tests", "loadtest", "pyproject.toml")  # what the tests import and read
RUN_SECONDS: Final = 150
ALL_SECONDS: Final = 500
TEST_SECONDS: Final = 40
EXIT_GREEN, EXIT_RED = 0, 1  # of pytest
OURS: Final = ("LIVESALE_", "PYTEST_", "REDIS_URL", "DATABASE_URL", "PORT")


class Guard(NamedTuple):
    """A piece of `file` without which a promise breaks.

    `text` occurs there once; `without` is what stands in its place when the guard is gone. At
    least one of `tests` must fail then, and none before.
    """

    name: str
    file: str
    text: str
    without: str
    tests: tuple[str, ...]


class Run(NamedTuple):
    """How a run of pytest ended. `red`: names of the tests that failed, the first one only."""

    code: int
    red: list[str]
    output: str


class Tree:
    """A copy of the project in `folder`, whose tests use the two servers."""

    def __init__(self, folder: Path, redis_url: str, database_url: str) -> None:
        self.folder = folder
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
        self._environment = {
            **inherited,
            "PYTHONPATH": str(folder),
            "LIVESALE_TEST_REDIS_URL": redis_url,
            "LIVESALE_TEST_DATABASE_URL": database_url,
        }
        for part in PARTS:
            if (PROJECT / part).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "e2e")
                shutil.copytree(PROJECT / part, folder / part, ignore=ignored)
            else:
                shutil.copy2(PROJECT / part, folder / part)

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        """Inside the block the copy lacks `guard`. ValueError when its text is not there once."""
        path = self.folder / guard.file
        whole = path.read_text(encoding="utf-8")
        self._write(path, removed(guard, whole))
        try:
            yield
        finally:
            self._write(path, whole)

    def _write(self, path: Path, text: str) -> None:
        """Bytecode is trusted by time and size, which such an edit may leave as they were."""
        path.write_text(text, encoding="utf-8")
        for stale in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            stale.unlink()

    def run(self, tests: Iterable[str], *, all_guarded: bool = False) -> Run:
        """Run `tests` until the first failure. `all_guarded`: nothing was taken away, so that
        bytecode may be kept."""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
        command += ["--tb=short", f"--timeout={TEST_SECONDS}", *dict.fromkeys(tests)]
        bytecode = {} if all_guarded else {"PYTHONDONTWRITEBYTECODE": "1"}
        seconds = ALL_SECONDS if all_guarded else RUN_SECONDS
        done = subprocess.run(
            command, cwd=self.folder, env={**self._environment, **bytecode},
            capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        red = re.findall(r"(?m)^FAILED (\S+)", done.stdout)
        return Run(done.returncode, red, done.stdout + done.stderr)


def removed(guard: Guard, whole: str) -> str:
    """`whole` without the guard. ValueError when its text is not there exactly once."""
    if whole.count(guard.text) != 1:
        raise ValueError(f"{guard.name}: found {whole.count(guard.text)} times in {guard.file}")
    return whole.replace(guard.text, guard.without)
