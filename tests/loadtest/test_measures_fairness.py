"""Queues with known answers: perfect, shuffled, with bots who are early, or served first."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.measures.claims import Claim
from loadtest.measures.fairness import SOLD_OUT, WINDOW_US, comparable, fairness, rank_correlation

seeds = st.integers(0, 10_000)
drawn = pytest.mark.parametrize("seed", range(10))  # for what holds of nearly all draws


def claim(n: int, sent_us: int, won: bool, bot: bool = False, **other: int) -> Claim:
    row: dict[str, Any] = dict.fromkeys(Claim._fields[2:-1], 0)  # without cuts
    answer = {"held_us": sent_us + 9} if won else {"ended_us": sent_us + 9, "code": SOLD_OUT}
    row |= {"sale": 7, "quantity": 1, "attempts": 1, "sent_us": sent_us, **answer, **other}
    return Claim(user=f"lt-r-{'x' if bot else 'b'}{n}", claim_id=n.to_bytes(16, "big"), **row)


def queue(
    rng: random.Random,
    units: int,
    senders: Sequence[tuple[int, bool]],
    place: Callable[[int, bool], float],
) -> list[Claim]:
    """Claims of (sent_us, is it a bot), served in the order of `place`; they come shuffled."""
    order = sorted(range(len(senders)), key=lambda n: place(*senders[n]))
    winners = set(order[:units])
    claims = [claim(n, at, n in winners, bot=bot) for n, (at, bot) in enumerate(senders)]
    rng.shuffle(claims)
    return claims


def crowd(
    rng: random.Random, people: int, bots: int, spread_us: int = 500_000
) -> list[tuple[int, bool]]:
    instants = rng.sample(range(1, spread_us), people + bots)
    return [(at, n < bots) for n, at in enumerate(instants)]


@given(seeds)
def test_fairness_when_the_queue_is_perfect_then_no_inversion(seed: int) -> None:
    rng = random.Random(seed)
    found = fairness(queue(rng, 100, crowd(rng, 300, 0), lambda at, _: at))
    assert found
    assert (found.inversions, found.rank_correlation) == (0.0, 1.0)
    assert found.pairs > 0
    assert found.bot_bias is None


@drawn
def test_fairness_when_winners_are_drawn_then_many_inversions_and_no_correlation(seed: int) -> None:
    rng = random.Random(seed)
    found = fairness(queue(rng, 500, crowd(rng, 1000, 0), lambda at, _: rng.random()))
    assert found
    assert found.inversions == pytest.approx(0.25, abs=0.04)  # of all pairs half are of one each
    assert found.rank_correlation == pytest.approx(0, abs=0.2)


@drawn
def test_fairness_when_the_last_are_served_first_then_reversed(seed: int) -> None:
    rng = random.Random(seed)
    found = fairness(queue(rng, 500, crowd(rng, 1000, 0, WINDOW_US), lambda at, _: -at))
    assert found
    assert found.rank_correlation == -1.0
    assert found.inversions == pytest.approx(0.5, abs=0.01)


@drawn
def test_bias_when_bots_are_served_first_then_far_above_one(seed: int) -> None:
    rng = random.Random(seed)
    found = fairness(queue(rng, 300, crowd(rng, 800, 200), lambda at, bot: at + (not bot) * 1e9))
    assert found
    assert found.bot_bias is not None
    assert found.bot_bias > 5
    assert found.bot_wins > found.bot_people == 0.2


@drawn
def test_bias_when_bots_are_early_but_served_in_order_then_about_one(seed: int) -> None:
    rng = random.Random(seed)
    senders = [(at // 3 if bot else at, bot) for at, bot in crowd(rng, 800, 200)]
    found = fairness(queue(rng, 300, senders, lambda at, _: at + rng.gauss(0, 5_000)))
    assert found
    assert found.bot_bias is not None
    assert 0.6 < found.bot_bias < 1.5
    assert found.bot_wins > 1.2 * found.bot_people


@drawn
def test_bias_when_bots_get_a_start_of_30_ms_then_it_shows(seed: int) -> None:
    rng = random.Random(seed)
    senders = crowd(rng, 800, 200)
    found = fairness(queue(rng, 300, senders, lambda at, bot: at - 30_000 * bot))
    assert found
    assert found.bot_bias is not None
    assert found.bot_bias > 1.5


def brute_force(claims: list[Claim]) -> tuple[int, int]:
    among, pairs, inversions = comparable(sorted(claims, key=lambda each: each.sent_us)), 0, 0
    for i in among:
        for j in among:
            if 0 < j.sent_us - i.sent_us <= WINDOW_US:
                pairs += 1
                inversions += not i.held_us and i.code == SOLD_OUT and bool(j.held_us)
    return pairs, inversions


@given(
    st.lists(
        st.tuples(st.integers(1, 200_000), st.booleans(), st.booleans()), min_size=1, max_size=40
    )
)
def test_inversions_when_counted_pair_by_pair_then_equal(
    made: list[tuple[int, bool, bool]],
) -> None:
    claims = [claim(n, at, won, bot=bot) for n, (at, won, bot) in enumerate(made)]
    found = fairness(claims)
    assert found
    pairs, inversions = brute_force(claims)
    assert (found.pairs, found.inversions) == (pairs, inversions / pairs if pairs else 0)


@pytest.mark.parametrize(
    "other",
    [{"attempts": 2}, {"quantity": 3}, {"code": 1307}, {"ended_us": 0}],
    ids=["retried", "wanted_more", "limit_reached", "no_answer"],
)
def test_inversions_when_there_is_another_reason_then_none(other: dict[str, int]) -> None:
    queue_ = [claim(0, 100, False, False, **other), *(claim(n, 100 + n, True) for n in range(1, 4))]
    found = fairness(queue_)
    assert found
    assert found.inversions == 0
    assert fairness([claim(0, 100, False), *queue_[1:]]).inversions == 0.5  # type: ignore[union-attr]


def test_fairness_when_far_apart_then_no_pairs() -> None:
    found = fairness([claim(0, 100, False), claim(1, 101 + WINDOW_US, True)])
    assert found
    assert (found.pairs, found.inversions, found.rank_correlation) == (0, 0.0, -1.0)


def test_pairs_when_the_goods_are_gone_then_not_counted() -> None:
    found = fairness([claim(0, 100, True), claim(1, 200, False), claim(2, 300, False)])
    assert found
    assert (found.pairs, found.rank_correlation) == (0, 1.0)


def test_fairness_when_there_are_several_sales_then_the_busiest() -> None:
    other = [claim(n, 50 + n, True, sale=8) for n in range(3)]
    found = fairness([*other, claim(0, 100, True, bot=True), claim(1, 0, True)])
    assert found
    assert found.bot_claims == 0


def test_fairness_when_nothing_was_sent_then_none() -> None:
    assert fairness([claim(0, 0, False)]) is None


def test_correlation_when_all_win_or_share_an_instant_then_zero() -> None:
    assert rank_correlation([claim(0, 1, True), claim(1, 2, True)]) == 0
    together = [claim(0, 1, True), claim(1, 1, False)]
    assert rank_correlation(together) == 0
    assert rank_correlation([*together, claim(2, 2, False)]) == 0.5
