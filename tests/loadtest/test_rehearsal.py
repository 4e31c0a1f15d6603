"""What a rehearsal plays, and the canary that ends it when a real show feels it."""

import asyncio
import gzip
import json
import time
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from loadtest import canary, rehearsal
from loadtest.canary import Canary, Felt
from loadtest.rehearsal import Order, Shadow, reactions_ms, scenario_of
from loadtest.report.summary import Second, read
from loadtest.scenario import require_possible
from server.web.rehearsing import RehearsalOrder
from tests.web_stage import WebStage, web_stage

GOLDEN = Path(__file__).parent / "golden"


def order(**more: object) -> Order:
    told = Order(
        rehearsal=7, url="http://127.0.0.1:8000", show="r" + "a" * 24, ticket="0" * 32,
        host_token="t", live_show="", title="手冲壶", sale=3, price=9900, units=50, limit=2,
        buyers=2_000, watchers=0, bots=0, reaction="human", seconds=15, secret="s" * 32,
        redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x",
    )  # fmt: skip
    return msgspec.structs.replace(told, **more)


def test_order_when_the_server_writes_it_then_the_load_tester_reads_all_of_it() -> None:
    assert RehearsalOrder.__struct_fields__ == Order.__struct_fields__
    told = RehearsalOrder(**msgspec.structs.asdict(order()))
    assert msgspec.json.decode(msgspec.json.encode(told), type=Order) == order()


@pytest.mark.parametrize("reaction", ["human", "uniform"])
def test_buyers_when_many_react_then_never_two_within_a_millisecond(reaction: str) -> None:
    made = reactions_ms(order(reaction=reaction))
    assert len(made) == 2_000
    assert made == reactions_ms(order(reaction=reaction))  # seeded
    assert all(later - earlier >= 0.999 for earlier, later in pairwise(made))


def test_buyers_when_few_react_then_as_people_do() -> None:
    made = reactions_ms(order(buyers=200))
    assert 250 < made[100] < 500  # the median of human reaction is 350 ms


@pytest.mark.parametrize(("watchers", "bots"), [(0, 0), (2_000, 50)])
def test_scenario_when_made_of_an_order_then_it_is_possible(
    tmp_path: Path, watchers: int, bots: int
) -> None:
    made = scenario_of(order(watchers=watchers, bots=bots), tmp_path)
    require_possible(made)
    assert made.sockets == 2_000 + watchers + 2 * bots
    assert made.sockets / made.warmup_s <= 200


def test_shadow_when_reached_then_by_its_ticket_and_from_addresses_of_its_own() -> None:
    shadow = Shadow(order())
    assert list(shadow.urls) == [f"http://127.0.0.1:8000/ws/r{'a' * 24}?rehearsal={'0' * 32}"]
    assert shadow.source_net == "127.0.1"
    assert "rehearsal" not in shadow.facts()["host"]  # no ticket in the summary


@pytest.mark.parametrize("kind", ["sentinel://127.0.0.1:1/primary", "cluster://127.0.0.1:1"])
def test_shadow_when_redis_is_not_one_server_then_nobody_reads_the_books(kind: str) -> None:
    shadow = Shadow(order(redis_url=f"redis+{kind}"))
    assert (shadow.redis_url, shadow.database_url) == ("", "")
    assert Shadow(order()).redis_url


def test_lines_when_a_run_goes_on_then_progress_and_the_report_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = rehearsal.Lines(order())
    lines.pulse(Second("measure", 1.0, 0.5, totals={"held": 20, "confirmed": 18}))
    lines.pulse(Second("audit", 2.0, 0.0))
    rehearsal._say_done(read((GOLDEN / "rehearsal.json").read_bytes()), "")
    measured, audited, done = map(json.loads, capsys.readouterr().out.splitlines())
    told = {"phase": "measure", "share": 0.5, "held": 20, "confirmed": 18, "left": 30}
    assert measured["progress"] == told
    assert audited["progress"] == {**told, "phase": "audit", "share": 0.0}
    assert done["summary"]["verdict"]
    assert gzip.decompress(b64decode(done["report_gz_b64"])).startswith(b"<!doctype html>")


# --- The canary ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("windows", "felt"),
    [
        ([Felt(100, 5), Felt(299, 104)], False),
        ([Felt(301, 5), Felt(100, 5), Felt(301, 5)], False),  # not one after the other
        ([Felt(301, 5), Felt(301, 5)], True),
        ([Felt(100, 106), Felt(100, 106)], True),
    ],
)
def test_canary_when_two_windows_are_worse_then_it_is_felt(windows: list[Felt], felt: bool) -> None:
    told: list[bool] = []
    bird = Canary("", lambda: told.append(True))
    bird.before = Felt(100, 5)
    for window in windows:
        bird._weigh(window)
    assert (bird.reason, bool(told)) == (canary.FELT if felt else "", felt)


@pytest.mark.parametrize(
    ("late", "reason"),
    [
        ([True] * (canary.BLIND_MAX - 1), ""),
        ([True] * canary.BLIND_MAX, canary.BLIND),
        ([True] * (canary.BLIND_MAX - 1) + [False] + [True] * (canary.BLIND_MAX - 1), ""),
    ],
)
def test_canary_when_it_was_late_itself_then_the_window_tells_nothing_but_not_for_long(
    late: list[bool], reason: str
) -> None:
    told: list[bool] = []
    bird = Canary("", lambda: told.append(True))
    bird.before = Felt(100, 5)
    for was_late in late:
        bird._own_lag_ms = canary.OWN_LAG_MAX_MS + was_late
        bird._weigh(Felt(1_000, 1_000) if was_late else Felt(100, 5))
    assert (bird.reason, bool(told)) == (reason, bool(reason))
    assert (bird.told().stopped, bird.told().blind) == (False, bool(reason))


@pytest.fixture
async def web(redis_url: str, database_url: str) -> AsyncIterator[WebStage]:
    async with web_stage(redis_url, database_url) as stage:
        yield stage


@pytest.mark.parametrize("is_slowed", [False, True])
async def test_canary_when_the_web_process_hangs_then_it_is_felt(
    web: WebStage, monkeypatch: pytest.MonkeyPatch, is_slowed: bool
) -> None:
    monkeypatch.setattr(canary, "BASELINE_S", 0.5)
    monkeypatch.setattr(canary, "WINDOW_S", 0.5)
    if is_slowed:  # its own loop stalls with the one it watches: they share an interpreter
        monkeypatch.setattr(canary, "OWN_LAG_MAX_MS", 1e9)
    show, felt, begin = await web.show(), asyncio.Event(), asyncio.Event()
    bird = Canary(f"{web.url}/ws/{show}", felt.set)
    watching = asyncio.create_task(bird.run(begin))
    await begin.wait()
    assert bird.before.reply > 0
    if is_slowed:
        stall = asyncio.create_task(stalling(web))
        await asyncio.wait_for(felt.wait(), 15)
        stall.cancel()
        assert bird.told().stopped
        assert bird.told().reply_during > bird.before.reply
    else:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(watching), 4 * canary.WINDOW_S)
        assert not felt.is_set()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def stalling(web: WebStage) -> None:
    """The web process's loop stands still most of the time."""
    while True:
        web.loop.call_soon_threadsafe(time.sleep, 0.4)
        await asyncio.sleep(0.45)
