"""Nobody is followed to a host that nobody allowed us to load."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from loadtest.canary import FELT, Canary
from loadtest.scenario import Usage
from loadtest.swarm.personas import Payer
from loadtest.target import clock_of
from tests.loadtest.swarm_kit import new_swarm


class Sender:
    """A server that sends everybody elsewhere; `visited`: who went."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.visited: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            self.visited.append(request.method)
            return web.json_response({"pay_url": "x#token"})
        self.asked.append(request.method)
        raise web.HTTPTemporaryRedirect("/elsewhere")


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    made, app = Sender(), web.Application()
    app.router.add_route("*", "/{any:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


async def test_clock_when_it_is_sent_elsewhere_then_it_does_not_go(sender: Sender) -> None:
    with pytest.raises(Usage, match="it redirects"):
        await clock_of(f"{sender.url}/ws/demo")
    assert (sender.asked, sender.visited) == (["GET"], [])


async def test_canary_when_it_is_sent_elsewhere_then_it_does_not_go(sender: Sender) -> None:
    bird = Canary(f"{sender.url}/ws/demo", lambda: None)
    await bird.run(asyncio.Event())
    assert bird.reason == FELT
    assert (sender.asked, sender.visited) == (["GET"], [])


async def test_payer_when_it_is_sent_elsewhere_then_it_does_not_go(sender: Sender) -> None:
    payer = Payer(new_swarm(), "demo")
    try:
        assert await payer._post(f"{sender.url}/pay", {}, {}) == {}
    finally:
        await payer.aclose()
    assert (sender.asked, sender.visited) == (["POST"], [])


@pytest.mark.parametrize("path", ["/ws/demo", "/elsewhere"])
async def test_clock_when_it_gets_no_answer_then_the_ticket_is_not_told(
    sender: Sender, path: str
) -> None:
    with pytest.raises(Usage) as told:
        await clock_of(f"{sender.url}{path}?rehearsal=TICKET")
    assert f"{sender.url}{path} does not answer" in str(told.value)
    assert "TICKET" not in str(told.value)
