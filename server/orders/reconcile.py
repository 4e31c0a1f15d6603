"""Reconciliation: a show's stock in Redis made anew from the books, as at any start of Redis.

Redis sequences takes and PostgreSQL remembers them. When Redis is restarted, restored from a copy,
replaced by its replica or flushed, it may have lost the newest takes, and nothing inside it tells.
So it is not asked to: everything that moves units is refused until what Redis holds has been
written from the books, under a new stock epoch. One path for every cause, first start included.

The steps, and what each is for:

    1  lock          one reconciler per show. Saves work; nothing below depends on it
    2  close         meta.gate = rebuilding, under an id; hubs are told. The gate is asked by every
                     script that changes stock or claims (lua/_gate.lua), so from here on the order
                     stream does not grow and no unit moves. Nothing happens when Redis is at
                     another epoch than the one that was diagnosed
    3  bump          the books' epoch rises, in a transaction that waits for all that hold it. From
                     here on no worker, frozen or not, can enter a take of an older epoch: what the
                     books have of those is final
    4  evidence      hubs hand in the claims they were told are held, and receipts of buyers; who
                     comes after the waiting is told that it is too late
    5  recover       what the stream or the evidence has and the books do not have is entered into
                     the books under the new epoch (orders/recovery.py). What does not fit ends as
                     released_by_incident; a sale that is over gives its units back
    6  begin         what Redis has of the stock is deleted, meta gets the new epoch and the id of
                     the Redis process
    7  write         one REPEATABLE READ snapshot of the books, in bounded portions
    8  open          the report is committed, the gate follows the show's phase, buyers are told.
                     Not on a Redis that keeps less than was promised: the process that is asked
                     how it persists is the one that step 6 wrote to, or the opening fails

Why nothing is sold twice. After step 8 a pool's `available` is what the snapshot says is not
reserved, sold or dead. Between snapshot and opening nobody takes from Redis (gate) and nobody
enters takes (step 3; takes of the new epoch come from step 5 alone). Gives may be committed at any
time: those in the snapshot are in `available` and in `applied`, so that telling Redis of them
again changes nothing; the others are in neither, and are told after the opening. The books refuse
what does not fit in any case.

Why nothing confirmed is lost. What is confirmed is in the books, and Redis becomes what they say.
Should the books themselves have lost commits (an older copy, a standby that lagged), the pools'
versions tell, and what Redis remembers of claims is evidence like what hubs remember.

Why a unit cannot be stranded. `available` is computed; nothing is carried over.

Why a crash or a second reconciler does no harm. Steps 2 to 6 are idempotent: whoever comes later
gets a higher epoch, finds what was entered by then (a take is known by what it is for), and begins
again. One that was frozen is refused wherever it goes on: its closing and its bump (another epoch
is in force), its takes (the books are at another epoch), its scripts (meta has another rebuild's
id, or it runs on another Redis process than it began on), its report. Redis dying between any two
steps is the same: the process is another, so the scripts refuse, and whoever diagnoses the show
next starts over. Until step 8 is complete the diagnosis is never clean: gate, process or epoch
tell.

Why the wait in step 4 may be short. It is for the buyers' sake, not for the books'. A hold that is
found too late is sent again by the client that has its receipt and takes part like any claim; if
the units are gone it is told released_by_incident.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, NamedTuple

import structlog

from server import clock
from server.acts.projector import Projector, sale_projection
from server.errors import Misconfigured
from server.limits import REBUILD_GRACE_MS, REBUILD_WAIT_MS
from server.orders import metrics
from server.orders.recovery import Found, Recovered, Recovery
from server.orders.tools import Tools
from server.records import rebuild as books
from server.records import shows
from server.records.pool import acquire
from server.records.rebuild import Bump, ClaimRow, DeadTake, Expected, PoolRoom, Snapshot
from server.records.sales import SaleRow
from server.store import gate, keys, packing
from server.store.evidence import Evidence, hold_of
from server.store.gate import Vitals
from server.store.order_stream import surviving_entries
from server.store.rebuild import PoolStock, Rebuild, Superseded
from server.store.room import RoomStore
from server.store.types import Confirmation

log = structlog.get_logger()

LOOK_MS: Final = 20  # how often it is looked whether all hubs have presented
_RUNNING: Final = ("scheduled", "open", "closing")
_KEPT: Final = ("held", "confirmed", "paid", "fulfilled")  # claims that have their units


@dataclass(slots=True)
class Report:
    """What a reconciliation did. `outcome` busy: somebody else is at it, nothing was done.

    The counts are of takes that were entered from what survived: `orders` made, claims `released`,
    takes buried as `dead`, host's takes (`lowered`, `closed`), stream entries nobody can read.
    `holds` were found in all; `claims` and `pools` were written. `ms`: how long each part took.
    """

    show_id: str
    reason: str
    by: str
    outcome: Literal["done", "busy"] = "busy"
    epoch: int = 0
    hubs: int = 0
    holds: int = 0
    orders: int = 0
    released: int = 0
    dead: int = 0
    lowered: int = 0
    closed: int = 0
    unreadable: int = 0
    claims: int = 0
    pools: int = 0
    ms_evidence: int = 0
    ms_recover: int = 0
    ms_write: int = 0
    ms_closed: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


# --- When -------------------------------------------------------------------------------------


class Diagnosis(NamedTuple):
    """Why a show must be reconciled, "" when it need not be; its stock epoch in the books, and the
    entries in its order stream."""

    complaint: str
    epoch: int
    backlog: int


async def diagnose(show_id: str, tools: Tools) -> Diagnosis:
    """One show. Raises StoreUnavailable, RecordsUnavailable."""
    return (await diagnose_all([show_id], tools))[show_id]


async def diagnose_all(show_ids: Sequence[str], tools: Tools) -> dict[str, Diagnosis]:
    """By show. The books are read first: a take is in Redis before it is in them.

    Raises StoreUnavailable, RecordsUnavailable.
    """
    expected = await books.read_all_expected(tools.pool, show_ids)
    pools = {show_id: list(each.seqs) for show_id, each in expected.items()}
    vitals = await gate.read_all_vitals(tools.scripts, pools)
    # A show that was never projected need not be in Redis.
    found = dict.fromkeys(show_ids, Diagnosis("", 0, 0))
    for show_id, each in expected.items():
        found[show_id] = await _diagnosis(show_id, tools, each, vitals[show_id])
    return found


async def _diagnosis(show_id: str, tools: Tools, expected: Expected, vitals: Vitals) -> Diagnosis:
    found = complaint(expected, vitals)
    if not found and went_back(expected, vitals):  # or they moved on between the two readings
        later = await books.read_expected(tools.pool, show_id)
        found = went_back(later or expected, vitals)
    return Diagnosis(found, expected.epoch, vitals.backlog)


def complaint(expected: Expected, vitals: Vitals) -> str:
    """What is wrong with a show, "" if nothing is."""
    if vitals.damage:
        return f"damaged: {'; '.join(vitals.damage)}"
    if not vitals.epoch:
        return "missing: Redis does not have the show"
    if expected.halted_by:
        return expected.halted_by
    if not vitals.same_run:
        return "restarted: Redis is another process"
    if vitals.epoch != expected.epoch:
        return f"epoch: Redis is at {vitals.epoch}, the books at {expected.epoch}"
    if vitals.gate == "rebuilding":
        return "gate: the gate is closed"
    if not vitals.has_group and expected.seqs:
        return "group: the order stream or its consumer group is gone"
    for pool, seq in vitals.seqs.items():
        if seq < expected.seqs[pool]:
            return f"behind: pool {pool} is at take {seq}, the books at {expected.seqs[pool]}"
    return ""


def went_back(expected: Expected, vitals: Vitals) -> str:
    """Whether the books have lost commits that Redis was told of: PostgreSQL was restored from a
    copy, or a standby took over that lagged behind. "" if not."""
    for pool, version in vitals.versions.items():
        if version > expected.versions.get(pool, version):
            known = expected.versions[pool]
            return f"older: Redis knows version {version} of pool {pool}, the books are at {known}"
    return ""


# --- How --------------------------------------------------------------------------------------


async def reconcile(show_id: str, tools: Tools, reason: str, by: str) -> Report:
    """Rebuild the show's stock, whatever its state. `by`: who asked, for the record.

    Raises Misconfigured for an unknown show, Unfit for a Redis that keeps too little (it may have
    become so: the show stays closed then); StoreUnavailable,
    RecordsUnavailable, Superseded or StockIncident when it was not completed: the show stays closed
    and must be reconciled again.
    """
    report = Report(show_id, reason, by)
    async with tools.reconciling, books.sole_reconciler(tools.pool, show_id) as alone:
        if alone:
            await _Reconciliation(tools, report).run()
    return report


class _Reconciliation:
    """The steps of one reconciliation, in the order of the module's docstring."""

    def __init__(self, tools: Tools, report: Report) -> None:
        self._tools = tools
        self._report = report
        self._show_id = report.show_id
        self._id = clock.new_short_id(12)
        self._asks_claims = False

    async def run(self) -> None:
        report, tools = self._report, self._tools
        log.warning("reconciling", show_id=self._show_id, reason=report.reason, by=report.by)
        began = clock.monotonic_ms()
        await tools.require_fit()  # here to begin nothing in vain, and before the opening for good
        phase = await self._phase()
        epoch = await books.read_epoch(tools.pool, self._show_id)
        expected = await books.read_expected(tools.pool, self._show_id)
        seen = await gate.read_vitals(
            tools.scripts, self._show_id, list(expected.seqs) if expected else []
        )
        self._asks_claims = _must_ask_claims(expected, seen)
        await self._close(seen)
        if seen.damage and not await gate.drop_damaged(
            tools.scripts, self._show_id, self._id, list(seen.seqs)
        ):
            raise Superseded(f"another rebuild has {self._show_id}")
        bump = await books.bump_epoch(
            tools.pool,
            self._show_id,
            seen=epoch,
            above=seen.epoch,
            reason=report.reason,
            by=report.by,
        )
        report.epoch = bump.epoch
        report.ms_evidence = await _timed(self._await_evidence(began, seen))
        await self._stop_gathering()
        recovered = await self._recover(bump)
        rebuild = Rebuild(tools.scripts, self._show_id, self._id, bump.epoch)
        report.ms_write = await _timed(self._write(rebuild, bump, phase))
        report.ms_closed = round(clock.monotonic_ms() - began)
        report.outcome = "done"
        await tools.require_fit()
        await books.finish(tools.pool, bump, report.as_dict())
        await rebuild.open()
        self._count()
        await tools.stock.confirm_batch(self._show_id, Confirmation(recovered.settled))

    async def _phase(self) -> str:
        async with acquire(self._tools.pool) as conn:
            show = await shows.get_show(conn, self._show_id)
        if show is None:
            raise Misconfigured(f"there is no show {self._show_id}")
        return show.status

    async def _close(self, seen: Vitals) -> None:
        scripts, show_id = self._tools.scripts, self._show_id
        if not await gate.close_for_rebuilding(
            scripts, show_id, rebuild=self._id, epoch=seen.epoch
        ):
            raise Superseded(f"epoch {seen.epoch} of {show_id} is not in force any more")

    def _count(self) -> None:
        metrics.reconciliations.labels(self._report.reason.partition(":")[0]).inc()
        metrics.recovered.inc(self._report.orders)
        metrics.reconciling_seconds.observe(self._report.ms_closed / 1_000)
        log.warning("reconciled", **self._report.as_dict())

    # --- Evidence -----------------------------------------------------------------------------

    async def _await_evidence(self, began: float, seen: Vitals) -> None:
        """Until every hub has presented; hubs that have lost their connection to Redis are given
        REBUILD_GRACE_MS to come back. Not at all when nothing can be held."""
        if not await self._may_have_holds():
            return
        evidence = Evidence(self._tools.scripts)
        least = 0 if seen.same_run else REBUILD_GRACE_MS
        while (waited := clock.monotonic_ms() - began) < REBUILD_WAIT_MS:
            self._report.hubs, listening = await evidence.count_hubs(self._show_id)
            if waited >= least and self._report.hubs >= listening:
                return
            await asyncio.sleep(LOOK_MS / 1_000)

    async def _may_have_holds(self) -> bool:
        """The closing of a sale is its last take: before it nothing is missing."""
        expected = await books.read_expected(self._tools.pool, self._show_id)
        if expected is None:
            return False
        async with books.snapshot(self._tools.pool, self._show_id, self._report.epoch) as snapshot:
            return any(sale.status in _RUNNING for sale in await snapshot.sales())

    async def _stop_gathering(self) -> None:
        """Who hands in more is told that it is too late, and the buyer's receipt counts."""
        if not await gate.stop_gathering(self._tools.scripts, self._show_id, self._id):
            raise Superseded(f"another rebuild has {self._show_id}")

    async def _recover(self, bump: Bump) -> Recovered:
        report, began = self._report, clock.monotonic_ms()
        found = await self._gather()
        report.holds = len(found.holds)
        async with acquire(self._tools.pool) as conn:
            recovered = await Recovery(
                conn,
                self._show_id,
                bump.epoch,
                now_ms=clock.now_ms(),
                batch=self._tools.batch_claims,
            ).run(found)
        for name in ("orders", "released", "dead", "lowered", "closed", "unreadable"):
            setattr(report, name, getattr(recovered, name))
        report.ms_recover = round(clock.monotonic_ms() - began)
        return recovered

    async def _gather(self) -> Found:
        found = Found()
        async for entries in surviving_entries(self._tools.scripts, self._show_id):
            found.add_entries(entries)
        async for holds in Evidence(self._tools.scripts).holds(self._show_id):
            for hold in holds:
                found.add(hold)
        if self._asks_claims:
            await self._add_remembered(found)
        return found

    async def _add_remembered(self, found: Found) -> None:
        """What Redis remembers; damage there must not keep the stock from being rebuilt."""
        try:
            async for claim in self._tools.stock.remembered_claims(self._show_id):
                if claim.state.status in _KEPT:
                    found.add(hold_of(claim.buyer, claim.state))
        except (ValueError, KeyError, TypeError):
            log.exception("claims_unreadable", show_id=self._show_id)

    # --- Writing ------------------------------------------------------------------------------

    async def _write(self, rebuild: Rebuild, bump: Bump, phase: str) -> None:
        async with books.snapshot(self._tools.pool, self._show_id, bump.epoch) as snapshot:
            pools = await snapshot.pools()
            await rebuild.begin(pools, phase)
            dead = await snapshot.dead_claims()
            await self._write_claims(rebuild, snapshot, dead)
            async for give_ids in snapshot.gives():
                await rebuild.write_applied((give_id, 1) for give_id in give_ids)
            async for acts in snapshot.acts():
                await rebuild.write_applied(
                    (str(act), packing.pack((units, seq))) for act, units, seq in acts
                )
            await self._write_buyers(rebuild, snapshot, dead)
            for sale in await snapshot.sales():
                await rebuild.write_pool(_pool_stock(sale, pools[sale.sale_id]))
                self._report.pools += 1
        rooms = RoomStore(self._tools.scripts)
        projector = Projector(self._tools.pool, self._tools.stock, rooms)
        await projector.project_show(self._show_id, again=True)

    async def _write_claims(
        self, rebuild: Rebuild, snapshot: Snapshot, dead: list[DeadTake]
    ) -> None:
        await rebuild.write_claims([_dead_claim(each) for each in dead])
        async for claims in snapshot.claims():
            await rebuild.write_claims([_claim(row) for row in claims])
            self._report.claims += len(claims)

    async def _write_buyers(
        self, rebuild: Rebuild, snapshot: Snapshot, dead: list[DeadTake]
    ) -> None:
        parked = _parked_units(dead)
        async for rows in snapshot.buyers():
            by_pool: dict[int, dict[str, int]] = {}
            for pool, buyer, units in rows:
                by_pool.setdefault(pool, {})[buyer] = units + parked.pop((pool, buyer), 0)
            for pool, units_of in by_pool.items():
                await rebuild.write_buyers(pool, units_of)
        for (pool, buyer), units in parked.items():
            await rebuild.write_buyers(pool, {buyer: units})


