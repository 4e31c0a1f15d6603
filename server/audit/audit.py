"""`livesale audit`: every unit, every claim and every order accounted for, also while selling.

Reads Redis and PostgreSQL, writes nothing. The order of reading is what makes it exact
(server/audit/conservation.py): what Redis must have, what viewers see, one cut of Redis, one
snapshot of the books, then what Redis remembers of each claim. About 40 µs of CPU per claim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from server.audit.buyers import BuyerCounts
from server.audit.conservation import Conservation, check_viewers
from server.audit.fates import Fates
from server.audit.report import AuditReport, ShowReport
from server.errors import Misconfigured, StoreUnavailable
from server.records.audit import (
    Books,
    Promised,
    ShowBooks,
    TakeBook,
    open_books,
    order_statuses,
    read_promised,
    shows_to_audit,
)
from server.records.pool import Pool
from server.store.client import RedisClients
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import AuditCut, RoomSnapshot

LOOKUP_CLAIMS: Final = 1_000
REBUILDS_MAX: Final = 3  # in the middle of an audit, which then begins again


async def audit(clients: RedisClients, pool: Pool, show_id: str | None) -> AuditReport:
    """Audit one show, or all that ever started a sale.

    Raises Misconfigured for an unknown show, StoreUnavailable, RecordsUnavailable.
    """
    show_ids = await shows_to_audit(pool, show_id)
    if show_id is not None and not show_ids:
        raise Misconfigured(f"there is no show {show_id}")
    return AuditReport([await audit_show(clients, pool, each) for each in show_ids])


async def audit_show(clients: RedisClients, pool: Pool, show_id: str) -> ShowReport:
    """Audit one show. Raises StoreUnavailable, also when its stock is rebuilt again and again."""
    scripts = Scripts(clients.commands)
    for _ in range(REBUILDS_MAX):
        audit = _Audit(Stock(scripts), RoomStore(scripts), pool, show_id)
        await audit.run()
        if not await audit.was_rebuilt():
            return audit.report
    raise StoreUnavailable(f"the stock of {show_id} is being rebuilt again and again")


@dataclass(frozen=True, slots=True)
class _View:
    """What was read of Redis: the cut, and what viewers saw before and after it."""

    before: RoomSnapshot
    cut: AuditCut
    after: RoomSnapshot


class _Audit:
    """One audit of one show."""

    def __init__(self, stock: Stock, room: RoomStore, pool: Pool, show_id: str) -> None:
        self.report = ShowReport(show_id)
        self._stock = stock
        self._room = room
        self._pool = pool
        self._show_id = show_id
        self._epoch: int | None = None  # of the cut

    async def was_rebuilt(self) -> bool:
        """Whether the stock became another one since the cut: then nothing fits together."""
        if self._epoch is None:
            return False
        now = await self._room.snapshot(self._show_id)
        return now is not None and now.stock_epoch != self._epoch

    async def run(self) -> None:
        promised = await read_promised(self._pool, self._show_id)
        view = await self._look(promised)
        async with open_books(self._pool, self._show_id) as books:
            show = await books.show()
            if view is None or not self._may_compare(view.cut, show):
                if view is None and promised.pools:
                    self.report.add("show_missing", "Redis has lost the show")
                return
            check_viewers(self.report, view.cut, view.before.state, view.after.state)
            conservation = Conservation(self.report, view.cut, show, promised)
            fates, buyers = Fates(self.report, view.cut), BuyerCounts(self.report)
            await self._read(view.cut, books, conservation, fates, buyers)
        conservation.check()
        await self._check_fates(fates)
        await self._check_buyers(conservation, buyers)

    async def _look(self, promised: Promised) -> _View | None:
        """None: Redis does not know the show."""
        before = await self._room.snapshot(self._show_id)
        cut = await self._stock.audit_cut(self._show_id, list(promised.pools))
        after = await self._room.snapshot(self._show_id)
        if cut is None or before is None or after is None:
            return None
        self._epoch, self.report.epoch, self.report.at = cut.epoch, cut.epoch, cut.now_ms
        return _View(before, cut, after)

    def _may_compare(self, cut: AuditCut, show: ShowBooks) -> bool:
        """What is wrong with the show as a whole; False: its parts cannot be compared."""
        report = self.report
        if not cut.same_run:
            report.add("not_vouched", "Redis was started, restored or replaced since its stock was"
                       " written; nothing is sold before it is reconciled")  # fmt: skip
        if show.halted_by:
            report.add("halted", f"the show is halted: {show.halted_by}")
        elif show.rebuilding or cut.gate == "rebuilding":
            report.add("halted", "the stock is being rebuilt")
            return False
        if cut.epoch != show.epoch:
            detail = f"Redis has stock epoch {cut.epoch}, the books {show.epoch}"
            report.add("epoch", detail)
        return cut.epoch == show.epoch

    async def _read(
        self,
        cut: AuditCut,
        books: Books,
        conservation: Conservation,
        fates: Fates,
        buyers: BuyerCounts,
    ) -> None:
        """Every entry of the order stream and every row of the books."""
        for entry in cut.pending:
            conservation.enter_entry(entry)
            fates.enter_entry(entry)
        async for takes in books.takes():
            conservation.enter_takes(takes)
            fates.enter(takes)
        async for gives in books.gives():
            conservation.enter_gives(gives)
        async for rows in books.buyers():
            buyers.enter(rows)
        async for kind, pool, buyer, order_id, detail in books.faults():
            self.report.add(kind, detail, pool=pool, buyer=buyer, order_id=order_id)

    async def _check_fates(self, fates: Fates) -> None:
        """Each claim's fate, and each order's origin."""
        async for claim in self._stock.remembered_claims(self._show_id):
            fates.check_claim(claim)
        if fates.ahead:
            fates.check_ahead(await order_statuses(self._pool, list(fates.ahead)))
        unseen = [fates.booked[key] for key in fates.unseen]
        for start in range(0, len(unseen), LOOKUP_CLAIMS):
            await self._check_origins(fates, unseen[start : start + LOOKUP_CLAIMS])

    async def _check_origins(self, fates: Fates, rows: Sequence[TakeBook]) -> None:
        """The scan may have missed claims made during it: ask for each."""
        claims = [(row.buyer, row.claim_id) for row in rows]
        states = await self._stock.lookup(self._show_id, claims)
        for row, state in zip(rows, states, strict=True):
            if state is None:
                fates.check_origin(row)

    async def _check_buyers(self, conservation: Conservation, buyers: BuyerCounts) -> None:
        """Only in pools that are still as they were at the cut."""
        counted = {
            pool: await self._stock.units_by_buyer(self._show_id, pool)
            for pool in conservation.pools
        }
        now = await self._room.snapshot(self._show_id)
        for pool, tally in conservation.pools.items():
            stock = now and now.state.get(f"stock:{pool}")
            if tally.cut and stock and stock["version"] == tally.cut.version:
                buyers.check(pool, conservation, counted[pool])
