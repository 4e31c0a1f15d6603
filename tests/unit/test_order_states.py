"""The edges of an order's life."""

import pytest

from server.domain.order import COUNTED_AS, EDGES, STATUSES, counter_of, may_become


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
