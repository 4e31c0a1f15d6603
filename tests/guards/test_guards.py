"""A guard that no test misses is no guard: each one is taken away, and some test must fail.

A few of them in every run; all of them with LIVESALE_TEST_LONG=1 (`make test-faults`).
"""

from pathlib import Path

import pytest

from tests.conftest import LONG
from tests.guards import guards, removal
from tests.guards.removal import Guard, Tree

CHOSEN = [guard for guard in guards.ALL if LONG or guard.name in guards.QUICK]

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("guard", guards.ALL, ids=[guard.name for guard in guards.ALL])
def test_guard_when_looked_for_then_it_and_its_tests_are_there(guard: Guard) -> None:
    removal.removed(guard, (removal.PROJECT / guard.file).read_text(encoding="utf-8"))
    for test in guard.tests:
        file, _, name = test.partition("::")
        source = (removal.PROJECT / file).read_text(encoding="utf-8")
        assert not name or f"def {name.partition('[')[0]}(" in source, test


def test_guards_when_listed_then_each_name_is_used_once() -> None:
    names = [guard.name for guard in guards.ALL]
    assert len(names) == len(set(names))
    assert set(names) >= guards.QUICK


@pytest.fixture(scope="module")
def whole_tree(tree: Tree, request: pytest.FixtureRequest) -> Tree:
    """The copy, after the tests of this run passed in it with every guard in place."""
    ids = {item.name.partition("[")[2].rstrip("]") for item in request.session.items}
    before = tree.run(
        (test for guard in CHOSEN if guard.name in ids for test in guard.tests), all_guarded=True
    )
    assert before.code == removal.EXIT_GREEN, before.output[-4000:]
    return tree


@pytest.mark.parametrize("guard", CHOSEN, ids=[guard.name for guard in CHOSEN])
def test_guard_when_taken_away_then_a_test_fails(
    whole_tree: Tree, guard: Guard, report: list[str]
) -> None:
    with whole_tree.without(guard):
        run = whole_tree.run(guard.tests)
    assert run.code == removal.EXIT_RED, run.output[-4000:]
    assert run.red, run.output[-4000:]
    first = run.red[0].partition("::")[2]
    report.append(f"| {guard.name} | {Path(guard.file).name} | {first} | {len(guard.tests)} |")
