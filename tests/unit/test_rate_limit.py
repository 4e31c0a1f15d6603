"""Token buckets: burst, refill, refusal times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.rate_limit import BucketRule, TokenBucket

RULE = BucketRule(per_second=10, burst=3)


def test_take_when_the_bucket_is_full_then_the_burst_passes_and_one_more_waits() -> None:
    bucket = TokenBucket(RULE, 0)
    assert [bucket.take(RULE, 0) for _ in range(4)] == [0, 0, 0, 100]


def test_take_when_it_was_refused_then_nothing_was_spent() -> None:
    bucket = TokenBucket(RULE, 0)
    for _ in range(3):
        bucket.take(RULE, 0)
    assert bucket.take(RULE, 50) == 50
    assert bucket.take(RULE, 100) == 0


def test_take_when_the_told_time_has_passed_then_it_succeeds() -> None:
    bucket = TokenBucket(RULE, 0)
    for _ in range(3):
        bucket.take(RULE, 0)
    wait = bucket.take(RULE, 0)
    assert bucket.take(RULE, wait) == 0


def test_take_when_the_clock_steps_back_then_nothing_is_gained_or_lost() -> None:
    bucket = TokenBucket(RULE, 1_000)
    assert bucket.take(RULE, 0) == 0
    assert bucket.take(RULE, 1_000) == 0


def test_take_up_to_when_more_is_wanted_than_there_is_then_only_what_is_there_is_granted() -> None:
    bucket = TokenBucket(RULE, 0)
    assert bucket.take_up_to(RULE, 0, 10) == 3
    assert bucket.take_up_to(RULE, 0, 10) == 0
    assert bucket.take_up_to(RULE, 200, 10) == 2


@pytest.mark.parametrize(("per_second", "burst"), [(0, 1), (-1, 1), (1, 0.5)])
def test_rule_when_it_could_never_grant_then_it_is_refused(per_second: float, burst: float) -> None:
    with pytest.raises(ValueError, match="bucket"):
        BucketRule(per_second, burst)


@given(
    steps=st.lists(st.floats(0, 5_000), min_size=1, max_size=200),
    per_second=st.floats(0.1, 100),
    burst=st.integers(1, 50),
)
def test_take_when_asked_at_any_times_then_never_more_than_rate_and_burst_allow(
    steps: list[float], per_second: float, burst: int
) -> None:
    rule = BucketRule(per_second, burst)
    bucket = TokenBucket(rule, 0)
    now = granted = 0.0
    for step in steps:
        now += step
        granted += bucket.take(rule, now) == 0
    assert granted <= burst + now * per_second / 1_000 + 1e-6
