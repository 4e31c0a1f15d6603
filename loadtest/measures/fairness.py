"""Whether those who were first got the goods, and whether bots were let pass."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby
from typing import Final, NamedTuple

from loadtest.measures.claims import Claim
from loadtest.report.summary import Fairness
from server.errors import ERRORS

WINDOW_US: Final = 50_000  # further apart, the order of sending is the order of arrival
BIAS_PAIRS_MIN: Final = 200  # of either kind: fewer say nothing
# Who is passed is decided by the few claims around the last unit, so the pairs of one run are far
# from independent. Without this much on either side, fair queues show a bias of 4 one time in ten.
# With it, of 150 simulated ones (900 people and 200 bots within 500 ms, 200 units) none reached 1.5
# where the network's jitter was 2 ms (standard deviation), 1 % at 5 ms, 9 % at 10 ms and 14 % at
# 50 ms; 30 ms of advantage for bots showed as 6 in the median, at 50 ms of jitter as 2.7.
CHANCE: Final = 0.02
SOLD_OUT: Final = ERRORS["sold_out"].code


class Tally(NamedTuple):
    """Pairs of claims, and how many of them are inversions: refused before, held after."""

    pairs: int
    inversions: int

    @property
    def likelihood(self) -> float:
        """The share of inversions, and what chance may add to it."""
        return self.inversions / self.pairs + CHANCE


def fairness(claims: Iterable[Claim]) -> Fairness | None:
    """Of the sale with the most claims; None when nothing was sent.

    Bots win more because they are early: that alone is no bias. Compare `bot_wins` with
    `bot_people`; `bot_bias` compares bots and people who were as early as each other.
    """
    of_sale: dict[int, list[Claim]] = {}
    for claim in claims:
        if claim.sent_us:
            of_sale.setdefault(claim.sale, []).append(claim)
    if not of_sale:
        return None
    busiest = max(of_sale, key=lambda sale: len(of_sale[sale]))
    queue = sorted(of_sale[busiest], key=lambda claim: claim.sent_us)
    people = {claim.user: claim.is_bot for claim in queue}
    pairs, inversions = _tally(comparable(queue), (False, True), (False, True))
    return Fairness(
        rank_correlation=rank_correlation(queue),
        inversions=inversions / pairs if pairs else 0.0,
        pairs=pairs,
        bot_bias=bot_bias(queue),
        bot_wins=_share([claim.is_bot for claim in queue if claim.held_us]),
        bot_people=_share(list(people.values())),
        bot_claims=_share([claim.is_bot for claim in queue]),
    )


def rank_correlation(queue: Sequence[Claim]) -> float:
    """Spearman's between the order of sending and success, over the greatest it can be with so
    many winners: 1 when all winners were before all others, 0 without relation, -1 reversed.

    That is 2 (mean place of the others - mean place of the winners) / n; ties share a place.
    Claims without a final answer are left out. 0.0 when there are only winners, or none.
    """
    final = [claim for claim in queue if claim.held_us or claim.ended_us]
    won: list[float] = []
    lost: list[float] = []
    at = 0
    for _, same in groupby(final, key=lambda claim: claim.sent_us):
        tied = list(same)
        place = at + (len(tied) - 1) / 2
        at += len(tied)
        for claim in tied:
            (won if claim.held_us else lost).append(place)
    if not won or not lost:
        return 0.0
    return 2 * (sum(lost) / len(lost) - sum(won) / len(won)) / len(final)


def comparable(queue: Sequence[Claim]) -> list[Claim]:
    """Claims whose order decides: sent once, finally answered, of the commonest quantity, and
    before the goods were gone: not after the last winner's."""
    wanted = [claim.quantity for claim in queue]
    quantity = max(set(wanted), key=wanted.count)
    last_win = max((claim.sent_us for claim in queue if claim.held_us), default=0)
    return [
        claim
        for claim in queue
        if claim.attempts == 1
        and claim.quantity == quantity
        and claim.sent_us <= last_win
        and (claim.held_us or claim.ended_us)
    ]


def bot_bias(queue: Sequence[Claim]) -> float | None:
    """How much likelier an earlier person loses to a later bot than the reverse. 1: no bias.
    None with fewer than BIAS_PAIRS_MIN pairs of either kind."""
    among = comparable(queue)
    bot_later = _tally(among, (False,), (True,))
    person_later = _tally(among, (True,), (False,))
    if min(bot_later.pairs, person_later.pairs) < BIAS_PAIRS_MIN:
        return None
    return bot_later.likelihood / person_later.likelihood


def _tally(queue: Sequence[Claim], earlier: Sequence[bool], later: Sequence[bool]) -> Tally:
    """All pairs at most WINDOW_US apart, exactly, in O(n log n).

    `earlier`, `later`: the values of `is_bot` allowed on either side. What was sent in the same
    µs has no order.
    """
    times = [claim.sent_us for claim in queue]
    fits = [claim.is_bot in earlier for claim in queue]
    before = [0, *accumulate(fits)]
    lost = [_sold_out(claim) and fit for claim, fit in zip(queue, fits, strict=True)]
    lost_before = [0, *accumulate(lost)]
    pairs = inversions = 0
    for claim in queue:
        if claim.is_bot in later:
            start = bisect_left(times, claim.sent_us - WINDOW_US)
            end = bisect_left(times, claim.sent_us)
            pairs += before[end] - before[start]
            if claim.held_us:
                inversions += lost_before[end] - lost_before[start]
    return Tally(pairs, inversions)


def _sold_out(claim: Claim) -> bool:
    return not claim.held_us and claim.code == SOLD_OUT


def _share(marks: Sequence[bool]) -> float:
    return sum(marks) / len(marks) if marks else 0.0
