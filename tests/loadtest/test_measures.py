"""Distributions, claims and counts: what several loaders say together is what one would have."""

import random
from array import array

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.measures import build
from loadtest.measures.claims import AWAY_US, Claim, ClaimTable, rows
from loadtest.measures.histogram import VALUE_MAX, Histogram, Measured
from loadtest.measures.staleness import made
from loadtest.swarm.pipe import FROM_LOADER, Harvest, Health, Pulse
from server.errors import ERRORS

PART = (1_000_000, 11_000_000)
values = st.lists(st.integers(1, VALUE_MAX), min_size=1, max_size=60)


def harvest_of(measured: Measured, table: ClaimTable | None = None, **parts: object) -> Harvest:
    log = (table or ClaimTable(measured)).log()
    whole = dict[str, object](
        histograms=measured.histograms(), blocks=measured.blocks(), claims=log, awareness={},
        traces=[], offences=[], health=[], counts={},
    )  # fmt: skip
    whole.update(parts)
    harvest = Harvest(**whole)  # type: ignore[arg-type]
    sent = FROM_LOADER.decode(msgspec.msgpack.encode(harvest))
    assert isinstance(sent, Harvest)
    return sent


def nearest_rank(ordered: list[int], share: float) -> int:
    return ordered[max(0, -(-round(share * 10_000) * len(ordered) // 10_000) - 1)]


# --- Histogram -----------------------------------------------------------------------------------


@given(values)
def test_percentiles_when_compared_with_nearest_ranks_then_within_a_thousandth(
    found: list[int],
) -> None:
    histogram = Histogram()
    for value in found:
        histogram.record(value)
    stat, ordered = histogram.stat(per=1), sorted(found)
    assert stat.count == len(found)
    for share, got in ((0.5, stat.p50), (0.9, stat.p90), (0.99, stat.p99), (0.999, stat.p999)):
        assert got == pytest.approx(nearest_rank(ordered, share), rel=1e-3)
    assert stat.max == ordered[-1]
    assert stat.mean == pytest.approx(sum(found) / len(found), rel=1e-3)
    assert histogram.percentile(0.99) == stat.p99


@given(st.lists(values, min_size=1, max_size=4))
def test_merged_when_values_are_spread_over_loaders_then_as_from_one(
    parts: list[list[int]],
) -> None:
    single, loaders = Histogram(), [Histogram() for _ in parts]
    for loader, found in zip(loaders, parts, strict=True):
        for value in found:
            single.record(value)
            loader.record(value)
    merged = Histogram.merged(each.encode() for each in [*loaders, Histogram()])
    want, got = single.stat(), merged.stat()
    assert got.max == pytest.approx(want.max, rel=1e-3)  # the encoded form keeps buckets only
    assert got.count == want.count
    assert (got.p50, got.mean) == pytest.approx((want.p50, want.mean), rel=1e-3)


@pytest.mark.parametrize(
    ("value", "kept", "clipped"),
    [(-5, 1, 1), (0, 1, 0), (VALUE_MAX, VALUE_MAX, 0), (10**12, VALUE_MAX, 1)],
)
def test_record_when_out_of_range_then_kept_at_the_end_and_counted(
    value: int, kept: int, clipped: int
) -> None:
    histogram = Histogram()
    histogram.record(value)
    assert histogram.count == 1
    assert histogram.stat(per=1).max == kept
    assert histogram.clipped == clipped


def test_histogram_when_empty_then_all_zero() -> None:
    empty = Histogram.merged([Histogram().encode()])
    assert (empty.stat().count, empty.stat().p99, empty.percentile(0.5)) == (0, 0.0, 0)
    assert empty.spectrum() == []


def test_spectrum_when_drawn_then_rises_to_the_maximum() -> None:
    histogram = Histogram()
    for value in range(1, 10_001):
        histogram.record(value)
    points = histogram.spectrum(per=1)
    shares, heights = [share for share, _ in points], [height for _, height in points]
    assert shares == sorted(set(shares))
    assert heights == sorted(heights)
    assert points[-1] == (1.0, 10_000)
    for share, height in points:
        assert height == pytest.approx(max(1, share * 10_000), rel=1e-3, abs=1)


# --- Measured ------------------------------------------------------------------------------------


def test_measured_when_outside_the_part_then_left_out() -> None:
    measured = Measured()
    measured.record("stale", 5_000_000, 100)  # before the part is known
    measured.part_us = PART
    for at_us in (PART[0] - 1, PART[0], PART[1] - 1, PART[1]):
        measured.record("stale", at_us, 100)
    assert Histogram.merged([measured.histograms()["stale@0"]]).count == 2
    tenths = [Histogram.merged([each]).count for each in measured.blocks()["stale"]]
    assert tenths == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]


def test_quick_when_asked_again_then_only_what_is_new() -> None:
    measured = Measured(PART)
    for value in range(1000, 101_000, 1000):
        measured.record("reply", PART[0], value)
    assert measured.quick() == {"reply": (50.0, 99.0)}
    assert measured.quick() == {}


# --- Claims --------------------------------------------------------------------------------------


def intend(table: ClaimTable, user: str = "lt-r-b1", at_us: int = 2_000_000, room: int = 0) -> int:
    claim_id = len(table).to_bytes(16, "big")
    return table.intend(user, claim_id, crowd=3, sale=7, quantity=2, intended_us=at_us, room=room)


def test_claim_when_sent_late_then_both_clocks_are_told() -> None:
    measured = Measured(PART)
    table = ClaimTable(measured)
    row = intend(table)
    table.sent(row, 2_500_000)
    table.refused(row, 2_550_000, ERRORS["busy"].code, final=False)
    table.sent(row, 2_600_000)
    table.held(row, 2_700_000, epoch=4, seq=9)
    table.held(row, 2_900_000, epoch=4, seq=9)
    table.confirmed(row, 3_000_000, order_id=77, epoch=4, seq=9)
    found = build.measures([harvest_of(measured, table)], rooms=1, part_us=PART, sold_out_us={})
    p50 = {name: each.all.p50 for name, each in found.items()}
    assert p50 == pytest.approx(
        {"schedule_lag": 500, "claim_held": 700, "claim_held_service": 200,
         "claim_confirmed": 1000, "claim_confirmed_service": 500}, rel=1e-3,
    )  # fmt: skip
    assert all(each.all.count == 1 and not each.rooms for each in found.values())
    (claim,) = rows(table.log())
    assert (claim.attempts, claim.sent_us, claim.held_us) == (2, 2_500_000, 2_700_000)


def test_claim_when_confirmed_before_held_was_told_then_held_by_that() -> None:
    table = ClaimTable(Measured(PART))
    row = intend(table)
    table.sent(row, 2_100_000)
    table.confirmed(row, 2_200_000, order_id=5, epoch=1, seq=2)
    (claim,) = rows(table.log())
    assert (claim.held_us, claim.confirmed_us, claim.epoch, claim.seq) == (
        2_200_000,
        2_200_000,
        1,
        2,
    )


def test_log_when_read_back_then_the_same_rows() -> None:
    table = ClaimTable(Measured())
    assert list(rows(table.log())) == []
    for user in ("lt-r-b1", "lt-r-x20", "lt-a-x-h3"):
        intend(table, user, room=1)
    table.refused(1, 9, 1308, final=True)
    table.back(1, 3)  # was never away
    for row, cut_us, back_us in ((1, 4, 5), (0, 6, 0), (1, 7, 9)):
        table.cut(row, cut_us)
        table.cut(row, cut_us + 1)
        if back_us:
            table.back(row, back_us)
    read = list(rows(table.log()))
    assert [claim.is_bot for claim in read] == [False, True, False]
    assert read[1] == Claim(
        user="lt-r-x20", claim_id=(1).to_bytes(16, "big"), crowd=3, sale=7, quantity=2,
        intended_us=2_000_000, sent_us=0, held_us=0, confirmed_us=0, ended_us=9, attempts=0,
        code=1308, order_id=0, epoch=0, seq=0, room=1, cuts=((4, 5), (7, 9)),
    )  # fmt: skip
    assert [claim.cuts for claim in read[::2]] == [((6, AWAY_US),), ()]


# --- Building ------------------------------------------------------------------------------------


def test_measures_when_loaders_are_merged_then_as_from_one_loader() -> None:
    rng = random.Random(3)
    one, two = Measured(PART), [Measured(PART), Measured(PART)]
    for n in range(4_000):
        at_us, value, room = rng.randrange(*PART), round(rng.lognormvariate(10, 1)), n % 2
        for measured in (one, two[n // 2 % 2]):
            measured.record("stale", at_us, value, room=room)
    single, merged = (
        build.measures([harvest_of(each) for each in all_], rooms=2, part_us=PART, sold_out_us={})
        for all_ in ([one], two)
    )
    assert merged == single
    assert [each.count for each in merged["stale"].rooms] == [2000, 2000]
    assert len(merged["stale"].blocks) == 10


def test_measures_when_one_room_is_late_then_its_figures_tell() -> None:
    measured = Measured(PART)
    for room, value in ((0, 50_000), (1, 1_050_000)):
        measured.record("stale", PART[0], value, count=10, room=room)
        measured.record_always("join", 3_000, room=room)
    found = build.measures([harvest_of(measured)], rooms=2, part_us=PART, sold_out_us={})
    assert [each.p99 for each in found["stale"].rooms] == pytest.approx([50, 1050], rel=1e-3)
    assert found["join"].all.count == 2
    assert found["join"].blocks == []


def test_bytes_when_measured_then_not_divided() -> None:
    measured = Measured(PART)
    measured.record("bytes_per_viewer_s", PART[0], 1500)
    found = build.measures([harvest_of(measured)], rooms=1, part_us=PART, sold_out_us={})
    assert (found["bytes_per_viewer_s"].unit, found["bytes_per_viewer_s"].all.p50) == (
        "bytes",
        1500,
    )


def seen(*instants_us: int) -> bytes:
    return array("q", instants_us).tobytes()


def awareness(*columns: bytes, sold_out_us: dict[int, int]) -> dict[str, float]:
    harvests = [harvest_of(Measured(PART), awareness={7: column}) for column in columns]
    found = build.measures(harvests, rooms=1, part_us=PART, sold_out_us=sold_out_us)
    return {name: each.all.max for name, each in found.items()}


def test_sold_out_when_viewers_learn_one_by_one_then_shares_of_all_loaders() -> None:
    everyone = [2_000_000 + 1_000 * n for n in range(1, 201)]
    halves = seen(*everyone[::2]), seen(*everyone[1::2])
    assert awareness(*halves, sold_out_us={7: 2_000_000}) == {
        "sold_out_50": 100, "sold_out_99": 198, "sold_out_100": 200,
    }  # fmt: skip


def test_sold_out_when_some_never_learn_then_their_share_is_not_told() -> None:
    known = seen(*[2_001_000] * 99, 0)
    assert awareness(known, sold_out_us={7: 2_000_000}) == {"sold_out_50": 1, "sold_out_99": 1}
    assert awareness(seen(0, 0), sold_out_us={7: 2_000_000}) == {}


def test_sold_out_when_nobody_witnessed_then_counts_from_the_first_viewer() -> None:
    assert awareness(seen(5_000, 9_000), sold_out_us={})["sold_out_100"] == 4


def test_sold_out_when_there_are_two_sales_then_the_slower_and_only_if_both_are_known() -> None:
    sold_out_us = {7: 1_000, 8: 1_000}
    slow, half = ({7: seen(2_000, 2_000), 8: seen(9_000, other)} for other in (9_000, 0))
    found = [
        build.measures(
            [harvest_of(Measured(PART), awareness=each)],
            rooms=1, part_us=PART, sold_out_us=sold_out_us,
        )
        for each in (slow, half)
    ]  # fmt: skip
    assert {name: each.all.max for name, each in found[0].items()} == dict.fromkeys(
        ("sold_out_50", "sold_out_99", "sold_out_100"), 8
    )
    assert set(found[1]) == {"sold_out_50"}


def test_skew_when_viewers_are_of_two_loaders_then_from_first_to_last() -> None:
    start = PART[0]
    one = made("a", 0, 7, [(0, 1, 1), (start + 10_000, 1, 2), (start + 20_000, 1, 4)])
    other = made("b", 0, 7, [(0, 1, 1), (start + 90_000, 1, 4)])
    harvests = [harvest_of(Measured(PART), traces=[each]) for each in (one, other)]
    skew = build.measures(harvests, rooms=1, part_us=PART, sold_out_us={})["skew"].all
    assert (skew.count, skew.p50, skew.max) == pytest.approx((2, 70, 80), rel=1e-3)


def test_chat_when_half_the_lines_come_then_half() -> None:
    counts = {"lines_sent": 10, "line_watchers": 4, "lines_delivered": 20}
    harvest = harvest_of(Measured(PART), counts=counts)
    found = build.measures([harvest], rooms=1, part_us=PART, sold_out_us={})
    assert found["chat_delivered"].all.max == 0.5


def test_counts_when_claims_end_differently_then_each_is_told() -> None:
    table = ClaimTable(Measured(PART))
    for code in ("sold_out", "limit_reached", "internal", "", "", ""):
        row = intend(table)
        if code:
            table.sent(row, 1)
            table.refused(row, 2, ERRORS[code].code, final=True)
    table.sent(3, 1)
    table.sent(4, 1)
    table.confirmed(4, 5, order_id=1, epoch=1, seq=1)  # row 5 was never sent: dropped
    parts = {"counts": {"errors": 2, "acts": 9}, "health": [health(dropped=1)]}
    assert build.counts([harvest_of(Measured(), table, **parts), harvest_of(Measured())]) == {
        "claims": 6, "held": 1, "confirmed": 1, "refused": 2, "given_up": 1, "refused.sold_out": 1,
        "refused.limit_reached": 1, "refused.internal": 1, "unanswered": 1, "errors": 4,
        "acts": 9, "dropped": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "errors"),
    [("too_many_connections", 0), ("rate_limited", 0), ("token_invalid", 1), ("unknown_sale", 1)],
)
def test_counts_when_refused_then_an_error_only_without_good_reason(name: str, errors: int) -> None:
    table = ClaimTable(Measured(PART))
    table.refused(intend(table), 2, ERRORS[name].code, final=True)
    assert build.counts([harvest_of(Measured(), table)]).get("errors", 0) == errors


def health(**figures: float) -> Health:
    known = dict.fromkeys(Health.__struct_fields__, 0)
    return Health(**{**known, **figures})  # type: ignore[arg-type]


def test_loader_health_when_one_second_is_bad_then_it_shows() -> None:
    seconds = [health(cpu_share=0.5), health(cpu_share=0.97, loop_lag_max_us=2_000_000)]
    found = build.loader_health(1, seconds, died="")
    assert (found.seconds, found.busy_seconds, found.loop_lag_max_ms) == (2, 1, 2000)
    assert build.loader_health(0, [], died="killed").died == "killed"


def test_acts_outside_when_a_fault_cuts_people_off_then_only_the_others_count() -> None:
    seconds = [health(acts=2 * 10**n, dropped=10**n) for n in range(4)]
    harvest = harvest_of(Measured(), health=seconds)
    start, second = 5_000_000, build.US_PER_S
    fault = (start + second, start + second * 3 // 2)
    assert build.acts_outside([harvest, harvest], start, [fault]) == (2 * 2_002, 2 * 1_001)
    assert build.acts_outside([harvest], start, []) == (2_222, 1_111)


def test_stat_outside_when_a_fault_touches_two_tenths_then_the_others_stand() -> None:
    measured = Measured(PART)
    for tenth in range(10):
        late = 900_000 if tenth in (3, 4) else 1_000
        measured.record("loop_lag", PART[0] + tenth * 1_000_000, late)
    fault = (PART[0] + 3_500_000, PART[0] + 4_500_000)
    harvests = [harvest_of(measured)]
    assert build.stat_outside("loop_lag", harvests, PART, [fault]).count == 8
    assert build.stat_outside("loop_lag", harvests, PART, [fault]).max == pytest.approx(1, rel=1e-3)
    assert build.stat_outside("loop_lag", harvests, PART, []).max > 800


def test_series_when_loaders_pulse_then_one_point_per_second() -> None:
    def pulse(t_us: int, opened: int, lag_us: int, p99: float) -> Pulse:
        fared = health(loop_lag_p99_us=lag_us, cpu_share=0.25)
        return Pulse(t_us, {"open": opened, "held": 3}, fared, {"stale": (1.0, p99)})

    pulses = [
        pulse(500_000, 10, 100, 1), pulse(600_000, 5, 300, 2),
        pulse(1_500_000, -4, 100, 3),
    ]  # fmt: skip
    curve = [(900_000, 50), (1_800_000, 20), (5_000_000, 0)]
    before, after = build.series(pulses, 1_000_000, curve)
    assert (before.t_s, after.t_s) == (-1, 0)
    assert before.values == {
        "open": 15, "held": 6, "lag": 0.3, "cpu_loader": 0.5, "stale_p99": 2, "left": 50,
    }  # fmt: skip
    assert (after.values["open"], after.values["left"]) == (11, 20)
