"""The life of a flash sale and its window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import limits
from server.domain.sale import (
    SaleStatus,
    is_over,
    require_draft,
    require_not_over,
    window_at,
    window_now,
)
from server.errors import Refused

NOW = 1_790_000_000_000
AHEAD = limits.SALE_AHEAD_S_MAX * 1000


@given(
    st.integers(0, limits.COUNTDOWN_S_MAX),
    st.integers(limits.SALE_SECONDS_MIN, limits.SALE_SECONDS_MAX),
)
def test_window_when_started_now_then_it_follows_the_countdown(countdown: int, length: int) -> None:
    window = window_now(NOW, countdown, length)
    assert window.opens_at - NOW == countdown * 1000
    assert window.closes_at - window.opens_at == length * 1000


def test_window_when_started_at_a_time_then_only_within_the_bounds() -> None:
    assert window_at(NOW, NOW + 1, 10) == (NOW + 1, NOW + 10_001)
    assert window_at(NOW, NOW + AHEAD, 10).opens_at == NOW + AHEAD
    for starts_at in (NOW, NOW - 1, NOW + AHEAD + 1):
        with pytest.raises(Refused, match="bad_field"):
            window_at(NOW, starts_at, 10)


@pytest.mark.parametrize(
    ("status", "closes_at", "over"),
    [
        ("draft", 0, False), ("scheduled", NOW + 1, False), ("open", NOW + 1, False),
        ("open", NOW, True), ("scheduled", NOW - 1, True), ("closing", NOW + 1, True),
        ("closed", NOW + 1, True),
    ],
)  # fmt: skip
def test_sale_when_stopped_or_past_its_window_then_over(
    status: SaleStatus, closes_at: int, over: bool
) -> None:
    assert is_over(status, closes_at, NOW) is over
    if over:
        with pytest.raises(Refused, match="sale_closed"):
            require_not_over(status, closes_at, NOW)
    else:
        require_not_over(status, closes_at, NOW)


def test_sale_when_started_then_it_must_be_a_draft() -> None:
    require_draft("draft")
    for status, name in (
        ("scheduled", "conflict"), ("open", "conflict"),
        ("closing", "sale_closed"), ("closed", "sale_closed"),
    ):  # fmt: skip
        with pytest.raises(Refused, match=name):
            require_draft(status)
