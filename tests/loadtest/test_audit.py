"""Every finding: a hand-made sale in which it is found, and the right one in which nothing is."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.audit import invariants
from loadtest.audit.books import Give, OtherTake, Released
from loadtest.audit.findings import REASONS, TIMELINES_MAX, WORDS
from loadtest.measures.claims import AWAY_US
from loadtest.report.summary import Audit
from loadtest.swarm.pipe import Shown
from tests.loadtest.audit_world import (
    EPOCH,
    FINISH_US,
    SALE,
    SECOND_US,
    T0_US,
    World,
    offence,
)

Bend = Callable[[World], None]


def names(audit: Audit) -> set[str]:
    return {finding.name for finding in audit.findings}


# --- What each finding looks like ----------------------------------------------------------------


def oversold(world: World) -> None:
    world.win_again(3)


def not_quiescent(world: World) -> None:
    world.is_at_rest = False


def units_lost(world: World) -> None:
    world.pool = world.pool._replace(initial=4)
    world.stock = world.stock._replace(total=4)


def units_found(world: World) -> None:
    world.stock = world.stock._replace(left=1)
    del world.claims[3:]


def counters_differ(world: World) -> None:
    world.stock = world.stock._replace(reserved=1)


def confirmed_without_order(world: World) -> None:
    world.forget_last_win()
    del world.claims[3:]


def order_differs(world: World) -> None:
    world.bend_order(0, price=1)


def held_forgotten(world: World) -> None:
    confirmed_without_order(world)
    world.bend_claim(2, confirmed_us=0, order_id=0)


def never_told(world: World) -> None:
    world.bend_claim(1, confirmed_us=0, order_id=0)


def unasked_order(world: World) -> None:
    del world.claims[0]


def foreign_order(world: World) -> None:
    (_, claim_id), order = world.key(0), world.orders.pop(world.key(0))
    stranger = ("somebody", claim_id)
    world.orders[stranger] = order._replace(buyer="somebody")
    world.remembered[stranger] = world.remembered.pop(world.key(0))
    row = world.buyers.pop((SALE, order.buyer))
    world.buyers[SALE, "somebody"] = row._replace(buyer="somebody")
    world.counted[SALE, "somebody"] = world.counted.pop((SALE, order.buyer))
    del world.claims[0]


def over_limit(world: World) -> None:
    first, second = world.key(0), world.key(1)
    same = (first[0], second[1])
    world.bend_claim(1, user=first[0])
    world.orders[same] = world.orders.pop(second)._replace(buyer=first[0])
    world.remembered[same] = world.remembered.pop(second)
    del world.buyers[SALE, second[0]], world.counted[SALE, second[0]]
    world.buyers[SALE, first[0]] = world.buyers[SALE, first[0]]._replace(units=2)
    world.counted[SALE, first[0]] = 2


def buyer_miscounted(world: World) -> None:
    world.counted[SALE, world.key(0)[0]] = 0


def undersold(world: World) -> None:
    world.__init__(units=3, people=5, total=4)  # type: ignore[misc]


def counter_back(world: World) -> None:
    world.offences.append(offence("counter_back"))


def stock_rose(world: World) -> None:
    world.offences.append(offence("stock_rose"))
    world.gives.append(Give(SALE, 1, "b", b"", "expired", 6 * SECOND_US, 6 * SECOND_US))


def stale_at_rest(world: World) -> None:
    world.screens.append(Shown(1, SALE, EPOCH, 8, 0, viewers=3))


def shown_wrong(world: World) -> None:
    world.shown["sold"] = 2


def likes_lost(world: World) -> None:
    world.likes = 49


def likes_made_up(world: World) -> None:
    world.likes = 51


def told_others_claim(world: World) -> None:
    world.offences.append(offence("foreign_claim"))


def stock_sum(world: World) -> None:
    world.offences.append(offence("stock_sum"))


def unreadable(world: World) -> None:
    world.offences.append(offence("unreadable"))


def silent_gap(world: World) -> None:
    world.offences.append(offence("gap"))


def seq_hole(world: World) -> None:
    world.bend_claim(2, seq=4)
    world.bend_order(2, seq=4)
    world.remembered[world.key(2)] = world.remembered[world.key(2)]._replace(seq=4)
    world.stock = world.stock._replace(seq=4)


def seq_twice(world: World) -> None:
    world.other_takes.append(OtherTake(SALE, EPOCH, 1, "lowering", 0, "", 2 * SECOND_US))


def order_changed(world: World) -> None:
    world.claims.append(world.claims[0]._replace(order_id=999))


def two_answers(world: World) -> None:
    refused = world.claims[3]
    world.bend_claim(0, held_us=0, confirmed_us=0, seq=0, epoch=0, order_id=0)
    world.bend_claim(0, code=refused.code, ended_us=refused.ended_us)


def answer_differs(world: World) -> None:
    world.remembered[world.key(0)] = world.remembered[world.key(0)]._replace(status="held")


ALSO = {  # what cannot be avoided together with it
    "oversold": {"units_found"},
}
BENDS: list[Bend] = [
    oversold, not_quiescent, units_lost, units_found, counters_differ, confirmed_without_order,
    order_differs, held_forgotten, never_told, unasked_order, foreign_order, over_limit,
    told_others_claim, buyer_miscounted, undersold, counter_back, stock_rose, stock_sum,
    stale_at_rest, shown_wrong, likes_lost, likes_made_up, silent_gap, unreadable, seq_hole,
    seq_twice, order_changed, two_answers, answer_differs,
]  # fmt: skip


@given(units=st.integers(0, 8), more=st.integers(0, 8))
def test_audit_when_everything_is_right_then_nothing_is_found(units: int, more: int) -> None:
    audit = World(units, units + more).audit()
    assert (audit.scope, audit.ok, audit.findings, audit.explained) == ("full", True, [], [])


def test_audit_when_done_then_every_invariant_was_checked_on_something() -> None:
    checked = World().audit().checked
    assert set(checked) == {f"I{n}" for n in range(1, 11)}
    assert (checked["I3"], checked["I4"], checked["I10"]) == (3, 3, 5)


@pytest.mark.parametrize("bend", BENDS, ids=lambda bend: bend.__name__)
def test_audit_when_one_thing_is_wrong_then_it_is_named_and_nothing_else_is(bend: Bend) -> None:
    world = World()
    bend(world)
    audit = world.audit()
    name = bend.__name__
    assert names(audit) == {name} | ALSO.get(name, set())
    assert not audit.ok
    (found,) = (finding for finding in audit.findings if finding.name == name)
    assert found.invariant == WORDS[name].invariant
    assert "{" not in found.zh + found.en
    assert found.count >= 1
    assert found.claims


def test_findings_when_listed_then_each_has_a_case_here() -> None:
    assert {bend.__name__ for bend in BENDS} == set(WORDS)


# --- Cases that differ in more than the name -----------------------------------------------------


def test_audit_when_oversold_then_the_last_accepted_claims_are_named_with_all_that_is_known() -> (
    None
):
    world = World(units=3, people=6)
    world.win_again(3)
    world.win_again(4)
    (found, *_) = world.audit().findings
    assert (found.name, found.count, found.en) == ("oversold", 2, "5 units sold of 3")
    assert {claim.user for claim in found.claims} == {world.key(3)[0], world.key(4)[0]}
    whole = found.claims[0]
    assert whole.claim_id == "00000000-0000-0000-0000-000000000003"
    assert [step[1:] for step in whole.steps] == [
        ("client", "intended"),
        ("client", "sent, room 1"),
        ("client", "held: seq 4, 1 unit"),
        ("redis", "claims: confirmed, seq 4, order 103"),
        ("postgres", "orders 103: confirmed, seq 4, 1 unit"),
        ("client", "confirmed: order 103"),
    ]
    assert [step[0] for step in whole.steps] == [0.003, 0.0031, 0.008, 0.052, 0.052, 0.053]


def test_audit_when_a_win_has_no_order_beyond_the_stock_then_it_counts_as_sold() -> None:
    world = World()
    world.bend_claim(3, held_us=1, confirmed_us=2, ended_us=0, code=0, seq=4, epoch=1, order_id=9)
    assert {"oversold", "confirmed_without_order"} <= names(world.audit())


def test_audit_when_told_only_on_asking_in_the_end_then_never_told() -> None:
    world = World()
    world.bend_claim(0, confirmed_us=FINISH_US + 1)
    assert names(world.audit()) == {"never_told"}


def test_audit_when_stored_just_before_the_end_then_told_on_asking_is_soon_enough() -> None:
    world = World()
    world.bend_order(0, t_us=FINISH_US - SECOND_US)
    world.bend_claim(0, confirmed_us=FINISH_US + 1)
    assert world.audit().ok


FAULT_US = T0_US, 9 * SECOND_US  # while its people buy
LATE_FAULT_US = FINISH_US - 2 * SECOND_US, FINISH_US
TOLD_US = 2 * SECOND_US  # when the server should have told the order of FAULT_US at the latest


@pytest.mark.parametrize(
    ("back_us", "excused"),
    [
        (FINISH_US + 1, True),
        (FINISH_US - SECOND_US, True),
        (FINISH_US - 5 * SECOND_US, False),
    ],
)
def test_audit_when_a_fault_cut_a_buyer_off_then_being_back_at_the_end_is_soon_enough(
    back_us: int, excused: bool
) -> None:
    world = World()
    world.faults_us = [FAULT_US]
    world.bend_claim(0, confirmed_us=FINISH_US + 2, cuts=((TOLD_US, back_us),))
    audit = world.audit()
    assert names(audit) == (set() if excused else {"never_told"})
    assert [each.name for each in audit.explained] == (["buyer_away"] if excused else [])


@pytest.mark.parametrize("confirmed_us", [0, FINISH_US + 2])
@pytest.mark.parametrize(
    ("cuts", "faults_us"),
    [
        ([(TOLD_US, AWAY_US)], []),  # nobody broke anything: the server closed it
        ([(FAULT_US[1], AWAY_US)], [FAULT_US]),  # after the fault and its aftermath
        ([(FINISH_US - SECOND_US, FINISH_US)], [LATE_FAULT_US]),  # it was late before the cut
        # Back from the fault in time and cut off again, by the server.
        ([(TOLD_US, 3 * SECOND_US), (10 * SECOND_US, AWAY_US)], [FAULT_US]),
        # A second fault does not move what was due before it.
        ([(TOLD_US, 3 * SECOND_US), (FINISH_US - SECOND_US, AWAY_US)], [FAULT_US, LATE_FAULT_US]),
    ],
)
def test_audit_when_no_fault_excuses_the_cut_then_never_told(
    cuts: list[tuple[int, int]], faults_us: list[tuple[int, int]], confirmed_us: int
) -> None:
    world = World()
    world.faults_us = faults_us
    world.bend_claim(0, confirmed_us=confirmed_us, cuts=tuple(cuts))
    audit = world.audit()
    assert (names(audit), audit.explained) == ({"never_told"}, [])


def test_audit_when_a_buyer_is_kept_out_long_after_a_fault_then_never_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(invariants, "BACK_WITHIN_US", 10 * SECOND_US)
    world = World()
    buyer_away(world)
    assert names(world.audit()) == {"never_told"}


def test_audit_when_units_came_back_after_a_refusal_then_it_is_not_undersold() -> None:
    world = World(units=3, people=5, total=4)
    world.gives.append(Give(SALE, 1, "b", b"", "expired", 6 * SECOND_US, 6 * SECOND_US))
    assert world.audit().ok
    world.bend_claim(4, ended_us=9 * SECOND_US)
    assert names(world.audit()) == {"undersold"}


def test_audit_when_a_claim_was_only_busy_then_its_order_contradicts_nothing() -> None:
    world = World()
    world.bend_claim(0, held_us=0, code=1400, ended_us=5 * SECOND_US)
    assert world.audit().ok


def test_audit_when_a_screen_changed_shortly_before_the_end_then_it_need_not_show_it() -> None:
    world = World()
    stale_at_rest(world)
    world.bend_order(0, t_us=FINISH_US - SECOND_US)
    assert world.audit().ok


def test_audit_when_sockets_were_lost_then_taps_in_flight_may_count_or_not() -> None:
    world = World()
    world.counts["taps_unsure"] = 5
    world.likes = 45
    assert world.audit().ok
    world.likes = 44
    assert names(world.audit()) == {"likes_lost"}


def test_audit_when_a_hold_was_refused_later_then_two_answers() -> None:
    world = World()
    confirmed_without_order(world)
    world.bend_claim(2, confirmed_us=0, order_id=0, ended_us=9 * SECOND_US, code=1308)
    assert names(world.audit()) == {"two_answers"}


def test_audit_when_redis_keeps_a_claim_that_nobody_booked_then_held_forgotten() -> None:
    world = World()
    kept = dict(world.remembered)
    confirmed_without_order(world)
    world.remembered = kept
    world.bend_claim(2, held_us=0, confirmed_us=0, order_id=0, seq=0, epoch=0)
    assert names(world.audit()) == {"held_forgotten"}


def test_audit_when_there_are_many_findings_then_all_are_counted_and_some_are_told() -> None:
    world = World(units=50, people=50)
    for n in range(50):
        world.bend_claim(n, confirmed_us=0, order_id=0)
    (found,) = world.audit().findings
    assert (found.count, len(found.claims)) == (50, TIMELINES_MAX)


# --- Known reasons -------------------------------------------------------------------------------


def released_by_incident(world: World) -> None:
    held_forgotten(world)
    user, claim_id = world.key(2)
    row = Released(SALE, user, claim_id, EPOCH, 3, 1, "no_room", 2 * SECOND_US)
    world.released[user, claim_id] = row


def dead_letter(world: World) -> None:
    held_forgotten(world)
    world.other_takes.append(OtherTake(SALE, EPOCH, 3, "dead letter", 1, "a fault", SECOND_US))
    world.pool = world.pool._replace(dead=1)
    world.stock = world.stock._replace(left=0, dead=1, seq=3)


def buyer_away(world: World) -> None:
    world.faults_us = [FAULT_US]
    world.bend_claim(0, confirmed_us=0, order_id=0, cuts=((T0_US, AWAY_US),))


def confirmed_late(world: World) -> None:
    world.bend_order(0, t_us=FINISH_US + SECOND_US)
    world.bend_claim(0, confirmed_us=0, order_id=0)


def stock_came_back(world: World) -> None:
    world.offences.append(offence("stock_rose"))
    world.gives.append(Give(SALE, 1, "b", b"", "expired", 4 * SECOND_US, 4 * SECOND_US))


def likes_of_a_lost_process(world: World) -> None:
    world.likes = 48
    world.webs_lost = 1


def seq_lost_with_redis(world: World) -> None:
    for n in range(3):
        place: dict[str, Any] = {"epoch": 2} if n == 2 else {}
        world.bend_order(n, seq=2 * n + 1, **place)
        world.bend_claim(n, seq=2 * n + 1, **place)
        known = world.remembered[world.key(n)]
        world.remembered[world.key(n)] = known._replace(seq=2 * n + 1, **place)
    world.epoch = 2
    world.stock = world.stock._replace(seq=5)


EXPLAINED: list[Bend] = [
    released_by_incident, dead_letter, confirmed_late, buyer_away, stock_came_back,
    likes_of_a_lost_process,
    seq_lost_with_redis,
]  # fmt: skip


@pytest.mark.parametrize("bend", EXPLAINED, ids=lambda bend: bend.__name__)
def test_audit_when_there_is_a_known_reason_then_explained_and_no_finding(bend: Bend) -> None:
    world = World()
    bend(world)
    audit = world.audit()
    assert audit.findings == []
    assert audit.ok
    assert [finding.name for finding in audit.explained] == [bend.__name__]


def test_reasons_when_listed_then_each_has_a_case_here() -> None:
    assert {bend.__name__ for bend in EXPLAINED} == set(REASONS)


# --- Without the books ---------------------------------------------------------------------------


def test_audit_when_only_clients_are_known_then_its_scope_says_so() -> None:
    audit = World().audit_clients()
    assert (audit.scope, audit.ok, audit.findings) == ("clients", True, [])
    assert audit.checked["I10"] == 5


@pytest.mark.parametrize(
    "bend", [counter_back, silent_gap, order_changed, stock_rose], ids=lambda bend: bend.__name__
)
def test_audit_of_clients_when_they_saw_it_themselves_then_it_is_found(bend: Bend) -> None:
    world = World()
    bend(world)
    assert names(world.audit_clients()) == {bend.__name__}


def test_audit_of_clients_when_more_were_told_than_there_is_then_oversold() -> None:
    world = World()
    world.win_again(3)
    assert names(world.audit_clients()) == {"oversold"}
    world.pays = True  # units of the first may have come back
    assert world.audit_clients().ok


def test_audit_of_clients_when_a_hold_was_never_answered_then_held_forgotten() -> None:
    world = World()
    never_told(world)
    assert names(world.audit_clients()) == {"held_forgotten"}
