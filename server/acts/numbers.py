"""A show's numbers for those who run it: now, over time, of each pin, and in the end.

What is read here is the same for everybody who may see it (server/web/host_numbers.py shares it);
only the money is for hosts alone: `without_money`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from msgspec.structs import asdict, replace

from server import limits
from server.acts.desk import Desk
from server.acts.number_views import (
    PinList,
    PinWindow,
    PulseView,
    SaleSummary,
    Sample,
    SeriesView,
    SummaryView,
)
from server.acts.views import sale_stats
from server.domain.identity import Identity, require_moderator
from server.domain.show import ShowStatus
from server.errors import Refused, StoreUnavailable
from server.records import numbers, sales, shows
from server.records.numbers import PinRow, TotalsRow
from server.records.pool import acquire
from server.records.sales import SaleMoney, SaleRow
from server.store.room import RoomStore

View = TypeVar("View", PulseView, SeriesView, PinList, SummaryView)


class NumbersActs:
    """Errors: Refused by rule, RecordsUnavailable. Whoever reads has asked `authorise` before."""

    def __init__(self, desk: Desk, room_store: RoomStore) -> None:
        self._desk = desk
        self._room_store = room_store

    async def authorise(self, identity: Identity, show_id: str) -> ShowStatus:
        """The show's status. Raises Refused(not_found|forbidden) for others than its host and
        moderators."""
        async with self._desk.reading(identity, show_id, require_moderator) as act:
            return act.show.status

    async def pulse(self, show_id: str) -> PulseView:
        """Raises StoreUnavailable, also when Redis has lost the show or is done with it."""
        async with acquire(self._desk.pool) as conn:
            pending = await numbers.untold(conn, show_id)
        pulse = await self._room_store.pulse(show_id)
        if pulse is None:
            raise StoreUnavailable("Redis does not have the show")
        now_ms = self._desk.clock.now_ms()
        return PulseView(
            at=now_ms,
            online=pulse.online,
            likes=pulse.likes,
            lines=pulse.lines,
            claims=pulse.claims,
            backlog=pulse.backlog,
            oldest_ms=max(0, now_ms - pulse.oldest_at) if pulse.oldest_at else 0,
            pending=pending,
            gate=pulse.gate,
        )

    async def series(self, show_id: str, after_ms: int) -> SeriesView:
        """Samples after an instant; at most about SERIES_SAMPLES_MAX."""
        async with acquire(self._desk.pool) as conn:
            found = numbers.samples_after(conn, show_id, after_ms, limits.SERIES_SAMPLES_MAX)
            step_s, rows = await found
        return SeriesView(step_s, [Sample(*row) for row in rows])

    async def pins(self, show_id: str) -> PinList:
        """The newest pin windows. Reads all orders of the show."""
        async with acquire(self._desk.pool) as conn:
            rows = await numbers.pins(conn, show_id, limits.PINS_LISTED)
        return PinList([_pin_window(row) for row in rows])

    async def summary(self, show_id: str) -> SummaryView:
        """The show as a whole. Reads all its orders. Raises Refused(not_found)."""
        async with acquire(self._desk.pool) as conn:
            show = await shows.get_show(conn, show_id)
            if show is None:
                raise Refused("not_found", "No such show")
            totals = await numbers.totals(conn, show_id)
            lowered = await numbers.lowered(conn, show_id)  # before the sales: never too many
            rows = await sales.list_sales(conn, show_id)
            money = await sales.stats(conn, show_id)
            sold_out = await numbers.sold_out(conn, show_id)
            by_status = await numbers.by_status(conn, show_id)
            buyers = await numbers.buyers(conn, show_id)
            pins = await numbers.pins(conn, show_id, limits.PINS_LISTED)
        started = [row for row in reversed(rows) if row.status != "draft" and row.opens_at_ms]
        return SummaryView(
            show=show_id,
            title=show.title,
            started_at=show.started_at,
            ended_at=show.ended_at,
            **(await self._newest(show_id, totals))._asdict(),
            buyers=buyers,
            orders=sum(one.orders for one in money.values()),
            units=sum(one.units for one in money.values()),
            amounts=_amounts(rows, money),
            by_status=by_status,
            sales=[
                _sale_summary(row, money[row.sale_id], lowered.get(row.sale_id, 0), sold_out)
                for row in started
            ],
            pins=[_pin_window(row) for row in pins],
        )

    async def _newest(self, show_id: str, totals: TotalsRow) -> TotalsRow:
        """With what happened since the last sample, where Redis knows it."""
        try:
            pulse = await self._room_store.pulse(show_id)
        except StoreUnavailable:
            return totals
        if pulse is None:
            return totals
        return totals._replace(
            likes=max(totals.likes, pulse.likes),
            lines=max(totals.lines, pulse.lines),
            claims=max(totals.claims, pulse.claims),
        )


def without_money(view: View) -> View:
    """The view as moderators may see it."""
    match view:
        case SeriesView():
            return replace(view, samples=_poor(view.samples))
        case PinList():
            return replace(view, pins=_poor(view.pins))
        case SummaryView():
            poor_sales = [replace(sale, amount=0) for sale in view.sales]
            return replace(view, amounts={}, sales=poor_sales, pins=_poor(view.pins))
    return view


Row = TypeVar("Row", Sample, PinWindow)


def _poor(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, amounts={}) for row in rows]


def _pin_window(row: PinRow) -> PinWindow:
    # With more buyers than people on average, most came and went between samples.
    online = row.online or 0.0
    per_mille = round(1_000 * row.buyers / online) if online >= max(1, row.buyers) else -1
    return PinWindow(
        product=row.product_id,
        title=row.title,
        since=row.since,
        until=row.until,
        online=round(row.online or 0),
        buyers=row.buyers,
        orders=row.orders,
        units=row.units,
        amounts=row.amounts,
        conversion_pm=per_mille,
    )


def _sale_summary(
    row: SaleRow, money: SaleMoney, lowered: int, sold_out: dict[int, int]
) -> SaleSummary:
    """`lowered`: units that the host took out of the sale."""
    at = sold_out.get(row.sale_id)
    after = -1 if at is None else max(0, at - row.opens_at_ms)
    stats = asdict(sale_stats(row, money))
    return SaleSummary(
        **stats,
        offered=row.initial + row.restocked - lowered,
        opens_at=row.opens_at_ms,
        sold_out_after_ms=after,
    )


def _amounts(rows: Sequence[SaleRow], money: dict[int, SaleMoney]) -> dict[str, int]:
    """Amounts of the sales by currency, of those that sold something."""
    amounts: Counter[str] = Counter()
    for row in rows:
        amounts[row.currency] += money[row.sale_id].amount
    return {currency: amount for currency, amount in amounts.items() if amount}
