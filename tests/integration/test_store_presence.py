"""People over all hubs in Redis: users once, exact after a beat, whatever was lost or killed."""

from collections.abc import AsyncIterator

import pytest

from server import limits
from server.domain.presence import PresenceReport
from server.errors import StoreUnavailable
from server.hub.presence import REPORT_MS, TTL_MS
from server.store import keys
from tests.shop import SHOW
from tests.watching import BEAT_MS, Building, Floor, open_building

CROWD = [f"user-{n}" for n in range(10_000)]


@pytest.fixture
async def building(redis_url: str) -> AsyncIterator[Building]:
    async with open_building(redis_url, hubs=2) as building:
        yield building


def times_told_of_everybody(floor: Floor) -> int:
    return len({report.number for _, _, report, _ in floor.calls if not report.after})


async def online_version(building: Building) -> int:
    snapshot = await building.shop.room.snapshot(SHOW)
    assert snapshot is not None
    version: int = snapshot.state["online"]["version"]
    return version


async def test_report_when_a_user_is_on_two_hubs_then_counted_once(building: Building) -> None:
    one, two = building.floors
    one.come("ann", "bob")
    two.come("ann")
    two.anonymous = 3
    await building.beat()
    assert await building.shown() == 5  # ann, bob and three strangers
    one.go("ann")
    await building.beat()
    assert await building.shown() == 5  # ann is still on the other one
    two.go("ann")
    two.anonymous = 0
    await building.beat()
    assert await building.shown() == 1
    one.go("bob")
    await building.beat()
    assert (await building.shown(), await building.listed()) == (0, {})


async def test_report_when_nothing_changed_then_nothing_is_published(building: Building) -> None:
    building.floors[0].come("ann")
    await building.live(2 * BEAT_MS)
    version = await online_version(building)
    await building.live(10 * BEAT_MS)
    assert await online_version(building) == version


async def test_report_when_ten_thousand_come_then_in_portions_and_published_once(
    building: Building,
) -> None:
    one, two = building.floors
    await building.beat()
    one.calls.clear()
    version = await online_version(building)
    one.come(*CROWD)
    one.anonymous = 7
    await building.beat([one])
    assert await building.shown() == len(CROWD) + 7
    assert await online_version(building) == version + 1
    assert len(one.calls) == len(CROWD) / limits.PRESENCE_PORTION_MAX
    two.come(*CROWD[5_000:])
    one.go(*CROWD[:2_500])
    await building.beat()
    assert await building.shown() == building.people == 7_507


async def test_report_when_a_hub_is_killed_then_its_people_are_gone_within_the_ttl(
    building: Building,
) -> None:
    one, two = building.floors
    one.come(*CROWD)
    one.anonymous = 5
    two.come(*CROWD[:10], "ann")
    await building.live(2 * BEAT_MS)
    assert await building.shown() == len(CROWD) + 6
    building.kill(one)
    two.calls.clear()
    await building.live(TTL_MS)
    assert await building.shown() == building.people == 11
    assert set((await building.listed())["user-0"]) == {"hub2"}
    assert len(two.calls) < 2 * len(CROWD) / limits.PRESENCE_PORTION_MAX + 10


async def test_report_when_another_hub_dies_while_one_is_taken_out_then_nobody_tells_anew(
    building: Building,
) -> None:
    one, two = building.floors
    three = building.add_hub()
    one.come(*CROWD[:1_500])
    two.come(*CROWD[1_500:3_000])
    three.come(*CROWD[2_000:2_100])
    await building.live(2 * BEAT_MS)
    building.kill(one)
    await building.live(BEAT_MS)
    building.kill(two)
    await building.live(2 * BEAT_MS)
    three.faults = ["", "lost"]  # the pass stops in the middle
    await building.live(BEAT_MS)
    assert 1_500 < len(await building.listed()) < 3_000
    await building.live(BEAT_MS)
    assert await building.shown() == building.people == 100
    assert times_told_of_everybody(three) == 1


async def test_report_when_redis_was_away_then_no_hub_is_taken_for_dead(
    building: Building,
) -> None:
    """The first one to come back finds that all the others have not reported for long."""
    one, two = building.floors
    one.come(*CROWD[:1_000])
    two.come(*CROWD[500:1_500])
    await building.live(2 * BEAT_MS)
    await building.wait(10 * TTL_MS)
    for floor in building.floors:
        floor.calls.clear()
        await building.beat([floor])
        assert await building.shown() == 1_500
    assert len(one.calls) == len(two.calls) == 1


async def test_report_when_a_frozen_hub_comes_back_then_it_is_asked_to_tell_everything(
    building: Building,
) -> None:
    one, two = building.floors
    one.come(*CROWD[:1_200])
    two.come("ann")
    await building.live(BEAT_MS)
    for _ in range(4):
        await building.wait(BEAT_MS)
        await building.beat([two])
    assert await building.shown() == 1
    one.go(CROWD[0])
    await building.beat([one])
    assert await building.shown() == 1_200


