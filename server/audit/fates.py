"""Each claim's fate and each order's origin: what Redis remembers against the books, without I/O.

The claims are read after the books. So a claim may be ahead of them, and it may lag by what Redis
has not been told yet; nothing else.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from server.audit.conservation import where_is
from server.audit.report import ShowReport
from server.domain.order import RANK
from server.protocol.messages import ClaimState
from server.records.audit import TakeBook
from server.store.packing import claim_id_text
from server.store.types import AuditCut, OrderEntry, RememberedClaim

ClaimKey = tuple[str, bytes]  # buyer, claim id of 16 bytes

_RANKS: Final[Mapping[str, int]] = {str(status): rank for status, rank in RANK.items()}


class Fates:
    """The claims of a show; fills `report`."""

    def __init__(self, report: ShowReport, cut: AuditCut) -> None:
        self.report = report
        self.cut = cut
        self.booked: dict[ClaimKey, TakeBook] = {}
        self.unseen: set[ClaimKey] = set()  # in the books, and Redis has not named them yet
        self.ahead: dict[int, tuple[RememberedClaim, TakeBook]] = {}  # by order, to be confirmed
        self._dead: dict[tuple[int, int, int], str] = {}  # pool, epoch, seq -> status
        self._waiting: set[ClaimKey] = set()  # in the order stream
        self._remembered: set[ClaimKey] = set()

    def enter_entry(self, entry: OrderEntry) -> None:
        """Add an entry of the order stream."""
        self._waiting.update((take.buyer, take.claim_id) for take in entry.takes)

    def enter(self, rows: Iterable[TakeBook]) -> None:
        """Add rows of the books."""
        for row in rows:
            if row.kind == "dead":
                self._dead[row.pool, row.epoch, row.seq] = row.status
            elif row.kind in ("order", "released"):
                self.booked[row.buyer, row.claim_id] = row
                self.unseen.add((row.buyer, row.claim_id))

    def check_claim(self, claim: RememberedClaim) -> None:
        """What Redis remembers of a claim fits its row in the books."""
        state, key = claim.state, (claim.buyer, claim.claim_id)
        self._remembered.add(key)  # a scan may name a claim twice
        self.report.claims = len(self._remembered)
        self.unseen.discard(key)
        if state.sale not in self.cut.pools:
            return  # of a sale made after the cut
        row = self.booked.get(key)
        if row is None:
            if self._is_settled(claim) and not self._is_dead(state):
                self._add("claim_lost", "accepted, but no order and not in the stream", claim)
        elif (row.pool, row.seq, row.quantity) != (state.sale, state.seq, state.quantity):
            self._add("claim_differs", f"the books have it as {row}", claim)
        elif not self._may_say(claim, row):
            detail = f"Redis says {state.status}, the books {row.status}"
            self._add("claim_contradicts", detail, claim)

    def _is_settled(self, claim: RememberedClaim) -> bool:
        """Whether its entry had left the stream at the cut: then Redis has been told its fate."""
        state, cut = claim.state, self.cut
        seq = cut.pools[state.sale].seq
        before_cut = state.epoch < cut.epoch or (state.epoch == cut.epoch and state.seq <= seq)
        return before_cut and (claim.buyer, claim.claim_id) not in self._waiting

    def _may_say(self, claim: RememberedClaim, row: TakeBook) -> bool:
        """Whether Redis may say this of a claim with that row."""
        state = claim.state
        if state.status == "held":  # also while a redriven dead letter has not been told
            return not (self._is_settled(claim) and row.told)
        if row.kind == "released" or state.status == "released_by_incident":
            return row.kind == "released" and state.status == "released_by_incident"
        if state.order_id != row.order_id:
            return False
        rank, booked = _RANKS[state.status], _RANKS[row.status]
        if rank > booked:
            self.ahead[row.order_id] = (claim, row)
            return True
        return state.status == row.status or (rank < booked and not row.told)

    def check_ahead(self, statuses: Mapping[int, str]) -> None:
        """`statuses`: how the orders of `ahead` stand now. They can only have moved on."""
        for order_id, (claim, _) in self.ahead.items():
            status = statuses[order_id]
            if _RANKS[status] < _RANKS[claim.state.status]:
                detail = f"Redis says {claim.state.status}, the books {status}"
                self._add("claim_contradicts", detail, claim)

    def _is_dead(self, state: ClaimState) -> bool:
        status = self._dead.get((state.sale, state.epoch, state.seq))
        return status == "parked" or (
            status == "given_back" and state.status in ("held", "released_by_incident")
        )

    def check_origin(self, row: TakeBook) -> None:
        """To be called for an order or released claim that Redis does not remember."""
        what = f"order {row.order_id}" if row.order_id else "a released claim"
        detail = f"{what} of {row.buyer} has no accepted claim {claim_id_text(row.claim_id)}"
        self.report.add("order_without_claim", detail, **where_is(row))

    def _add(self, kind: str, detail: str, claim: RememberedClaim) -> None:
        state = claim.state
        place = {"pool": state.sale, "seq": state.seq, "buyer": claim.buyer}
        detail = f"claim {state.claim_id} of {claim.buyer}: {detail}"
        self.report.add(kind, detail, claim_id=state.claim_id, order_id=state.order_id, **place)