def _must_ask_claims(expected: Expected | None, seen: Vitals) -> bool:
    """Whether only what Redis remembers of claims may tell of some: the books have lost commits, or
    the order stream is not what it was. Else both have them, and a claim is not read twice."""
    if expected is None:
        return False
    is_torn = bool(seen.damage or expected.halted_by) or not seen.has_group
    return is_torn or bool(went_back(expected, seen))


async def _timed(work: Any) -> int:
    """Ms that `work` took."""
    began = clock.monotonic_ms()
    await work
    return round(clock.monotonic_ms() - began)


def _claim(row: ClaimRow) -> tuple[bytes, bytes]:
    field = keys.claim_field(row.buyer, row.claim_id.bytes)
    return field, packing.pack(row[2:])


def _parked_units(dead: list[DeadTake]) -> dict[tuple[int, str], int]:
    """(pool, buyer) -> units that count against the buyer until somebody decides."""
    units: Counter[tuple[int, str]] = Counter()
    for each in dead:
        if each.status == "parked" and each.take is not None:
            units[each.take.pool, each.take.buyer] += each.take.quantity
    return units


def _dead_claim(dead: DeadTake) -> tuple[bytes, bytes]:
    """Held until somebody decides on the dead letter; released when it was given back."""
    take = dead.take
    assert take is not None  # Snapshot.dead_claims has no others
    status = "held" if dead.status == "parked" else "released_by_incident"
    terms = (take.pool, take.quantity, take.price, take.price_version)
    state = (status, *terms, dead.epoch, dead.seq, 0, 0, take.at_ms)
    return keys.claim_field(take.buyer, take.claim_id), packing.pack(state)


def _pool_stock(sale: SaleRow, room: PoolRoom) -> PoolStock:
    return PoolStock(
        projection=sale_projection(sale),
        units=sale.initial + sale.restocked - sale.lowered,
        available=room.room,
        reserved=sale.reserved,
        sold=sale.sold,
        dead=sale.dead,
        version=sale.pool_version,
        seq=room.taken_seq,
    )
