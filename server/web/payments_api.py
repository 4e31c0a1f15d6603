"""Paying over HTTP: the buyer's beginning, the providers' webhooks, and the demo's pay page.

A provider gets a 2xx only once its event is durable; everything else makes it repeat the webhook.
"""

import sys
from typing import Annotated, Final

import structlog
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import limits
from server.acts.messages import Body
from server.acts.payments import PaymentActs, PaymentView
from server.errors import RecordsUnavailable, Refused
from server.payments.demo_webhooks import Behaviour, DemoWebhooks, Outcome
from server.web.endpoint import Call, Endpoint, error_response, read_raw

log = structlog.get_logger()

WEBHOOKS: Final = "/webhooks/payments"
DELAY_MS_MAX: Final = 600_000
REPEAT_MAX: Final = 20

PayToken = Annotated[str, Meta(min_length=1, max_length=limits.TOKEN_CHARS_MAX)]


# --- Buyers and providers -------------------------------------------------------------------------


class PaymentsApi:
    """What buyers and providers ask for, and with `demo` what the demo's pay page asks for."""

    def __init__(self, acts: PaymentActs, demo: DemoWebhooks | None) -> None:
        self._acts = acts
        self._demo = DemoPayApi(demo) if demo else None

    def endpoints(self) -> tuple[Endpoint, ...]:
        begin = Endpoint(
            "POST", "/api/shows/{show}/my-orders/{order:int}/payment", "begin_payment",
            "Where to pay an unpaid order of one's own; repeats get the same payment",
            self.begin, PaymentView,
        )  # fmt: skip
        return (begin, *(self._demo.endpoints() if self._demo else ()))

    def route(self) -> Route:
        """The webhooks' route. Starlette's own body limit is lifted: ours answers in our form."""
        path = f"{WEBHOOKS}/{{provider}}"
        return Route(path, self.receive, methods=["POST"], max_body_size=sys.maxsize)

    async def begin(self, call: Call) -> PaymentView:
        return await self._acts.begin(call.identity, call.show, call.ids["order"])

    async def receive(self, request: Request) -> Response:
        """The signature is over the raw body, so that is what is read."""
        try:
            raw = await read_raw(request, limits.BODY_BYTES_MAX)
            name = request.path_params["provider"]
            ack = await self._acts.receive(name, raw, request.headers)
        except Refused as refusal:
            return error_response(refusal)
        except RecordsUnavailable as outage:
            log.warning("payment_webhook_not_kept", reason=str(outage))
            return error_response(Refused("unavailable"))
        return Response(ack.body, media_type=ack.media_type)


# --- The demo's pay page --------------------------------------------------------------------------


class DemoIntentRequest(Body, frozen=True):
    """The token of a pay link: what stands after its #."""

    token: PayToken


class DemoIntent(Struct, frozen=True):
    """What a pay link is for; `amount` in minor units."""

    payment_id: str
    show: str
    order_id: int
    amount: int
    currency: str
    description: str


class DemoPay(Body, frozen=True):
    """What the demo provider shall do with a payment, and how it shall tell of it: after a delay,
    in so many copies, in the wrong order (`reorder`: paid is told before the failure that came
    first), or not at all (`silent`)."""

    token: PayToken
    outcome: Outcome
    delay_ms: Annotated[int, Meta(ge=0, le=DELAY_MS_MAX)] = 0
    repeat: Annotated[int, Meta(ge=1, le=REPEAT_MAX)] = 1
    reorder: bool = False


class DemoPaid(Struct, frozen=True):
    """How many webhooks are on their way."""

    webhooks: int


class DemoPayApi:
    """What the pay page asks for. Demo mode only: whoever has a link can say that it was paid."""

    def __init__(self, webhooks: DemoWebhooks) -> None:
        self._webhooks = webhooks

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                "POST", "/demo/pay/intent", "demo_intent",
                "What a pay link is for (demo mode only)",
                self.intent, DemoIntent, body=DemoIntentRequest, public=True,
            ),
            Endpoint(
                "POST", "/demo/pay", "demo_pay",
                "Pay, or not: the demo provider then tells of it by webhook (demo mode only)",
                self.pay, DemoPaid, body=DemoPay, status=202, public=True,
            ),
        )  # fmt: skip

    async def intent(self, call: Call) -> DemoIntent:
        found = self._webhooks.provider.intent_of(call.body.token)
        return DemoIntent(
            payment_id=str(found.payment_id),
            show=found.show_id,
            order_id=found.order_id,
            amount=found.amount,
            currency=found.currency,
            description=found.description,
        )

    async def pay(self, call: Call) -> DemoPaid:
        """The webhooks go to this very process, as a provider's would to any."""
        body: DemoPay = call.body
        found = self._webhooks.provider.intent_of(body.token)
        behaviour = Behaviour(body.outcome, body.delay_ms, body.repeat, body.reorder)
        address, port = call.here
        host = f"[{address}]" if ":" in address else address
        url = f"http://{host}:{port}{WEBHOOKS}/{self._webhooks.provider.name}"
        return DemoPaid(self._webhooks.tell(url, found, behaviour))
