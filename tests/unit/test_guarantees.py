"""docs/GUARANTEES.md: behind every sentence stands a test that is there."""

import ast
import re
from functools import cache
from pathlib import Path

from server import limits

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "GUARANTEES.md").read_text(encoding="utf-8")
_REFERENCE = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def sentences() -> list[str]:
    """Every bullet of the page with its references."""
    return [part.strip() for part in re.split(r"(?m)^(?=- )|^(?=#)", TEXT) if part.startswith("- ")]


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    found = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, found))


def test_guarantees_when_read_then_every_sentence_names_its_tests() -> None:
    found = sentences()
    assert len(found) > 30
    assert [text for text in found if not _REFERENCE.search(text)] == []


def test_guarantees_when_a_test_is_named_then_it_is_there() -> None:
    missing = [
        f"{path}::{name}"
        for path, name in _REFERENCE.findall(TEXT)
        if not (ROOT / path).exists() or name not in names_in(path)
    ]
    assert missing == []


def test_guarantees_when_they_name_a_bound_then_it_is_the_one_in_force() -> None:
    for phrase in (
        f"waits at most {limits.REBUILD_WAIT_MS // 1_000} s",
        f"within {limits.REPLICA_ACK_MS // 1_000} s",
        f"first {limits.FORGIVEN_RETURNS_MAX} unpaid returns",
        f"newest {limits.REFUSALS_KEPT_MAX:,} are remembered",
    ):
        assert phrase in TEXT.replace("\n  ", " ")
