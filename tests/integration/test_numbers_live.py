"""What two hubs' viewers do and two workers book, as the host's numbers tell it."""

import asyncio
from typing import Any

from server import clock
from server.protocol import messages as m
from tests.live import Client, LiveSystem, until_answer
from tests.web_stage import WebStage, sees_sale


async def test_numbers_when_a_herd_has_bought_on_two_hubs_then_they_are_those_of_the_books(
    hubs: tuple[WebStage, WebStage], system: LiveSystem
) -> None:
    host = hubs[0].host
    show = await hubs[0].show()
    sale = await hubs[0].sale(show, units=7, pay_within_s=600)
    herd = [await hubs[n % 2].viewer(show, f"u{n}") for n in range(12)]
    for client in herd:
        await sees_sale(client, sale["sale"])
        await client.ask(lambda ref: m.Chat(ref=ref, text="来了"))
        await client.ask(lambda ref: m.Like(ref=ref, taps=3))
    await asyncio.gather(*(claim_twice(client, sale) for client in herd))
    for _ in range(2):
        system.start_worker()

    async def sampled() -> bool:
        samples = (await host.ask("GET", f"/api/shows/{show}/series"))["samples"]
        return bool(samples) and samples[-1]["orders"] == 7 and samples[-1]["claims"] == 12

    await until_answer(sampled, "a sample of everything")
    samples = (await host.ask("GET", f"/api/shows/{show}/series"))["samples"]
    assert len({sample["at"] for sample in samples}) == len(samples)
    last, pulse = samples[-1], await host.ask("GET", f"/api/shows/{show}/pulse")
    for numbers in (last, pulse):
        seen = [numbers[name] for name in ("online", "likes", "lines", "claims")]
        assert seen == [12, 36, 12, 12]
    assert (pulse["backlog"], pulse["oldest_ms"], pulse["gate"]) == (0, 0, "open")
    assert (last["left"], last["held"], last["sold"]) == (0, 7, 0)
    summary = await host.ask("GET", f"/api/shows/{show}/summary")
    (stats,) = (await host.ask("GET", f"/api/shows/{show}/stats"))["sales"]
    assert last["amounts"] == summary["amounts"] == {"CNY": stats["amount"]}
    assert summary["peak_online"] == 12
    assert summary["sales"][0]["sold_out_after_ms"] >= 0
    for client in herd:
        await client.close()


async def claim_twice(client: Client, sale: dict[str, Any]) -> None:
    """Ask, and ask again under the same id as after a lost reply: that is one claim."""
    claim_id = str(clock.new_uuid7())
    for attempt in range(2):
        await client.ask(
            lambda ref, attempt=attempt: m.Claim(
                ref=ref,
                sale=sale["sale"],
                claim_id=claim_id,
                quantity=1,
                price_version=sale["price_version"],
                attempt=attempt,
            )
        )
