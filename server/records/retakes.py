"""Re-takes in the books: units of orders that were paid late, as the order worker rules on them.

Part of the transaction of records/orders.py, which holds the epoch's row and the pools'. Statements
are in sql/payments.sql.
"""

import uuid
from collections.abc import Collection, Iterable

from server.domain.claim import KIND_RETAKE, LatePayment, MissedRetake, Rulings, Take
from server.records.order_life import move_orders
from server.records.payments import SQL
from server.records.pool import Connection


async def late_payments(
    conn: Connection, pool: int, takes: Iterable[Take]
) -> dict[bytes, LatePayment]:
    """What the books have of the payments that `takes` are for, by payment id; held."""
    payment_ids = [_uuid(take) for take in takes if _is_retake(take)]
    if not payment_ids:
        return {}
    rows = await conn.fetch(SQL["late_payments"], pool, payment_ids)
    return {
        payment_id.bytes: LatePayment(order_id, buyer, quantity, counted, waits)
        for payment_id, order_id, buyer, quantity, counted, waits in rows
    }


async def enter(conn: Connection, show_id: str, epoch: int, rulings: Collection[Rulings]) -> None:
    """Enter what was ruled on re-takes: before the rows of claims, which set buyers' units."""
    kept = [pair for r in rulings for pair in r.retaken]
    missed = [one for r in rulings for one in r.missed]
    if kept:
        await move_orders(
            conn, show_id, [order_id for _, order_id in kept],
            status_from="expired", status_to="paid", reason="retake",
        )  # fmt: skip
    if kept or missed:
        rows = [_row(take, order_id, take.quantity, "") for take, order_id in kept]
        rows += [_row(one.take, one.late.order_id, 0, one.why) for one in missed]
        await conn.execute(SQL["insert_retakes"], epoch, *zip(*rows, strict=True))
    await _give_back(conn, show_id, epoch, [one for one in missed if one.why != "no_room"])
    dead = [_uuid(take) for r in rulings for take, _, _ in r.dead if _is_retake(take)]
    if dead:
        await conn.execute(SQL["refund_dead_retakes"], dead)


async def _give_back(
    conn: Connection, show_id: str, epoch: int, missed: list[MissedRetake]
) -> None:
    if missed:
        rows = [
            (m.take.pool, m.take.seq, m.take.quantity, m.take.buyer, m.late.counted > 0)
            for m in missed
        ]
        columns = zip(*rows, strict=True)
        await conn.execute(SQL["give_back_retakes"], show_id, epoch, *columns)


def _row(
    take: Take, order_id: int, units: int, reason: str
) -> tuple[int, int, uuid.UUID, int, int, int, str]:
    return (take.pool, take.seq, _uuid(take), order_id, take.quantity, units, reason)


def _is_retake(take: Take) -> bool:
    return take.kind == KIND_RETAKE and len(take.claim_id) == 16


def _uuid(take: Take) -> uuid.UUID:
    return uuid.UUID(bytes=take.claim_id)
