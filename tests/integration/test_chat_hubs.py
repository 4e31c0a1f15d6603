"""Danmaku and likes across two hubs."""

from server.protocol import messages as m
from tests.live import until
from tests.web_stage import WebStage


async def test_chat_when_it_is_said_on_one_hub_then_it_is_seen_on_both_once_and_cleaned(
    hubs: tuple[WebStage, WebStage],
) -> None:
    show = await hubs[0].show()
    speaker, listener = await hubs[0].viewer(show, "u1"), await hubs[1].viewer(show)
    reply = await speaker.ask(lambda ref: m.Chat(ref=ref, text=" 想\u200b要 <b>！"))
    assert isinstance(reply, m.Accepted)
    assert reply.chat
    assert reply.chat.text == "想要 <b>！"
    for client in (speaker, listener):
        await until(lambda c=client: bool(c.chat), "line")
        line = client.chat[0]
        assert (line.id, line.user, line.role) == (reply.chat.id, "u1", "viewer")
        assert line.text == reply.chat.text
    late = await hubs[1].viewer(show)
    assert late.welcome
    assert [line.id for line in late.welcome.chat] == [reply.chat.id]
    for client in (speaker, listener, late):
        await client.close()


async def test_likes_when_they_are_tapped_on_both_hubs_then_the_total_is_exact_everywhere(
    hubs: tuple[WebStage, WebStage],
) -> None:
    show = await hubs[0].show()
    clients = [await hubs[n % 2].viewer(show, f"u{n}") for n in range(6)]
    for client in clients:
        assert isinstance(await client.ask(lambda ref: m.Like(ref=ref, taps=7)), m.Accepted)
    for client in clients:
        await until(lambda c=client: c.state["likes"]["total"] == 42, "42 likes")
    for client in clients:
        await client.close()


async def test_commentary_when_the_host_writes_then_all_hubs_have_it_in_order(
    hubs: tuple[WebStage, WebStage],
) -> None:
    show = await hubs[0].show()
    clients = [await hub.viewer(show) for hub in hubs]
    for text in ("一", "二", "三"):
        await hubs[1].host.ask("POST", f"/api/shows/{show}/commentary", {"text": text})
    for client in clients:
        await until(lambda c=client: len(client_texts(c)) == 3, "all commentary")
        assert client_texts(client) == ["一", "二", "三"]
        seqs = [event.seq for event in client.events]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        await client.close()


def client_texts(client: object) -> list[str]:
    events = getattr(client, "events", [])
    return [event.text for event in events if isinstance(event, m.Commentary)]
