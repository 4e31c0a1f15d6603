"""The host API: mutes, bans, kicks, slow mode, refused words."""

from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import pytest

from server.protocol.facts import Fact, KickFact, PolicyFact, decode_fact
from server.store import keys
from tests.host_stage import Stage, open_stage, show_id_of, token

Answer = TypeVar("Answer")


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def heard(
    stage: Stage, show_id: str, act: Coroutine[Any, Any, Answer]
) -> tuple[Answer, list[Fact]]:
    """The answer to `act`, and what hubs hear on the show's channel meanwhile."""
    async with stage.clients.new_pubsub() as channel:
        await channel.ssubscribe(keys.bus_channel(show_id))
        await channel.get_message(timeout=1)
        answer = await act
        await stage.room_store.heartbeat(show_id, "hub", 1)
        facts: list[Fact] = []
        while True:
            message = await channel.get_message(ignore_subscribe_messages=True, timeout=2)
            assert message is not None
            fact = decode_fact(message["data"])
            if type(fact).__name__ == "HeartbeatFact":
                return answer, facts
            facts.append(fact)


async def test_mute_when_set_then_it_ends_by_itself(stage: Stage) -> None:
    show = await stage.live_show()
    until = stage.clock.now_ms() + 60_000
    policy = await stage.ok("POST", f"{show}/mute", {"user": "li", "seconds": 60})
    assert policy["muted"] == {"li": until}
    seen = await stage.room_store.read_policy(show_id_of(show))
    assert seen.muted == {"li": until}
    stage.clock.now = until
    assert (await stage.ok("GET", f"{show}/chat-policy"))["muted"] == {}


async def test_mute_when_set_again_then_the_newest_end_counts(stage: Stage) -> None:
    show = await stage.live_show()
    await stage.ok("POST", f"{show}/mute", {"user": "li", "seconds": 600})
    policy = await stage.ok("POST", f"{show}/mute", {"user": "li", "seconds": 5})
    assert policy["muted"] == {"li": stage.clock.now_ms() + 5_000}
    policy = await stage.ok("POST", f"{show}/unmute", {"user": "li"})
    assert policy["muted"] == {}
    assert (await stage.room_store.read_policy(show_id_of(show))).muted == {}


async def test_ban_when_set_then_hubs_hear_policy_kick_and_removal(stage: Stage) -> None:
    show = await stage.live_show()
    show_id = show_id_of(show)
    _, facts = await heard(stage, show_id, stage.ok("POST", f"{show}/ban", {"user": "troll"}))
    assert any(isinstance(fact, PolicyFact) for fact in facts)
    assert KickFact("troll", 4403) in facts
    removed = [e["user"] for e in await stage.events(show) if e["k"] == "user_removed"]
    assert removed == ["troll"]
    assert (await stage.room_store.read_policy(show_id)).banned == {"troll"}
    await stage.ok("POST", f"{show}/unban", {"user": "troll"})
    assert (await stage.room_store.read_policy(show_id)).banned == set()


async def test_kick_when_asked_then_hubs_hear_only_that(stage: Stage) -> None:
    show = await stage.live_show()
    act = stage.call("POST", f"{show}/kick", {"user": "li"})
    answer, facts = await heard(stage, show_id_of(show), act)
    assert answer.status_code == 204
    assert facts == [KickFact("li", 4403)]


async def test_policy_when_set_then_viewers_see_slow_mode_and_hubs_the_words(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    body = {"slow_mode_s": 5, "words": ["加微信", "假货", "加微信"]}
    policy = await stage.ok("PUT", f"{show}/chat-policy", body)
    assert (policy["slow_mode_s"], policy["words"]) == (5, ["加微信", "假货"])
    seen = await stage.room_store.read_policy(show_id_of(show))
    assert (seen.slow_mode_s, seen.words) == (5, ("加微信", "假货"))
    assert (await stage.state(show))["room"]["slow_mode_s"] == 5
    cleared = await stage.ok("PUT", f"{show}/chat-policy", {"slow_mode_s": 0, "words": []})
    assert cleared["words"] == []
    assert (await stage.room_store.read_policy(show_id_of(show))).words == ()


async def test_policy_when_the_word_list_is_as_long_as_allowed_then_it_fits(stage: Stage) -> None:
    show = await stage.live_show()
    words = [f"{n:04}" + "词" * 36 for n in range(2000)]
    body = {"slow_mode_s": 0, "words": words}
    assert len((await stage.ok("PUT", f"{show}/chat-policy", body))["words"]) == 2000
    body = {"slow_mode_s": 0, "words": [*words, "more"]}
    assert await stage.refused("PUT", f"{show}/chat-policy", body) == "bad_field"


async def test_moderator_when_acting_then_room_yes_and_shop_no(stage: Stage) -> None:
    show, other = await stage.live_show(), await stage.live_show()
    moderator = token("mod", "moderator", show_id_of(show))
    await stage.ok("POST", f"{show}/mute", {"user": "li", "seconds": 5}, token=moderator)
    await stage.ok("GET", f"{show}/chat-policy", token=moderator)
    acts = (await stage.ok("GET", f"{show}/acts"))["acts"]
    assert (acts[0]["actor"], acts[0]["role"], acts[0]["action"]) == ("mod", "moderator", "mute")
    for method, path, body in (
        ("POST", f"{other}/mute", {"user": "li", "seconds": 5}),
        ("POST", f"{show}/end", None),
        ("POST", f"{show}/commentary", {"text": "x"}),
        ("GET", f"{show}/orders", None),
        ("GET", f"{show}/acts", None),
    ):
        assert await stage.refused(method, path, body, token=moderator) == "forbidden"


@pytest.mark.parametrize("verb", ["mute", "ban", "kick"])
async def test_host_when_a_moderator_acts_against_them_then_refused(
    stage: Stage, verb: str
) -> None:
    show = await stage.live_show()
    moderator = token("mod", "moderator", show_id_of(show))
    for user in ("ming", "mod"):
        body = {"user": user, "seconds": 5} if verb == "mute" else {"user": user}
        name = await stage.refused("POST", f"{show}/{verb}", body, token=moderator)
        assert name == "forbidden"
