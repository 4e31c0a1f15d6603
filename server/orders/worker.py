"""How a purchase reaches PostgreSQL.

    1  Redis accepted claims (store/lua/claim_batch.lua): units left `available`, one entry of the
       show's order stream holds them; the buyers were told `held`.
    2  The worker that has the show's lease reads entries and merges them into a batch.
    3  One transaction enters the batch into the books (records/orders.py): orders, buyers' units,
       counters, ledger, and each pool's watermark. What does not fit there is released.
    4  After COMMIT one call tells Redis (store/lua/confirm_batch.lua): claims become `confirmed`,
       hubs tell the buyers, all viewers see the counters, and only then the entries are deleted.

Whatever dies in between, the entries stay pending and come again; the books know every take by its
(epoch, pool, seq) and answer the same. A worker may therefore be killed, frozen or doubled.

What can go wrong with a batch, and what is done:

    PostgreSQL or Redis away      give up the lease, back off, start again; nothing is dropped
    a take's data is refused      halve the batch down to it, park it, store the others
    a seq is missing              take over what other workers still hold; if it stays missing:
    Redis contradicts the books   halt the show: gate closed, nothing stored until reconciled
    Redis keeps less than it must gate closed until it is mended; the stock is rebuilt then

Whoever gets the lease looks first whether Redis still has the show's stock, and has it rebuilt if
not (orders/reconcile.py): after a halt, and after whatever Redis may have lost something by.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from server import clock
from server.domain.claim import StockIncident
from server.errors import RecordsUnavailable, Refused, StoreUnavailable, Unfit
from server.limits import SHOW_KEPT_DAYS
from server.orders import lease, metrics
from server.orders.batch import Batch, BatchReader, raw_form
from server.orders.entering import enter
from server.orders.lease import Lease
from server.orders.reconcile import diagnose, diagnose_all, reconcile
from server.orders.tools import Tools as Tools  # part of what is given to OrderWorker
from server.orders.waiting import Backoff, wait_for
from server.records import orders
from server.records.orders import CommitResult
from server.records.pool import Connection, acquire
from server.store import gate
from server.store.order_stream import OrderStream
from server.store.rebuild import Superseded
from server.store.types import OrderEntry, StreamLost

log = structlog.get_logger()

LEASE_RETRY_MS: Final = 500  # how often a worker without the lease asks for it
# How often entries of frozen workers are looked for, and whether the stock is sound.
RECLAIM_EVERY_MS: Final = 5_000
RECLAIM_IDLE_MS: Final = 10_000
HALTED_RETRY_MS: Final = 500
RECONCILED_WELL_MS: Final = 60_000  # after that the next reconciliation need not wait
FAILED_RETRY_MS: Final = 5_000
DISCOVER_MS: Final = 500
QUIET_EVERY_MS: Final = 5_000  # how often shows without a running sale are looked at


class ShowConsumer:
    """Brings the order stream of one show into PostgreSQL while it has the show's lease."""

    def __init__(self, show_id: str, tools: Tools) -> None:
        self.show_id = show_id
        self.leaving = False  # no sale is running: end once everything is settled
        self.is_closed = False  # as last diagnosed: nothing is sold until the stock is rebuilt
        self._tools = tools
        self._stream = OrderStream(show_id, tools.clients, tools.scripts)
        self._reader = BatchReader(self._stream, tools.owner, tools.batch_claims)
        self._backoff = Backoff()
        self._log = log.bind(show_id=show_id, worker=tools.owner)
        self._epoch = 0  # of the stock, as last diagnosed
        self._halted_by = ""
        self._unfit = ""  # why Redis is not good enough, as last logged
        self._halting: StockIncident | StreamLost | None = None  # not on record everywhere yet
        self._reconcile_backoff = Backoff(RECONCILED_WELL_MS)
        self._reconcile_due = 0.0  # monotonic ms
        self._settled_all = False
        self._confirming: asyncio.Task[None] | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until `stopping` is set, or no sale is running and everything is settled."""
        try:
            while not (stopping.is_set() or self._settled_all):
                await wait_for(stopping, await self._turn(stopping))
        finally:
            await self._stream.aclose()

    async def _turn(self, stopping: asyncio.Event) -> int:
        """Consume while the lease lasts; ms to wait before asking for it again."""
        if self._halting is not None:  # Redis tells of a lost entry or group only once
            await self._halt(self._halting)
            return HALTED_RETRY_MS
        try:
            async with lease.hold(self._stream, self._tools.owner) as held:
                if held.held and await self._is_sound():
                    await self._consume(held, stopping)
            self._backoff.reset()
            return LEASE_RETRY_MS
        except (StoreUnavailable, RecordsUnavailable) as outage:
            pause_ms = self._backoff.next_ms()
            part = "redis" if isinstance(outage, StoreUnavailable) else "postgres"
            metrics.outages.labels(part).inc()
            self._log.warning("worker_backs_off", part=part, reason=str(outage), pause_ms=pause_ms)
            return pause_ms
        except (StockIncident, StreamLost) as incident:
            await self._halt(incident)
            return HALTED_RETRY_MS
        except (Refused, Superseded) as refusal:  # somebody rebuilds the stock meanwhile
            self._log.info("consumer_yields", reason=str(refusal))
            return LEASE_RETRY_MS
        except Unfit as unfit:
            await self._keep_closed(str(unfit))
            return HALTED_RETRY_MS
        except Exception:  # one show's trouble must not stop the others
            self._log.exception("consumer_failed")
            return FAILED_RETRY_MS

    # --- Is the stock sound? ------------------------------------------------------------------

    async def _is_sound(self) -> bool:
        """Look at the show, and reconcile it if need be. False: not now, or Redis was never told
        of it."""
        if not (reason := await self._diagnose()):
            return self._epoch > 0
        if clock.monotonic_ms() < self._reconcile_due:
            return False
        self._reconcile_later()
        report = await reconcile(self.show_id, self._tools, reason, self._tools.owner)
        return report.outcome == "done" and not await self._diagnose()

    async def _diagnose(self) -> str:
        diagnosis = await diagnose(self.show_id, self._tools)
        self._epoch, self.is_closed = diagnosis.epoch, bool(diagnosis.complaint)
        await self._tools.require_fit()
        self._unfit = ""
        return diagnosis.complaint

    async def _keep_closed(self, fault: str) -> None:
        """Redis keeps less than buyers were promised: sell nothing on it. Once it is mended the
        closed gate has the stock rebuilt."""
        self.is_closed, self._reconcile_due = True, 0.0
        if fault != self._unfit:
            self._unfit = fault
            self._log.critical("redis_unfit", reason=fault)
        try:
            await gate.close_for_rebuilding(self._tools.scripts, self.show_id, epoch=self._epoch)
        except StoreUnavailable as outage:
            self._log.warning("gate_not_closed", reason=str(outage))

    def _reconcile_later(self) -> None:
        """When the next reconciliation may begin: a show that needs many should not only be
        rebuilt."""
        now_ms = clock.monotonic_ms()
        if now_ms > self._reconcile_due + RECONCILED_WELL_MS:
            self._reconcile_backoff.reset()
        self._reconcile_due = now_ms + self._reconcile_backoff.next_ms()

    # --- Consuming ----------------------------------------------------------------------------

    async def _consume(self, held: Lease, stopping: asyncio.Event) -> None:
        try:
            # Having the lease, take everything at first: its last holder is gone.
            await self._settle(await self._reclaim(0))
            await self._follow(held, stopping)
            await self._confirmed()
        finally:
            await self._drop()

    async def _follow(self, held: Lease, stopping: asyncio.Event) -> None:
        """Settle new entries as they come."""
        reclaim_at = clock.monotonic_ms() + RECLAIM_EVERY_MS
        while held.held and not stopping.is_set():
            if clock.monotonic_ms() >= reclaim_at:
                if await self._diagnose():
                    return
                await self._settle(await self._reclaim(RECLAIM_IDLE_MS))
                reclaim_at = clock.monotonic_ms() + RECLAIM_EVERY_MS
            entries = await self._reader.read()
            await self._settle(entries)
            if self.leaving and not entries:
                await self._confirmed()
                self._settled_all = await self._stream.backlog() == 0
                return

    async def _confirmed(self) -> None:
        """Wait until Redis has been told of the last commit; raises what went wrong."""
        if self._confirming is not None:
            task, self._confirming = self._confirming, None
            await task

    async def _drop(self) -> None:
        """End what still runs; whatever it was about stays pending in the stream."""
        await self._reader.drop()
        if self._confirming is not None:
            self._confirming.cancel()
            await asyncio.gather(self._confirming, return_exceptions=True)
            self._confirming = None

    async def _reclaim(self, idle_ms: int) -> list[OrderEntry]:
        """Unsettled entries of this worker and others. Raises StockIncident if some are lost."""
        found = await self._stream.autoclaim(self._tools.owner, idle_ms)
        if found.lost_ids:
            raise StockIncident("lost", f"the stream lost entries {found.lost_ids}")
        return found.entries

    async def _settle(self, entries: Sequence[OrderEntry]) -> None:
        """COMMIT, then tell Redis, which acknowledges the entries last.

        Redis is told while the next batch is read and committed, one batch at a time.
        """
        if not entries:
            await self._confirmed()
            return
        batch, result = await self._enter(entries)
        await self._confirmed()
        self._backoff.reset()
        self._confirming = asyncio.create_task(
            self._tools.stock.confirm_batch(self.show_id, batch.confirmation(result))
        )

    async def _enter(self, entries: Sequence[OrderEntry]) -> tuple[Batch, CommitResult]:
        """Enter the entries into the books; with a hole in them, all that is pending."""
        batch = Batch(entries)
        try:
            result = await self._commit(batch)
        except StockIncident as incident:
            if incident.kind != "gap":
                raise
            # A worker just woken up may have read the rest.
            batch = Batch(await self._reclaim(0))
            result = await self._commit(batch)
        _count(batch, result)
        return batch, result

    async def _commit(self, batch: Batch) -> CommitResult:
        async with acquire(self._tools.pool) as connection:
            for entry in batch.entries:
                if fault := batch.unreadable.get(entry.entry_id):
                    await self._park(connection, entry, fault)
            if not batch.takes:
                return CommitResult()
            with metrics.commit_seconds.time():
                return await enter(connection, self.show_id, batch.epoch, batch.takes)

    async def _park(self, connection: Connection, entry: OrderEntry, fault: str) -> None:
        self._log.error("order_entry_unreadable", entry_id=entry.entry_id, fault=fault)
        where = (self.show_id, entry.entry_id)
        await orders.park_unreadable(connection, *where, raw_form(entry), fault)

    # --- Halting ------------------------------------------------------------------------------

    async def _halt(self, incident: StockIncident | StreamLost) -> None:
        """Close the gate and put on record that nothing may be stored before the stock is
        reconciled; that comes with the next turn."""
        self._halting = incident
        kind = incident.kind if isinstance(incident, StockIncident) else "lost"
        reason = str(incident)
        if reason != self._halted_by:
            self._halted_by = reason
            metrics.incidents.labels(kind).inc()
            self._log.critical("stock_incident", kind=kind, detail=reason)
        try:
            await gate.close_for_rebuilding(self._tools.scripts, self.show_id, epoch=self._epoch)
            await orders.halt(self._tools.pool, self.show_id, reason, self._epoch)
            self._halting = None
        except (StoreUnavailable, RecordsUnavailable) as outage:
            self._log.warning("halt_incomplete", reason=str(outage))


def _count(batch: Batch, result: CommitResult) -> None:
    metrics.batch_claims.observe(len(batch.takes))
    metrics.stored.inc(result.stored)
    metrics.released.inc(result.released)
    metrics.dead.inc(result.dead)
    metrics.repeated.inc(result.repeated)


class OrderWorker:
    """Finds the shows that have work and consumes those whose lease it gets."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._running: dict[str, tuple[ShowConsumer, asyncio.Task[None]]] = {}
        self._backoff = Backoff()
        self._quiet_due = 0.0  # monotonic ms

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then every consumer finishes the batch in hand."""
        async with asyncio.TaskGroup() as tasks:
            while not stopping.is_set():
                pause_ms = DISCOVER_MS
                try:
                    await self._look(tasks, stopping)
                    self._backoff.reset()
                except (StoreUnavailable, RecordsUnavailable) as outage:
                    pause_ms = self._backoff.next_ms()
                    log.warning("discovery_backs_off", reason=str(outage), pause_ms=pause_ms)
                await wait_for(stopping, pause_ms)

    async def _look(self, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        """Start consumers for shows that sell, let the others go: each holds a connection."""
        self._running = {s: pair for s, pair in self._running.items() if not pair[1].done()}
        metrics.shows.set(len(self._running))
        metrics.closed.set(sum(consumer.is_closed for consumer, _ in self._running.values()))
        shows = await orders.shows_with_work(self._tools.pool, SHOW_KEPT_DAYS)
        for show_id, (consumer, _) in self._running.items():
            consumer.leaving = not shows.get(show_id, False)
        waiting = await orders.shows_waiting(self._tools.pool)
        if due := clock.monotonic_ms() >= self._quiet_due:
            self._quiet_due = clock.monotonic_ms() + QUIET_EVERY_MS
            waiting |= await orders.shows_returning(self._tools.pool)
        found = (shows.keys() | waiting) - self._running.keys()
        quiet = [show_id for show_id in sorted(found) if not shows.get(show_id)]
        for show_id in found.difference(quiet):
            self._start(show_id, tasks, stopping)
        looked_at = quiet if due else [show_id for show_id in quiet if show_id in waiting]
        for show_id in await self._with_work(looked_at):
            self._start(show_id, tasks, stopping)

    def _start(self, show_id: str, tasks: asyncio.TaskGroup, stopping: asyncio.Event) -> None:
        consumer = ShowConsumer(show_id, self._tools)
        self._running[show_id] = (consumer, tasks.create_task(consumer.run(stopping)))

    async def _with_work(self, shows: Sequence[str]) -> list[str]:
        """Of shows without a running sale, those whose stock is unsound or whose stream is not
        empty. There may be a thousand, so they are asked for together."""
        found = await diagnose_all(shows, self._tools) if shows else {}
        return [show_id for show_id, each in found.items() if each.complaint or each.backlog]
