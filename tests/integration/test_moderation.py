"""Order in the room: what hosts and moderators decide holds on every hub within 2 s."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from server import clock
from server.protocol import messages as m
from tests.live import Client, Host, token_of, until
from tests.web_stage import WebStage, web_stage

EFFECT_S = 2.0


@pytest.fixture
async def hubs(redis_url: str, database_url: str) -> AsyncIterator[list[WebStage]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(web_stage(redis_url, database_url, chat_per_10s=1_000))
            for _ in range(2)
        ]


async def say(client: Client, text: str = "你好") -> str:
    """'' when the line was accepted, else the refusal's name."""
    reply = await client.ask(lambda ref: m.Chat(ref=ref, text=text))
    return reply.name if isinstance(reply, m.RefusedReply) else ""


async def within_effect_time(works: Callable[[], Awaitable[bool]]) -> None:
    end = clock.monotonic_ms() + EFFECT_S * 1_000
    while not await works():
        assert clock.monotonic_ms() < end, f"not within {EFFECT_S} s"
        await asyncio.sleep(0.02)


async def crowd(hubs: list[WebStage], show: str, user: str) -> list[Client]:
    """The same user on every hub."""
    return [await web.viewer(show, user) for web in hubs]


async def close_all(*clients: Client) -> None:
    for client in clients:
        await client.close()


async def test_mute_when_it_is_set_and_lifted_then_every_hub_obeys(hubs: list[WebStage]) -> None:
    show = await hubs[0].show()
    clients = await crowd(hubs, show, "u1")
    others = await crowd(hubs, show, "u2")
    for client in clients:
        assert await say(client) == ""
    await hubs[0].host.ask("POST", f"/api/shows/{show}/mute", {"user": "u1", "seconds": 600})
    for client in clients:
        await within_effect_time(lambda c=client: says(c, "muted"))
    for client in others:
        assert await say(client) == ""
    await hubs[0].host.ask("POST", f"/api/shows/{show}/unmute", {"user": "u1"})
    for client in clients:
        await within_effect_time(lambda c=client: says(c, ""))
    await close_all(*clients, *others)


async def says(client: Client, name: str) -> bool:
    return await say(client) == name


async def test_ban_when_it_is_set_then_all_connections_end_and_no_new_one_signs_in(
    hubs: list[WebStage],
) -> None:
    show = await hubs[0].show()
    clients = await crowd(hubs, show, "u1")
    await hubs[1].host.ask("POST", f"/api/shows/{show}/ban", {"user": "u1"})
    for client in clients:
        await until(lambda c=client: c.closed is not None, "closed", EFFECT_S)
        assert client.closed
        assert client.closed[0] == 4403
    for web in hubs:
        again = await web.viewer(show)
        reply = await again.ask(lambda ref: m.Hello(ref=ref, token=token_of("u1", show)))
        assert isinstance(reply, m.RefusedReply)
        assert reply.name == "banned"
        await until(lambda c=again: c.closed is not None, "closed again")
    await hubs[0].host.ask("POST", f"/api/shows/{show}/unban", {"user": "u1"})

    async def enters() -> bool:
        client = await hubs[1].viewer(show)
        reply = await client.ask(lambda ref: m.Hello(ref=ref, token=token_of("u1", show)))
        await client.close()
        return isinstance(reply, m.Accepted)

    await within_effect_time(enters)


async def test_kick_when_a_moderator_does_it_then_the_user_is_out_but_may_return(
    hubs: list[WebStage],
) -> None:
    show = await hubs[0].show()
    clients = await crowd(hubs, show, "u1")
    bystander = await hubs[1].viewer(show, "u2")
    moderator = Host(hubs[0].url, token_of("mo", show, "moderator"))
    await moderator.ask("POST", f"/api/shows/{show}/kick", {"user": "u1"})
    for client in clients:
        await until(lambda c=client: c.closed is not None, "closed", EFFECT_S)
        assert client.closed
        assert client.closed[0] == 4403
    assert await say(bystander) == ""
    again = await hubs[0].viewer(show, "u1")
    assert await say(again) == ""
    await close_all(bystander, again)


async def test_policy_when_slow_mode_and_words_are_set_then_every_hub_obeys(
    hubs: list[WebStage],
) -> None:
    show = await hubs[0].show()
    clients = [await hubs[0].viewer(show, "u1"), await hubs[1].viewer(show, "u2")]
    policy = f"/api/shows/{show}/chat-policy"
    await hubs[0].host.ask("PUT", policy, {"slow_mode_s": 0, "words": ["加微信"]})
    for client in clients:
        await within_effect_time(lambda c=client: _refuses_word(c))
    await hubs[0].host.ask("PUT", policy, {"slow_mode_s": 60, "words": []})
    for client in clients:
        await within_effect_time(lambda c=client: says(c, "slow_mode"))
        await until(lambda c=client: c.state["room"]["slow_mode_s"] == 60, "shown")
    moderator = await hubs[0].viewer(show)
    token = token_of("mo", show, "moderator")
    assert isinstance(await moderator.ask(lambda ref: m.Hello(ref=ref, token=token)), m.Accepted)
    assert [await say(moderator), await say(moderator)] == ["", ""]
    await close_all(*clients, moderator)


async def _refuses_word(client: Client) -> bool:
    return await say(client, "快加\u200b微 信") == "word_refused"


async def test_rules_when_the_first_viewer_enters_a_hub_then_they_hold_at_once(
    hubs: list[WebStage],
) -> None:
    show = await hubs[0].show()
    await hubs[0].host.ask("POST", f"/api/shows/{show}/mute", {"user": "u1", "seconds": 600})
    client = await hubs[1].viewer(show, "u1")
    assert await say(client) == "muted"
    await client.close()
