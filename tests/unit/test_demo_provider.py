"""The demo provider: its links and its signatures, and how it misbehaves when told to."""

import asyncio
import base64
import uuid
from typing import Any

import jwt
import msgspec
import pytest
from aiohttp import web
from standardwebhooks import Webhook

from server import clock, limits
from server.errors import Refused
from server.payments import demo_webhooks
from server.payments.demo import DESCRIPTION_CHARS_MAX, LINK_S, DemoProvider
from server.payments.demo_webhooks import Behaviour, DemoWebhooks, Outcome
from server.payments.provider import TOLERANCE_S, BadSignature, Intent

SECRET = b"a secret of the tests, long enough for HS256"
PROVIDER = DemoProvider(SECRET)
INTENT = Intent(uuid.uuid4(), "show1", 7, 1_990, "CNY", "杯 红 x 1")


def signed(body: Any, now_ms: int | None = None) -> tuple[bytes, dict[str, str]]:
    webhook = PROVIDER.sign("evt_1", now_ms or clock.now_ms(), msgspec.json.encode(body))
    return webhook.body, webhook.headers


def event(**changes: Any) -> dict[str, Any]:
    data = {"payment": INTENT.payment_id, "amount": 1_990, "currency": "CNY"}
    return {
        "type": "payment.captured",
        "timestamp": "2026-01-01T00:00:00Z",
        "data": data,
        **changes,
    }


# --- links ------------------------------------------------------------------------------------


async def test_link_when_followed_then_it_says_what_is_paid() -> None:
    created = await PROVIDER.create_intent(INTENT)
    page, _, token = created.pay_url.partition("#")
    assert (page, PROVIDER.intent_of(token)) == ("/pay.html", INTENT)


async def test_link_when_the_description_is_long_then_its_token_is_short_enough() -> None:
    long = Intent(uuid.uuid4(), "s" * 32, 2**53, 10**15, "CNY", "🛒" * 200)
    token = (await PROVIDER.create_intent(long)).pay_url.split("#")[1]
    assert len(token) <= limits.TOKEN_CHARS_MAX
    assert PROVIDER.intent_of(token).description == "🛒" * DESCRIPTION_CHARS_MAX


async def test_link_when_made_for_the_same_payment_then_the_same_external_id() -> None:
    first, second = [await PROVIDER.create_intent(INTENT) for _ in range(2)]
    assert first.external_id == second.external_id


async def test_link_when_there_is_a_public_url_then_it_begins_with_it() -> None:
    provider = DemoProvider(SECRET, "https://shop.example/live/")
    created = await provider.create_intent(INTENT)
    assert created.pay_url.startswith("https://shop.example/live/pay.html#")


async def test_token_when_old_or_of_another_secret_then_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await DemoProvider(b"another secret of at least 32 bytes...").create_intent(INTENT)
    with pytest.raises(Refused, match="token_invalid"):
        PROVIDER.intent_of(made.pay_url.split("#")[1])
    past = clock.now_ms() - (LINK_S + 1) * 1000
    with monkeypatch.context() as patched:
        patched.setattr(clock, "now_ms", lambda: past)
        old = (await PROVIDER.create_intent(INTENT)).pay_url.split("#")[1]
    with pytest.raises(Refused, match="token_expired"):
        PROVIDER.intent_of(old)


@pytest.mark.parametrize("token", ["", "x", "a.b.c", jwt.encode({"aud": "x"}, "k" * 32)])
def test_token_when_it_is_none_then_refused(token: str) -> None:
    with pytest.raises(Refused, match="token_invalid"):
        PROVIDER.intent_of(token)


# --- signatures -------------------------------------------------------------------------------


def test_webhook_when_signed_then_believed_and_understood() -> None:
    found = PROVIDER.verify(*signed(event()))
    assert (found.event_id, found.kind, found.payment_id) == (
        "evt_1",
        "captured",
        INTENT.payment_id,
    )
    assert (found.amount, found.currency, found.occurred_at) == (1_990, "CNY", 1_767_225_600_000)


def test_webhook_when_made_for_an_intent_then_each_is_an_event_of_its_own() -> None:
    made = [PROVIDER.webhook("payment.failed", INTENT) for _ in range(2)]
    found = [PROVIDER.verify(one.body, one.headers) for one in made]
    assert {one.kind for one in found} == {"failed"}
    assert found[0].event_id != found[1].event_id


def test_webhook_when_checked_by_the_scheme_itself_then_valid() -> None:
    key = base64.b64encode(PROVIDER._webhook._whsecret).decode()
    raw, headers = signed(event())
    assert Webhook(f"whsec_{key}").verify(raw, headers)["type"] == "payment.captured"


