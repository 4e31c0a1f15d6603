"""Brings Redis up to the rows of PostgreSQL: shows, sales, lowerings, and what crashes left over.

A host act commits its rows first, with a higher `revision`; then the projector reads the rows and
applies them through the store's scripts, which ignore what is older than what they have. Only
after that is `applied_revision` raised, so a crash at any point leaves a row that `sweep()` finds
and finishes. Doing it twice changes nothing.

Lowering and closing are takes, decided by Redis alone: the request is committed first, the script
takes the units once per act id, and the order worker books them from the order stream. Gives
(acts/order_projector.py) are applied before a closing take, so units restocked at the last moment
come back too.
"""

import uuid
from typing import Any, Final, cast

import msgspec
import structlog

from server.acts.letter_projector import LetterProjector
from server.acts.order_projector import CLOSINGS, OrderProjector
from server.acts.work import Work
from server.domain.sale import SaleStatus
from server.errors import Refused
from server.protocol.messages import ProductView, SkuView
from server.records import dead_letters, moderation, order_life, products, sales, shows
from server.records.moderation import ModerationRow
from server.records.pool import Connection, Pool, acquire
from server.records.products import ProductRow, SkuRow
from server.records.sales import SaleRow
from server.records.shows import ShowRow
from server.records.transaction import transaction
from server.store.room import RoomStore
from server.store.stock import Stock
from server.store.types import ChatPolicy, PolicyChange, SaleProjection, ShowProjection

log = structlog.get_logger()

SWEEP_ROWS: Final = 100  # of each kind in one sweep
LOWERING_AFTER_S: Final = 1.0  # a younger pending lowering is still being asked by its request


def closing_id(sale_id: int) -> uuid.UUID:
    """The act id of the take that closes a sale: one per sale, whoever closes it."""
    return uuid.uuid5(CLOSINGS, str(sale_id))


class Projector:
    """All of it may raise StoreUnavailable and RecordsUnavailable; repeating is always right.

    `orders` tells of units given back and of orders that moved, `letters` of what became of dead
    letters.
    """

    def __init__(self, pool: Pool, stock: Stock, room_store: RoomStore) -> None:
        self.orders = OrderProjector(pool, stock)
        self.letters = LetterProjector(pool, stock)
        self._pool = pool
        self._stock = stock
        self._room_store = room_store
        self._troubled: set[object] = set()

    # --- Shows --------------------------------------------------------------------------------

    async def project_show(self, show_id: str, *, again: bool = False) -> bool:
        """Apply a show, its run-list and its chat policy. False when it stays pending.

        `again`: also when it was applied before, as Redis may have forgotten it.

        The row is held meanwhile: the policy has no revision in Redis, so two projectors with
        different readings must not interleave.
        """
        async with transaction(self._pool) as conn:
            show = await shows.lock_show(conn, show_id)
            if show is None or (show.applied_revision >= show.revision and not again):
                return True
            projection = await _show_projection(conn, show)
            if await self._stock.apply_show(show_id, projection) == "missing":
                return self._trouble(("show", show_id), "show_missing_in_redis")
            await self._project_policy(conn, show, is_restoring=again)
            await shows.set_applied(conn, show_id, show.revision)
        return self._well(("show", show_id))

    async def _project_policy(self, conn: Connection, show: ShowRow, *, is_restoring: bool) -> None:
        """Bans that Redis had lost are no news: hundreds of events would push out the history."""
        rows = await moderation.list_all(conn, show.show_id)
        known = await self._room_store.read_policy(show.show_id)
        change = policy_change(show, rows, known)
        was_lost = is_restoring and not known.version
        if change != PolicyChange():
            await self._room_store.write_policy(show.show_id, change, announce=not was_lost)

    # --- Sales --------------------------------------------------------------------------------

    async def project_sale(self, sale_id: int) -> bool:
        """Apply a sale's terms, or take back what is left of one that is closing.

        False when it stays pending. Drafts are not in Redis at all.
        """
        async with acquire(self._pool) as conn:
            sale = await sales.get_sale(conn, sale_id)
        if sale is None or sale.status == "draft" or sale.applied_revision >= sale.revision:
            return True
        if not await self._apply_terms(sale):
            return self._trouble(("sale", sale_id), "sale_missing_in_redis")
        if sale.status in ("closing", "closed"):
            await self._take_the_rest(sale)
        async with acquire(self._pool) as conn:
            await sales.set_applied(conn, sale_id, sale.revision)
        return self._well(("sale", sale_id))

    async def _apply_terms(self, sale: SaleRow) -> bool:
        """Terms in Redis are the row's or newer. False when Redis has lost the pool.

        A closing sale that may never have reached Redis is made there closed, so that an older
        projection still under way cannot open it.
        """
        never_applied = sale.applied_revision == 0
        if sale.status in ("closing", "closed") and not never_applied:
            return True
        projection = sale_projection(sale)
        answer = await self._stock.apply_sale(sale.show_id, projection)
        if answer == "missing" and never_applied and await self.project_show(sale.show_id):
            answer = await self._stock.apply_sale(sale.show_id, projection)
        return answer != "missing"

    async def _take_the_rest(self, sale: SaleRow) -> None:
        await self.orders.tell(sale.show_id, sale.sale_id)
        act = closing_id(sale.sale_id).bytes
        taken = await self._stock.take(sale.show_id, sale.sale_id, act, None, close=True)
        log.info("sale_closing", show_id=sale.show_id, sale=sale.sale_id, units=taken.units)

    # --- Units --------------------------------------------------------------------------------

    async def decide_lowering(
        self, show_id: str, sale_id: int, act_id: uuid.UUID, units: int
    ) -> bool:
        """Take `units` back by this act. False: refused, fewer were left; nothing changed.

        The request's row is held meanwhile, so that it is decided once. Raises
        Refused(unknown_sale|stock_rebuilding) when Redis cannot decide now.
        """
        async with transaction(self._pool) as conn:
            status = await sales.lock_request(conn, act_id)
            if status == "pending":
                status = await self._take_or_refuse(show_id, sale_id, act_id, units)
                await sales.settle_request(conn, act_id, status)
        return status == "done"

    async def _take_or_refuse(
        self, show_id: str, sale_id: int, act_id: uuid.UUID, units: int
    ) -> str:
        try:
            await self._stock.take(show_id, sale_id, act_id.bytes, units, close=False)
        except Refused as refusal:
            if refusal.error.name != "out_of_stock":
                raise
            return "refused"
        return "done"

    # --- What crashes left over ---------------------------------------------------------------

    async def sweep(self) -> int:
        """Finish what is pending; how many things were finished.

        One thing that fails does not keep the others from being done; the last outage seen is
        raised in the end (StoreUnavailable, RecordsUnavailable).
        """
        async with acquire(self._pool) as conn:
            show_ids = await shows.shows_to_project(conn, SWEEP_ROWS)
            sale_ids = await sales.sales_to_project(conn, SWEEP_ROWS)
            untold = await order_life.shows_to_tell(conn, SWEEP_ROWS)
            letters = await dead_letters.untold_letters(conn, SWEEP_ROWS)
            lowerings = await sales.pending_lowerings(conn, LOWERING_AFTER_S, SWEEP_ROWS)
        work = Work(self._troubled)
        await work.each(self.project_show, ((show_id,) for show_id in show_ids))
        await work.each(self.project_sale, ((sale_id,) for sale_id in sale_ids))
        await work.each(self.orders.tell, ((show_id,) for show_id in untold))
        await work.each(self.letters.tell, letters)
        await work.each(
            self.decide_lowering, ((w.show_id, w.sale_id, w.act_id, w.units) for w in lowerings)
        )
        return work.end()

    def _trouble(self, thing: object, what: str) -> bool:
        """Log the first of a row of failures with the same thing."""
        if thing not in self._troubled:
            self._troubled.add(thing)
            log.error(what, thing=thing)
        return False

    def _well(self, thing: object) -> bool:
        self._troubled.discard(thing)
        return True


