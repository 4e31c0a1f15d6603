"""The host API of webhooks: registering, the log, sending again, and what is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from server import limits
from server.acts.host_acts import HostActs
from server.acts.webhooks import WebhookActs
from server.orders.sender import open_sender
from server.webhooks.topics import TOPICS
from tests.host_stage import Stage, open_stage, show_id_of, until
from tests.receiver import Receiver, receiving


class Names:
    """A name server of the test's own: `inside.example` is not public."""

    async def addresses(self, host: str, port: int) -> list[str]:
        if host == "unknown.example":
            raise OSError("no such name")
        return ["10.1.2.3"] if host == "inside.example" else ["93.184.216.34"]


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        resolving(made.acts, allow_private=False)
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


def resolving(acts: HostActs, *, allow_private: bool) -> None:
    acts.webhooks = WebhookActs(acts.desk, Names(), allow_private=allow_private)


@asynccontextmanager
async def sending(stage: Stage) -> AsyncIterator[None]:
    """An order worker's sender works during the block."""
    stopping = asyncio.Event()
    async with open_sender(stage.pool, allow_private=True) as sender:
        task = asyncio.create_task(sender.run(stopping))
        try:
            yield
        finally:
            stopping.set()
            await asyncio.wait_for(task, 10)


async def sell(stage: Stage, show: str, buyer: str) -> None:
    """One confirmed order."""
    sale = (await stage.sale(show, await stage.sku(show)))["sale"]
    await stage.claim(show, sale, buyer)

    async def confirmed() -> bool:
        return bool((await stage.ok("GET", f"{show}/orders?buyer={buyer}"))["orders"])

    async with stage.worker(show):
        await until(confirmed)


async def test_webhook_when_created_then_its_secret_is_shown_once_and_the_act_is_on_record(
    stage: Stage,
) -> None:
    show = await stage.live_show()
    body = {"url": "https://shop.example/hook?key=1", "topics": ["order.paid"]}
    response = await stage.call("POST", f"{show}/webhooks", body)
    assert response.status_code == 201
    made = response.json()
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert (made["url"], made["topics"], made["removed_at"]) == (body["url"], body["topics"], 0)
    assert (await stage.ok("GET", f"{show}/webhooks")) == {"webhooks": [made]}
    acts = (await stage.ok("GET", f"{show}/acts"))["acts"]
    assert acts[0]["action"] == "create_webhook"
    assert secret not in str(acts)
    assert "key=1" not in str(acts)


async def test_webhook_when_created_without_topics_then_it_gets_all(stage: Stage) -> None:
    show = await stage.live_show()
    made = await stage.ok("POST", f"{show}/webhooks", {"url": "https://shop.example/"})
    assert set(made["topics"]) == set(TOPICS)


@pytest.mark.parametrize(
    "url",
    ["https://inside.example/", "http://127.0.0.1:9/", "http://[::1]/", "http://2130706433/",
     "https://unknown.example/", "ftp://shop.example/", "https://u:p@shop.example/", "x",
     "https://shop.example:22/"],
)  # fmt: skip
async def test_webhook_when_its_target_is_not_public_then_refused(stage: Stage, url: str) -> None:
    show = await stage.live_show()
    response = await stage.call("POST", f"{show}/webhooks", {"url": url})
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["name"], error["field"]) == ("bad_field", "url")
    assert "10.1.2.3" not in response.text
    assert await stage.pool.fetchval("SELECT count(*) FROM webhook_endpoints") == 0


@pytest.mark.parametrize("body", [{}, {"url": ""}, {"url": "https://a.example/", "topics": ["x"]}])
async def test_webhook_when_the_body_is_wrong_then_refused(
    stage: Stage, body: dict[str, Any]
) -> None:
    show = await stage.live_show()
    assert await stage.refused("POST", f"{show}/webhooks", body) == "bad_field"


async def test_webhook_when_there_is_one_already_or_too_many_then_refused(stage: Stage) -> None:
    show = await stage.live_show()
    for number in range(limits.WEBHOOKS_PER_SHOW_MAX):
        made = await stage.ok("POST", f"{show}/webhooks", {"url": f"https://a.example/{number}"})
    body = {"url": "https://a.example/0"}
    assert await stage.refused("POST", f"{show}/webhooks", body) == "conflict"
    body = {"url": "https://a.example/new"}
    assert await stage.refused("POST", f"{show}/webhooks", body) == "conflict"
    await stage.ok("DELETE", f"{show}/webhooks/{made['webhook']}")
    await stage.ok("POST", f"{show}/webhooks", body)


