"""The audit over HTTP: for the show's host, made by another process."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server import clock
from server.protocol import messages as m
from server.store import keys
from server.store.client import RedisClients
from tests.live import call, token_of
from tests.web_stage import WebStage, web_stage


@pytest.fixture
async def web(redis_url: str, database_url: str) -> AsyncIterator[WebStage]:
    async with web_stage(redis_url, database_url) as stage:
        yield stage


async def audit(web: WebStage, show: str, form: str, token: str | None = None) -> tuple[int, Any]:
    url = f"{web.url}/api/shows/{show}/audit?form={form}"
    return await call("GET", url, web.host.token if token is None else token)


async def test_audit_when_all_is_well_then_the_host_sees_each_pool(web: WebStage) -> None:
    show = await web.show()
    sale = (await web.sale(show))["sale"]
    client = await web.viewer(show, "u1")
    claim = {"claim_id": str(clock.new_uuid7()), "sale": sale, "quantity": 1, "price_version": 1}
    reply = await client.ask(lambda ref: m.Claim(ref=ref, **claim))
    await client.close()
    assert isinstance(reply, m.Accepted)
    status, short = await audit(web, show, "short")
    assert (status, short["ok"], short["found"]) == (200, True, 0)
    assert set(short) == {"show", "at", "ok", "found", "pools"}
    (pool,) = short["pools"]
    assert (pool["available"], pool["backlog"], pool["initial"]) == (9, 1, 10)
    _, full = await audit(web, show, "full")
    assert (full["at"], full["problems"], full["claims"]) == (short["at"], [], 1)


async def test_audit_when_units_are_missing_then_the_problem_is_told(
    web: WebStage, redis_url: str
) -> None:
    show = await web.show()
    sale = (await web.sale(show))["sale"]
    clients = await RedisClients.open(redis_url)
    await clients.commands.hincrby(keys.pool(show, sale), "a", -3)
    await clients.aclose()
    status, full = await audit(web, show, "full")
    assert (status, full["ok"]) == (200, False)
    assert "units" in {problem["kind"] for problem in full["problems"]}
    assert full["pools"][0]["difference"] == -3


async def test_audit_when_asked_by_others_then_refused(web: WebStage) -> None:
    show = await web.show()
    for token, status in (
        ("", 401),
        (token_of("v1", show), 403),
        (token_of("someone-else", "*", "host"), 403),
    ):
        assert (await audit(web, show, "short", token))[0] == status
    assert (await audit(web, "nosuchshow", "short"))[0] == 404
    assert (await audit(web, show, "long"))[0] == 422
