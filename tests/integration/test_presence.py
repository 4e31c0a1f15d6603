"""How many people watch, over all hubs: people and not sockets, and no ghosts of dead hubs."""

import os
import signal

from server import clock
from server.hub.feed import BEAT_SECONDS, PRESENCE_SECONDS
from server.hub.presence import TTL_MS
from tests.live import Client, LiveSystem, until
from tests.web_stage import WebStage

TOLD_SECONDS = 2 * PRESENCE_SECONDS * BEAT_SECONDS + 1  # a report of each hub, and a tick


def people_at(client: Client) -> int:
    people: int = client.state["online"]["people"]
    return people


async def everybody_sees(clients: list[Client], people: int, within_s: float) -> None:
    await until(
        lambda: [people_at(client) for client in clients] == [people] * len(clients),
        f"{people} people", within_s,
    )  # fmt: skip


async def test_presence_when_people_have_several_tabs_then_all_hubs_count_them_once(
    hubs: tuple[WebStage, WebStage],
) -> None:
    show = await hubs[0].show()
    tabs = [await hubs[0].viewer(show, user) for user in ("cid", "ann", "ann", "bob")]
    others = [await hubs[1].viewer(show, user) for user in ("cid", "ann", "ann", "")]
    await everybody_sees([*tabs, *others], 4, TOLD_SECONDS)  # ann, bob, cid and a stranger
    await tabs.pop().close()
    await tabs.pop().close()
    await tabs.pop().close()  # both of ann's here: she is still on the other hub
    await others.pop(0).close()  # cid is still on the first one
    await others.pop().close()
    await everybody_sees([*tabs, *others], 2, TOLD_SECONDS)
    for client in others:
        await client.close()
    await everybody_sees(tabs, 1, TOLD_SECONDS)
    await tabs.pop().close()


async def test_presence_when_a_hub_is_killed_then_its_people_are_gone_within_a_lifetime(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    show = await hubs[0].show()
    staying = await hubs[0].viewer(show, "ann")
    url = await system.start_web()
    doomed = [await Client.open(url, show) for _ in range(3)]
    await doomed[0].sign_in("bob", show)
    await everybody_sees([staying], 4, TOLD_SECONDS)
    killed_at = clock.monotonic_ms()
    os.kill(system.processes[-1].pid, signal.SIGKILL)
    for client in doomed:
        await until(lambda c=client: c.closed is not None, "cut off")  # type: ignore[misc]
    back = await hubs[0].viewer(show, "bob")  # comes back elsewhere, as the page does
    left_s = (killed_at + TTL_MS - clock.monotonic_ms()) / 1_000
    await everybody_sees([staying, back], 2, left_s)
    for client in (staying, back):
        await client.close()
