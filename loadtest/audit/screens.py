"""What viewers were shown: the stock (I7), likes (I8) and events (I9)."""

from collections.abc import Iterator, Mapping
from typing import Final

from loadtest.audit.books import Books, PoolHash
from loadtest.audit.inspection import Inspection
from loadtest.swarm.pipe import Offence

SHOWN_WITHIN_US: Final = 2_000_000  # after a pool's last change every screen shows it
NAMES: Final = {"gap": "silent_gap", "foreign_claim": "told_others_claim"}  # else the offence's
TAPS_PER_REFUSAL_MAX: Final = 6  # that a refused like and the one before it may have lost
CLOCKS_US: Final = 100_000  # by which instants of two servers may be wrong against each other

# --- While it ran --------------------------------------------------------------------------------


def check_offences(here: Inspection, books: Books | None) -> None:
    """What viewers should never have been told, as their loaders noticed at once."""
    frames = here.seen.counts.get("frames", 0)
    here.checked["I7"] += frames
    here.checked["I9"] += frames
    for offence in here.seen.offences:
        if offence.kind == "stock_rose":
            _judge_rise(here, books, offence)
        else:
            name = NAMES.get(offence.kind, offence.kind)
            here.found.add(name, here.timelines.of_offence(offence))


def _judge_rise(here: Inspection, books: Books | None, offence: Offence) -> None:
    """Stock may rise on a screen once units came back, and only then."""
    if books is not None:
        gives = (give for each in books.records.gives.values() for give in each)
        came_back = any(give.t_us <= offence.t_us + CLOCKS_US for give in gives)
    else:
        came_back = any(terms.pays for terms in here.seen.sales.values())
    found, name = (here.explained, "stock_came_back") if came_back else (here.found, "stock_rose")
    found.add(name, here.timelines.of_offence(offence))


# --- At rest -------------------------------------------------------------------------------------


def check_shown(here: Inspection, books: Books) -> None:
    """What Redis tells viewers is its stock, and their screens show it."""
    for pool, stock in books.store.pools.items():
        here.checked["I7"] += 1
        for wrong in _wrong(stock, books.store.shown.get(pool, {}), books.store.epoch):
            what = f"sale {pool}: {wrong}"
            here.found.add("shown_wrong", here.timelines.of_facts(redis=what), what=what)
        if books.records.changed_us(pool) < here.seen.finish_us - SHOWN_WITHIN_US:
            _check_screens(here, pool, (books.store.epoch, stock.version), stock.left)


def _wrong(stock: PoolHash, shown: Mapping[str, int], epoch: int) -> Iterator[str]:
    """Fields of the value for viewers that are not the pool's."""
    held = stock.total - stock.left - stock.sold
    wanted = {"epoch": epoch, "version": stock.version, "left": stock.left, "held": held}
    for name, value in {**wanted, "sold": stock.sold, "total": stock.total}.items():
        if shown.get(name) != value:
            yield f"{name} {shown.get(name)}, not {value}"


def _check_screens(here: Inspection, pool: int, newest: tuple[int, int], left: int) -> None:
    """What stands on the screens in the end is the newest there is."""
    for screens in here.seen.shown:
        if screens.sale != pool:
            continue
        here.checked["I7"] += screens.viewers
        shown = (screens.epoch, screens.version)
        if shown < newest or screens.left != left:
            where = f"room {screens.room + 1}, {screens.viewers} viewers"
            client = f"{where}: sale {pool}: {_level(shown, screens.left)}"
            redis = f"sale {pool}: {_level(newest, left)}"
            facts = here.timelines.of_facts(client=client, redis=redis)
            here.found.add("stale_at_rest", facts, count=screens.viewers)


def _level(place: tuple[int, int], left: int) -> str:
    return f"epoch {place[0]}, version {place[1]}, {left} left"


# --- Likes ---------------------------------------------------------------------------------------


def check_likes(here: Inspection, books: Books) -> None:
    """The total is what people gave. Taps in flight on a connection that was lost may count or not,
    so may those of a like that came too fast; a web process that died may lose its last ones."""
    counts = here.seen.counts
    most = counts.get("taps", 0)
    if not most:
        return
    here.checked["I8"] += 1
    refused = sum(n for name, n in counts.items() if name.startswith("like_refused."))
    least = most - counts.get("taps_unsure", 0) - refused * TAPS_PER_REFUSAL_MAX
    total = books.store.likes
    facts = here.timelines.of_facts(client=f"{least} to {most} likes", redis=f"{total} likes")
    if total > most:
        here.found.add("likes_made_up", facts, likes=total - most)
    elif total < least and here.seen.webs_lost:
        here.explained.add("likes_of_a_lost_process", facts, count=least - total)
    elif total < least:
        here.found.add("likes_lost", facts, likes=least - total)
