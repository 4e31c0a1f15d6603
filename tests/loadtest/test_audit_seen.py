"""What several loaders and several sockets of a user saw, as one."""

from dataclasses import replace
from typing import Any

import pytest

from loadtest.audit.seen import Asked, Terms, gathered, seen_by
from loadtest.measures.claims import REPEATED, ClaimTable
from loadtest.measures.histogram import Measured
from loadtest.swarm.pipe import Harvest, Offence, Shown
from server.errors import ERRORS
from tests.loadtest.audit_world import World

SOLD_OUT, BUSY = ERRORS["sold_out"].code, ERRORS["busy"].code


def harvest(user: str, **counts: int) -> Harvest:
    table = ClaimTable(Measured())
    row = table.intend(
        user, b"x" * 16, crowd=0, sale=7, quantity=1, intended_us=5, room=1
    )  # fmt: skip
    table.sent(row, 6)
    table.confirmed(row, 9, 42, 1, 3)
    return Harvest(
        histograms={},
        blocks={},
        claims=table.log(),
        awareness={},
        traces=[],
        offences=[Offence("gap", 1, user, 1, "", "")],
        health=[],
        counts=counts,
        shown=[Shown(1, 7, 1, 9, 0, viewers=2)],
    )


def asked(*changes: dict[str, Any]) -> Asked:
    """One claim over as many sockets as there are changes."""
    row = World().claims[0]
    (found,) = gathered(row._replace(**each) for each in changes).values()
    return found


def test_seen_when_there_are_two_loaders_then_it_has_all_of_both() -> None:
    harvests = [harvest("lt-r1-b0", taps=2), harvest("lt-r1-b1", taps=3, frames=1)]
    seen = seen_by(
        harvests, run="r1", zero_us=0, part_us=(1, 2), finish_us=3, sales={7: Terms(1, 1, 9)}
    )
    assert {user for user, _ in seen.claims} == {"lt-r1-b0", "lt-r1-b1"}
    assert all(each.order_ids == {42} and each.places == {(1, 3)} for each in seen.claims.values())
    assert dict(seen.counts) == {"taps": 5, "frames": 1}
    assert (len(seen.offences), sum(each.viewers for each in seen.shown)) == (2, 4)


def test_seen_when_a_user_has_another_prefix_then_it_is_not_ours() -> None:
    seen = World().seen()
    assert seen.is_ours("lt-r1-b0")
    assert not seen.is_ours("lt-r11-b0")
    assert not replace(seen, run="r2").is_ours("lt-r1-b0")


def test_asked_when_sockets_were_told_at_different_times_then_the_first_counts() -> None:
    both = asked({"held_us": 9, "confirmed_us": 0}, {"held_us": 7, "confirmed_us": 30})
    assert (both.held_us, both.confirmed_us, both.attempts) == (7, 30, 2)


def test_asked_when_every_socket_was_refused_then_it_is_refused_at_the_last() -> None:
    nothing = {"held_us": 0, "confirmed_us": 0, "code": SOLD_OUT}
    assert asked({**nothing, "ended_us": 4}, {**nothing, "ended_us": 6}).refused_us == 6
    assert asked({**nothing, "ended_us": 4}, {**nothing, "ended_us": 0}).refused_us == 0
    assert asked({**nothing, "ended_us": 4, "code": BUSY}).refused_us == 0


def test_asked_when_one_socket_was_told_yes_and_another_no_then_it_is_split() -> None:
    refused = {"held_us": 0, "confirmed_us": 0, "ended_us": 4}
    assert asked({}, {**refused, "code": SOLD_OUT}).is_split
    assert not asked({}, {**refused, "code": BUSY}).is_split


@pytest.mark.parametrize("name", sorted(REPEATED))
def test_asked_when_a_buyer_gave_up_then_the_last_refusal_decides_nothing(name: str) -> None:
    given_up = {"held_us": 0, "ended_us": 4, "code": ERRORS[name].code}
    assert not asked({**given_up, "confirmed_us": 0}).refused_us
    assert not asked({**given_up, "confirmed_us": 9}).is_split
    assert not asked({}, {**given_up, "confirmed_us": 0}).is_split


def test_asked_when_a_hold_ended_then_it_was_let_go_unless_nobody_knew() -> None:
    held = {"confirmed_us": 0, "ended_us": 8}
    assert asked({**held, "code": 0}).let_go_us == 8
    assert asked({**held, "code": SOLD_OUT}).let_go_us == 8
    assert asked({**held, "code": BUSY}).let_go_us == 0
    assert asked({"ended_us": 8}).let_go_us == 0