@pytest.mark.parametrize("off_s", [-TOLERANCE_S - 2, TOLERANCE_S + 2])
def test_webhook_when_its_time_is_too_far_away_then_not_believed(off_s: int) -> None:
    with pytest.raises(BadSignature):
        PROVIDER.verify(*signed(event(), clock.now_ms() + off_s * 1000))


@pytest.mark.parametrize("off_s", [-TOLERANCE_S + 5, TOLERANCE_S - 5])
def test_webhook_when_its_time_is_near_then_believed(off_s: int) -> None:
    assert PROVIDER.verify(*signed(event(), clock.now_ms() + off_s * 1000)).kind == "captured"


@pytest.mark.parametrize("header", ["webhook-id", "webhook-timestamp", "webhook-signature"])
@pytest.mark.parametrize("value", [None, "", "x", "v1,", "v1,=", "v1,AAAA", "nan", "1e400", "é"])
def test_webhook_when_a_header_is_wrong_then_not_believed(header: str, value: str | None) -> None:
    raw, headers = signed(event())
    if value is None:
        del headers[header]
    else:
        headers[header] = value
    with pytest.raises(BadSignature):
        PROVIDER.verify(raw, headers)


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{}", b"[" * 5_000])
def test_webhook_when_its_body_was_changed_then_not_believed(body: bytes) -> None:
    _, headers = signed(event())
    with pytest.raises(BadSignature):
        PROVIDER.verify(body, headers)


@pytest.mark.parametrize(
    "body", [{}, event(type="payment.made"), event(data={"payment": "x"}), [], "x"]
)
def test_webhook_when_signed_but_not_understood_then_not_believed(body: Any) -> None:
    with pytest.raises(BadSignature):
        PROVIDER.verify(*signed(body))


def test_webhook_when_the_secret_is_another_then_not_believed() -> None:
    other = DemoProvider(b"another secret of at least 32 bytes...")
    made = other.webhook("payment.captured", INTENT)
    with pytest.raises(BadSignature):
        PROVIDER.verify(made.body, made.headers)


# --- behaviour --------------------------------------------------------------------------------


class Receiver:
    """A merchant's server that keeps what it is told; `answers` are its first statuses."""

    def __init__(self, *answers: int) -> None:
        self.answers = list(answers)
        self.told: list[tuple[str, str]] = []

    async def handle(self, request: web.Request) -> web.Response:
        found = PROVIDER.verify(
            await request.read(), {k.lower(): v for k, v in request.headers.items()}
        )
        self.told.append((found.kind, found.event_id))
        return web.Response(status=self.answers.pop(0) if self.answers else 200)


async def told(behaviour: Behaviour, *answers: int) -> list[tuple[str, str]]:
    """What a merchant hears of one payment, once nothing more comes."""
    receiver, webhooks = Receiver(*answers), DemoWebhooks(PROVIDER)
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    expected = webhooks.tell(f"http://127.0.0.1:{port}/hook", INTENT, behaviour)
    await asyncio.gather(*webhooks._tasks)
    await runner.cleanup()
    assert len(receiver.told) >= expected
    return receiver.told


@pytest.mark.parametrize(
    ("behaviour", "kinds"),
    [
        (Behaviour("paid"), ["captured"]),
        (Behaviour("failed"), ["failed"]),
        (Behaviour("silent"), []),
        (Behaviour("paid", delay_ms=20), ["captured"]),
        (Behaviour("paid", repeat=5), ["captured"] * 5),
        (Behaviour("paid", reorder=True), ["captured", "failed"]),
    ],
)
async def test_provider_when_told_to_behave_so_then_this_is_heard(
    behaviour: Behaviour, kinds: list[str]
) -> None:
    heard = await told(behaviour)
    assert [kind for kind, _ in heard] == kinds
    if behaviour.repeat > 1:
        assert len({event_id for _, event_id in heard}) == 1


async def test_provider_when_not_answered_with_2xx_then_it_repeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_webhooks, "RETRY_S", (0.01,) * 5)
    heard = await told(Behaviour("paid"), 503, 400)
    assert len(heard) == 3
    assert len({event_id for _, event_id in heard}) == 1


async def test_provider_when_nobody_listens_then_it_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(demo_webhooks, "RETRY_S", (0.01,))
    webhooks = DemoWebhooks(PROVIDER)
    assert webhooks.tell("http://127.0.0.1:1/hook", INTENT, Behaviour("paid")) == 1
    await asyncio.gather(*webhooks._tasks)


async def test_provider_when_too_many_wait_then_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_webhooks, "WAITING_MAX", 2)
    webhooks = DemoWebhooks(PROVIDER)
    outcome: Outcome = "paid"
    for _ in range(2):
        webhooks.tell("http://127.0.0.1:1/", INTENT, Behaviour(outcome, delay_ms=60_000))
    with pytest.raises(Refused, match="busy"):
        webhooks.tell("http://127.0.0.1:1/", INTENT, Behaviour(outcome))
    await webhooks.aclose()
