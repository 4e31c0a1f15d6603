"""When people act: fixed by the seed, distributed as the scenario says."""

import random
import statistics
from pathlib import Path

import pytest

from loadtest.arrivals import US_PER_S, acts_of, instants
from loadtest.people import Plan, dealt, users
from loadtest.scenario import Arrivals, Crowd, SaleTerms, Scenario

PART_US = (10 * US_PER_S, 70 * US_PER_S)
T0_US = 12 * US_PER_S
KINDS = [
    Arrivals("at_once", at_s=3),
    Arrivals("evenly", over_s=5),
    Arrivals("poisson", per_s=50),
    Arrivals("ramp", per_s=10, to_per_s=100, over_s=20),
    Arrivals("ramp", per_s=100, to_per_s=0, over_s=20),
    Arrivals("herd"),
    Arrivals("herd", reaction="uniform"),
    Arrivals("herd", reaction="bot"),
]


def made(arrivals: Arrivals, count: int = 1000, seed: int = 7) -> list[int]:
    return instants(arrivals, count, random.Random(seed), t0_us=T0_US, part_us=PART_US)


@pytest.mark.parametrize("arrivals", KINDS, ids=lambda each: f"{each.kind}-{each.reaction}")
def test_instants_when_the_seed_is_the_same_then_so_are_they_and_sorted(
    arrivals: Arrivals,
) -> None:
    found = made(arrivals)
    assert found == made(arrivals)
    assert found == sorted(found)
    assert PART_US[0] <= found[0]
    assert found[-1] < PART_US[1]


def test_herd_when_human_then_the_median_is_a_reaction_and_none_takes_3_s() -> None:
    after_ms = [(each - T0_US) / 1000 for each in made(Arrivals("herd"), 20_000)]
    assert abs(statistics.median(after_ms) - 350) < 10
    assert 0 < min(after_ms) <= max(after_ms) <= 3_000


def test_herd_when_uniform_then_within_the_spread() -> None:
    after_ms = [(each - T0_US) / 1000 for each in made(KINDS[6], 20_000)]
    assert max(after_ms) <= 500
    assert abs(statistics.mean(after_ms) - 250) < 10


def test_herd_when_bots_then_all_at_the_opening() -> None:
    assert set(made(KINDS[7])) == {T0_US}


def test_poisson_when_a_minute_of_50_a_second_then_3000_give_or_take_4_sigma() -> None:
    counts = [len(made(Arrivals("poisson", per_s=50), seed=seed)) for seed in range(20)]
    assert abs(statistics.mean(counts) - 3000) < 4 * (3000 / 20) ** 0.5
    assert len(set(counts)) > 1


def test_ramp_when_it_rises_then_the_rate_is_that_of_each_second() -> None:
    found = made(Arrivals("ramp", per_s=0, to_per_s=1000, over_s=20))
    first = sum(each < PART_US[0] + 10 * US_PER_S for each in found)
    second = sum(each < PART_US[0] + 20 * US_PER_S for each in found) - first
    last = len(found) - first - second
    for count, mean in ((first, 2_500), (second, 7_500), (last, 40_000)):
        assert abs(count - mean) < 4 * mean**0.5


def test_ramp_when_it_falls_to_nothing_then_it_ends() -> None:
    found = made(KINDS[4])
    assert abs(len(found) - 1000) < 4 * 1000**0.5
    assert found[-1] < PART_US[0] + 20 * US_PER_S


def test_evenly_when_over_some_seconds_then_equal_steps() -> None:
    found = made(Arrivals("evenly", over_s=5), 5)
    assert found == [PART_US[0] + second * US_PER_S for second in range(5)]


def test_trace_when_read_then_exactly_its_instants(tmp_path: Path) -> None:
    file = tmp_path / "acts.ms"
    file.write_text("12.5\n0\n\n# late\n900 # the last\n")
    after_us = [each - T0_US for each in made(Arrivals("trace", file=str(file)))]
    assert after_us == [0, 12_500, 900_000]


# --- Dealing people out --------------------------------------------------------------------------

SCENARIO = Scenario(
    version=1,
    name="x",
    seconds=60,
    sale=SaleTerms(5),
    rooms=3,
    crowd=[
        Crowd("watcher", 7),
        Crowd("buyer", 10),
        Crowd("bot", 3, sockets=2),
        Crowd("liker", 4, acts=Arrivals("poisson", per_s=9)),
    ],
)


@pytest.mark.parametrize("loaders", [1, 2, 5, 8])
def test_dealt_when_to_several_loaders_then_everybody_comes_and_acts_once(loaders: int) -> None:
    plan = Plan(0, PART_US, T0_US)
    names = users(SCENARIO, "r")
    whole, shares = (dealt(SCENARIO, names, plan, loaders=count) for count in (1, loaders))
    for place, (all_of_it,) in enumerate(zip(*whole, strict=True)):
        parts = [share[place] for share in shares]
        tokens = [token for part in parts for token in part.tokens]
        assert tokens == all_of_it.tokens
        assert [room for part in parts for room in part.room] == all_of_it.room
        assert sorted(at for part in parts for at in part.act_us) == all_of_it.act_us
        assert sorted(at for part in parts for at in part.join_us) == all_of_it.join_us
        assert [part.first for part in parts] == [
            sum(earlier.count for earlier in parts[:number]) for number in range(loaders)
        ]


def test_dealt_when_rooms_are_several_then_they_are_equally_full() -> None:
    (share,) = dealt(SCENARIO, users(SCENARIO, "r"), Plan(0, PART_US, T0_US), loaders=1)
    rooms = [room for each in share for room in each.room]
    assert [rooms.count(room) for room in range(3)] == [8, 8, 8]


def test_dealt_when_buyers_and_others_act_then_from_the_sale_and_from_the_start() -> None:
    (share,) = dealt(SCENARIO, users(SCENARIO, "r"), Plan(0, PART_US, T0_US), loaders=1)
    watchers, buyers, bots, likers = share
    assert watchers.act_us == []
    assert min(buyers.act_us) > T0_US
    assert set(bots.act_us) == {T0_US}
    assert PART_US[0] <= min(likers.act_us) < T0_US


def test_acts_of_when_the_scenario_is_silent_then_those_of_the_persona() -> None:
    assert acts_of(Crowd("watcher", 1)) is None
    assert acts_of(Crowd("hesitant", 1)) == Arrivals("herd")
    assert acts_of(Crowd("commenter", 50)) == Arrivals("poisson", per_s=5.0)
