"""What becomes of takes: the order worker's rules without servers."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.claim import (
    KIND_CLAIM,
    KIND_CLOSING,
    KIND_LOWERING,
    PoolBooks,
    StockIncident,
    Take,
    fault_of,
    rule,
    split_known,
)


def take(seq: int, buyer: str = "ann", quantity: int = 1, kind: int = KIND_CLAIM) -> Take:
    name = "" if kind else buyer
    return Take(kind, 1, seq, name, seq.to_bytes(16, "big"), quantity, 100, 1, 0)


def test_split_when_takes_follow_the_watermark_then_all_are_new_in_order() -> None:
    takes = [take(seq) for seq in (6, 4, 5)]
    assert split_known(3, takes) == ([], [take(4), take(5), take(6)])


def test_split_when_takes_are_below_the_watermark_then_they_are_known() -> None:
    assert split_known(2, [take(1), take(2), take(3)]) == ([take(1), take(2)], [take(3)])


def test_split_when_a_take_comes_twice_then_it_counts_once() -> None:
    assert split_known(0, [take(1), take(1), take(2), take(2)]) == ([], [take(1), take(2)])


@pytest.mark.parametrize("seqs", [(2,), (1, 3), (1, 2, 4, 5)])
def test_split_when_a_seq_is_missing_then_gap(seqs: tuple[int, ...]) -> None:
    with pytest.raises(StockIncident) as raised:
        split_known(0, [take(seq) for seq in seqs])
    assert raised.value.kind == "gap"


def test_split_when_a_seq_has_two_contents_then_reuse() -> None:
    with pytest.raises(StockIncident) as raised:
        split_known(0, [take(1), take(2, "ann"), take(2, "bob")])
    assert raised.value.kind == "reuse"


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, ""),
        ({"claim_id": b"short"}, "claim id"),
        ({"quantity": 0}, "quantity"),
        ({"quantity": -1}, "quantity"),
        ({"quantity": 2**31}, "quantity"),
        ({"buyer": ""}, "buyer"),
        ({"buyer": "a\0b"}, "buyer"),
        ({"buyer": "x" * 65}, "buyer"),
        ({"buyer": "a\u200bb\ue000\U0001fae9"}, ""),  # what tokens may hold, the books must
        ({"price": -1}, "price"),
        ({"price": 2**63}, "price"),
        ({"price_version": 0}, "price version"),
        ({"kind": 9}, "kind"),
        ({"kind": KIND_CLOSING, "buyer": "", "quantity": 0}, ""),
        ({"kind": KIND_LOWERING, "buyer": "", "quantity": -1}, "units"),
    ],
)
def test_fault_when_a_field_cannot_be_stored_then_it_is_named(
    changes: dict[str, object], fault: str
) -> None:
    found = fault_of(take(1)._replace(**changes))  # type: ignore[arg-type]
    assert (fault in found) if fault else found == ""


def test_rule_when_pool_is_full_then_later_claims_are_released() -> None:
    rulings = rule(PoolBooks(0, 2, 9), [take(s, f"b{s}") for s in (1, 2, 3)], {})
    assert [t.seq for t in rulings.kept] == [1, 2]
    assert rulings.released == [(take(3, "b3"), "no_room")]


def test_rule_when_buyer_has_the_limit_then_claim_is_released() -> None:
    books = PoolBooks(0, 10, 2, {"ann": 1})
    rulings = rule(books, [take(1), take(2), take(3, "bob")], {})
    assert [t.seq for t in rulings.kept] == [1, 3]
    assert rulings.released == [(take(2), "over_limit")]
    assert books.bought == {"ann": 2, "bob": 1}


def test_rule_when_lowering_exceeds_the_pool_then_it_is_cut() -> None:
    rulings = rule(PoolBooks(0, 3, 9), [take(1, quantity=5, kind=KIND_LOWERING)], {})
    assert [units for _, units in rulings.lowered] == [3]


def test_rule_when_database_refused_a_take_then_its_units_are_dead() -> None:
    rulings = rule(PoolBooks(0, 5, 9), [take(1, quantity=2), take(2)], {1: "refused"})
    assert rulings.dead == [(take(1, quantity=2), "refused", 2)]
    assert rulings.units_dead + rulings.units_kept == 3


@given(
    room=st.integers(0, 12),
    limit=st.integers(1, 4),
    asked=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.sampled_from([0, 0, 0, 1])),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 12), max_size=3),
)
def test_rule_when_batches_are_cut_anywhere_then_outcome_is_the_same_and_units_fit(
    room: int, limit: int, asked: list[tuple[str, int, int]], cuts: list[int]
) -> None:
    takes = [take(i, buyer, units, kind) for i, (buyer, units, kind) in enumerate(asked, 1)]
    whole = rule(PoolBooks(0, room, limit), takes, {})
    books = PoolBooks(0, room, limit)
    edges = [0, *sorted(min(cut, len(takes)) for cut in cuts), len(takes)]
    parts = [rule(books, takes[a:b], {}) for a, b in itertools.pairwise(edges)]
    assert [t for part in parts for t in part.kept] == whole.kept
    assert [t for part in parts for t in part.released] == whole.released
    assert [t for part in parts for t in part.lowered] == whole.lowered
    assert [t for part in parts for t in part.dead] == whole.dead
    assert whole.units_kept + whole.units_dead + whole.units_lowered <= room
    for buyer in "abc":
        assert sum(t.quantity for t in whole.kept if t.buyer == buyer) <= limit
