"""Takes that left Redis and are not in the books: found in what survived, entered anew.

A take is known by what it is for (a buyer's claim id, a host's act, a payment), not by its place in
the sequence: places of an older epoch mean nothing any more. So what is recovered gets the next
places of the new epoch, in the order of the old ones, and the books rule on it as on any take.
Doing it twice finds nothing the second time.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from server.acts.order_projector import CLOSINGS
from server.acts.projector import closing_id
from server.domain.claim import KIND_CLAIM, KIND_CLOSING, KIND_LOWERING, KIND_RETAKE, Take, fault_of
from server.orders.batch import fault_of_entry, raw_form, settled
from server.orders.entering import enter
from server.records import orders, rebuild
from server.records.orders import CommitResult
from server.records.pool import Connection
from server.records.rebuild import SaleOver
from server.store.evidence import Hold
from server.store.types import EVERY_HUB, OrderEntry, Settled

_BUYERS_KINDS: Final = (KIND_CLAIM, KIND_RETAKE)


@dataclass(slots=True)
class Found:
    """What survived of takes: `holds` by what they are for, `unreadable` entries of the
    stream, and why."""

    holds: dict[tuple[str, bytes], Hold] = field(default_factory=dict)
    unreadable: list[tuple[OrderEntry, str]] = field(default_factory=list)

    def add_entries(self, entries: Iterable[OrderEntry]) -> None:
        """From the order stream."""
        for entry in entries:
            if fault := fault_of_entry(entry):
                self.unreadable.append((entry, fault))
                continue
            for take in entry.takes:
                self.add(Hold(entry.epoch, take))

    def add(self, hold: Hold) -> None:
        """The first one of a claim counts, so what Redis still has comes before evidence."""
        self.holds.setdefault((hold.take.buyer, hold.take.claim_id), hold)


@dataclass(slots=True)
class Recovered:
    """What became of it. `settled`: the claims, to be told to whoever waits."""

    settled: list[Settled] = field(default_factory=list)
    orders: int = 0
    released: int = 0
    dead: int = 0
    lowered: int = 0
    closed: int = 0
    unreadable: int = 0


class Recovery:
    """The recovery of one show into `epoch`, which nobody else writes to yet."""

    def __init__(
        self, connection: Connection, show_id: str, epoch: int, *, now_ms: int, batch: int
    ) -> None:
        self._connection = connection
        self._show_id = show_id
        self._epoch = epoch
        self._now_ms = now_ms
        self._batch = batch
        self._recovered = Recovered()

    async def run(self, found: Found) -> Recovered:
        """Enter what is not in the books: buyers' takes first, then the host's, which get what is
        left; last, sales that are over give up their units."""
        await self._park(found.unreadable)
        lost = await self._unsettled(found)
        await self._enter([take for take in lost if take.kind in _BUYERS_KINDS])
        hosts = [take for take in lost if take.kind not in _BUYERS_KINDS]
        self._recovered.lowered = await self._lower([*hosts, *await self._forgotten(hosts)])
        self._recovered.closed = await self._close()
        return self._recovered

    async def _park(self, entries: Sequence[tuple[OrderEntry, str]]) -> None:
        for entry, fault in entries:
            where = (self._show_id, entry.entry_id)
            await orders.park_unreadable(self._connection, *where, raw_form(entry), fault)
        self._recovered.unreadable = len(entries)

    # --- What is lost -------------------------------------------------------------------------

    async def _unsettled(self, found: Found) -> list[Take]:
        """Takes without a fate, in the order in which they were accepted; those of the newest
        epoch first, or a hold that was lost before would push out one that is in force."""
        dead = await rebuild.dead_takes(self._connection, self._show_id)
        places = {(row.pool, row.epoch, row.seq) for row in dead}
        buried = {(row.take.buyer, row.take.claim_id) for row in dead if row.take}
        holds = [
            hold
            for key, hold in found.holds.items()
            if key not in buried and (hold.take.pool, hold.epoch, hold.take.seq) not in places
        ]
        settled = await self._settled(hold.take for hold in holds)
        holds.sort(key=lambda hold: (-hold.epoch, hold.take.pool, hold.take.seq))
        return [h.take for h in holds if (h.take.buyer, h.take.claim_id) not in settled]

    async def _settled(self, takes: Iterable[Take]) -> set[tuple[str, bytes]]:
        """A take that the books cannot hold has no fate there."""
        sound = [take for take in takes if not fault_of(take)]
        claims = {(t.buyer, t.claim_id) for t in sound if t.kind == KIND_CLAIM}
        known = await rebuild.settled_claims(self._connection, self._show_id, claims)
        others = [take for take in sound if take.kind != KIND_CLAIM]
        ids = {take.claim_id for take in others}
        acts = await rebuild.settled_acts(self._connection, self._show_id, ids)
        return known | {(t.buyer, t.claim_id) for t in others if t.claim_id in acts}

    async def _forgotten(self, hosts: Sequence[Take]) -> list[Take]:
        """Lowerings of which only their request tells that Redis had decided them."""
        acts = {take.claim_id for take in hosts}
        lost = await rebuild.lost_lowerings(self._connection, self._show_id)
        return [
            self._host_take(KIND_LOWERING, row.pool, row.act_id, row.units)
            for row in lost
            if row.act_id.bytes not in acts
        ]

    # --- Entering -----------------------------------------------------------------------------

    async def _enter(self, takes: Sequence[Take]) -> None:
        """Under the next places of their pools. Takes of unknown pools become dead letters."""
        pools = await rebuild.read_pools(self._connection, self._show_id)
        last = {pool: row.taken_seq for pool, row in pools.items()}
        numbered = [_at_next_place(take, last) for take in takes]
        for start in range(0, len(numbered), self._batch):
            some = numbered[start : start + self._batch]
            result = await enter(self._connection, self._show_id, self._epoch, some)
            self._note(some, result)

    async def _lower(self, takes: Sequence[Take]) -> int:
        """Host's takes, with as many units as there are: what buyers were promised came first."""
        pools = await rebuild.read_pools(self._connection, self._show_id)
        room = {pool: row.room for pool, row in pools.items()}
        fitting = []
        for take in takes:
            units = min(take.quantity, room.get(take.pool, 0))
            room[take.pool] = room.get(take.pool, 0) - units
            fitting.append(take._replace(quantity=units))
        await self._enter(fitting)
        return len(takes)

    async def _close(self) -> int:
        """Sales that are over give the units they have left back to the inventory."""
        over = await rebuild.sales_over(self._connection, self._show_id)
        await self._enter([self._closing(row) for row in over])
        return len(over)

    def _closing(self, over: SaleOver) -> Take:
        act = closing_id(over.sale)
        if over.status == "closed":  # that act is in the books: its units came back later
            act = uuid.uuid5(CLOSINGS, f"{over.sale}:epoch:{self._epoch}")
        return self._host_take(KIND_CLOSING, over.sale, act, over.room)

    def _host_take(self, kind: int, pool: int, act_id: uuid.UUID, units: int) -> Take:
        return Take(kind, pool, 0, "", act_id.bytes, units, 0, 0, self._now_ms)

    def _note(self, takes: Sequence[Take], result: CommitResult) -> None:
        self._recovered.orders += result.stored
        self._recovered.released += result.released
        self._recovered.dead += result.dead
        self._recovered.settled += settled(takes, result, self._epoch, EVERY_HUB)


def _at_next_place(take: Take, last: dict[int, int]) -> Take:
    """`last`: pool -> seq of its last take; raised."""
    if take.pool not in last:
        return take
    last[take.pool] += 1
    return take._replace(seq=last[take.pool])
