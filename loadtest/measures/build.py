"""What a summary says was measured, put together from the harvests and pulses of all loaders."""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from loadtest.measures.claims import Claim, rows
from loadtest.measures.histogram import BLOCKS, US_PER_MS, Histogram, Measured
from loadtest.measures.staleness import aware_after, skews
from loadtest.report.summary import LoaderHealth, Measure, Point, Stat
from loadtest.swarm.pipe import Harvest, Health, Pulse
from server.errors import ERRORS, ERRORS_BY_CODE

SIZES: Final = {"bytes_per_viewer_s": "bytes"}  # all others are µs inside and ms outside
AWARE: Final = (50, 99, 100)  # % of viewers
BUSY_SHARE: Final = 0.95  # of a core
US_PER_S: Final = 1_000_000

# Refused because of the load tester or the server. All other refusals are answers: no more units,
# too fast, too many sockets.
FAULTY: Final = frozenset(
    row.code
    for name, row in ERRORS.items()
    if (row.code // 100 in (10, 11, 14) and name != "too_many_connections")
    or name in ("unknown_sale", "claim_conflict")
)  # fmt: skip


class Distributions(NamedTuple):
    """Encoded histograms of one source, as in a Harvest."""

    histograms: Mapping[str, bytes]
    blocks: Mapping[str, Sequence[bytes]]


def claims_of(harvests: Iterable[Harvest]) -> list[Claim]:
    """Every claim of the run."""
    return list(chain.from_iterable(rows(harvest.claims) for harvest in harvests))


# --- Measures ------------------------------------------------------------------------------------


def measures(
    harvests: Sequence[Harvest],
    *,
    rooms: int,
    part_us: tuple[int, int],
    sold_out_us: Mapping[int, int],
) -> dict[str, Measure]:
    """All measures by name. `sold_out_us`: sale -> instant at which nothing was left, as
    witnessed; a sale that is not in it counts from the first viewer who saw it sold out."""
    sources = [Distributions(each.histograms, each.blocks) for each in harvests]
    sources.append(_skew(harvests, part_us))
    names = sorted({key.partition("@")[0] for each in sources for key in each.histograms})
    found = {name: _measure(name, sources, rooms) for name in names}
    for extra in chain(_awareness(harvests, sold_out_us), _delivery(harvests)):
        found[extra.name] = extra
    return found


def _measure(name: str, sources: Sequence[Distributions], rooms: int) -> Measure:
    unit, per = SIZES.get(name, "ms"), 1.0 if name in SIZES else US_PER_MS
    of_room = [_room(name, room, sources) for room in range(rooms)]
    whole = Histogram()
    for each in of_room:
        whole.add(each)
    return Measure(
        name,
        unit,
        whole.stat(per),
        [each.stat(per) for each in of_room] if rooms > 1 else [],
        [each.percentile(0.99) / per for each in _blocks(name, sources) if each.count],
        whole.spectrum(per),
    )


def _room(name: str, room: int, sources: Iterable[Distributions]) -> Histogram:
    key = f"{name}@{room}"
    return Histogram.merged(each.histograms[key] for each in sources if key in each.histograms)


def _blocks(name: str, sources: Iterable[Distributions]) -> list[Histogram]:
    """The tenths of the part, over all loaders and rooms."""
    having = [each.blocks[name] for each in sources if name in each.blocks]
    return [Histogram.merged(tenth) for tenth in zip(*having, strict=True)]


def _skew(harvests: Iterable[Harvest], part_us: tuple[int, int]) -> Distributions:
    measured = Measured(part_us)
    for at_us, skew_us in skews(trace for harvest in harvests for trace in harvest.traces):
        measured.record("skew", at_us, skew_us)
    return Distributions(measured.histograms(), measured.blocks())


def _awareness(harvests: Iterable[Harvest], sold_out_us: Mapping[int, int]) -> Iterator[Measure]:
    """`sold_out_50`, `_99`, `_100`: of the sale for which it took longest. Missing when so many
    viewers never saw a sale sold out."""
    seen: dict[int, array[int]] = {}
    for harvest in harvests:
        for sale, column in harvest.awareness.items():
            seen.setdefault(sale, array("q")).frombytes(column)
    aware = {sale: column for sale, column in seen.items() if any(column)}
    for percent in AWARE:
        took = [
            aware_after(column, sold_out_us.get(sale) or min(filter(None, column)), percent / 100)
            for sale, column in aware.items()
        ]
        known = [each for each in took if each is not None]
        if known and len(known) == len(took):
            people = sum(map(len, aware.values()))
            yield _single(f"sold_out_{percent}", "ms", people, max(known) / US_PER_MS)


def _delivery(harvests: Iterable[Harvest]) -> Iterator[Measure]:
    """`chat_delivered`: lines seen of lines sent, over the viewers who counted lines."""
    counts = _sum(harvest.counts for harvest in harvests)
    due = counts["lines_sent"] * counts["line_watchers"]
    if due:
        yield _single("chat_delivered", "share", due, counts["lines_delivered"] / due)


def _single(name: str, unit: str, count: int, value: float) -> Measure:
    return Measure(name, unit, Stat(count, value, value, value, value, value, value))


# --- Counts --------------------------------------------------------------------------------------


def counts(harvests: Sequence[Harvest]) -> dict[str, int]:
    """Those of the loaders, and of their claims: claims, held, confirmed, refused (finally),
    given_up (refused for now so often that the buyer stopped), refused.NAME of both, unanswered
    (sent, and neither confirmed nor ended). `errors` are the
    loaders', the claims unanswered, and those refused for no good reason."""
    total = _sum(harvest.counts for harvest in harvests)
    total["dropped"] = sum(each.dropped for harvest in harvests for each in harvest.health)
    for claim in claims_of(harvests):
        total.update(_counted(claim))
    return dict(total)


def _counted(claim: Claim) -> Iterator[str]:
    """What one claim adds one to."""
    yield "claims"
    if claim.held_us:
        yield "held"
    if claim.confirmed_us:
        yield "confirmed"
    elif claim.ended_us:
        yield "given_up" if claim.is_given_up else "refused"
        known = ERRORS_BY_CODE.get(claim.code)
        yield f"refused.{known.name if known else claim.code}"
        if known is None or claim.code in FAULTY:
            yield "errors"
    elif claim.sent_us:
        yield "unanswered"
        yield "errors"


def _sum(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


# --- The loaders themselves ----------------------------------------------------------------------


def loader_health(loader: int, health: Sequence[Health], died: str = "") -> LoaderHealth:
    """One loader over the seconds of the measured part. Its p99s are those of its worst second."""
    if not health:
        return LoaderHealth(loader, died=died)
    seconds = len(health)
    return LoaderHealth(
        loader,
        cpu_share=sum(each.cpu_share for each in health) / seconds,
        seconds=seconds,
        busy_seconds=sum(each.cpu_share >= BUSY_SHARE for each in health),
        loop_lag_p99_ms=max(each.loop_lag_p99_us for each in health) / US_PER_MS,
        loop_lag_max_ms=max(each.loop_lag_max_us for each in health) / US_PER_MS,
        schedule_lag_p99_ms=max(each.schedule_lag_p99_us for each in health) / US_PER_MS,
        dropped=sum(each.dropped for each in health),
        gc_ms=sum(each.gc_us for each in health) / US_PER_MS,
        waited_share=sum(each.waited_share for each in health) / seconds,
        died=died,
    )


def stat_outside(
    name: str,
    harvests: Iterable[Harvest],
    part_us: tuple[int, int],
    windows: Sequence[tuple[int, int]],
) -> Stat:
    """A measure over the tenths of the part that touch none of these (start, end) windows."""
    start, end = part_us
    tenth = (end - start) / BLOCKS
    whole = Histogram()
    sources = [Distributions(each.histograms, each.blocks) for each in harvests]
    for place, block in enumerate(_blocks(name, sources)):
        begins, ends = start + place * tenth, start + (place + 1) * tenth
        if all(ends <= since or until <= begins for since, until in windows):
            whole.add(block)
    return whole.stat()


def acts_outside(
    harvests: Iterable[Harvest], start_us: int, windows: Sequence[tuple[int, int]]
) -> tuple[int, int]:
    """Acts intended, and dropped, in the seconds since `start_us` that touch none of these
    (start, end) windows.

    In a window people are away because something was broken on purpose. What they meant to do then
    is given up a second later at most, so that second is the window's too.
    """
    acts = dropped = 0
    for harvest in harvests:
        for second, each in enumerate(harvest.health):
            begins = start_us + second * US_PER_S
            ends = begins + US_PER_S
            if all(ends <= since or until + US_PER_S <= begins for since, until in windows):
                acts += each.acts
                dropped += each.dropped
    return acts, dropped


# --- The timeline --------------------------------------------------------------------------------


def series(
    pulses: Iterable[Pulse], start_us: int, curve: Sequence[tuple[int, int]] = ()
) -> list[Point]:
    """One point per second, over all loaders; `curve`: (t_us, units left) as witnessed.

    Counts are summed, `open` as the sum of all its growth so far. Of p99s and loop lags the worst
    loader's stands: those of several cannot be merged.
    """
    by_second: dict[int, list[Pulse]] = {}
    for pulse in pulses:
        by_second.setdefault((pulse.t_us - start_us) // US_PER_S, []).append(pulse)
    published = [t_us for t_us, _ in curve]
    points, viewers = [], 0
    for second, together in sorted(by_second.items()):
        values = _second(together)
        viewers += int(values.get("open", 0))
        values["open"] = viewers
        if at := bisect_right(published, start_us + (second + 1) * US_PER_S):
            values["left"] = curve[at - 1][1]
        points.append(Point(float(second), values))
    return points


def _second(together: Sequence[Pulse]) -> dict[str, float]:
    values: dict[str, float] = dict(_sum(pulse.counts for pulse in together))
    values["lag"] = max(pulse.health.loop_lag_p99_us for pulse in together) / US_PER_MS
    values["cpu_loader"] = sum(pulse.health.cpu_share for pulse in together)
    for name in ("stale", "claim_held"):
        if worst := [pulse.quick[name][1] for pulse in together if name in pulse.quick]:
            values[f"{name}_p99"] = max(worst)
    return values
