"""The edges of an order's life, what follows from them for its buyer, and the scripts' ranks."""

import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import limits
from server.domain.order import (
    COUNTED_AS,
    EDGES,
    RANK,
    STATUSES,
    BuyerUnits,
    MoveReason,
    counter_of,
    may_become,
)


def test_edges_when_listed_then_exactly_the_documented_ones() -> None:
    edges = {(a, b) for a in STATUSES for b in STATUSES if may_become(a, b)}
    assert edges == {
        ("confirmed", "paid"),
        ("confirmed", "expired"),
        ("confirmed", "cancelled"),
        ("paid", "fulfilled"),
        ("paid", "refunded"),
        ("expired", "paid"),
    }


def test_tables_when_compared_then_every_status_is_in_each() -> None:
    assert set(EDGES) == set(COUNTED_AS) == set(STATUSES)


@pytest.mark.parametrize(("to_be_paid", "counter"), [(True, "reserved"), (False, "sold")])
def test_counter_when_confirmed_then_it_depends_on_payment(to_be_paid: bool, counter: str) -> None:
    assert counter_of("confirmed", to_be_paid=to_be_paid) == counter


@pytest.mark.parametrize("status", ["expired", "cancelled", "refunded"])
def test_counter_when_units_were_given_back_then_none(status: str) -> None:
    assert counter_of(status, to_be_paid=True) == ""  # type: ignore[arg-type]


def test_ranks_when_the_scripts_have_them_then_they_are_these() -> None:
    """lua/_claims.lua has a table of its own; a claim is at `held` before it has an order."""
    part = (files("server.store") / "lua" / "_claims.lua").read_text()
    table = re.search(r"local RANK = {(.*?)}", part, re.DOTALL)
    assert table
    ranks = {name: int(rank) for name, rank in re.findall(r"(\w+) = (\d+)", table[1])}
    assert ranks.pop("held") < min(RANK.values())
    assert ranks.pop("released_by_incident") == RANK["confirmed"]  # neither follows the other
    assert ranks == RANK


@given(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["deadline", "buyer", "host"]))))
def test_buyer_when_units_come_back_then_only_the_first_unpaid_returns_are_forgiven(
    returns: list[tuple[int, MoveReason]],
) -> None:
    """Each order is bought, then given back; what is not forgiven stays counted."""
    buyer, unpaid, kept = BuyerUnits(), 0, 0
    for quantity, reason in returns:
        buyer.units += quantity
        forgiven = buyer.give_back(quantity, reason)
        assert forgiven == (reason == "host" or unpaid < limits.FORGIVEN_RETURNS_MAX)
        unpaid += reason != "host"
        kept += 0 if forgiven else quantity
        assert (buyer.units, buyer.forfeited, buyer.returns) == (kept, kept, unpaid)


@given(st.integers(0, 9), st.integers(1, 9), st.integers(0, 9), st.booleans())
def test_buyer_when_units_are_taken_again_then_as_if_they_had_not_come_back(
    others: int, quantity: int, returns: int, by_host: bool
) -> None:
    buyer = BuyerUnits(others + quantity, returns)
    forgiven = buyer.give_back(quantity, "host" if by_host else "deadline")
    buyer.take_again(quantity, forgiven=forgiven)
    assert (buyer.units, buyer.forfeited) == (others + quantity, 0)
