"""Amounts: integers in, exact decimals out."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import limits
from server.domain.money import amount_text, line_total, minor_digits


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (0, "CNY", "0.00"), (5, "CNY", "0.05"), (1999, "CNY", "19.99"), (-1999, "EUR", "-19.99"),
        (500, "JPY", "500"), (1234, "KWD", "1.234"), (-7, "TND", "-0.007"),
        (limits.PRICE_MINOR_MAX, "CNY", "10000000.00"),
    ],
)  # fmt: skip
def test_amount_when_written_then_in_the_digits_of_its_currency(
    minor: int, currency: str, text: str
) -> None:
    assert amount_text(minor, currency) == text


@given(st.integers(-(2**53), 2**53), st.sampled_from(["CNY", "JPY", "KWD", "USD"]))
def test_amount_when_read_again_then_nothing_was_lost(minor: int, currency: str) -> None:
    assert Decimal(amount_text(minor, currency)).scaleb(minor_digits(currency)) == minor


def test_total_when_price_and_quantity_are_largest_then_exact_in_a_browser() -> None:
    assert line_total(limits.PRICE_MINOR_MAX, limits.CLAIM_QUANTITY_MAX) < 2**53
