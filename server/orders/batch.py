"""Entries of the order stream merged into one transaction, and what to tell Redis after it."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence

import msgpack

from server import clock
from server.domain.claim import KIND_CLAIM, StockIncident, Take
from server.errors import StoreUnavailable
from server.records.orders import CommitResult
from server.store.order_stream import OrderStream
from server.store.types import Confirmation, OrderEntry, PoolCounters, Settled

ENTRIES_FIRST = 4  # asked for while nothing is known about their size; each has up to 512 takes
BLOCK_MS = 500
REST_MS_MAX = 100.0
REST_AFTER_CLAIMS = 64  # in a batch: fewer than that cost nothing worth a wait
SILENT_SECONDS = 3.0
ID_MAX = 2**53 - 1  # what Lua counts exactly


class Batch:
    """`entries` in stream order, all of one epoch (0 when none can be read).

    `unreadable`: entry id -> why it cannot be read; `takes` leaves these out. Raises StockIncident
    for entries of several epochs.
    """

    def __init__(self, entries: Sequence[OrderEntry]) -> None:
        self.entries = entries
        self.unreadable = {e.entry_id: fault for e in entries if (fault := fault_of_entry(e))}
        readable = [entry for entry in entries if entry.entry_id not in self.unreadable]
        self.takes: list[Take] = [take for entry in readable for take in entry.takes]
        epochs = {entry.epoch for entry in readable}
        if len(epochs) > 1:
            raise StockIncident("epoch", f"entries of epochs {sorted(epochs)} in one stream")
        self.epoch = epochs.pop() if epochs else 0

    def confirmation(self, result: CommitResult) -> Confirmation:
        """Every claim that has a fate now, the pools' counters, and all entries to acknowledge."""
        return Confirmation(
            claims=[
                claim
                for entry in self.entries
                for claim in settled(entry.takes, result, entry.epoch, entry.hub_id)
            ],
            pools=[PoolCounters(*count) for count in result.pools.values()],
            entry_ids=[entry.entry_id for entry in self.entries],
        )


def settled(
    takes: Iterable[Take], result: CommitResult, epoch: int, hub_id: str
) -> Iterator[Settled]:
    """Those of the takes that are claims and have a fate now, for the hub of their buyers."""
    fates = result.fates
    for kind, pool, seq, buyer, claim_id, quantity, price, price_version, at_ms in takes:
        fate = fates.get((pool, seq)) if kind == KIND_CLAIM else None
        if fate is not None:
            yield Settled(
                hub_id, buyer, claim_id, fate.status, pool, quantity, price, price_version,
                epoch, seq, fate.order_id, fate.pay_by_ms, at_ms,
            )  # fmt: skip


def fault_of_entry(entry: OrderEntry) -> str:
    """Why the entry cannot be stored at all, not even as dead letters of its takes."""
    if entry.fault:
        return entry.fault
    if not 0 < entry.epoch < 2**31:
        return "epoch out of range"
    if any(not (0 < take.pool <= ID_MAX and 0 < take.seq <= ID_MAX) for take in entry.takes):
        return "pool or seq out of range"
    return ""


def raw_form(entry: OrderEntry) -> bytes:
    """An unreadable entry, to be kept for people: msgpack of its fields or of its takes."""
    packed: bytes = msgpack.packb(dict(entry.raw) if entry.fault else entry.takes)
    return packed


class BatchReader:
    """Reads entries until they have about `claims` takes; entries differ a lot in size.

    While a backlog lasts the next batch is read ahead, during the commit of this one. Without a
    backlog that would only make batches smaller; then, in a rush, the reader rests as long as the
    last batch took, so that the next one grows: a transaction costs about 2 ms of CPU before its
    first order.
    """

    def __init__(self, stream: OrderStream, consumer: str, claims: int) -> None:
        self._stream = stream
        self._consumer = consumer
        self._claims = claims
        self._takes_per_entry = claims / ENTRIES_FIRST
        self._ahead: asyncio.Task[list[OrderEntry]] | None = None
        self._handed_out_at: float | None = None  # monotonic ms; None: no need to rest

    async def read(self) -> list[OrderEntry]:
        """New entries, [] after BLOCK_MS without any. Raises StoreUnavailable, StreamLost."""
        if self._ahead is None:
            await self._rest()
        entries = await (self._ahead or self._read())
        claims = sum(len(entry.takes) for entry in entries)
        self._ahead = asyncio.create_task(self._read()) if claims >= self._claims else None
        self._handed_out_at = clock.monotonic_ms() if claims >= REST_AFTER_CLAIMS else None
        return entries

    async def _rest(self) -> None:
        if self._handed_out_at is not None:
            took_ms = clock.monotonic_ms() - self._handed_out_at
            await asyncio.sleep(min(took_ms, REST_MS_MAX) / 1000)

    async def drop(self) -> None:
        """Forget what was read ahead; it stays pending in the stream."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)
            self._ahead = None

    async def _read(self) -> list[OrderEntry]:
        entries: list[OrderEntry] = []
        missing = self._claims
        while missing > 0:
            count = max(1, int(missing / self._takes_per_entry))
            block_ms = 1 if entries else BLOCK_MS  # 0 would be for ever
            more = await self._read_some(count, block_ms)
            entries += more
            takes = sum(len(entry.takes) for entry in more)
            missing -= takes
            if len(more) < count:
                break
            self._takes_per_entry = max(1.0, takes / len(more))
        return entries

    async def _read_some(self, count: int, block_ms: int) -> list[OrderEntry]:
        """A blocking read has no timeout of its own: a Redis that fell silent needs one."""
        try:
            async with asyncio.timeout(block_ms / 1000 + SILENT_SECONDS):
                return await self._stream.read(self._consumer, count, block_ms)
        except TimeoutError:
            raise StoreUnavailable("the order stream does not answer") from None
