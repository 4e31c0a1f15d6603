"""Sales open and close in time although the keys of another show in Redis are damaged."""

from collections.abc import AsyncIterator

import pytest

from server.acts.work import OUTAGES_MAX
from server.errors import StoreDamaged, StoreUnavailable
from server.orders.closer import Closer
from server.store import keys
from server.store.client import command
from server.store.redis_clock import RedisClock
from tests.host_stage import Stage, open_stage, show_id_of


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def two_sales(stage: Stage, *, opens_in_s: int) -> list[tuple[str, int]]:
    """(show, sale) of two shows with a sale of 10 s each; the first one is due first."""
    made = []
    for later_s in range(2):
        at = stage.clock.now + 1_000 * (opens_in_s + later_s)
        when = {"start": "at", "starts_at": at} if opens_in_s else {}
        show = await stage.live_show()
        sale = await stage.sale(show, await stage.sku(show), duration_s=10 + later_s, **when)
        made.append((show, sale["sale"]))
    return made


async def damage(stage: Stage, show: str, sale: int) -> None:
    """The sale's pool is of another type, as after somebody's SET."""
    pool = keys.pool(show_id_of(show), sale)
    await stage.clients.commands.delete(pool)
    await stage.clients.commands.set(pool, "damaged")


async def statuses(stage: Stage, sales: list[tuple[str, int]]) -> list[str]:
    return [(await stage.find_sale(*each))["status"] for each in sales]


async def test_open_due_when_one_show_is_damaged_then_the_others_open(stage: Stage) -> None:
    sales = await two_sales(stage, opens_in_s=60)
    await damage(stage, *sales[0])
    stage.clock.now += 70_000
    assert await stage.timetable.open_due() == 1
    assert await statuses(stage, sales) == ["open", "open"]  # the first one waits for the sweep
    show, sale = sales[1]
    assert (await stage.state(show))[f"sale:{sale}"]["phase"] == "open"


async def test_close_due_when_one_show_is_damaged_then_the_others_close(stage: Stage) -> None:
    sales = await two_sales(stage, opens_in_s=0)
    await damage(stage, *sales[0])
    stage.clock.now += 20_000
    assert await stage.timetable.close_due() == 1
    show, sale = sales[1]
    async with stage.worker(show):
        await stage.until_closed(show, sale)
    assert await statuses(stage, sales) == ["closing", "closed"]


async def test_close_due_when_the_books_of_one_sale_fail_then_the_others_close(
    stage: Stage,
) -> None:
    sales = await two_sales(stage, opens_in_s=0)
    await stage.pool.execute(
        f"ALTER TABLE sales ADD CONSTRAINT fault CHECK (sale_id <> {sales[0][1]}"
        " OR status <> 'closing')"
    )
    stage.clock.now += 20_000
    assert await stage.timetable.close_due() == 1
    assert await statuses(stage, sales) == ["open", "closing"]


async def test_round_when_one_show_is_damaged_then_it_ends_without_an_outage(
    stage: Stage,
) -> None:
    """An outage would slow the rounds down, and all other shows with them."""
    sales = await two_sales(stage, opens_in_s=60)
    await damage(stage, *sales[0])
    await stage.pool.execute("UPDATE sales SET opens_at_ms = 1")
    await stage.pool.execute("UPDATE shows SET revision = revision + 1")  # the sweep's part
    closer = Closer(stage.acts.projector, stage.timetable, RedisClock(stage.clients.commands))
    for _ in range(3):
        await closer.round()
    assert await statuses(stage, sales) == ["open", "open"]
    pending = "SELECT count(*) FROM shows WHERE revision > applied_revision"
    assert await stage.pool.fetchval(pending) == 0


async def test_round_when_redis_is_away_then_every_part_was_tried_and_it_is_an_outage(
    stage: Stage,
) -> None:
    sales = await two_sales(stage, opens_in_s=60)
    ending = await stage.sale(show := await stage.live_show(), await stage.sku(show))
    await stage.pool.execute("UPDATE sales SET opens_at_ms = 1 WHERE status = 'scheduled'")
    ended = "UPDATE sales SET opens_at_ms = 1, closes_at_ms = 2 WHERE status = 'open'"
    await stage.pool.execute(ended)
    stage.scripts.lost = {"all"}
    closer = Closer(stage.acts.projector, stage.timetable, RedisClock(stage.clients.commands))
    with pytest.raises(StoreUnavailable):
        await closer.round()
    assert await statuses(stage, [*sales, (show, ending["sale"])]) == ["open", "open", "closing"]


async def test_close_due_when_redis_is_silent_then_few_questions_are_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes a timeout, and whoever else needs this round would wait for all of them."""
    for _ in range(OUTAGES_MAX + 2):
        await stage.sale(show := await stage.live_show(), await stage.sku(show))
    ended = "UPDATE sales SET opens_at_ms = 1, closes_at_ms = 2"
    await stage.pool.execute(ended)
    asked: list[int] = []

    async def silent(sale_id: int) -> None:
        asked.append(sale_id)
        raise StoreUnavailable("silent")

    with monkeypatch.context() as patched:
        patched.setattr(stage.acts.projector, "project_sale", silent)
        with pytest.raises(StoreUnavailable):
            await stage.timetable.close_due()
    assert len(asked) == OUTAGES_MAX
    assert await stage.timetable.close_due() == 2  # the others, once it answers


async def test_redis_when_a_key_is_damaged_then_told_from_an_outage(stage: Stage) -> None:
    ((show, sale), _) = await two_sales(stage, opens_in_s=0)
    redis = stage.clients.commands
    await damage(stage, show, sale)
    with pytest.raises(StoreDamaged):  # WRONGTYPE
        await command(redis, "HGET", keys.pool(show_id_of(show), sale), "a")
    with pytest.raises(StoreDamaged, match="CORRUPT"):
        await stage.stock.take(show_id_of(show), sale, b"a" * 16, None, close=True)
    with pytest.raises(StoreDamaged):  # a fault of the script
        await command(redis, "EVAL", "return nil + 1", 0)
    with pytest.raises(StoreUnavailable) as outage:
        await command(redis, "NO-SUCH-COMMAND")
    assert not isinstance(outage.value, StoreDamaged)