async def test_webhook_when_removed_then_listed_so_and_told_nothing_more(
    stage: Stage, receiver: Receiver
) -> None:
    resolving(stage.acts, allow_private=True)
    show = await stage.live_show()
    made = await stage.ok("POST", f"{show}/webhooks", {"url": receiver.url})
    path = f"{show}/webhooks/{made['webhook']}"
    await sell(stage, show, "ann")
    response = await stage.call("DELETE", path)
    assert response.status_code == 204
    assert (await stage.call("DELETE", path)).status_code == 204
    async with sending(stage):
        await until(lambda: outbox_is_empty(stage))
    assert receiver.requests == []
    (view,) = (await stage.ok("GET", f"{show}/webhooks"))["webhooks"]
    assert view["removed_by"] == "ming"
    acts = (await stage.ok("GET", f"{show}/acts"))["acts"]
    assert [act["action"] for act in acts].count("remove_webhook") == 1


async def outbox_is_empty(stage: Stage) -> bool:
    return bool(await stage.pool.fetchval("SELECT count(*) FROM outbox") == 0)


async def test_delivery_when_it_failed_then_the_log_says_so_and_it_can_be_sent_again(
    stage: Stage, receiver: Receiver
) -> None:
    resolving(stage.acts, allow_private=True)
    show = await stage.live_show()
    body = {"url": receiver.url, "topics": ["order.confirmed"]}
    made = await stage.ok("POST", f"{show}/webhooks", body)
    receiver.secret = made["secret"]
    path = f"{show}/webhooks/{made['webhook']}"
    receiver.answer(500)
    await sell(stage, show, "ann")
    async with sending(stage):
        await receiver.until(1)
        await until(lambda: logged(stage, path, "pending", 500))
        (entry,) = (await stage.ok("GET", f"{path}/deliveries"))["deliveries"]
        assert entry["next_at"] > entry["updated_at"]
        assert (entry["topic"], entry["last_error"]) == ("order.confirmed", "HTTP 500")
        await stage.pool.execute("UPDATE webhook_deliveries SET status = 'failed'")
        found = await stage.ok("GET", f"{path}/deliveries?status=failed")
        assert [each["delivery"] for each in found["deliveries"]] == [entry["delivery"]]
        receiver.answer(200)
        one = f"{path}/deliveries/{entry['delivery']}/resend"
        assert await stage.ok("POST", one) == {"deliveries": 1}
        await until(lambda: logged(stage, path, "delivered", 200))
        assert await stage.ok("POST", f"{path}/resend") == {"deliveries": 0}
        assert await stage.ok("POST", one) == {"deliveries": 1}  # also what arrived already
        await receiver.until(3)
    assert {message["id"] for message in receiver.messages()} == {entry["webhook_id"]}


async def logged(stage: Stage, path: str, status: str, http_status: int) -> bool:
    log = (await stage.ok("GET", f"{path}/deliveries"))["deliveries"]
    return [(each["status"], each["http_status"]) for each in log] == [(status, http_status)]


async def test_delivery_when_unknown_or_of_a_removed_webhook_then_refused(stage: Stage) -> None:
    show = await stage.live_show()
    other = await stage.live_show()
    made = await stage.ok("POST", f"{show}/webhooks", {"url": "https://a.example/"})
    number = made["webhook"]
    for path in (f"{show}/webhooks/{number}/deliveries/99/resend",
                 f"{other}/webhooks/{number}/resend", f"{show}/webhooks/99/resend"):  # fmt: skip
        assert await stage.refused("POST", path) == "not_found"
    assert await stage.refused("GET", f"{other}/webhooks/{number}/deliveries") == "not_found"
    assert await stage.refused("DELETE", f"{other}/webhooks/{number}") == "not_found"
    delivery = await stage.pool.fetchval(
        "WITH m AS (INSERT INTO webhook_messages (show_id, topic, data, at)"
        " VALUES ($1, 'order.paid', '{}', now()) RETURNING message_id)"
        " INSERT INTO webhook_deliveries (message_id, endpoint_id) SELECT message_id, $2 FROM m"
        " RETURNING delivery_id",
        *(show_id_of(show), number),
    )
    await stage.ok("DELETE", f"{show}/webhooks/{number}")
    path = f"{show}/webhooks/{number}/deliveries/{delivery}/resend"
    assert await stage.refused("POST", path) == "conflict"
    log = (await stage.ok("GET", f"{show}/webhooks/{number}/deliveries"))["deliveries"]
    assert (log[0]["status"], log[0]["next_at"]) == ("failed", 0)
