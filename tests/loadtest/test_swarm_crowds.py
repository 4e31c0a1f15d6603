"""Acts take place when they were meant to, by whoever's turn it is; the others are counted."""

import asyncio
from typing import Any

import jwt
import pytest

from loadtest.scenario import Crowd
from loadtest.swarm import crowds
from loadtest.swarm.buying import Terms, Till
from loadtest.swarm.crowds import Crowds, Timetable, Turns, user_in, user_of
from loadtest.swarm.entrance import Swarm, Who
from loadtest.swarm.personas import Commenter, Flapper, Liker, Payer, Person, SlowReader
from loadtest.swarm.pipe import CrowdSlice
from server.protocol import messages as m
from tests.live import until
from tests.loadtest.swarm_kit import SALE, arrive, frame, new_swarm, refusal, welcome


def new_person(swarm: Swarm, kind: type[Person], persona: Any, **crowd: Any) -> Person:
    token = "" if persona in ("slow_reader", "flapper") else "a token"
    return kind(swarm, Who("lt-r-l0_1", 0, token, 0), Crowd(persona, 1, **crowd))


def sliced(persona: Any, count: int, **crowd: Any) -> CrowdSlice:
    return CrowdSlice(
        Crowd(persona, count, **crowd), 0, count, [""] * count, [0] * count, [1, 2], [0] * count
    )


def new_crowds(swarm: Swarm, *slices: CrowdSlice) -> Crowds:
    till = Till(swarm, Terms(SALE, 1))
    return Crowds(swarm, till, Payer(swarm, "demo"), slices, "r", 0, 1)


async def test_timetable_when_run_then_everything_happens_in_order_and_never_early() -> None:
    swarm = new_swarm()
    now_us, calls = swarm.now_us(), []
    done = asyncio.Event()

    def call(t_us: int) -> None:
        calls.append((t_us, swarm.now_us()))
        if len(calls) == 30:
            done.set()

    Timetable(swarm, [(now_us + 500 * n, call) for n in reversed(range(30))]).run()
    await asyncio.wait_for(done.wait(), 10)
    assert [t_us for t_us, _ in calls] == sorted(t_us for t_us, _ in calls)
    assert all(t_us <= happened for t_us, happened in calls)


class Actor:
    """Somebody who acts when it can."""

    def __init__(self, *, wants: int = 9, ready: bool = True) -> None:
        self.left, self.ready, self.acts = wants, ready, [0][:0]

    @property
    def wants(self) -> bool:
        return self.left > 0

    def act(self, intended_us: int) -> None:
        self.left -= 1
        self.acts.append(intended_us)


async def test_acts_when_dealt_out_then_people_take_turns_until_they_have_nothing_left() -> None:
    swarm = new_swarm()
    people: list[Any] = [Actor(wants=1), Actor(wants=3)]
    turns = Turns(swarm, people, claiming=False)
    for t_us in range(1, 6):
        turns.act(t_us)
    assert [each.acts for each in people] == [[1], [2, 3, 4]]
    assert (swarm.counts["acts"], swarm.counts["acts_spare"]) == (4, 1)


async def test_act_when_its_person_is_away_then_it_waits_and_the_lag_tells() -> None:
    swarm = new_swarm()
    actor: Any = Actor(ready=False)
    turns = Turns(swarm, [actor], claiming=False)
    intended_us = swarm.now_us()
    turns.act(intended_us)
    actor.ready = True
    await until(lambda: bool(actor.acts), "the act")
    assert actor.acts == [intended_us]
    assert swarm.lags[0] > 0


async def test_act_when_its_person_stays_away_then_it_is_dropped_and_counted() -> None:
    swarm = new_swarm()
    actor: Any = Actor(ready=False)
    turns = Turns(swarm, [actor], claiming=False)
    turns.act(swarm.now_us() - crowds.LATE_US)
    await until(lambda: swarm.counts["dropped"] > 0, "the act is dropped")
    turns.act(swarm.now_us())
    turns.stop()
    assert swarm.counts["dropped"] == 2
    assert not actor.acts


async def test_people_when_made_then_each_has_its_room_and_a_sample_keeps_traces() -> None:
    swarm = new_swarm()
    made = new_crowds(swarm, sliced("watcher", 250), sliced("bot", 2, sockets=3))
    assert len(made.connections) == 256
    assert sum(each.trace is not None for each in made.connections) == 5
    assert made.connections[-1].name == user_of("r", 1, "bot", 1)
    assert made.connections[-1].purchases is made.connections[-3].purchases  # type: ignore[attr-defined]


def test_token_when_read_then_it_says_who_it_is_for() -> None:
    assert user_in(jwt.encode({"sub": "lt-r-x2_7"}, "k" * 32, "HS256")) == "lt-r-x2_7"
    with pytest.raises(ValueError, match="truncated"):
        user_in("no token")


async def test_liker_when_it_taps_then_one_in_twenty_wants_a_reply_and_all_are_counted() -> None:
    swarm = new_swarm()
    liker = new_person(swarm, Liker, "liker")
    transport = arrive(liker)
    for _ in range(40):
        liker.act(0)
    likes = transport.commands()
    assert sum(like.ref is not None for like in likes) == 2
    assert sum(like.taps for like in likes) == swarm.counts["taps"]
    liker.data_received(frame(m.Accepted(likes[19].ref)))
    transport.abort()
    assert swarm.counts["taps_unsure"] == sum(like.taps for like in likes[20:])


async def test_liker_when_a_later_like_was_answered_then_only_what_follows_is_unsure() -> None:
    swarm = new_swarm()
    liker = new_person(swarm, Liker, "liker")
    transport = arrive(liker)
    for _ in range(20):
        liker.act(0)
    [*_, asked] = transport.commands()
    liker.data_received(frame(m.Accepted(asked.ref)))
    transport.abort()
    assert not swarm.counts["taps_unsure"]


async def test_commenter_when_answered_then_accepted_lines_and_reply_times_are_counted() -> None:
    swarm = new_swarm()
    commenter = new_person(swarm, Commenter, "commenter")
    transport = arrive(commenter)
    for _ in range(2):
        commenter.act(swarm.now_us())
    first, second = transport.commands()
    assert first.text != second.text
    commenter.data_received(frame(m.Accepted(first.ref, chat=m.ChatResult("x", first.text))))
    commenter.data_received(frame(refusal(second.ref, "rate_limited", 1200)))
    assert swarm.counts["lines_sent"] == 1
    assert swarm.counts["line_refused.rate_limited"] == 1
    assert not swarm.counts["errors"]
    assert "reply@0" in swarm.measured.histograms()


async def test_slow_reader_when_its_budget_is_used_up_then_it_stops_reading() -> None:
    swarm = new_swarm()
    size = len(frame(welcome()))
    stopped = new_person(swarm, SlowReader, "slow_reader")
    slow: Any = new_person(swarm, SlowReader, "slow_reader", reads_bytes_per_s=size * 2 + 200)
    wires = arrive(stopped), arrive(slow)
    assert [each.paused for each in wires] == [True, False]
    while not wires[1].paused:
        slow.data_received(frame(m.Tick(1, 0)))
    slow._read_on()
    assert not wires[1].paused
    assert not swarm.sights[0].known
    assert swarm.slow_sights[0].known


async def test_flapper_when_it_has_been_here_long_enough_then_it_goes_and_returns() -> None:
    swarm = new_swarm()
    flapper = new_person(swarm, Flapper, "flapper", up_s=0.01, down_s=0.02)
    transport = arrive(flapper)
    await until(lambda: transport.cut, "it has gone")
    assert flapper._pause_s() == 0.02
    assert not flapper.over
