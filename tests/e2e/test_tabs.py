"""Two tabs of one buyer in a real browser: one sends the claim, both show how it stands."""

from typing import Any

import msgspec
import pytest
from playwright.async_api import WebSocketRoute, expect

from tests.live import token_of
from tests.pages import PHONE, Stage, buy_button, expect_buy, open_sale

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
]


# The second and the third tab stand in line behind the first.
WAITS = "async () => (await navigator.locks.query()).pending.length === 2"


class Wire:
    """A tab's connection; with `loses` its claims never reach the server."""

    def __init__(self, *, loses: bool = False) -> None:
        self.loses = loses
        self.claims: list[dict[str, Any]] = []

    def take(self, route: WebSocketRoute) -> None:
        server = route.connect_to_server()

        def to_server(data: str | bytes) -> None:
            assert isinstance(data, bytes)
            command = msgspec.msgpack.decode(data)
            if command["t"] == "claim":
                self.claims.append(command)
                if self.loses:
                    return
            server.send(data)

        route.on_message(to_server)


async def test_claim_when_the_tab_that_sends_it_goes_then_the_other_sends_it_once_more(
    stage: Stage,
) -> None:
    show = await open_sale(stage, units=5, limit_per_buyer=2)
    wires = [Wire(loses=True), Wire(), Wire()]
    first = await stage.open(f"/watch/{show}", PHONE, socket=wires[0].take)
    link = f"{stage.url}/watch/{show}#token={token_of('小林', show)}"
    await first.goto("about:blank")
    await first.goto(link)
    others = []
    for wire in wires[1:]:
        other = await first.context.new_page()
        await other.route_web_socket("**/ws/**", wire.take)
        await other.goto(link)
        others.append(other)
    second, third = others
    for page in (first, second, third):
        await expect_buy(page, "open")

    await first.bring_to_front()
    await buy_button(first).click()
    await second.bring_to_front()
    await expect_buy(second, "checking")
    await second.wait_for_function(WAITS)
    assert [len(wire.claims) for wire in wires] == [1, 0, 0]
    await first.close()
    await expect(second.locator(".outcome")).to_contain_text("已抢到 1 件")
    await third.bring_to_front()
    await expect(third.locator(".outcome")).to_contain_text("已抢到 1 件")
    again = [claim for wire in wires[1:] for claim in wire.claims]
    (lost,) = wires[0].claims
    assert {claim["claim_id"] for claim in again} == {lost["claim_id"]}
    # One, where the answer is not so slow that it is asked for again; never two of one number.
    attempts = [lost["attempt"], *(claim["attempt"] for claim in again)]
    assert len(set(attempts)) == len(attempts), attempts
    assert stage.faults == []
