"""Samples of a show: one per instant whoever writes it, by the books, and none of what is not
known."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from server import limits
from server.domain.presence import PresenceReport
from server.domain.rehearsal import new_shadow_id
from server.orders.sampler import (
    FORGET_EVERY_MS,
    KEPT_MS,
    MONEY_SECONDS,
    MONEY_SHARE,
    STEP_MS,
    Sampler,
)
from server.records import numbers
from server.store import keys
from tests.host_stage import Stage, open_stage, show_id_of


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        made.clock.now -= made.clock.now % STEP_MS
        yield made


def sampler_of(stage: Stage) -> Sampler:
    return Sampler(stage.pool, stage.room_store, stage.clock)


async def samples(stage: Stage, show: str) -> list[dict[str, Any]]:
    query = "SELECT * FROM show_samples WHERE show_id = $1 ORDER BY at"
    rows = [dict(row) for row in await stage.pool.fetch(query, show_id_of(show))]
    return [{**row, "amounts": json.loads(row["amounts"])} for row in rows]


async def test_round_when_a_herd_has_bought_then_the_totals_are_those_of_the_books(
    stage: Stage,
) -> None:
    show, sampler = await stage.live_show(), sampler_of(stage)
    show_id = show_id_of(show)
    cheap = await stage.sale(show, await stage.sku(show), units=30, pay_within_s=60, price=500)
    dear = await stage.sale(show, await stage.sku(show), units=5, price=9900)
    await stage.sale(show, await stage.sku(show), units=7, start="later")  # a draft counts nowhere
    await stage.room_store.add_likes(show_id, "hub1", 1, 40)
    await stage.room_store.report_presence(
        show_id, "hub1", PresenceReport(1, 0, anonymous=9, came=["ann"], left=[]), 60_000
    )
    await stage.room_store.report_counts(show_id, "hub1", 3, 50)
    await stage.room_store.report_counts(show_id, "hub2", 4, 60)
    herd = [(cheap["sale"], f"b{n}", 1 + n % 2) for n in range(10)]
    herd += [(dear["sale"], f"b{n}", 1) for n in range(5)]
    await asyncio.gather(*(stage.claim(show, *claim) for claim in herd))
    await stage.book(show)
    assert await sampler.round() == 1
    (sample,) = await samples(stage, show)
    stats = (await stage.ok("GET", f"{show}/stats"))["sales"]
    started = [one for one in stats if one["status"] != "draft"]
    assert sample["left_units"] == sum(one["left"] for one in started) == 15
    assert sample["held"] == sum(one["reserved"] for one in started) == 15
    assert sample["sold"] == sum(one["sold"] for one in started) == 5
    assert sample["orders"] == sum(one["orders"] for one in started) == 15
    assert sample["amounts"] == {"CNY": sum(one["amount"] for one in started)}
    assert sample["amounts"] == {"CNY": 15 * 500 + 5 * 9900}
    seen = {name: sample[name] for name in ("online", "likes", "lines", "claims")}
    assert seen == {"online": 10, "likes": 40, "lines": 7, "claims": 110}
    assert round(sample["at"].timestamp() * 1000) == stage.clock.now


async def test_round_when_two_workers_sample_then_one_row_per_instant(stage: Stage) -> None:
    show = await stage.live_show()
    one, other = sampler_of(stage), sampler_of(stage)
    for late_ms in (0, 1, STEP_MS - 1, 0, 700):
        stage.clock.now += STEP_MS - stage.clock.now % STEP_MS + late_ms
        await asyncio.gather(one.round(), other.round())
        assert await one.round() == await other.round() == 0
    instants = [round(row["at"].timestamp() * 1000) for row in await samples(stage, show)]
    assert len(instants) == 5
    assert {b - a for a, b in pairwise(instants)} == {STEP_MS}
    assert not instants[0] % STEP_MS


async def test_round_when_redis_is_away_or_rebuilding_then_a_gap_and_no_zero(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one show's trouble keeps no other from its sample."""
    well, away, damaged = [await stage.live_show() for _ in range(3)]
    sampler = sampler_of(stage)
    assert await sampler.round() == 3
    await stage.clients.commands.delete(keys.meta(show_id_of(away)))
    await stage.clients.commands.hset(keys.counts(show_id_of(damaged)), "h:lines", "x")
    stage.clock.now += STEP_MS
    assert await sampler.round() == 1
    await stage.clients.commands.hset(keys.meta(show_id_of(well)), "gate", "rebuilding")
    stage.clock.now += STEP_MS
    assert await sampler.round() == 0
    assert [len(await samples(stage, show)) for show in (well, away, damaged)] == [2, 1, 1]


