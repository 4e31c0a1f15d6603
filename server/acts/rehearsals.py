"""Rehearsals (彩排): a sale is tried out on synthetic people, in a shadow show of its own.

A shadow show is a show like any other, so by its ids it shares no key, unit, order or claim with
the real one. Nobody's token covers it but those made for it (domain/identity.py), and viewers
need a ticket (web/watch.py). The load comes from a process that web/rehearsing.py starts; what it
says is kept in PostgreSQL, so any web process can tell how the rehearsal stands.
"""

import json
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, NamedTuple
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta, Struct

from server import limits
from server.acts.desk import Desk
from server.acts.messages import Body, CreateProduct, CreateSale, CreateSku, Identifier
from server.acts.products import ProductActs
from server.acts.sales import SaleActs
from server.acts.shows import ShowActs
from server.domain.identity import Identity
from server.domain.rehearsal import new_shadow_id
from server.errors import RecordsUnavailable, Refused, StoreUnavailable
from server.records import rehearsals, sales, shows
from server.records.pool import Connection, acquire
from server.records.rehearsals import Ending, RehearsalRow
from server.records.sales import SaleRow
from server.records.transaction import transaction

log = structlog.get_logger()

# The sale stays open past all that the load test does; its end is no part of what is rehearsed.
SALE_SECONDS: Final = 300


class Rehearse(Body, frozen=True):
    """Try out `sale` with so many synthetic people, for so long. `reaction`: how soon buyers claim
    once it opens, as people do or evenly over a while. The same `request_id` starts one."""

    request_id: UUID
    sale: Identifier
    buyers: Annotated[int, Meta(ge=limits.REHEARSAL_BUYERS_MIN, le=limits.REHEARSAL_BUYERS_MAX)] = (
        200
    )
    watchers: Annotated[int, Meta(ge=0, le=limits.REHEARSAL_WATCHERS_MAX)] = 0
    bots: Annotated[int, Meta(ge=0, le=limits.REHEARSAL_BOTS_MAX)] = 0
    reaction: Literal["human", "uniform"] = "human"
    seconds: Annotated[
        int, Meta(ge=limits.REHEARSAL_SECONDS_MIN, le=limits.REHEARSAL_SECONDS_MAX)
    ] = 20


class Progress(Struct, frozen=True):
    """How far a rehearsal is: what it does, the share of that which is over, and of the sale the
    claims held, the orders confirmed and the units left (-1: not known yet)."""

    phase: str = ""
    share: float = 0.0
    held: int = 0
    confirmed: int = 0
    left: int = -1


class RehearsalView(Struct, frozen=True):
    """A rehearsal. `status`: preparing, running, done, failed or stopped; `reason` says by whom or
    why. `verdict` of the load test, empty without one."""

    rehearsal: int
    sale: int
    status: str
    reason: str
    buyers: int
    watchers: int
    bots: int
    seconds: int
    progress: Progress
    verdict: str
    created_at: int
    ended_at: int


class RehearsalDetail(RehearsalView, frozen=True):
    """With what the load test found (its summary.json); null as long as there is nothing."""

    summary: dict[str, Any] | None


class RehearsalList(Struct, frozen=True):
    rehearsals: list[RehearsalView]


class Begun(NamedTuple):
    """A rehearsal to be carried out: its row, the real sale, the host of the shadow show, and a
    real show that is on now, of whatever host (else '')."""

    row: RehearsalRow
    sale: SaleRow
    host: Identity
    live_show: str

    @property
    def units(self) -> int:
        """As many as the real sale has had."""
        return self.sale.initial + self.sale.restocked - self.sale.lowered


class Outcome(NamedTuple):
    """How a rehearsal ended. `summary` in JSON and `report` in gzip, if there are any."""

    status: Ending
    reason: str = ""
    summary: str | None = None
    report: bytes | None = None


class RehearsalActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown)."""

    def __init__(self, desk: Desk, shows: ShowActs, products: ProductActs, sales: SaleActs) -> None:
        self._desk = desk
        self._shows = shows
        self._products = products
        self._sales = sales

    # --- The host -------------------------------------------------------------------------------

    async def begin(
        self,
        identity: Identity,
        show_id: str,
        body: Rehearse,
        require_room: Callable[[Rehearse], None],
    ) -> tuple[RehearsalView, Begun | None]:
        """A new rehearsal to be carried out, or the one that this request_id has begun before.

        Raises Refused: unknown_sale, bad_field (too many people beside a show that is on),
        conflict (one is under way, or the request_id asked for something else), and what
        `require_room` raises, which only a new one has to ask.
        """
        async with self._desk.act(identity, show_id) as act:
            known = await rehearsals.find_request(act.conn, show_id, body.request_id)
            if known is not None:
                return _same(known, body), None
            require_room(body)
            live_show = await rehearsals.show_on(act.conn, show_id)
            if live_show:
                _require_few(body)
            sale = await sales.get_sale(act.conn, body.sale)
            if sale is None or sale.show_id != show_id:
                raise Refused("unknown_sale", field="sale")
            shadow_id = new_shadow_id()
            await shows.insert_show(act.conn, shadow_id, act.show.host_id, act.show.title)
            row = await self._insert(act.conn, show_id, shadow_id, body)
            asked = {"rehearsal": row.rehearsal_id, "sale": body.sale, "buyers": body.buyers}
            await act.note("rehearse", asked)
        host = identity._replace(show=shadow_id)
        return _view(row), Begun(row, sale, host, live_show)

    async def _insert(
        self, conn: Connection, show_id: str, shadow_id: str, body: Rehearse
    ) -> RehearsalRow:
        await rehearsals.give_up_lost(conn, limits.REHEARSAL_SILENT_S)
        asked = msgspec.to_builtins(body)
        made = (show_id, body.sale, shadow_id, body.request_id, asked)
        rehearsal_id = await rehearsals.insert(conn, *made)
        if rehearsal_id is None:
            raise Refused("conflict", "Another rehearsal is under way")
        row = await rehearsals.get(conn, show_id, rehearsal_id)
        assert row is not None  # inserted above
        return row

    async def list_newest(self, identity: Identity, show_id: str) -> list[RehearsalView]:
        """The newest of a show."""
        await self._give_up_lost()
        async with self._desk.reading(identity, show_id) as act:
            rows = await rehearsals.newest(act.conn, show_id, limits.REHEARSALS_LISTED)
        return [_view(row) for row in rows]

    async def get(self, identity: Identity, show_id: str, rehearsal_id: int) -> RehearsalDetail:
        """One with its summary. Raises Refused(not_found)."""
        await self._give_up_lost()
        async with self._desk.reading(identity, show_id) as act:
            row = _found(await rehearsals.get(act.conn, show_id, rehearsal_id))
            summary = await rehearsals.summary(act.conn, rehearsal_id)
        fields = msgspec.structs.asdict(_view(row))
        return RehearsalDetail(**fields, summary=json.loads(summary) if summary else None)

    async def stop(self, identity: Identity, show_id: str, rehearsal_id: int) -> RehearsalView:
        """Ask it to stop; it does so within some seconds and still reports. A repeat, and one that
        is over, change nothing."""
        async with self._desk.act(identity, show_id, ended=True) as act:
            row = _found(await rehearsals.get(act.conn, show_id, rehearsal_id))
            if not row.ended_at:
                await rehearsals.ask_to_stop(act.conn, rehearsal_id)
                await act.note("stop_rehearsal", {"rehearsal": rehearsal_id})
        return _view(row)

    async def report(self, identity: Identity, show_id: str, rehearsal_id: int) -> bytes:
        """The report's page in gzip. Raises Refused(not_found) when there is none."""
        async with self._desk.reading(identity, show_id) as act:
            page = await rehearsals.report(act.conn, show_id, rehearsal_id)
        if page is None:
            raise Refused("not_found", "There is no such report")
        return page

    # --- Whoever carries it out -----------------------------------------------------------------

    async def stage(self, begun: Begun) -> int:
        """Make the shadow show ready: live, with a copy of what is sold. Its sale, not started.

        Shadow shows of lost rehearsals, which `begin` may have given up, are ended before.
        """
        await self._end_left_open()
        host, shadow_id, sale = begun.host, begun.row.shadow_id, begun.sale
        units = max(1, begun.units)
        sku = CreateSku(
            title=sale.sku_title, price=sale.list_price, inventory=units, currency=sale.currency
        )
        product = CreateProduct(title=sale.product_title, skus=[sku])
        made = await self._products.create(host, shadow_id, product)
        await self._shows.move(host, shadow_id, "start")
        terms = CreateSale(
            sku=made.skus[0].sku,
            price=sale.price,
            units=units,
            limit_per_buyer=sale.limit_per_buyer,
            duration_s=SALE_SECONDS,
        )
        return (await self._sales.create(host, shadow_id, terms)).sale

    async def beat(self, begun: Begun, progress: Progress) -> str | None:
        """It runs, and stands so. Why to stop ('': it may go on); None when others gave it up.

        One that began beside no real show is neither small nor watches one, so it makes way.
        """
        row, standing = begun.row, msgspec.to_builtins(progress)
        async with acquire(self._desk.pool) as conn:
            stop = await rehearsals.beat(conn, row.rehearsal_id, standing)
            if stop is None or stop:
                return "host" if stop else None
            if not begun.live_show and await rehearsals.show_on(conn, row.show_id):
                return "live_show_began"
        return ""

    async def finish(self, rehearsal_id: int, outcome: Outcome) -> None:
        """It is over. Ends its shadow show, and those that crashes have left open; of the show's
        older rehearsals that nobody lists any more, reports are not kept."""
        async with transaction(self._desk.pool) as conn:
            await rehearsals.finish(conn, rehearsal_id, *outcome)
            await rehearsals.forget_old(conn, rehearsal_id, limits.REHEARSALS_LISTED)
        await self._end_left_open()

    async def _give_up_lost(self) -> None:
        """End those that nobody has heard of for long. Raises RecordsUnavailable."""
        async with acquire(self._desk.pool) as conn:
            gave_up = await rehearsals.give_up_lost(conn, limits.REHEARSAL_SILENT_S)
        if gave_up:
            await self._end_left_open()

    async def _end_left_open(self) -> None:
        """End the shadow shows of all that is over. One that cannot be ended now keeps no other
        open; whoever cleans up next tries it again. Raises RecordsUnavailable."""
        async with acquire(self._desk.pool) as conn:
            left_open = await rehearsals.left_open(conn)
        for shadow_id, host_id in left_open:
            host = Identity(host_id, host_id, "host", shadow_id, 0)
            try:
                await self._shows.move(host, shadow_id, "end")
            except (StoreUnavailable, RecordsUnavailable, Refused) as trouble:
                log.warning("shadow_show_not_ended", show_id=shadow_id, reason=str(trouble))


def _same(row: RehearsalRow, body: Rehearse) -> RehearsalView:
    if row.asked != msgspec.to_builtins(body):
        raise Refused("conflict", "This request_id asked for something else", field="request_id")
    return _view(row)


def _require_few(body: Rehearse) -> None:
    """Beside a show that is on only so many may be tried out. Raises Refused(bad_field)."""
    most = limits.REHEARSAL_LIVE_MAX
    for field in ("buyers", "watchers"):
        if getattr(body, field) > most:
            raise Refused("bad_field", f"While the show is on, at most {most}", field=field)


def _found(row: RehearsalRow | None) -> RehearsalRow:
    if row is None:
        raise Refused("not_found", "No such rehearsal")
    return row


def _view(row: RehearsalRow) -> RehearsalView:
    asked = row.asked
    return RehearsalView(
        rehearsal=row.rehearsal_id,
        sale=row.sale_id,
        status=row.status,
        reason=row.reason,
        buyers=asked["buyers"],
        watchers=asked["watchers"],
        bots=asked["bots"],
        seconds=asked["seconds"],
        progress=msgspec.convert(row.progress, Progress),
        verdict=row.verdict,
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
