"""When people act: instants decided before the run, from the scenario and its seed.

An open model: nobody waits for an answer before the next one comes, so a slow server does not slow
down what is asked of it.
"""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from loadtest.scenario import Arrivals, Crowd

US_PER_S: Final = 1_000_000
REACTION_MEDIAN_MS: Final = 350.0  # from seeing the button open to pressing it
REACTION_SIGMA: Final = 0.5
REACTION_MAX_MS: Final = 3_000.0
DEFAULT_PER_S: Final = {"liker": 1.0, "commenter": 0.1}  # of one person


def acts_of(crowd: Crowd) -> Arrivals | None:
    """When a crowd acts; None: it only watches."""
    if crowd.acts is not None:
        return crowd.acts
    if crowd.persona in DEFAULT_PER_S:
        return Arrivals("poisson", per_s=DEFAULT_PER_S[crowd.persona] * crowd.count)
    match crowd.persona:
        case "buyer" | "hesitant":
            return Arrivals("herd")
        case "bot":
            return Arrivals("herd", reaction="bot")
        case _:
            return None


def instants(
    arrivals: Arrivals, count: int, rng: random.Random, *, t0_us: int, part_us: tuple[int, int]
) -> list[int]:
    """Intended t_us, sorted. `count`: of at_once, evenly and herd; a rate and a trace have their
    own. `part_us`: what `at_s` counts from (a herd and a trace: from `t0_us`), and the end."""
    start_us = part_us[0] + round(arrivals.at_s * US_PER_S)
    opening_us = t0_us + round(arrivals.at_s * US_PER_S)
    match arrivals.kind:
        case "at_once":
            return [start_us] * count
        case "evenly":
            step_us = arrivals.over_s * US_PER_S / count
            return [start_us + round(number * step_us) for number in range(count)]
        case "herd":
            return sorted(
                opening_us + round(_reaction_ms(arrivals, rng) * 1000) for _ in range(count)
            )
        case "trace":
            return sorted(opening_us + round(ms * 1000) for ms in _trace(arrivals.file))
        case "poisson":
            until_s = (part_us[1] - start_us) / US_PER_S
            if arrivals.over_s > 0:
                until_s = min(until_s, arrivals.over_s)
            return [start_us + round(s * US_PER_S) for s in _poisson(arrivals.per_s, until_s, rng)]
        case "ramp":
            until_s = (part_us[1] - start_us) / US_PER_S
            return [start_us + round(s * US_PER_S) for s in _ramp(arrivals, until_s, rng)]


def _reaction_ms(arrivals: Arrivals, rng: random.Random) -> float:
    if arrivals.reaction == "bot":
        return 0.0
    if arrivals.reaction == "uniform":
        return rng.uniform(0, arrivals.spread_ms)
    while True:
        took = rng.lognormvariate(math.log(REACTION_MEDIAN_MS), REACTION_SIGMA)
        if took <= REACTION_MAX_MS:
            return took


def _trace(file: str) -> Iterator[float]:
    """One number of ms per line; empty lines and # are passed over. Raises ValueError, OSError."""
    for line in Path(file).read_text().splitlines():
        if text := line.partition("#")[0].strip():
            yield float(text)


def _poisson(per_s: float, until_s: float, rng: random.Random) -> Iterator[float]:
    at_s = rng.expovariate(per_s)
    while at_s < until_s:
        yield at_s
        at_s += rng.expovariate(per_s)


def _ramp(arrivals: Arrivals, until_s: float, rng: random.Random) -> Iterator[float]:
    """A Poisson process whose rate goes from per_s to to_per_s within over_s and stays there: by
    inversion of its mean (Cinlar 1975), which is a parabola and then a line."""
    low, high, over_s = arrivals.per_s, arrivals.to_per_s, arrivals.over_s
    slope = (high - low) / over_s
    turning = (low + high) / 2 * over_s  # acts until the rate stays
    mean = rng.expovariate(1)
    while mean < turning or high > 0:
        if mean < turning:
            at_s = (math.sqrt(max(0.0, low * low + 2 * slope * mean)) - low) / slope
        else:
            at_s = over_s + (mean - turning) / high
        if at_s >= until_s:
            return
        yield at_s
        mean += rng.expovariate(1)