# --- From rows to projections -----------------------------------------------------------------


async def _show_projection(conn: Connection, show: ShowRow) -> ShowProjection:
    listed = [row for row in await products.list_products(conn, show.show_id) if row.listed]
    skus = await products.list_skus(conn, show.show_id)
    return ShowProjection(
        revision=show.revision,
        phase=show.status,
        title=show.title,
        cover_url=show.cover_url,
        playback_url=show.playback_url,
        starts_at=show.starts_at,
        pinned_product=show.pinned_product,
        products=[_product_map(row, skus) for row in listed],
        stock_epoch=await shows.stock_epoch(conn, show.show_id),
        may_create=show.applied_revision == 0,
    )


def _product_map(row: ProductRow, skus: list[SkuRow]) -> dict[str, Any]:
    mine = [
        SkuView(sku=s.sku_id, title=s.title, price=s.price, currency=s.currency)
        for s in skus
        if s.product_id == row.product_id
    ]
    view = ProductView(product=row.product_id, title=row.title, image_url=row.image_url, skus=mine)
    return cast(dict[str, Any], msgspec.to_builtins(view))


_PROJECTED: Final[dict[SaleStatus, Any]] = {
    "scheduled": "scheduled",
    "open": "open",
    "closing": "closed",
    "closed": "closed",
}


def sale_projection(sale: SaleRow) -> SaleProjection:
    return SaleProjection(
        sale=sale.sale_id,
        revision=sale.revision,
        status=_PROJECTED[sale.status],
        sku=sale.sku_id,
        product=sale.product_id,
        price=sale.price,
        list_price=sale.list_price,
        currency=sale.currency,
        price_version=sale.price_version,
        limit_per_buyer=sale.limit_per_buyer,
        opens_at=sale.opens_at_ms,
        closes_at=sale.closes_at_ms,
        pay_within_s=sale.pay_within_s,
        units=sale.initial,  # restocks come as gives
        may_create=sale.applied_revision == 0,
    )


def policy_change(show: ShowRow, rows: list[ModerationRow], now: ChatPolicy) -> PolicyChange:
    """What turns the policy in Redis (`now`) into the one of PostgreSQL. Who is banned once more is
    banned at a later time: a change, so that later lines of theirs disappear too."""
    mutes = {row.user: row.until for row in rows if row.kind == "mute"}
    bans = {row.user: row.at for row in rows if row.kind == "ban"}
    words = tuple(show.refused_words)
    return PolicyChange(
        slow_mode_s=None if show.slow_mode_s == now.slow_mode_s else show.slow_mode_s,
        words=None if words == tuple(now.words) else words,
        mute={user: until for user, until in mutes.items() if now.muted.get(user) != until},
        unmute=sorted(now.muted.keys() - mutes.keys()),
        ban={user: at for user, at in bans.items() if now.bans.get(user) != at},
        unban=sorted(now.bans.keys() - bans.keys()),
    )
