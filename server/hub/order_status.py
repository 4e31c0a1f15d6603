"""What became of a claim: look-ups asked by viewers, many in one call.

The same send-on-idle batching as for claims (server/hub/claims.py): one call per room in flight,
the next takes whatever was asked meanwhile.
"""

import asyncio
import uuid
from itertools import islice
from typing import Final

import structlog

from server.errors import StoreUnavailable
from server.hub.claims import with_receipt
from server.hub.holds import HoldStore
from server.hub.receipts import Receipts
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.limits import CLAIM_QUEUE_MAX, HOLD_LOOKUP_BATCH_MAX
from server.protocol.messages import Accepted, ClaimState

log = structlog.get_logger()

NOT_SEEN: Final = "not_seen"

Question = tuple[Viewer, int, str, str]  # who asks, under which ref, buyer, claim id as text


class OrderStatusDesk:
    """Answers order_status for all rooms of a hub."""

    def __init__(self, store: HoldStore, receipts: Receipts) -> None:
        self._store = store
        self._receipts = receipts
        self._questions: dict[Room, list[Question]] = {}
        self._flights: dict[Room, asyncio.Task[None]] = {}

    def ask(self, viewer: Viewer, ref: int, buyer: str, claim_id: str) -> None:
        """Answer under `ref` how the claim of `buyer` stands; `not_seen` when nobody remembers."""
        room = viewer.room
        questions = self._questions.setdefault(room, [])
        if len(questions) >= CLAIM_QUEUE_MAX:
            viewer.refuse(ref, "busy")
            return
        questions.append((viewer, ref, buyer, claim_id))
        if room not in self._flights:
            self._flights[room] = asyncio.create_task(self._fly(room))

    async def _fly(self, room: Room) -> None:
        try:
            while questions := self._questions.pop(room, None):
                batch = list(islice(questions, HOLD_LOOKUP_BATCH_MAX))
                rest = questions[HOLD_LOOKUP_BATCH_MAX:]
                if rest:
                    self._questions[room] = rest
                await self._answer(room, batch)
        finally:
            del self._flights[room]

    async def _answer(self, room: Room, batch: list[Question]) -> None:
        asked = [(buyer, uuid.UUID(claim_id).bytes) for _, _, buyer, claim_id in batch]
        try:
            states = await self._store.lookup(room.show_id, asked)
        except Exception as error:
            if not isinstance(error, StoreUnavailable):
                log.exception("order_status_failed", show_id=room.show_id)
            for viewer, ref, _, _ in batch:
                viewer.refuse(ref, "unavailable")
            return
        for (viewer, ref, buyer, claim_id), state in zip(batch, states, strict=True):
            viewer.send(Accepted(ref=ref, order=self._told(room, buyer, claim_id, state)))

    def _told(self, room: Room, buyer: str, claim_id: str, state: ClaimState | None) -> ClaimState:
        if state is None:
            return ClaimState(claim_id=claim_id, status=NOT_SEEN)
        if state.status == "held":
            return with_receipt(self._receipts, room.show_id, buyer, state)
        return state
