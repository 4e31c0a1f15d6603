"""The simulation can fail: with one guard removed it finds a seed that shows it.

Each test takes one guard out of the code under test, for the time of the test only.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from server.acts.messages import ChangeUnits
from server.acts.payments import PaymentActs
from server.domain import claim as claim_rules
from server.domain.claim import PoolBooks, Take
from server.orders.worker import ShowConsumer
from server.store import scripts
from tests.simulation import run
from tests.simulation.faults import Faults
from tests.simulation.postgres import Server
from tests.simulation.run import run_seed
from tests.simulation.shop import Host, Sale
from tests.simulation.world import World, uuid7_of

SEEDS_MAX = 60
LOAD = scripts.load


@contextmanager
def rewritten(guard: str, instead: str, script: str = "") -> Iterator[None]:
    """The Lua script, or each one that has it, with `guard` replaced."""
    assert any(guard in LOAD(name).source for name in scripts.names()), guard

    def load(name: str) -> scripts.Script:
        source = LOAD(name).source
        if script in ("", name):
            source = source.replace(guard, instead)
        return scripts.Script(source, hashlib.sha1(source.encode()).hexdigest())

    with patch.object(scripts, "load", load):
        yield


def keep_all(books: PoolBooks, take: Take, rulings: claim_rules.Rulings) -> None:
    """Every claim is kept, whatever room and limit say."""
    rulings.kept.append(take)
    books.room -= take.quantity


async def reclaim_nothing(*_: Any) -> list[Any]:
    """What another worker has read is left to it."""
    return []


async def ask_nobody(*_: Any) -> str:
    """The refund counts as made."""
    return ""


BREAKAGES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "claims are not remembered": lambda: rewritten(
        "known = redis.call('HMGET', CLAIMS, unpack(fields))", "known = {}", "claim_batch"
    ),
    "stock is not looked at": lambda: rewritten(
        "if quantities[i] > pool.a then", "if false then", "claim_batch"
    ),
    "the limit is not looked at": lambda: rewritten(
        "pool.units[buyers[i]] + quantities[i] > pool.lim", "false"
    ),
    "a give counts as often as it is told": lambda: rewritten(
        "if applied[i] or seen[give_id] then", "if seen[give_id] then"
    ),
    "nobody sees that Redis is another process": lambda: rewritten(
        "return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')", "return 'redis'"
    ),
    "the books keep whatever Redis accepted": lambda: patch.object(
        claim_rules, "_rule_claim", keep_all
    ),
    "entries of dead workers stay with them": lambda: patch.object(
        ShowConsumer, "_reclaim", reclaim_nothing
    ),
    "refunds are noted and never asked for": lambda: patch.object(
        PaymentActs, "_ask_to_refund", ask_nobody
    ),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_simulation_when_a_guard_is_missing_then_some_seed_shows_it(
    breakage: str, simulation_server: Server
) -> None:
    seed = next(
        filter(partial(_fails_without, breakage, simulation_server), range(SEEDS_MAX)), None
    )
    assert seed is not None, f"{SEEDS_MAX} seeds did not notice"
    assert not run_seed(seed, simulation_server).failures, "it fails with the guard, too"


class HubsFreeze(Faults):
    """Nothing else fails."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._drawn = [self._freeze_web]


class Restocks(Host):
    """Does nothing else, and does it late."""

    async def run(self, acts: int) -> None:
        for _ in range(2):
            await asyncio.sleep(2.0)
            body = ChangeUnits(request_id=uuid7_of(self._world.rng), units=5)
            await self._until_answered("restock", 1, body)
        self.is_done = True


def one_unit(_: World) -> list[Sale]:
    return [Sale(sale=1, units=1, limit=5, pay_within_s=1, opens_s=0.3, closes_s=600.0)]


@contextmanager
def slow_answers() -> Iterator[None]:
    """Worlds in which a sending is often stuck in a frozen hub while units come back."""
    with (
        patch.object(run, "Faults", HubsFreeze),
        patch.object(run, "Host", Restocks),
        patch.object(run, "draw_sales", one_unit),
    ):
        yield


@pytest.mark.timeout(600)
def test_simulation_when_late_sendings_are_accepted_then_some_seed_shows_it(
    simulation_server: Server,
) -> None:
    """In the worlds of all the others that would take thousands of seeds."""
    with slow_answers():
        for seed in range(SEEDS_MAX):
            with rewritten("(attempts[i] or 0) <= refusal.attempt", "false"):
                is_shown = bool(run_seed(seed, simulation_server).failures)
            if is_shown:
                break
        assert is_shown, f"{SEEDS_MAX} seeds did not notice"
        assert not run_seed(seed, simulation_server).failures, "it fails with the guard, too"


def _fails_without(breakage: str, server: Server, seed: int) -> bool:
    with BREAKAGES[breakage]():
        return bool(run_seed(seed, server).failures)
