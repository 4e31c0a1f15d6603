"""What viewers are shown is read once per distinct frame, and checked for every viewer."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import wire
from loadtest.swarm.sight import NOTHING, Facts, Fault, Sight, View, after
from server.protocol.messages import Commentary, Event, Tick, Welcome

SALE = 7
ENCODER = msgspec.msgpack.Encoder()


def stock(version: int, left: int, *, total: int = 50, epoch: int = 1) -> dict[str, Any]:
    value = {"epoch": epoch, "version": version, "sale": SALE, "left": left}
    return {f"stock:{SALE}": value | {"held": total - left, "sold": 0, "total": total}}


def tick(state: dict[str, Any] | None = None, seqs: tuple[int, ...] = (), epoch: int = 9) -> Tick:
    events: list[Event] = [Commentary(seq, 0, "你好") for seq in seqs]
    return Tick(1, 0, state or {}, epoch if seqs else 0, events)


def welcome(
    state: dict[str, Any] | None = None,
    *,
    seq: int = 0,
    missed: tuple[int, ...] | None = None,
) -> Welcome:
    events: list[Event] = [Commentary(each, 0, "你好") for each in missed or ()]
    return Welcome(1, "demo", 9, seq, 0, 100, missed is not None, state or {}, [], events)


def faults(*messages: Tick | Welcome, pays_later: bool = False) -> list[str]:
    """Kinds of all that is wrong with these, shown to one viewer one after the other."""
    view, kinds = NOTHING, []
    for message in messages:
        facts = Facts(message, 0)
        view, found = after(view, facts, lambda _: pays_later)
        kinds += [fault.kind for fault in facts.faults + found]
    return kinds


@pytest.mark.parametrize(
    ("messages", "kinds"),
    [
        ((welcome(stock(3, 10)), tick(stock(4, 9)), tick(stock(9, 2))), []),
        ((welcome(stock(3, 10)), tick(stock(2, 11))), ["counter_back"]),
        ((welcome(stock(3, 10)), tick(stock(3, 9))), ["counter_back"]),
        ((tick(stock(3, 10)), welcome(stock(2, 11))), []),  # the viewer keeps the newer one
        ((welcome(stock(3, 10)), tick(stock(4, 11))), ["stock_rose"]),
        ((welcome(stock(3, 10)), tick(stock(4, 60, total=100))), []),  # restocked
        ((welcome(stock(3, 10)), tick(stock(1, 40, epoch=2))), []),  # rebuilt
        ((welcome(seq=3), tick(seqs=(4, 5))), []),
        ((welcome(seq=3), tick(seqs=(3, 4))), []),  # known already
        ((welcome(seq=3), tick(seqs=(5,))), ["gap"]),
        ((welcome(seq=3), tick(seqs=(4,), epoch=10)), ["gap"]),
        ((welcome(seq=3), welcome(seq=5, missed=(4, 5))), []),
        ((welcome(seq=3), welcome(seq=5, missed=(5,))), ["gap"]),
        ((welcome(seq=3), welcome(seq=8)), []),  # a snapshot claims nothing
        ((tick({f"stock:{SALE}": {**stock(1, 5)[f"stock:{SALE}"], "sold": 3}}),), ["stock_sum"]),
    ],
)
def test_frames_when_shown_one_after_the_other_then_what_is_wrong_is_named(
    messages: tuple[Tick | Welcome, ...], kinds: list[str]
) -> None:
    assert faults(*messages) == kinds


def test_units_when_they_come_back_in_a_sale_paid_later_then_nothing_is_wrong() -> None:
    assert faults(welcome(stock(3, 10)), tick(stock(4, 11)), pays_later=True) == []


class Room:
    """A sight and viewers of it."""

    def __init__(self) -> None:
        self.found: list[tuple[Fault, str, int]] = []
        self.sight = Sight(2, timely=True, on_fault=lambda *what: self.found.append(what))

    def show(self, message: Tick | Welcome, view: View, viewer: str = "w", at: int = 0) -> View:
        payload = ENCODER.encode(message)
        frame = wire.server_frame(payload)
        read = self.sight.tick if isinstance(message, Tick) else self.sight.welcome
        step = self.sight.step(read(frame, len(frame) - len(payload), viewer), view, viewer)
        step.arrivals[at] += 1
        return step.view


def test_frame_when_many_get_it_then_it_is_read_once_and_all_are_counted() -> None:
    room = Room()
    views = [room.show(welcome(stock(1, 10)), NOTHING) for _ in range(100)]
    views = [room.show(tick(stock(2, 9)), view, at=at) for at, view in enumerate(views)]
    assert len(set(map(id, views))) == 1
    folded = room.sight.fold()
    assert [facts.viewers for facts in folded.facts] == [100, 100]
    assert folded.facts[0].arrivals() == dict.fromkeys(range(100), 1)


def test_viewers_when_they_took_other_ways_to_the_same_view_then_they_share_it() -> None:
    room = Room()
    first = room.show(tick(stock(2, 9)), room.show(welcome(stock(1, 10)), NOTHING))
    assert room.show(welcome(stock(2, 9)), NOTHING) is first


def test_fault_when_frame_after_frame_is_older_then_the_first_viewer_and_room_are_named() -> None:
    room = Room()
    view = room.show(welcome(stock(5, 9)), NOTHING)
    for viewer in ("w1", "w2"):
        room.show(tick(stock(4, 10)), view, viewer)
    [(fault, viewer, number)] = room.found
    assert (fault.kind, viewer, number) == ("counter_back", "w1", 2)


def test_awareness_when_sold_out_then_each_viewer_counts_once_and_only_if_it_saw_units() -> None:
    room = Room()
    view = room.show(welcome(stock(1, 1)), NOTHING)
    sold_out = room.show(tick(stock(2, 0)), view, at=5)
    again = room.show(tick(stock(3, 1, total=51)), sold_out, at=6)
    room.show(tick(stock(4, 0, total=51)), again, at=7)
    room.show(welcome(stock(4, 0, total=51)), NOTHING, at=8)  # came too late
    assert room.sight.fold().aware == [(SALE, {5: 1})]


def test_fold_when_done_then_nothing_is_kept_but_views_go_on() -> None:
    room = Room()
    view = room.show(welcome(stock(1, 10)), NOTHING)
    room.sight.fold()
    assert not room.sight.known
    room.show(tick(stock(0, 11)), view)
    assert [fault.kind for fault, _, _ in room.found] == ["counter_back"]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5)), max_size=12))
def test_levels_when_shown_in_any_order_then_only_steps_back_are_wrong(
    levels: list[tuple[int, int]],
) -> None:
    """`left` follows from the level, so that equal levels are equal and nothing rises by itself."""
    ticks = [tick(stock(version, 50 - version, epoch=epoch)) for epoch, version in levels]
    newest, back = (0, 0), 0
    for level in levels:
        back += level < newest
        newest = max(newest, level)
    assert faults(*ticks).count("counter_back") == back
    assert "gap" not in faults(*ticks)
