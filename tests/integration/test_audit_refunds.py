"""What the audit says of money that a provider refuses to give back."""

from server.audit.audit import audit
from server.payments.provider import ProviderRefused
from server.records import payments
from tests.bookshop import SHOW
from tests.till import Till


async def test_audit_when_a_refund_is_refused_then_it_says_so_until_it_is_settled(
    till: Till,
) -> None:
    payment = await till.begin(await till.order())
    await till.tell(payment, "captured", amount=1)
    till.provider.refund_answers = [ProviderRefused("charge_disputed")]
    await till.round()
    await till.shop.pool.execute("UPDATE payments SET updated_at = now() - interval '1 hour'")
    report = await audit(till.shop.clients, till.shop.pool, SHOW)
    (problem,) = report.shows[0].problems
    assert problem.kind == "refund"
    assert str(payment) in problem.detail
    assert "charge_disputed" in problem.detail
    async with till.shop.pool.acquire() as conn:
        await payments.settle_by_hand(conn, payment)
    await till.settle()
