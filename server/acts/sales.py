"""Acts on flash sales: making, starting, restocking, lowering, repricing, stopping.

Units move in one transaction with the sku's inventory (sku.allotted within inventory), so two
sales never share a unit. What becomes of each act when something fails on the way:

- create, start, reprice, stop: committed in PostgreSQL, then projected; a failure in between is
  answered as done with `pending: true`, and the projector's sweep finishes it.
- restock: the units are allotted and committed together with a give; the give reaches Redis now
  or by the sweep, once.
- lower: a take, so Redis decides. The request is committed first as `pending`; then the script
  takes all the units or none, once per act id. When Redis does not answer, the caller is told
  `outcome_unknown`, the sale shows the units as `lowering`, and the sweep asks again until it is
  decided: done, or refused (fewer units were left). The order worker returns the units to the
  inventory when it books the take.
- stop: the sale is `closing` from the commit on. Closing takes what is left (the same act id
  whoever closes it), the order worker books it, returns it to the inventory and sets `closed`.

Restocks and lowerings carry the host's `request_id`, and a creation may: a repeat with the same
content gets the same answer, with other content it is refused (conflict). What a creation asked for
is read off the audit log, where its act stands under the id that follows from the `request_id`.
"""

from typing import Literal
from uuid import UUID

from server import limits
from server.acts.desk import Act, Desk, request_act_id
from server.acts.messages import ChangeUnits, CreateSale, StartSale, asked_fields
from server.acts.stopping import drop_draft
from server.acts.views import SaleStats, SaleView, UnitsChanged, sale_stats, sale_view
from server.domain.identity import Identity, require_moderator
from server.domain.sale import (
    SaleStatus,
    require_draft,
    require_not_over,
    window_at,
    window_now,
)
from server.domain.show import require_not_ended, require_running
from server.errors import Refused, StoreUnavailable
from server.records import products, sales
from server.records.pool import acquire
from server.records.sales import RequestRow, SaleMoney, SaleRow

Kind = Literal["restock", "lower"]


class SaleActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown)."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def list_all(self, identity: Identity, show_id: str) -> list[SaleView]:
        """All sales of a show, newest first."""
        async with self._desk.reading(identity, show_id, require_moderator) as act:
            rows = await sales.list_sales(act.conn, show_id)
        return [sale_view(row) for row in rows]

    async def stats(self, identity: Identity, show_id: str) -> list[SaleStats]:
        """The books of each sale."""
        async with self._desk.reading(identity, show_id) as act:
            rows = await sales.list_sales(act.conn, show_id)
            money = await sales.stats(act.conn, show_id)
        return [sale_stats(r, money.get(r.sale_id, SaleMoney(r.sale_id, 0, 0, 0))) for r in rows]

    # --- Life ---------------------------------------------------------------------------------

    async def create(self, identity: Identity, show_id: str, body: CreateSale) -> SaleView:
        """A sale of units allotted from the sku, started as the body says; one, however often the
        same request comes.

        Raises Refused: not_found (sku), out_of_stock, bad_field (starts_at), conflict (too many
        sales, or a request_id that asked for something else), show_ended, and when it is to start
        now show_not_live or show_paused.
        """
        act_id = request_act_id(show_id, 0, body.request_id)
        async with self._desk.act(identity, show_id, ended=True) as act:
            known = await act.repeated(act_id, "create_sale", asked_fields(body))
            sale_id = known["sale"] if known else await self._create(act, body, act_id)
        return await self._applied(sale_id)

    async def _create(self, act: Act, body: CreateSale, act_id: UUID) -> int:
        show_id = act.show.show_id
        require_not_ended(act.show.status)
        if await products.get_sku(act.conn, show_id, body.sku) is None:
            raise Refused("not_found", "No such sku", field="sku")
        if await sales.count_sales(act.conn, show_id) >= limits.SALES_PER_SHOW_MAX:
            raise Refused("conflict", f"A show has at most {limits.SALES_PER_SHOW_MAX} sales")
        await _allot(act, body.sku, body.units)
        sale_id = await _insert(act, body, act_id)
        if body.start != "later":
            at = _start_time(body.start, body.starts_at)
            await self._start(act, await _locked(act, sale_id), at)
        return sale_id

    async def start(
        self, identity: Identity, show_id: str, sale_id: int, body: StartSale
    ) -> SaleView:
        """Start a draft now (after its countdown) or at a time.

        Raises Refused: unknown_sale, sale_closed, conflict (started already), bad_field,
        show_not_live, show_paused.
        """
        async with self._desk.act(identity, show_id) as act:
            await self._start(act, await _locked(act, sale_id), body.starts_at)
        return await self._applied(sale_id)

    async def _start(self, act: Act, sale: SaleRow, starts_at: int) -> None:
        require_draft(sale.status)
        now = self._desk.clock.now_ms()
        status: SaleStatus = "scheduled" if starts_at else "open"
        if starts_at:
            window = window_at(now, starts_at, sale.duration_s)
        else:
            require_running(act.show.status)
            window = window_now(now, sale.countdown_s, sale.duration_s)
        await sales.start(act.conn, sale.sale_id, status, window)
        await act.note("start_sale", {"sale": sale.sale_id, **window._asdict()})

    async def change_price(
        self, identity: Identity, show_id: str, sale_id: int, price: int
    ) -> SaleView:
        """A new price under a new version; claims with the old one get price_changed."""
        async with self._desk.act(identity, show_id) as act:
            sale = await _locked(act, sale_id)
            require_not_over(sale.status, sale.closes_at_ms, self._desk.clock.now_ms())
            if price != sale.price:
                version = await sales.set_price(act.conn, sale_id, price)
                detail = {"sale": sale_id, "from": sale.price, "to": price, "version": version}
                await act.note("change_price", detail)
        return await self._applied(sale_id)

    async def stop(self, identity: Identity, show_id: str, sale_id: int) -> SaleView:
        """No more claims; unsold units go back to the inventory. A repeat changes nothing."""
        async with self._desk.act(identity, show_id, ended=True) as act:
            sale = await _locked(act, sale_id)
            if sale.status == "draft":
                await drop_draft(act, sale_id)
            elif sale.status in ("scheduled", "open"):
                await sales.set_closing(act.conn, sale_id)
            if sale.status not in ("closing", "closed"):
                await act.note("stop_sale", {"sale": sale_id})
        return await self._applied(sale_id)

    # --- Units --------------------------------------------------------------------------------

    async def restock(
        self, identity: Identity, show_id: str, sale_id: int, body: ChangeUnits
    ) -> UnitsChanged:
        """More units from the inventory; a sold-out sale goes on.

        Raises Refused: unknown_sale, sale_closed, out_of_stock, bad_field, conflict.
        """
        act_id = request_act_id(show_id, sale_id, body.request_id)
        async with self._desk.act(identity, show_id, ended=True) as act:
            sale = await _locked(act, sale_id)
            if await _known(act, act_id, "restock", sale_id, body.units) is None:
                self._require_selling(act, sale)
                await _restock(act, sale, act_id, body.units)
                await _register(act, act_id, "restock", sale_id, body, "done")
        await self._desk.apply(self._desk.projector.orders.tell(show_id, sale_id))
        return _answer("restock", sale_id, body)

    async def lower(
        self, identity: Identity, show_id: str, sale_id: int, body: ChangeUnits
    ) -> UnitsChanged:
        """Take units back from a sale: all of them or, when fewer are left, none.

        Raises Refused: unknown_sale, sale_closed, out_of_stock, conflict, and outcome_unknown
        when it is recorded but Redis has not decided it yet.
        """
        act_id = request_act_id(show_id, sale_id, body.request_id)
        async with self._desk.act(identity, show_id, ended=True) as act:
            sale = await _locked(act, sale_id)
            known = await _known(act, act_id, "lower", sale_id, body.units)
            status = known.status if known else await self._new_lowering(act, sale, act_id, body)
        if status == "pending":
            status = await self._decided(sale, act_id, body.units)
        if status == "refused":
            raise Refused("out_of_stock", "Fewer units are left", field="units")
        return _answer("lower", sale_id, body)

    async def _new_lowering(self, act: Act, sale: SaleRow, act_id: UUID, body: ChangeUnits) -> str:
        """Register it. A draft is lowered here; otherwise Redis has to decide (pending)."""
        self._require_selling(act, sale)
        status = "pending"
        if sale.status == "draft":
            if not await sales.resize_draft(act.conn, sale.sale_id, -body.units, act_id):
                raise Refused("out_of_stock", "Fewer units are left", field="units")
            await products.allot(act.conn, act.show.show_id, sale.sku_id, -body.units)
            status = "done"
        await _register(act, act_id, "lower", sale.sale_id, body, status)
        return status

    async def _decided(self, sale: SaleRow, act_id: UUID, units: int) -> str:
        """Ask Redis. Raises Refused(outcome_unknown) when it cannot decide now."""
        try:
            if sale.applied_revision == 0:
                await self._desk.projector.project_sale(sale.sale_id)
            done = await self._desk.projector.decide_lowering(
                sale.show_id, sale.sale_id, act_id, units
            )
        except (StoreUnavailable, Refused):
            raise Refused(
                "outcome_unknown",
                "The lowering is recorded and will be decided; repeat the same request_id",
            ) from None
        return "done" if done else "refused"

    def _require_selling(self, act: Act, sale: SaleRow) -> None:
        require_not_over(sale.status, sale.closes_at_ms, self._desk.clock.now_ms())

    async def _applied(self, sale_id: int) -> SaleView:
        """Bring the sale to Redis if it can be done now, and show how it stands."""
        await self._desk.apply(self._desk.projector.project_sale(sale_id))
        async with acquire(self._desk.pool) as conn:
            row = await sales.get_sale(conn, sale_id)
        assert row is not None  # sales are never deleted
        return sale_view(row)


