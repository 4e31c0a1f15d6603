"""Ages of what viewers see, from synthetic publishes and arrivals."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.measures.histogram import Histogram, Measured
from loadtest.measures.staleness import (
    GRID_US,
    Arrived,
    Staleness,
    aware_after,
    made,
    record_ages,
    shown,
    skews,
)
from loadtest.measures.witness import FirstSeen, Witness
from server.protocol.facts import ChatFact, StateFact
from server.protocol.messages import ChatLine

PART = (0, 10_000_000)
SALE = 7


def level(version: int, left: int, sale: int = SALE, epoch: int = 1) -> bytes:
    value = {"epoch": epoch, "version": version, "left": left}
    return msgspec.msgpack.encode(StateFact(f"stock:{sale}", value))


def tick(version: int, *arrivals_us: int, room: int = 0) -> Arrived:
    buckets: dict[int, int] = {}
    for t_us in arrivals_us:
        buckets[t_us >> 8] = buckets.get(t_us >> 8, 0) + 1
    return Arrived(room, {SALE: (1, version, 9)}, buckets)


def stale(measured: Measured, room: int = 0) -> Histogram:
    return Histogram.merged([measured.histograms()[f"stale@{room}"]])


# --- Witness -------------------------------------------------------------------------------------


def test_witness_when_levels_are_published_then_knows_when() -> None:
    witness = Witness(0)
    for t_us, version, left in ((10, 1, 5), (20, 2, 0), (30, 3, 1), (40, 4, 0)):
        witness.hear(level(version, left), t_us)
    assert witness.at(SALE, (1, 2)) == 20
    assert witness.at(SALE, (1, 9)) is None
    assert witness.history(SALE) == [((1, 1), 10), ((1, 2), 20), ((1, 3), 30), ((1, 4), 40)]
    assert witness.sold_out_us == {SALE: 20}
    assert witness.curve(SALE) == [(10, 5), (20, 0), (30, 1), (40, 0)]
    assert witness.curve(8) == []


def test_witness_when_other_facts_come_then_passes_them_over() -> None:
    witness = Witness(0)
    likes = StateFact("likes", {"epoch": 1, "version": 1, "likes": 4})
    chat = ChatFact([ChatLine(id="a", user="u", name="n", role="viewer", text="stock:7")])
    for payload in (msgspec.msgpack.encode(likes), msgspec.msgpack.encode(chat), b"\x94\xa1s", b""):
        witness.hear(payload, 10)
    assert witness.history(SALE) == []


# --- Per update ----------------------------------------------------------------------------------


def test_stale_when_the_witness_hears_late_then_never_negative_and_counted() -> None:
    measured, witness = Measured(PART), Witness(0)
    staleness = Staleness(measured, witness)
    staleness.fold([tick(1, 100_000, 250_000)])
    witness.hear(level(1, 5), 150_000)  # after the first viewer, before the second
    staleness.fold([])
    stat = stale(measured).stat()
    assert (stat.count, stat.p50) == (2, 0.001)
    assert stat.max == pytest.approx(100, abs=0.3)
    assert (staleness.early, staleness.witnessed, staleness.lost) == (1, 1, 0)


def test_stale_when_nobody_witnessed_the_level_then_lost() -> None:
    measured = Measured(PART)
    staleness = Staleness(measured, Witness(0))
    staleness.fold([tick(1, 100_000)])
    staleness.fold([])
    assert (staleness.witnessed, staleness.lost) == (0, 1)
    assert measured.histograms() == {}


def test_stale_when_there_is_no_witness_then_since_the_first_viewer_of_any_room() -> None:
    measured = Measured(PART)
    staleness = Staleness(measured, None)
    staleness.fold([tick(1, 100_000, 130_000), tick(1, 600_000, room=1)])
    staleness.fold([])
    assert stale(measured).stat().max == pytest.approx(30, abs=0.3)
    assert stale(measured, room=1).stat().p50 == pytest.approx(500, abs=0.6)
    assert staleness.instants.at(SALE, (1, 1)) == 100_000 >> 8 << 8


@given(
    st.lists(st.tuples(st.integers(1, 9_000_000), st.integers(0, 900_000)), min_size=1, max_size=20)
)
def test_stale_when_many_updates_arrive_then_each_age_is_right(
    updates: list[tuple[int, int]],
) -> None:
    measured, witness = Measured(PART), Witness(0)
    staleness = Staleness(measured, witness)
    for version, (published_us, age_us) in enumerate(updates):
        witness.hear(level(version, 5), published_us)
        staleness.fold([tick(version, published_us + age_us)])
    staleness.fold([])
    ages = [age_us for _, age_us in updates]
    found = stale(measured).stat(per=1)
    assert found.count == len(ages)
    within = 130 + max(ages) / 1000  # half an arrival bucket and what the histogram rounds
    assert found.max == pytest.approx(max(ages), abs=within)
    assert found.mean == pytest.approx(sum(ages) / len(ages), abs=within)


# --- Of the displayed value ----------------------------------------------------------------------


def ages(shown_: list[tuple[int, int, int]], published: dict[int, int]) -> Histogram:
    measured, instants = Measured(PART), FirstSeen()
    for version, t_us in published.items():
        instants.note(SALE, (1, version), t_us)
    record_ages(measured, [made("v", 0, SALE, shown_)], instants)
    return Histogram.merged([measured.histograms()["age@0"]])


def test_age_when_what_is_shown_is_the_newest_then_zero() -> None:
    found = ages([(0, 1, 1)], {1: 0})
    assert (found.count, found.percentile(1.0)) == (PART[1] // GRID_US, 1)


def test_age_when_an_update_takes_a_second_then_grows_until_it_comes() -> None:
    found = ages([(0, 1, 1), (3_000_000, 1, 2)], {1: 0, 2: 2_000_000})
    stat = found.stat()
    assert stat.count == 1000
    assert stat.max == pytest.approx(990, rel=1e-3)
    assert stat.mean == pytest.approx(100 * 495 / 1000, rel=1e-2)


def test_age_when_a_level_is_skipped_then_counts_from_the_first_that_is_missing() -> None:
    found = ages([(0, 1, 1), (3_000_000, 1, 3)], {1: 0, 2: 2_000_000, 3: 2_900_000})
    assert found.stat().max == pytest.approx(990, rel=1e-3)


def test_age_when_a_viewer_is_stuck_then_old_to_the_end() -> None:
    found = ages([(0, 1, 1)], {1: 0, 2: 4_000_000})
    assert found.stat().max == pytest.approx(5990, rel=1e-3)


@given(
    st.lists(st.integers(1, 9_999_999), min_size=1, max_size=12, unique=True),
    st.lists(st.integers(0, 3_000_000), min_size=12, max_size=12),
)
def test_age_when_compared_with_looking_at_each_instant_then_equal(
    published: list[int], late: list[int]
) -> None:
    instants = dict(enumerate([0, *sorted(published)]))
    arrivals = [
        (t_us + by, 1, n) for (n, t_us), by in zip(instants.items(), [0, *late], strict=False)
    ]
    steps = sorted(arrivals)
    looked = []
    for at_us in range(0, PART[1], GRID_US):
        displayed = max(version for t_us, _, version in steps if t_us <= at_us)
        newer = [
            t_us for version, t_us in instants.items() if version > displayed and t_us <= at_us
        ]
        looked.append(at_us - min(newer, default=at_us))
    found = ages(steps, instants).stat(per=1)
    assert found.count == len(looked)
    assert found.max == pytest.approx(max(1, *looked), rel=1e-3)
    assert found.mean == pytest.approx(sum(max(1, age) for age in looked) / len(looked), rel=1e-3)


# --- Between viewers -----------------------------------------------------------------------------


def test_shown_when_a_viewer_is_sent_back_then_only_newer_levels_count() -> None:
    trace = made("v", 0, SALE, [(1, 1, 5), (2, 1, 4), (3, 1, 6), (4, 2, 1)])
    assert shown(trace) == [(1, (1, 5)), (3, (1, 6)), (4, (2, 1))]


def test_skews_when_a_viewer_comes_late_then_only_what_is_new_to_it() -> None:
    one = made("a", 0, SALE, [(0, 1, 1), (10, 1, 2), (20, 1, 3)])
    late = made("b", 0, SALE, [(5_000, 1, 2), (5_500, 1, 3)])
    assert list(skews([one, late])) == [(10, 0), (20, 5_480)]


def test_skews_when_levels_are_of_other_sales_then_apart() -> None:
    one = made("a", 0, 1, [(0, 1, 1), (10, 1, 2)])
    other = made("a", 0, 2, [(0, 1, 1), (90, 1, 2)])
    assert sorted(skews([one, other, made("c", 0, 3, [])])) == [(10, 0), (90, 0)]


@pytest.mark.parametrize(
    ("share", "after"), [(0.5, 40), (0.75, 90), (0.99, None), (1.0, None)]
)  # fmt: skip
def test_aware_when_one_of_four_never_is_then_only_smaller_shares(
    share: float, after: int | None
) -> None:
    assert aware_after([140, 0, 190, 110], 100, share) == after


def test_aware_when_nobody_is_there_then_not_told() -> None:
    assert aware_after([], 100, 0.5) is None
