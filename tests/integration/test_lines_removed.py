"""Lines that a moderator takes back: gone from every page, and for those who join, on every hub."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from server.errors import StoreUnavailable
from server.protocol import messages as m
from server.protocol.facts import PolicyFact, decode_fact
from server.store import keys
from tests.host_stage import Stage, open_stage, show_id_of, token
from tests.live import Client, Host, call, token_of, until
from tests.web_stage import WebStage, web_stage

Hubs = tuple[WebStage, WebStage]


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


def line(number: int, user: str = "li") -> m.ChatLine:
    return m.ChatLine(f"hub-{number}", user, "李", "viewer", f"第 {number} 条")


async def kept(stage: Stage, show: str) -> list[str]:
    """Ids of the danmaku that joiners get from Redis."""
    snapshot = await stage.room_store.snapshot(show_id_of(show))
    assert snapshot is not None
    return [one.id for one in snapshot.chat]


async def told(stage: Stage, show: str, kind: str, what: str) -> list[str]:
    return [event[what] for event in await stage.events(show) if event["k"] == kind]


# --- What Redis keeps -------------------------------------------------------------------------


async def test_line_when_deleted_then_redis_forgets_it_and_only_it(stage: Stage) -> None:
    show = await stage.live_show()
    lines = [line(1), line(2, "wang"), line(3)]
    for _ in range(2):  # what a hub sends again is kept twice
        await stage.room_store.publish_chat(show_id_of(show), lines, 0)
    moderator = token("mod", "moderator", show_id_of(show))
    answer = await stage.call("POST", f"{show}/delete-line", {"line": "hub-1"}, token=moderator)
    assert answer.status_code == 204
    assert await kept(stage, show) == ["hub-2", "hub-3"] * 2
    assert await told(stage, show, "line_removed", "line") == ["hub-1"]
    act = (await stage.ok("GET", f"{show}/acts"))["acts"][0]
    assert (act["action"], act["actor"], act["detail"]) == ("delete_line", "mod", {"line": "hub-1"})


async def test_line_when_it_is_old_then_every_page_is_still_told(stage: Stage) -> None:
    show = await stage.live_show()
    await stage.call("POST", f"{show}/delete-line", {"line": "hub-9"})
    assert await told(stage, show, "line_removed", "line") == ["hub-9"]


async def test_line_when_deleted_again_and_again_then_the_history_of_events_is_left_alone(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    for _ in range(3):  # known or not
        await stage.call("POST", f"{show}/delete-line", {"line": "hub-9"})
    assert await told(stage, show, "line_removed", "line") == ["hub-9"]


async def test_line_when_it_is_removed_again_then_no_event_and_a_late_copy_goes(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    remove = stage.room_store.remove_line
    first = await remove(show_id_of(show), "hub-1")
    await stage.room_store.publish_chat(show_id_of(show), [line(1)], 0)
    assert await remove(show_id_of(show), "hub-1") == first
    assert await kept(stage, show) == []
    assert await told(stage, show, "line_removed", "line") == ["hub-1"]


async def test_delete_when_redis_is_away_then_unknown_and_asking_again_does_it(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    await stage.room_store.publish_chat(show_id_of(show), [line(1), line(2)], 0)
    body = {"line": "hub-1"}
    for stage.scripts.lost, stage.scripts.cut in (({"remove_line"}, set()), (set(), {"all"})):
        assert await stage.refused("POST", f"{show}/delete-line", body) == "outcome_unknown"
    stage.scripts.cut = set()
    assert (await stage.call("POST", f"{show}/delete-line", body)).status_code == 204
    assert await kept(stage, show) == ["hub-2"]


@pytest.mark.parametrize("line_id", ["", "x" * 65, "a b", "a\tb", None, 7])
async def test_delete_when_the_id_is_none_then_refused(stage: Stage, line_id: object) -> None:
    show = await stage.live_show()
    name = await stage.refused("POST", f"{show}/delete-line", {"line": line_id})
    assert name == "bad_field"


async def test_delete_when_somebody_else_asks_then_forbidden(stage: Stage) -> None:
    show, other = await stage.live_show(), await stage.live_show()
    viewer = token("eve", "viewer", show_id_of(show))
    for who in (viewer, token("mod", "moderator", show_id_of(other))):
        body = {"line": "hub-1"}
        assert await stage.refused("POST", f"{show}/delete-line", body, token=who) == "forbidden"
    assert await told(stage, show, "line_removed", "line") == []


async def test_ban_when_the_process_ends_midway_then_the_sweep_takes_the_lines_back(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    await stage.room_store.publish_chat(show_id_of(show), [line(1), line(2, "troll")], 0)
    stage.scripts.lost = {"write_policy"}  # committed, but Redis hears nothing of it
    await stage.ok("POST", f"{show}/ban", {"user": "troll"})
    assert await kept(stage, show) == ["hub-1", "hub-2"]
    stage.scripts.lost, stage.scripts.cut = set(), {"write_policy"}  # done, but we do not hear
    with pytest.raises(StoreUnavailable):
        await stage.sweep()
    stage.scripts.cut = set()
    await stage.sweep()
    assert await kept(stage, show) == ["hub-1"]
    assert await told(stage, show, "user_removed", "user") == ["troll"]


async def test_ban_when_lines_came_late_then_banning_again_or_unbanning_takes_them_back(
    stage: Stage,
) -> None:
    """A hub that had not heard of the ban yet sent them; they must not come back with the user."""
    show = await stage.live_show()
    for act in ("ban", "ban", "unban"):
        await stage.room_store.publish_chat(show_id_of(show), [line(1), line(2, "troll")], 0)
        await stage.ok("POST", f"{show}/{act}", {"user": "troll"})
        assert {one.split("-")[1] for one in await kept(stage, show)} == {"1"}
    assert await told(stage, show, "user_removed", "user") == ["troll", "troll"]


async def test_bans_when_redis_had_lost_them_then_they_are_restored_without_a_word(
    stage: Stage,
) -> None:
    """A flood of old news would push out the events that open pages need to resume."""
    show = await stage.live_show()
    users = [f"troll{n}" for n in range(3)]
    for user in users:
        await stage.ok("POST", f"{show}/ban", {"user": user})
    await stage.clients.commands.delete(keys.policy(show_id_of(show)))
    await stage.acts.projector.project_show(show_id_of(show), again=True)
    assert (await stage.room_store.read_policy(show_id_of(show))).banned == set(users)
    assert await told(stage, show, "user_removed", "user") == users
    await stage.ok("POST", f"{show}/ban", {"user": "li"})  # that is news
    assert await told(stage, show, "user_removed", "user") == [*users, "li"]


# --- What pages see ---------------------------------------------------------------------------


async def say(client: Client, text: str) -> str:
    """The id of an accepted line."""
    reply = await client.ask(lambda ref: m.Chat(ref=ref, text=text))
    assert isinstance(reply, m.Accepted)
    assert reply.chat is not None
    return reply.chat.id


async def joined(web: WebStage, show: str) -> list[str]:
    """Ids of the lines that somebody gets who joins now."""
    client = await web.viewer(show)
    assert client.welcome is not None
    await client.close()
    return [one.id for one in client.welcome.chat]


def gone(client: Client) -> set[str]:
    """What a page was told to forget: ids of lines and of users."""
    lines = {event.line for event in client.events if isinstance(event, m.LineRemoved)}
    return lines | {event.user for event in client.events if isinstance(event, m.UserRemoved)}


async def test_line_when_deleted_then_pages_of_both_hubs_forget_it_and_joiners_never_see_it(
    hubs: Hubs,
) -> None:
    show = await hubs[0].show()
    clients = [await hubs[0].viewer(show, "li"), await hubs[1].viewer(show, "wang")]
    ids = [await say(clients[n % 2], f"第 {n} 条") for n in range(4)]
    for client in clients:
        await until(lambda c=client: len(c.chat) == 4, "all lines")
    moderator = Host(hubs[1].url, token_of("mo", show, "moderator"))
    await moderator.ask("POST", f"/api/shows/{show}/delete-line", {"line": ids[1]})
    for client in clients:
        await until(lambda c=client: gone(c) == {ids[1]}, "the removal")
    for web in hubs:
        assert sorted(await joined(web, show)) == sorted({*ids} - {ids[1]})
    for client in clients:
        await client.close()


async def test_ban_when_the_user_has_said_something_then_joiners_of_both_hubs_never_see_it(
    hubs: Hubs,
) -> None:
    show = await hubs[0].show()
    troll, other = await hubs[0].viewer(show, "troll"), await hubs[1].viewer(show, "li")
    spam = {await say(troll, f"广告 {n}") for n in range(3)}
    fine = await say(other, "好")
    await until(lambda: {one.id for one in other.chat} == {*spam, fine}, "all lines")
    for _ in range(2):
        await hubs[1].host.ask("POST", f"/api/shows/{show}/ban", {"user": "troll"})
    await until(lambda: gone(other) == {"troll"}, "the removal")
    for web in hubs:
        assert await joined(web, show) == [fine]
    await hubs[1].host.ask("POST", f"/api/shows/{show}/unban", {"user": "troll"})
    for web in hubs:
        assert await joined(web, show) == [fine]
    await other.close()


async def test_ban_when_lines_come_after_it_then_no_hub_shows_them(
    hubs: Hubs, stage: Stage
) -> None:
    """Lines that a hub had sent on before it heard of the ban, or sends because it has not yet."""
    show = await hubs[0].show()
    watching = [await web.viewer(show) for web in hubs]
    await hubs[0].host.ask("POST", f"/api/shows/{show}/ban", {"user": "troll"})
    for client in watching:
        await until(lambda c=client: gone(c) == {"troll"}, "the removal")
    for web in hubs:
        rules = web.process.hub.banned_in
        await until(lambda w=web, r=rules: r(w.process.hub.rooms[show]) == {"troll"}, "the policy")
    await stage.room_store.publish_chat(show, [line(1, "troll"), line(2)], 0)
    for client in watching:
        await until(lambda c=client: bool(c.chat), "the other line")
        assert [one.id for one in client.chat] == ["hub-2"]
        await client.close()
    for web in hubs:
        assert await joined(web, show) == ["hub-2"]


async def test_hub_when_it_opens_the_room_after_a_ban_then_it_shows_no_late_line_either(
    redis_url: str, database_url: str, stage: Stage
) -> None:
    show = await stage.live_show()
    await stage.ok("POST", f"{show}/ban", {"user": "troll"})
    await stage.room_store.publish_chat(show_id_of(show), [line(1, "troll"), line(2)], 0)
    async with web_stage(redis_url, database_url) as web:
        assert await joined(web, show_id_of(show)) == ["hub-2"]


async def test_banned_when_facts_are_heard_then_the_policy_comes_before_the_removal(
    stage: Stage,
) -> None:
    """So that a hub knows by then whose lines it must not take in any more."""
    show = await stage.live_show()
    async with stage.clients.new_pubsub() as channel:
        await channel.ssubscribe(keys.bus_channel(show_id_of(show)))
        await channel.get_message(timeout=1)
        await stage.ok("POST", f"{show}/ban", {"user": "troll"})
        heard = []
        while "EventFact" not in heard:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=2)
            assert message is not None
            heard.append(type(decode_fact(message["data"])).__name__)
    assert heard[-2:] == [PolicyFact.__name__, "EventFact"]


async def test_delete_when_people_join_meanwhile_then_none_of_them_keeps_the_line(
    hubs: Hubs,
) -> None:
    """Whoever joins gets the line never, or with the word that it is gone."""
    show = await hubs[0].show()
    speaker = await hubs[0].viewer(show, "li")
    spam = await say(speaker, "广告")
    await until(lambda: bool(speaker.chat), "the line")
    deleting = asyncio.create_task(
        call("POST", f"{hubs[1].url}/api/shows/{show}/delete-line",
             token_of("ming", "*", "host"), {"line": spam})
    )  # fmt: skip
    joiners = []
    while not deleting.done():
        joiners += [await web.viewer(show) for web in hubs]
    assert (await deleting)[0] == 204
    for client in (*joiners, speaker):
        saw_it = any(one.id == spam for one in client.chat)
        await until(lambda c=client, s=saw_it: not s or gone(c) == {spam}, "the removal")
        await client.close()
