"""Beginning to pay: whose order it is, one payment however often asked, a provider that is away."""

import asyncio

import pytest

from server.errors import Refused
from server.payments.provider import ProviderUnavailable
from tests.bookshop import SHOW
from tests.till import Till, refused, viewer


async def test_begin_when_repeated_then_the_same_payment_and_link(till: Till) -> None:
    order = await till.order(quantity=2)
    views = await asyncio.gather(*(till.acts.begin(viewer("an"), SHOW, order) for _ in range(8)))
    assert len({view.payment_id for view in views}) == 1
    assert {view.amount for view in views} == {200}
    intent = till.provider.intent_of(views[0].pay_url.split("#")[1])
    assert (str(intent.payment_id), intent.amount) == (views[0].payment_id, 200)


async def test_begin_when_it_is_not_the_buyers_to_pay_then_refused(till: Till) -> None:
    order = await till.order()
    assert await refused(lambda: till.acts.begin(viewer("bo"), SHOW, order)) == "not_found"
    assert await refused(lambda: till.acts.begin(viewer("an"), "othershow", order)) == "forbidden"
    await till.expire(order)
    assert await refused(lambda: till.acts.begin(viewer("an"), SHOW, order)) == "conflict"


async def test_begin_when_there_is_no_payment_step_then_refused(till: Till) -> None:
    await till.open_sale(pay_within_s=0)
    order = await till.order()
    assert await refused(lambda: till.begin(order)) == "conflict"


async def test_begin_when_the_order_costs_nothing_then_it_is_paid(till: Till) -> None:
    await till.open_sale(price=0)
    payment = await till.begin(await till.order())
    assert await till.statuses(payment) == ("captured", "paid")


async def test_begin_when_the_provider_is_away_then_the_next_call_goes_on(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await till.order()

    async def away(_: object) -> None:
        raise ProviderUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(till.provider, "create_intent", away)
        assert await refused(lambda: till.begin(order)) == "unavailable"
    await till.tell(await till.begin(order), "captured")
    assert await till.order_status(order) == "paid"


async def test_begin_when_nobody_takes_payments_then_not_found(till: Till) -> None:
    order = await till.order()
    object.__setattr__(till.acts.providers, "chosen", None)
    with pytest.raises(Refused, match="not_found"):
        await till.begin(order)
