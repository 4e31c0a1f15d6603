"""Holds that buyers prove with a receipt, because the server does not know them any more.

Such a claim goes through the script like any other and gets units if there are any. If not, the
buyer is told the truth: the hold was lost (`released_by_incident`), not refused.
"""

from typing import Final, Protocol

from server.hub.receipts import Receipts
from server.hub.redo import Redo
from server.hub.room import Room
from server.protocol.messages import ClaimState

# The units of the hold are gone for good. Other refusals pass, and the claim comes again.
_FINAL: Final = frozenset(
    {
        "sold_out",
        "out_of_stock",
        "limit_reached",
        "price_changed",
        "sale_closed",
        "show_ended",
        "unknown_sale",
    }
)


class Request(Protocol):
    """A claim (store.types.ClaimRequest)."""

    @property
    def buyer(self) -> str: ...
    @property
    def claim_id(self) -> bytes: ...


class Proofs:
    """The proofs of claims of one room that wait for their answer."""

    __slots__ = ("_proofs", "_receipts", "_redo", "_room")

    def __init__(self, room: Room, receipts: Receipts, redo: Redo) -> None:
        self._room = room
        self._receipts = receipts
        self._redo = redo
        self._proofs: dict[tuple[str, bytes], ClaimState] = {}

    def __bool__(self) -> bool:
        return bool(self._proofs)

    def add(self, request: Request, hold: ClaimState) -> None:
        """`hold` comes with its receipt; one that is not ours proves nothing."""
        if self._receipts.verify(self._room.show_id, request.buyer, hold):
            self._proofs[request.buyer, request.claim_id] = hold

    def pop(self, request: Request) -> ClaimState | None:
        """The hold that was proved with this claim, which is being answered."""
        return self._proofs.pop((request.buyer, request.claim_id), None)

    def outcome(self, buyer: str, hold: ClaimState, refusal: str) -> ClaimState | None:
        """What a refusal means for a proved hold: its end, or None when it may come again."""
        if refusal == "stock_rebuilding":
            self._redo.on_proof(self._room, buyer, hold)
        if refusal not in _FINAL:
            return None
        self._redo.on_late(self._room, buyer, hold, refusal)
        return released(hold)


def released(hold: ClaimState) -> ClaimState:
    """The hold is lost and its units could not be taken again."""
    return ClaimState(
        claim_id=hold.claim_id,
        status="released_by_incident",
        sale=hold.sale,
        quantity=hold.quantity,
        price=hold.price,
        price_version=hold.price_version,
        epoch=hold.epoch,
        seq=hold.seq,
    )
