"""What this hub can prove of claims when Redis has lost them.

A room's ring has the claims that were called `held` here and have no fate yet. When the show's
stock is rebuilt, they are presented, once for each rebuild; so are the receipts that buyers send
meanwhile. Whatever comes too late takes part like any claim (hub/claims.py).
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import structlog

from server import clock
from server.errors import StoreUnavailable
from server.hub.room import Room
from server.limits import REBUILD_WAIT_MS, REDO_CLAIMS_MAX
from server.protocol.messages import ClaimState

log = structlog.get_logger()

RETRY_MS: Final = 100
Claims = Sequence[tuple[str, ClaimState]]  # buyer, state with its epoch and seq


class EvidenceStore(Protocol):
    """Where evidence is handed in (store.evidence.Evidence)."""

    async def present(
        self, show_id: str, rebuild_id: str, claims: Claims, hub_id: str = "", /
    ) -> bool:
        """With `hub_id`: this is all that the hub has. False: too late. Raises StoreUnavailable."""


OnLate = Callable[[Room, str, ClaimState, str], None]  # whose hold, and why it was refused


def _ignore_late(room: Room, buyer: str, hold: ClaimState, refusal: str) -> None:
    """Nobody keeps a record."""


class Ring:
    """The claims of one room without a fate, the oldest first; at most REDO_CLAIMS_MAX."""

    __slots__ = ("_held", "rebuild_id")

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], ClaimState] = {}
        self.rebuild_id = ""  # the newest rebuild that was seen

    def __len__(self) -> int:
        return len(self._held)

    def add(self, buyer: str, state: ClaimState) -> None:
        """The claim was called held; above the bound the oldest is forgotten."""
        held = self._held
        held[buyer, state.claim_id] = state
        if len(held) > REDO_CLAIMS_MAX:
            del held[next(iter(held))]

    def discard(self, buyer: str, claim_id: str) -> None:
        """The claim has a fate; unknown ones are none of ours."""
        self._held.pop((buyer, claim_id), None)

    def since(self, stock_epoch: int) -> Claims:
        """Those of this epoch or a later one. Those of earlier ones had their chance."""
        return [
            (buyer, state) for (buyer, _), state in self._held.items() if state.epoch >= stock_epoch
        ]


class Redo:
    """The rings of all rooms of a hub. `on_late` hears of holds that were proved too late: their
    units were gone. Maybe more than once of each."""

    def __init__(self, hub_id: str, store: EvidenceStore, on_late: OnLate = _ignore_late) -> None:
        self.on_late = on_late
        self._hub_id = hub_id
        self._store = store
        self._rings: dict[str, Ring] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def of(self, room: Room) -> Ring:
        """The ring of `room`; those that are empty make way."""
        ring = self._rings.get(room.show_id)
        if ring is None:
            self._rings = {show_id: ring for show_id, ring in self._rings.items() if ring}
            ring = self._rings[room.show_id] = Ring()
        return ring

    def on_rebuild(self, room: Room, rebuild_id: str) -> None:
        """The stock of the room's show is being rebuilt: present, once for this rebuild."""
        ring = self.of(room)
        if ring.rebuild_id != rebuild_id:
            ring.rebuild_id = rebuild_id
            self._spawn(room.show_id, rebuild_id, ring.since(room.stock_epoch), self._hub_id)

    def on_proof(self, room: Room, buyer: str, state: ClaimState) -> None:
        """A buyer has proved a hold while the stock is being rebuilt."""
        if rebuild_id := self.of(room).rebuild_id:
            self._spawn(room.show_id, rebuild_id, [(buyer, state)], "")

    def _spawn(self, show_id: str, rebuild_id: str, claims: Claims, hub_id: str) -> None:
        task = asyncio.create_task(self._present(show_id, rebuild_id, claims, hub_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _present(self, show_id: str, rebuild_id: str, claims: Claims, hub_id: str) -> None:
        """Until Redis answers, or it is too late in any case."""
        until_ms = clock.monotonic_ms() + REBUILD_WAIT_MS
        while clock.monotonic_ms() < until_ms:
            try:
                in_time = await self._store.present(show_id, rebuild_id, claims, hub_id)
            except StoreUnavailable:
                await asyncio.sleep(clock.jittered(RETRY_MS) / 1_000)
                continue
            except Exception:  # our fault; the receipts of the buyers remain
                log.exception("claims_not_presented", show_id=show_id)
                return
            log.info("claims_presented", show_id=show_id, n=len(claims), in_time=in_time)
            return