@pytest.mark.parametrize("fault", ["lost", "unheard"])
async def test_report_when_no_answer_comes_then_it_is_repeated_and_counts_once(
    building: Building, fault: str
) -> None:
    one, two = building.floors
    one.come(*CROWD[:1_200])
    two.come(*CROWD[:300])
    await building.beat([two])
    one.faults = ["", fault]
    await building.beat([one])
    one.go(*CROWD[:600])
    await building.beat([one])
    assert await building.shown() == building.people == 900
    two.go(*CROWD[:300])
    await building.beat()
    assert await building.shown() == building.people == 600
    assert times_told_of_everybody(one) == 1


async def test_report_when_a_report_comes_late_then_it_changes_nothing(
    building: Building,
) -> None:
    (one, _), report = building.floors, building.shop.room.report_presence
    one.come("ann")
    await building.beat([one])
    one.go("ann")
    await building.beat([one])
    for call in one.calls[:1] * 2:
        assert not (await report(*call)).counts
    await building.beat([one])
    assert await building.shown() == 0


@pytest.mark.parametrize(
    "lost", [(keys.presence,), (keys.people,), (keys.presence, keys.people, keys.room)]
)
async def test_report_when_redis_lost_keys_then_the_hubs_tell_everything_again(
    building: Building, lost: tuple[object, ...]
) -> None:
    one, two = building.floors
    one.come(*CROWD[:1_200])
    two.come(*CROWD[1_000:2_000])
    await building.beat()
    await building.shop.clients.commands.delete(*(key(SHOW) for key in lost))  # type: ignore[operator]
    one.go(CROWD[0])
    await building.beat()
    await building.beat()
    assert await building.shown() == building.people == 1_999


async def test_report_when_a_value_cannot_be_read_then_the_hubs_tell_everything_again(
    building: Building,
) -> None:
    one, two = building.floors
    one.come("ann", "bob")
    two.come("bob")
    await building.beat()
    await building.shop.clients.commands.hset(keys.presence(SHOW), "hub1", "9:1000")
    await building.beat()
    await building.beat()
    assert await building.shown() == building.people == 2


async def test_report_when_redis_is_an_older_copy_then_the_hub_tells_everything_again(
    building: Building,
) -> None:
    """As after a fail-over to a replica that missed the last writes."""
    one, _ = building.floors
    commands = building.shop.clients.commands
    names = [key(SHOW) for key in (keys.presence, keys.people, keys.room)]
    one.come("ann", "bob")
    await building.beat()
    copy = {name: await commands.dump(name) for name in names}
    one.go("ann")
    one.come("cid")
    await building.beat()
    for name, value in copy.items():
        await commands.restore(name, 0, value, replace=True)
    await building.beat()
    assert (await building.shown(), set(await building.listed())) == (2, {"bob", "cid"})


async def test_report_when_people_of_a_dead_hub_are_nowhere_then_all_are_counted_anew(
    building: Building,
) -> None:
    """Somebody took a field out by hand: a pass over all people does not find it."""
    one, two = building.floors
    one.come(*CROWD[:1_500])
    two.come(*CROWD[1_000:2_500])
    await building.beat()
    await building.shop.clients.commands.hdel(keys.people(SHOW), CROWD[0])
    building.kill(one)
    await building.live(TTL_MS - BEAT_MS)
    assert await building.shown() == building.people == 1_500


async def test_report_when_a_hub_is_long_gone_then_it_is_forgotten_with_its_like_batches(
    building: Building,
) -> None:
    one, _ = building.floors
    one.come("ann")
    await building.shop.room.add_likes(SHOW, "hub1", 4, 1)
    await building.live(2 * BEAT_MS)
    building.kill(one)
    hubs, batches = keys.presence(SHOW), keys.like_batches(SHOW)
    commands = building.shop.clients.commands
    await building.live(TTL_MS)
    assert await commands.hexists(batches, "hub1")  # it may be frozen, and repeat a batch
    await building.wait(600_000)
    await building.beat()
    assert [await commands.hexists(key, "hub1") for key in (hubs, batches)] == [False, False]
    assert await commands.hexists(hubs, "hub2")


async def test_report_when_nobody_reports_any_more_then_people_are_forgotten_by_themselves(
    building: Building,
) -> None:
    building.floors[0].come("ann")
    await building.beat()
    assert 0 < await building.shop.clients.commands.pttl(keys.people(SHOW)) <= 600_000


async def test_report_when_it_is_no_number_then_nothing_is_written(building: Building) -> None:
    broken = PresenceReport(1, 0, ["ann"], [], anonymous=1.5)  # type: ignore[arg-type]
    with pytest.raises(StoreUnavailable, match="CORRUPT"):
        await building.shop.room.report_presence(SHOW, "hub1", broken, REPORT_MS)
    assert await building.listed() == {}
