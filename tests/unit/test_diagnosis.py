"""When a show's stock must be rebuilt: each sign that Redis is not what the books expect."""

from dataclasses import replace
from typing import Any

import pytest

from server.orders.reconcile import complaint, went_back
from server.records.rebuild import Expected
from server.store.gate import Vitals

BOOKS = Expected(epoch=3, halted_by="", seqs={1: 10, 2: 0}, versions={1: 7, 2: 0})
SOUND = Vitals(
    epoch=3,
    gate="open",
    same_run=True,
    has_group=True,
    backlog=0,
    seqs={1: 10, 2: 0},
    versions={1: 7, 2: 0},
)


@pytest.mark.parametrize("gate", ["open", "paused", "scheduled", "ended"])
def test_complaint_when_redis_is_at_the_books_or_ahead_then_none(gate: str) -> None:
    assert complaint(BOOKS, replace(SOUND, gate=gate)) == ""
    assert complaint(BOOKS, replace(SOUND, seqs={1: 25, 2: 1})) == ""


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"epoch": 0}, "missing"),
        ({"damage": ("pool is a string",), "epoch": 0}, "damaged"),
        ({"same_run": False}, "restarted"),
        ({"epoch": 2}, "epoch"),
        ({"epoch": 4}, "epoch"),
        ({"gate": "rebuilding"}, "gate"),
        ({"has_group": False}, "group"),
        ({"seqs": {1: 9, 2: 0}}, "behind"),
        ({"seqs": {1: 10, 2: -1}}, "behind"),
    ],
)
def test_complaint_when_something_is_not_as_expected_then_it_is_named(
    change: dict[str, Any], kind: str
) -> None:
    assert complaint(BOOKS, replace(SOUND, **change)).startswith(f"{kind}:")


def test_complaint_when_the_show_was_halted_then_the_reason_for_that() -> None:
    assert complaint(replace(BOOKS, halted_by="gap: pool 1"), SOUND) == "gap: pool 1"


def test_went_back_when_redis_was_told_of_later_versions_then_it_is_named() -> None:
    assert went_back(BOOKS, SOUND) == ""
    assert went_back(BOOKS, replace(SOUND, versions={1: 6, 2: -1})) == ""
    assert went_back(BOOKS, replace(SOUND, versions={1: 8, 2: 0})).startswith("older: ")