async def test_round_when_a_show_is_not_on_or_a_rehearsal_then_no_sample(stage: Stage) -> None:
    scheduled = f"/api/shows/{(await stage.ok('POST', '/api/shows', {'title': 'x'}))['show']}"
    paused, ended = await stage.live_show(), await stage.live_show()
    await stage.ok("POST", f"{paused}/pause")
    await stage.ok("POST", f"{ended}/end")
    shadow = new_shadow_id()
    await stage.pool.execute(
        "INSERT INTO shows (show_id, host_id, title, status) VALUES ($1, 'ming', 'x', 'live')",
        shadow,
    )
    assert await sampler_of(stage).round() == 1
    counts = [len(await samples(stage, show)) for show in (scheduled, paused, ended, shadow)]
    assert counts == [0, 1, 0, 0]


async def test_samples_when_a_show_is_on_for_a_month_then_the_oldest_go(stage: Stage) -> None:
    """A show that nobody ends does not grow without end; what has ended stays."""
    on, ended = await stage.live_show(), await stage.live_show()
    await stage.ok("POST", f"{ended}/end")
    hour = stage.clock.now - stage.clock.now % FORGET_EVERY_MS
    oldest = datetime.fromtimestamp((hour - KEPT_MS) / 1000, UTC)
    await stage.pool.executemany(
        "INSERT INTO show_samples SELECT show_id, $1, 0, 0, 0, 0, 0, 0, 0, 0, '{}' FROM shows",
        [(oldest,), (oldest - timedelta(seconds=limits.SAMPLE_S),)],
    )
    sampler, counts = sampler_of(stage), []
    for stage.clock.now in (hour - STEP_MS, hour):
        await sampler.round()
        counts.append([len(await samples(stage, show)) for show in (on, ended)])
    assert counts == [[3, 2], [3, 2]]
    assert (await samples(stage, on))[0]["at"] == oldest


async def test_money_when_nothing_was_taken_then_it_is_not_read_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    show, sampler = await stage.live_show(), sampler_of(stage)
    sale = await stage.sale(show, await stage.sku(show))
    read, time_ms = [], [0.0]
    really = numbers.money

    async def counted(conn: Any, show_id: str, timeout_s: float) -> numbers.Money:
        read.append(show_id)
        time_ms[0] += 100  # so long it takes
        return await really(conn, show_id, timeout_s)

    monkeypatch.setattr(numbers, "money", counted)
    monkeypatch.setattr("server.orders.sampler.clock.monotonic_ms", lambda: time_ms[0])

    async def orders_seen(passed_ms: int) -> int:
        time_ms[0] += passed_ms
        stage.clock.now += STEP_MS
        assert await sampler.round() == 1
        return int((await samples(stage, show))[-1]["orders"])

    async def buy(buyer: str) -> None:
        await stage.claim(show, sale["sale"], buyer)
        await stage.book(show)

    assert [await orders_seen(5_000) for _ in range(3)] == [0, 0, 0]
    assert len(read) == 1
    await buy("ann")
    assert await orders_seen(5_000) == 1
    assert len(read) == 2
    await buy("bob")
    assert await orders_seen(1_900) == 1  # it took 100 ms: not again within 2 s
    assert len(read) == 2
    assert await orders_seen(200) == 2
    assert len(read) == 3


async def test_money_when_one_show_takes_too_long_then_it_keeps_its_last_and_others_theirs(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is not read again before its share of the time has come."""
    slow, well = [await stage.live_show() for _ in range(2)]
    sales = {show: await stage.sale(show, await stage.sku(show)) for show in (slow, well)}
    sampler, time_ms, tried = sampler_of(stage), [0.0], []
    really = numbers.money

    async def money(conn: Any, show_id: str, timeout_s: float) -> numbers.Money:
        if show_id != show_id_of(slow) or not tried:
            return await really(conn, show_id, timeout_s)
        tried.append(time_ms[0])
        time_ms[0] += 1_000 * timeout_s
        raise TimeoutError

    monkeypatch.setattr(numbers, "money", money)
    monkeypatch.setattr("server.orders.sampler.clock.monotonic_ms", lambda: time_ms[0])

    async def orders_seen(passed_ms: float) -> list[int]:
        for show, sale in sales.items():
            await stage.claim(show, sale["sale"], f"b{time_ms[0]}")
            await stage.book(show)
        time_ms[0] += passed_ms
        stage.clock.now += STEP_MS
        assert await sampler.round() == 2
        return [int((await samples(stage, show))[-1]["orders"]) for show in (slow, well)]

    assert await orders_seen(5_000) == [1, 1]
    tried.append(0.0)
    assert await orders_seen(5_000) == [1, 2]
    pause_ms = 1_000 * MONEY_SECONDS * 2 / MONEY_SHARE
    assert await orders_seen(pause_ms - 1) == [1, 3]
    assert len(tried) == 2
    await orders_seen(1)
    assert len(tried) == 3
