"""The few things viewers ask over HTTP; everything live goes over the WebSocket."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from server import clock, limits
from server.acts.demo import DEMO_SHOW
from server.acts.messages import Body
from server.domain.chat import clean_name
from server.errors import Refused
from server.records import orders
from server.records.orders import OrderRow
from server.web import auth
from server.web.endpoint import Call, Endpoint

MY_ORDERS_MAX: Final = 100


class DemoTokenRequest(Body, frozen=True):
    """Who somebody wants to be, and in which show."""

    name: Annotated[str, Meta(min_length=1, max_length=4 * limits.NAME_CHARS_MAX)]
    show: Annotated[str, Meta(pattern=limits.SHOW_ID_PATTERN)] = DEMO_SHOW


class DemoToken(Struct, frozen=True):
    """A viewer token for a new user."""

    token: str
    user: str
    name: str


async def demo_token(call: Call) -> DemoToken:
    """Demo mode only: anybody gets to be somebody. Names of the house are refused."""
    name = clean_name(call.body.name)
    user = f"demo-{clock.new_short_id()}"
    token = auth.issue(call.secret, user=user, role="viewer", show=call.body.show, name=name)
    return DemoToken(token, user, name)


async def my_orders(call: Call) -> list[OrderRow]:
    """The newest orders of the token's user in this show."""
    if not call.identity.covers(call.show):
        raise Refused("forbidden", "The token is for another show")
    rows = await orders.list_orders(
        call.acts.pool, call.show, buyer=call.identity.user, limit=MY_ORDERS_MAX
    )
    return rows[::-1]


MY_ORDERS: Final = Endpoint(
    "GET",
    "/api/shows/{show}/my-orders",
    "myOrders",
    "A viewer's own orders, newest first",
    my_orders,
    list[OrderRow],
)
DEMO_TOKEN: Final = Endpoint(
    "POST",
    "/api/demo/token",
    "demoToken",
    "A viewer token for a self-chosen name (demo mode only)",
    demo_token,
    DemoToken,
    body=DemoTokenRequest,
    status=201,
    public=True,
)


def endpoints(*, demo: bool) -> tuple[Endpoint, ...]:
    """The rows of the API for viewers; the demo's only in demo mode."""
    return (MY_ORDERS, DEMO_TOKEN) if demo else (MY_ORDERS,)