def _start_time(start: str, starts_at: int) -> int:
    """`starts_at` for a start at a time, 0 for now. Raises Refused(bad_field)."""
    if start == "now":
        return 0
    if not starts_at:
        raise Refused("bad_field", "A start at a time needs it", field="starts_at")
    return starts_at


async def _locked(act: Act, sale_id: int) -> SaleRow:
    sale = await sales.lock_sale(act.conn, act.show.show_id, sale_id)
    if sale is None:
        raise Refused("unknown_sale")
    return sale


async def _allot(act: Act, sku_id: int, units: int) -> None:
    if not await products.allot(act.conn, act.show.show_id, sku_id, units):
        raise Refused("out_of_stock", "The inventory has fewer units left", field="units")


async def _insert(act: Act, body: CreateSale, act_id: UUID) -> int:
    sale_id = await sales.insert_sale(
        act.conn,
        act.show.show_id,
        body.sku,
        price=body.price,
        units=body.units,
        limit_per_buyer=body.limit_per_buyer,
        countdown_s=body.countdown_s,
        duration_s=body.duration_s,
        pay_within_s=body.pay_within_s,
    )
    await act.note("create_sale", {"sale": sale_id, **asked_fields(body)}, act_id)
    await sales.note_units(act.conn, sale_id, "allotted", body.units, str(act_id))
    return sale_id


async def _restock(act: Act, sale: SaleRow, act_id: UUID, units: int) -> None:
    """Into a draft directly; otherwise by a give, as Redis has the pool already."""
    await _allot(act, sale.sku_id, units)
    if sale.status == "draft":
        fits = await sales.resize_draft(act.conn, sale.sale_id, units, act_id)
    else:
        show_id = act.show.show_id
        fits = await sales.restock(act.conn, show_id, sale.sale_id, units, act_id)
    if not fits:
        raise Refused("bad_field", "Too many units for one sale", field="units")


async def _known(act: Act, act_id: UUID, kind: Kind, sale_id: int, units: int) -> RequestRow | None:
    """The request when it was made before. Raises Refused(conflict) for other content."""
    request = await sales.get_request(act.conn, act_id)
    if request and (request.kind, request.sale_id, request.units) != (kind, sale_id, units):
        raise Refused("conflict", "This request_id asked for something else", field="request_id")
    return request


async def _register(
    act: Act, act_id: UUID, kind: Kind, sale_id: int, body: ChangeUnits, status: str
) -> None:
    row = (act_id, act.show.show_id, sale_id, kind, body.units, status)
    await sales.insert_request(act.conn, *row)
    await act.note(f"{kind}_sale", {"sale": sale_id, "units": body.units}, act_id)


def _answer(kind: Kind, sale_id: int, body: ChangeUnits) -> UnitsChanged:
    return UnitsChanged(str(body.request_id), sale_id, kind, body.units, "done")
