"""Stopping sales inside an act: what a stop by hand and the end of a show have in common."""

from server import clock
from server.acts.desk import Act
from server.records import products, sales


async def stop_all(act: Act) -> list[int]:
    """Stop every sale of the show; those that have to be closed in Redis.

    Drafts first, and their skus before any row of `sales`: the order of locks everywhere.
    """
    unfinished = await sales.unfinished_of_show(act.conn, act.show.show_id)
    for sale_id, status in unfinished:
        if status == "draft":
            await drop_draft(act, sale_id)
    running = [sale_id for sale_id, status in unfinished if status != "draft"]
    for sale_id in running:
        await sales.set_closing(act.conn, sale_id)
    return running


async def drop_draft(act: Act, sale_id: int) -> None:
    """Close a sale that is not in Redis; its units return to the inventory here."""
    sale = await sales.lock_sale(act.conn, act.show.show_id, sale_id)
    assert sale is not None  # a sale of this show, whose row is held
    await sales.resize_draft(act.conn, sale_id, -sale.initial, clock.new_uuid7())
    await products.allot(act.conn, act.show.show_id, sale.sku_id, -sale.initial)
    await sales.close_draft(act.conn, sale_id)
