"""Tables of faults and attacks in docstrings, and the tests that each of their rows names."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).parents[1]


def rows_in(doc: str | None) -> list[str]:
    """Names of the rows of an indented table: the first word of each of its lines."""
    return [line.split()[0] for line in (doc or "").splitlines() if line.startswith("    ")]


def missing_tests(tests: Iterable[str]) -> list[str]:
    """Those of `tests` ("file::how the name begins") that nobody wrote."""
    return [test for test in tests if not _is_written(test)]


def _is_written(test: str) -> bool:
    file, _, name = test.partition("::")
    return f"def {name}" in (PROJECT / file).read_text(encoding="utf-8")
