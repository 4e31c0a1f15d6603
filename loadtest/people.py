"""The people of a run, dealt out to loaders and rooms."""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from loadtest.arrivals import acts_of, instants
from loadtest.scenario import BUYING, SIGNED_IN, Crowd, Scenario
from loadtest.swarm.crowds import user_of
from loadtest.swarm.pipe import CrowdSlice

US_PER_S: Final = 1_000_000


class Plan(NamedTuple):
    """When what happens, in t_us: people come from `join_us` on, the first sale opens at `t0_us`,
    what is intended within `part_us` (start, end) is measured."""

    join_us: int
    part_us: tuple[int, int]
    t0_us: int


def users(scenario: Scenario, run: str) -> list[str]:
    """Everybody who needs a token, in the order in which `dealt` takes them."""
    return [
        user_of(run, place, crowd.persona, number)
        for place, crowd in enumerate(scenario.crowd)
        if crowd.persona in SIGNED_IN
        for number in range(crowd.count)
    ]


def dealt(
    scenario: Scenario, tokens: Sequence[str], plan: Plan, *, loaders: int
) -> list[list[CrowdSlice]]:
    """By loader, its share of each crowd. Rooms are taken in turn by all people together."""
    shares: list[list[CrowdSlice]] = [[] for _ in range(loaders)]
    left = iter(tokens)
    before = 0
    for place, crowd in enumerate(scenario.crowd):
        signed_in = crowd.persona in SIGNED_IN
        own = [next(left) if signed_in else "" for _ in range(crowd.count)]
        rooms = [(before + number) % scenario.rooms for number in range(crowd.count)]
        rng = random.Random(f"{scenario.seed}.{place}")
        joins, acts = _joins(crowd, scenario, plan, rng), _acts(crowd, plan, rng)
        before += crowd.count
        first = 0
        for loader, share in enumerate(shares):
            pick = slice(loader, None, loaders)
            count = len(joins[pick])
            end = first + count
            share.append(
                CrowdSlice(
                    crowd, first, count, own[first:end], joins[pick], acts[pick], rooms[first:end]
                )
            )
            first = end
    return shares


def _joins(crowd: Crowd, scenario: Scenario, plan: Plan, rng: random.Random) -> list[int]:
    """One instant for each; over the warm-up unless the scenario says when."""
    if crowd.joins.over_s >= 0:
        made = instants(crowd.joins, crowd.count, rng, t0_us=plan.t0_us, part_us=plan.part_us)
        last = made[-1] if made else plan.part_us[0]
        return [*made[: crowd.count], *[last] * (crowd.count - len(made))]
    spread = msgspec.structs.replace(crowd.joins, over_s=scenario.warmup_s)
    warmup_us = plan.join_us, plan.part_us[0]
    return instants(spread, crowd.count, rng, t0_us=plan.t0_us, part_us=warmup_us)


def _acts(crowd: Crowd, plan: Plan, rng: random.Random) -> list[int]:
    """Buyers count from the opening of the sale, all others from the start of the part."""
    if (acts := acts_of(crowd)) is None:
        return []
    start_us = plan.t0_us if crowd.persona in BUYING else plan.part_us[0]
    part_us = start_us, plan.part_us[1]
    return instants(acts, crowd.count, rng, t0_us=plan.t0_us, part_us=part_us)
