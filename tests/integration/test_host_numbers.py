"""A show's numbers over the host API: pulse, series, pin windows, summary, and who sees what."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from server import limits
from server.orders.sampler import STEP_MS, Sampler
from server.records import numbers
from server.store import keys
from server.web import host_numbers
from tests.host_stage import Stage, open_stage, request_id, show_id_of, token

START = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
async def stage(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """Answers are not shared, unless a test says so."""
    monkeypatch.setattr(host_numbers, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(host_numbers, "FRESH_FACTOR", 0.0)
    async with open_stage(redis_url, database_url) as made:
        yield made


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ms(seconds: float) -> int:
    return round(at(seconds).timestamp() * 1000)


async def sampled(stage: Stage, show: str, online: dict[float, int], **totals: int) -> None:
    """Samples by hand: seconds -> people online."""
    rows = [(show_id_of(show), at(s), n, totals.get("likes", 0)) for s, n in online.items()]
    await stage.pool.executemany(
        "INSERT INTO show_samples VALUES ($1, $2, $3, $4, 0, 0, 0, 0, 0, 0, '{\"CNY\": 5}')", rows
    )


async def bought(stage: Stage, show: str, sale: int, *orders: tuple[str, int, float]) -> None:
    """Orders (buyer, units, seconds when they were confirmed)."""
    for buyer, units, _ in orders:
        await stage.claim(show, sale, buyer, units)
    await stage.book(show)
    await stage.pool.executemany(
        "UPDATE orders SET confirmed_at = $3 WHERE pool_id = $1 AND seq = $2",
        [(sale, seq, at(seconds)) for seq, (_, _, seconds) in enumerate(orders, 1)],
    )


async def pinned(stage: Stage, show: str, *pins: tuple[int, float]) -> None:
    """Pins (product or 0, seconds), as moderators and hosts make them, at these times."""
    for product, seconds in pins:
        await stage.ok("PUT", f"{show}/pin", {"product": product})
        await stage.pool.execute(
            "UPDATE host_acts SET at = $1 WHERE act_id = (SELECT act_id FROM host_acts"
            " WHERE action = 'pin' ORDER BY act_id DESC LIMIT 1)",
            at(seconds),
        )


async def product_of(stage: Stage, show: str, sku: int) -> int:
    products = (await stage.ok("GET", f"{show}/products"))["products"]
    return next(p["product"] for p in products if p["skus"][0]["sku"] == sku)


# --- Pulse ------------------------------------------------------------------------------------


async def test_pulse_when_claims_wait_to_be_booked_then_it_says_how_many_and_since_when(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sale = await stage.sale(show, await stage.sku(show))
    await stage.room_store.report_counts(show_id_of(show), "hub1", 8, 4)
    await stage.claim(show, sale["sale"], "ann")
    stage.clock.now += 60_000
    pulse = await stage.ok("GET", f"{show}/pulse")
    assert 55_000 < pulse.pop("oldest_ms") < 65_000
    assert pulse == {
        "at": stage.clock.now, "online": 0, "likes": 0, "lines": 8, "claims": 4, "backlog": 1,
        "pending": 0, "gate": "open",
    }  # fmt: skip
    await stage.book(show)
    pulse = await stage.ok("GET", f"{show}/pulse")
    assert (pulse["backlog"], pulse["oldest_ms"]) == (0, 0)


async def test_pulse_when_redis_has_not_been_told_something_then_it_is_pending(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = await stage.sale(show, sku)
    stage.scripts.lost.add("all")
    await stage.ok("PATCH", show, {"title": "另一个"})
    restock = {"units": 5, "request_id": "0a0a0a0a-0000-4000-8000-000000000001"}
    await stage.ok("POST", f"{show}/sales/{sale['sale']}/restock", restock)
    await stage.pool.execute("UPDATE gives SET created_at = now() - interval '2 s'")
    assert (await stage.ok("GET", f"{show}/pulse"))["pending"] == 2
    stage.scripts.lost.clear()
    await stage.sweep()
    assert (await stage.ok("GET", f"{show}/pulse"))["pending"] == 0


async def test_pulse_when_redis_does_not_have_the_show_then_unavailable_and_no_zeros(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    await stage.clients.commands.delete(keys.meta(show_id_of(show)))
    assert await stage.refused("GET", f"{show}/pulse") == "unavailable"


async def test_answers_when_many_ask_then_they_are_shared_but_the_permission_is_not(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_numbers, "FRESH_SECONDS", 60.0)
    monkeypatch.setattr(host_numbers, "KEPT_MAX", 2)
    shows = [await stage.live_show() for _ in range(3)]
    first = await stage.ok("GET", f"{shows[0]}/pulse")
    stage.clock.now += 1
    assert await stage.ok("GET", f"{shows[0]}/pulse") == first
    assert await stage.refused("GET", f"{shows[0]}/pulse", token=token("eve")) == "forbidden"
    for show in shows[1:]:
        assert (await stage.ok("GET", f"{show}/pulse"))["at"] == stage.clock.now
    assert (await stage.ok("GET", f"{shows[0]}/pulse"))["at"] == stage.clock.now  # it had to go


async def test_answers_when_the_show_ends_then_the_next_one_is_new(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_numbers, "FRESH_SECONDS", 60.0)
    show = await stage.live_show()
    assert (await stage.ok("GET", f"{show}/summary"))["ended_at"] == 0
    await stage.ok("POST", f"{show}/end")
    assert (await stage.ok("GET", f"{show}/summary"))["ended_at"] > 0


async def test_heavy_answers_when_many_shows_ask_then_they_leave_connections_to_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    shows, reading, most = [await stage.live_show() for _ in range(3)], [0], [0]
    really = numbers.pins

    async def watched(*args: Any) -> list[numbers.PinRow]:
        reading[0] += 1
        most[0] = max(most[0], reading[0])
        await asyncio.sleep(0.02)
        reading[0] -= 1
        return await really(*args)

    monkeypatch.setattr(numbers, "pins", watched)
    asked = [f"{show}/{what}" for show in shows for what in ("pins", "summary")]
    await asyncio.gather(*(stage.ok("GET", path) for path in asked))
    assert most == [1]


async def test_series_when_consoles_ask_after_their_own_instants_then_they_share_one_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_numbers, "FRESH_SECONDS", 60.0)
    show, reads = await stage.live_show(), [0]
    await sampled(stage, show, {0: 3, 5: 4, 10: 5})
    really = numbers.samples_after

    async def counted(*args: Any) -> Any:
        reads[0] += 1
        return await really(*args)

    monkeypatch.setattr(numbers, "samples_after", counted)
    for after, seen in ((0, [5, 10]), (4, [5, 10]), (5, [10]), (59, [])):
        series = await stage.ok("GET", f"{show}/series?after={ms(after)}")
        assert [one["at"] for one in series["samples"]] == [ms(s) for s in seen]
    assert reads == [1]


# --- Series -----------------------------------------------------------------------------------


async def test_series_when_it_is_short_then_every_sample_and_gaps_stay_gaps(stage: Stage) -> None:
    show = await stage.live_show()
    await sampled(stage, show, {0: 3, 5: 4, 60: 5}, likes=7)
    series = await stage.ok("GET", f"{show}/series")
    assert series["step_s"] == limits.SAMPLE_S
    assert [(s["at"], s["online"]) for s in series["samples"]] == [
        (ms(0), 3),
        (ms(5), 4),
        (ms(60), 5),
    ]
    assert series["samples"][0] == {
        "at": ms(0), "online": 3, "likes": 7, "lines": 0, "claims": 0, "left": 0, "held": 0,
        "sold": 0, "orders": 0, "amounts": {"CNY": 5},
    }  # fmt: skip
    later = await stage.ok("GET", f"{show}/series?after={ms(5)}")
    assert [s["at"] for s in later["samples"]] == [ms(60)]


@pytest.mark.parametrize("count", [720, 721, 1_440, 5_000])
async def test_series_when_it_is_long_then_the_last_sample_of_longer_steps(
    stage: Stage, count: int
) -> None:
    show = await stage.live_show()
    await sampled(stage, show, {5 * n: n for n in range(count)})
    series = await stage.ok("GET", f"{show}/series")
    step_s, found = series["step_s"], series["samples"]
    assert step_s == 5 * -(-count // 720) or step_s == 5 * (-(-count // 720) + 1)
    assert 300 < len(found) <= limits.SERIES_SAMPLES_MAX + 1
    assert found[-1]["at"] == ms(5 * (count - 1))
    steps = [b["at"] - a["at"] for a, b in pairwise(found)]
    assert set(steps[1:-1]) == {1000 * step_s}
    assert [s["online"] for s in found] == sorted(s["online"] for s in found)


async def test_series_when_the_sampler_ran_then_its_samples_are_there(stage: Stage) -> None:
    show = await stage.live_show()
    sampler = Sampler(stage.pool, stage.room_store, stage.clock)
    for _ in range(3):
        stage.clock.now += STEP_MS
        await sampler.round()
    found = (await stage.ok("GET", f"{show}/series"))["samples"]
    assert found[-1]["at"] == stage.clock.now - stage.clock.now % STEP_MS
    assert len(found) == 3


# --- Pin windows ------------------------------------------------------------------------------


async def test_pins_when_acts_and_orders_are_known_then_each_order_is_in_its_window(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    cup, pot = await stage.sku(show), await stage.sku(show)
    cups = (await stage.sale(show, cup, price=100))["sale"]
    pots = (await stage.sale(show, pot, price=7))["sale"]
    cup_product, pot_product = (
        await product_of(stage, show, cup),
        await product_of(stage, show, pot),
    )
    await pinned(stage, show, (cup_product, 0), (pot_product, 100), (0, 200), (cup_product, 300))
    await bought(
        stage, show, cups,
        ("ann", 1, -1),  # before
        ("ann", 1, 0), ("bob", 2, 99.999),  # the first instant counts, the last does not
        ("cid", 1, 100),  # while the pot was pinned
        ("dan", 1, 250),  # while nothing was
        ("eve", 2, 400), ("fay", 1, 450),
    )  # fmt: skip
    await bought(stage, show, pots, ("ann", 1, 150))
    await sampled(stage, show, {0: 10, 50: 30, 100: 99, 350: 1})
    await stage.pool.execute(
        "UPDATE shows SET status = 'ended', ended_at = $1 WHERE show_id = $2",
        *(at(500), show_id_of(show)),
    )
    pins = (await stage.ok("GET", f"{show}/pins"))["pins"]
    assert [(p["product"], p["since"], p["until"]) for p in pins] == [
        (cup_product, ms(0), ms(100)), (pot_product, ms(100), ms(200)),
        (cup_product, ms(300), ms(500)),
    ]  # fmt: skip
    told = [
        (p["online"], p["buyers"], p["orders"], p["units"], p["amounts"], p["conversion_pm"])
        for p in pins
    ]
    assert told == [
        (20, 2, 2, 3, {"CNY": 300}, 100),
        (99, 1, 1, 1, {"CNY": 7}, 10),
        (1, 2, 2, 3, {"CNY": 300}, -1),  # more buyers than people on average
    ]
    assert pins[0]["title"] == "手冲壶"


async def test_pins_when_an_order_does_not_stand_or_the_window_is_open_then_so_told(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, pay_within_s=60))["sale"]
    product = await product_of(stage, show, sku)
    await stage.ok("PUT", f"{show}/pin", {"product": product})
    for buyer in ("ann", "bob"):
        await stage.claim(show, sale, buyer)
    await stage.book(show)
    (order, _) = (await stage.ok("GET", f"{show}/orders"))["orders"]
    await stage.ok("POST", f"{show}/orders/{order['order_id']}/cancel")
    (pin,) = (await stage.ok("GET", f"{show}/pins"))["pins"]
    assert (pin["orders"], pin["amounts"]) == (1, {"CNY": 9900})
    assert pin["until"] >= pin["since"]
    assert await stage.pool.fetchval("SELECT count(*) FROM show_samples") == 0
    assert pin["conversion_pm"] == -1


async def test_pins_when_there_are_many_then_the_newest_are_told(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PINS_LISTED", 2)
    show = await stage.live_show()
    products = [await product_of(stage, show, await stage.sku(show)) for _ in range(2)]
    await pinned(stage, show, *((products[n % 2], n) for n in range(5)))
    pins = (await stage.ok("GET", f"{show}/pins"))["pins"]
    assert [pin["since"] for pin in pins] == [ms(3), ms(4)]


# --- Summary ----------------------------------------------------------------------------------


async def test_summary_when_the_host_lowers_a_sale_then_only_that_was_not_offered(
    stage: Stage,
) -> None:
    """What a stop takes back was offered until then, and so was what was lowered and restocked."""
    show = await stage.live_show()
    sku = await stage.sku(show)
    lowered = (await stage.sale(show, sku, units=10))["sale"]
    stopped = (await stage.sale(show, sku, units=10))["sale"]
    draft = (await stage.sale(show, sku, units=10, start="later"))["sale"]
    for sale, verb, units in (
        *((lowered, "lower", 6), (lowered, "restock", 1)),
        *((draft, "lower", 3), (stopped, "restock", 2)),
    ):
        body = {"units": units, "request_id": request_id()}
        await stage.ok("POST", f"{show}/sales/{sale}/{verb}", body)
    await stage.ok("POST", f"{show}/sales/{draft}/start", {})
    for sale in (lowered, stopped, draft):
        await stage.claim(show, sale, "ann", 1)
    await stage.ok("POST", f"{show}/sales/{stopped}/stop")
    await stage.book(show)
    assert await offers(stage, show) == {lowered: (5, 5), stopped: (12, 1), draft: (7, 7)}
    await stage.ok("POST", f"{show}/end")
    await stage.book(show)
    assert await offers(stage, show) == {lowered: (5, 1), stopped: (12, 1), draft: (7, 1)}


async def offers(stage: Stage, show: str) -> dict[int, tuple[int, int]]:
    """Sale -> units offered, and units that it has or had in the end."""
    summary = await stage.ok("GET", f"{show}/summary")
    return {sale["sale"]: (sale["offered"], sale["total"]) for sale in summary["sales"]}


async def test_summary_when_the_show_has_ended_then_all_is_as_the_books_have_it(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    gone = await stage.sale(show, sku, units=3, limit_per_buyer=3, pay_within_s=60, price=100)
    left = await stage.sale(show, await stage.sku(show), units=3, price=70)
    await stage.sale(show, sku, start="later")
    await sampled(stage, show, {0: 4, 5: 20, 10: 20, 15: 16}, likes=90)
    await stage.room_store.report_counts(show_id_of(show), "hub1", 11, 6)
    for sale, buyer, units in ((gone, "ann", 2), (gone, "bob", 1), (left, "ann", 1)):
        await stage.claim(show, sale["sale"], buyer, units)
    await stage.book(show)
    orders = (await stage.ok("GET", f"{show}/orders"))["orders"]
    (bobs,) = [order["order_id"] for order in orders if order["buyer"] == "bob"]
    await stage.ok("POST", f"{show}/orders/{bobs}/cancel")
    await stage.sweep()
    await stage.ok("POST", f"{show}/end")
    await stage.book(show)
    summary = await stage.ok("GET", f"{show}/summary")
    csv = (await stage.call("GET", f"{show}/orders.csv")).text
    assert csv.count("confirmed") - csv.count("confirmed_at") == summary["orders"] == 2
    assert (summary["amounts"], summary["units"], summary["buyers"]) == ({"CNY": 270}, 3, 1)
    assert summary["by_status"] == {"confirmed": 2, "cancelled": 1}
    assert (summary["peak_online"], summary["peak_at"], summary["avg_online"]) == (20, ms(5), 15)
    assert (summary["likes"], summary["lines"], summary["claims"]) == (90, 11, 6)
    assert summary["ended_at"] >= summary["started_at"] > 0
    first, second = summary["sales"]  # the draft was never on
    assert (first["sale"], second["sale"]) == (gone["sale"], left["sale"])
    assert 0 <= first["sold_out_after_ms"] < 60_000  # though a unit came back later
    assert second["sold_out_after_ms"] == -1  # what closed is not what was bought
    assert (first["status"], first["orders"], first["amount"]) == ("closed", 1, 200)


async def test_summary_when_a_count_in_redis_is_no_number_then_by_the_samples(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    await sampled(stage, show, {0: 3}, likes=9)
    await stage.clients.commands.hset(keys.counts(show_id_of(show)), "h:lines", "x")
    assert (await stage.ok("GET", f"{show}/summary"))["likes"] == 9
    assert await stage.refused("GET", f"{show}/pulse") == "unavailable"


async def test_summary_when_redis_is_away_then_by_the_samples(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    show = await stage.live_show()
    await sampled(stage, show, {0: 0}, likes=9)
    await stage.clients.commands.delete(keys.meta(show_id_of(show)))
    summary = await stage.ok("GET", f"{show}/summary")
    assert (summary["likes"], summary["peak_online"], summary["peak_at"]) == (9, 0, 0)


async def test_ledger_when_units_went_every_way_then_its_sum_is_what_the_pool_has_left(
    stage: Stage,
) -> None:
    """What `sold_out_after_ms` is found by."""
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku, pay_within_s=60))["sale"]
    for n, (way, units) in enumerate((("restock", 4), ("lower", 3), ("lower", 2))):
        body = {"units": units, "request_id": f"0a0a0a0a-0000-4000-8000-00000000000{n}"}
        await stage.ok("POST", f"{show}/sales/{sale}/{way}", body)
    for buyer in ("ann", "bob", "cid"):
        await stage.claim(show, sale, buyer)
    await stage.book(show)
    first = (await stage.ok("GET", f"{show}/orders"))["orders"][0]["order_id"]
    await stage.ok("POST", f"{show}/orders/{first}/cancel")
    ledger = await stage.pool.fetchval(
        "SELECT sum(CASE WHEN reason IN ('taken', 'lowered') THEN -units ELSE units END)"
        " FROM stock_ledger"
    )
    (stats,) = (await stage.ok("GET", f"{show}/stats"))["sales"]
    assert ledger == stats["left"] == 10 + 4 - 5 - 2


# --- Who --------------------------------------------------------------------------------------


async def test_moderators_when_they_look_then_they_see_no_money(stage: Stage) -> None:
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    await stage.ok("PUT", f"{show}/pin", {"product": await product_of(stage, show, sku)})
    await stage.claim(show, sale, "ann")
    await stage.book(show)
    await sampled(stage, show, {0: 1})
    moderator = token("mod", "moderator", show_id_of(show))
    for name in ("pulse", "series", "pins", "summary"):
        mine = await stage.ok("GET", f"{show}/{name}")
        theirs = await stage.ok("GET", f"{show}/{name}", token=moderator)
        assert theirs.keys() == mine.keys()
        assert _money_in(theirs) == [], name
        assert bool(_money_in(mine)) == (name != "pulse")


def _money_in(value: Any, name: str = "") -> list[Any]:
    """Everything in an answer that tells of amounts."""
    if name in ("amounts", "amount"):
        return [value] if value else []
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _money_in(item, key)]
    if isinstance(value, list):
        return [found for item in value for found in _money_in(item, name)]
    return []
