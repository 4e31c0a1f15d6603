"""What becomes of units that were taken again for a late payment: the rules without servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.claim import (
    KIND_CLAIM,
    KIND_RETAKE,
    LatePayment,
    PoolBooks,
    Rulings,
    Take,
    rule,
)

PAYMENT = bytes(16)


def retake(seq: int = 1, quantity: int = 2, payment: bytes = PAYMENT, buyer: str = "an") -> Take:
    return Take(KIND_RETAKE, 1, seq, buyer, payment, quantity, 100, 1, 0)


def books(
    room: int = 2, bought: int = 0, limit: int = 2, counted: int = 2, waits: bool = True
) -> PoolBooks:
    late = {PAYMENT: LatePayment(7, "an", 2, counted, waits)}
    return PoolBooks(0, room, limit, {"an": bought}, late)


def whys(rulings: Rulings) -> list[str]:
    return [missed.why for missed in rulings.missed]


def test_retake_when_room_and_limit_allow_then_the_order_is_paid() -> None:
    state = books()
    rulings = rule(state, [retake()], {})
    assert rulings.retaken == [(retake(), 7)]
    assert (rulings.units_retaken, rulings.units_kept) == (2, 0)
    assert (state.room, state.bought, state.taken_seq) == (0, {"an": 2}, 1)


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (books(room=1), "no_room"),
        (books(waits=False), "not_waiting"),
        (books(bought=1), "over_limit"),
        (books(room=1, waits=False), "no_room"),
    ],
)
def test_retake_when_it_cannot_be_kept_then_missed_and_nothing_counted(
    state: PoolBooks, why: str
) -> None:
    room, bought = state.room, dict(state.bought)
    rulings = rule(state, [retake()], {})
    assert (whys(rulings), rulings.retaken) == ([why], [])
    assert (state.room, state.bought) == (room, bought)


def test_retake_when_the_units_never_stopped_counting_then_the_limit_is_kept() -> None:
    state = books(bought=2, counted=0)
    assert rule(state, [retake()], {}).units_retaken == 2
    assert state.bought == {"an": 2}


def test_retake_when_taken_twice_then_the_second_goes_back() -> None:
    rulings = rule(books(room=9, limit=9), [retake(1), retake(2)], {})
    assert ([take.seq for take, _ in rulings.retaken], whys(rulings)) == ([1], ["not_waiting"])


@pytest.mark.parametrize(
    "take", [retake(payment=b"\1" * 16), retake(quantity=1), retake(buyer="bo")]
)
def test_retake_when_no_payment_is_like_it_then_dead(take: Take) -> None:
    state = books()
    rulings = rule(state, [take], {})
    assert [error for _, error, _ in rulings.dead] == ["no such payment"]
    assert state.room == 2 - take.quantity


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 3)), max_size=12), st.integers(0, 8))
def test_retakes_when_mixed_with_claims_then_never_more_than_the_room(
    mix: list[tuple[bool, int]], room: int
) -> None:
    late, takes = {}, []
    for seq, (is_late, quantity) in enumerate(mix, 1):
        key, buyer = seq.to_bytes(16, "big"), f"b{seq % 3}"
        kind = KIND_RETAKE if is_late else KIND_CLAIM
        takes.append(Take(kind, 1, seq, buyer, key, quantity, 100, 1, 0))
        late[key] = LatePayment(seq, buyer, quantity, quantity, True)
    state = PoolBooks(0, room, 4, {}, late)
    rulings = rule(state, takes, {})
    assert rulings.units_kept + rulings.units_retaken + state.room == room
    assert max(state.bought.values(), default=0) <= 4
    assert len(rulings.kept) + len(rulings.released) == sum(not is_late for is_late, _ in mix)
    assert len(rulings.retaken) + len(rulings.missed) == sum(is_late for is_late, _ in mix)
