"""The few things viewers ask over HTTP; everything live goes over the WebSocket."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from server import clock, limits
from server.acts.demo import DEMO_SHOW
from server.acts.messages import Body
from server.acts.views import OrderList, OrderView, order_view
from server.domain.chat import clean_name
from server.domain.rehearsal import is_shadow
from server.errors import Refused
from server.records import order_list
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
    if is_shadow(call.body.show):
        raise Refused("not_found", "No such show")
    name = clean_name(call.body.name)
    user = f"demo-{clock.new_short_id()}"
    token = auth.issue(call.secret, user=user, role="viewer", show=call.body.show, name=name)
    return DemoToken(token, user, name)


async def my_orders(call: Call) -> OrderList:
    """The newest MY_ORDERS_MAX orders of the token's user in this show, newest first."""
    if not call.identity.covers(call.show):
        raise Refused("forbidden", "The token is for another show")
    buyer = call.identity.user
    rows = await order_list.newest_orders(call.acts.pool, call.show, buyer, MY_ORDERS_MAX)
    return OrderList([order_view(row) for row in rows])


async def cancel_my_order(call: Call) -> OrderView:
    return await call.acts.orders.cancel_own(call.identity, call.show, call.ids["order"])


MY_ORDERS: Final = Endpoint(
    "GET",
    "/api/shows/{show}/my-orders",
    "my_orders",
    "A viewer's own orders, newest first",
    my_orders,
    OrderList,
)
CANCEL_MY_ORDER: Final = Endpoint(
    "POST",
    "/api/shows/{show}/my-orders/{order:int}/cancel",
    "cancel_my_order",
    "A viewer gives their own unpaid order back",
    cancel_my_order,
    OrderView,
)
DEMO_TOKEN: Final = Endpoint(
    "POST",
    "/api/demo/token",
    "demo_token",
    "A viewer token for a self-chosen name (demo mode only)",
    demo_token,
    DemoToken,
    body=DemoTokenRequest,
    status=201,
    public=True,
)


def endpoints(*, demo: bool) -> tuple[Endpoint, ...]:
    """The rows of the API for viewers; the demo's only in demo mode."""
    own_orders = (MY_ORDERS, CANCEL_MY_ORDER)
    return (*own_orders, DEMO_TOKEN) if demo else own_orders
