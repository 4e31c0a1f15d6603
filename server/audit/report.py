"""What an audit found: problems of named kinds, and each pool's balance."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple

PROBLEMS_MAX: Final = 1_000  # listed of one show; the rest are counted


class Kind(NamedTuple):
    """A kind of problem. `repair`: what `livesale audit --repair` does about it: finish what is
    pending, reconcile (Redis follows the books), or nothing: the books themselves are wrong, or
    people have to act."""

    meaning: str
    repair: Literal["finish", "reconcile", "nothing"] = "reconcile"


KINDS: Final[Mapping[str, Kind]] = {
    "show_missing": Kind("Redis has lost the show"),
    "halted": Kind("the show sells nothing until its stock is reconciled"),
    "epoch": Kind("Redis has another stock epoch than the books"),
    "not_vouched": Kind(
        "this Redis was started after the stock was written: it may have lost takes"
    ),
    "pool_missing": Kind("Redis has lost a pool"),
    "pool_unknown": Kind("Redis has a pool that the books do not know"),
    "went_back": Kind("Redis is behind what it said before"),
    "give_lost": Kind("Redis has forgotten a give that it had applied"),
    "unreadable": Kind("an entry of the order stream that nobody can book"),
    "take_missing": Kind("units left Redis and are neither in the order stream nor in the books"),
    "units": Kind("a pool does not balance: Redis has units too many or too few"),
    "total": Kind("Redis shows another number of units in all than belong to the pool"),
    "told": Kind("Redis has other counters than the books"),
    "viewers": Kind("viewers see another stock than the pool's"),
    "limit": Kind("Redis counts a buyer's units differently from the books"),
    "claim_lost": Kind("Redis remembers an accepted claim that nobody else knows"),
    "claim_differs": Kind("a claim has other content in Redis than in the books"),
    "claim_contradicts": Kind("a claim has another fate in Redis than in the books"),
    "order_without_claim": Kind("an order, or a released claim, that Redis does not remember"),
    "late": Kind("something committed has been waiting for more than a minute", "finish"),
    "take_twice": Kind("one place in the sequence of takes has two rows", "nothing"),
    "take_extra": Kind("a row is at a place that no take had", "nothing"),
    "counter": Kind("a pool's counter is not the sum of its rows", "nothing"),
    "buyer_units": Kind("a buyer's counted units are not their orders', or too many", "nothing"),
    "sku_units": Kind("a sku's allotted units are not those of its sales", "nothing"),
    "order_history": Kind("an order's steps are not allowed, or lead elsewhere", "nothing"),
    "order_give": Kind("an order's units came back without its step, or the reverse", "nothing"),
    "order_retake": Kind("an order was paid late without units, or the reverse", "nothing"),
    "ledger": Kind("units given back are not in the stock ledger, or differ there", "nothing"),
    "payment": Kind("a payment contradicts its order", "nothing"),
    "refund": Kind("money does not go back, or went back twice: an operator has to act", "nothing"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as it must be. `kind` is stable, `detail` is for people."""

    kind: str
    detail: str
    pool: int = 0
    seq: int = 0
    buyer: str = ""
    claim_id: str = ""
    order_id: int = 0


@dataclass(slots=True)
class PoolBalance:
    """A pool at the instant of the cut. `difference`: units Redis has too many (or too few)."""

    pool: int
    initial: int
    restocked: int
    lowered: int
    available: int
    backlog: int
    reserved: int
    sold: int
    dead: int
    pending_give: int
    difference: int


@dataclass(slots=True)
class ShowReport:
    """What the audit found in one show. `at`: of the cut, Redis ms; `found`: problems in all."""

    show_id: str
    at: int = 0
    epoch: int = 0
    orders: int = 0
    claims: int = 0
    found: int = 0
    pools: list[PoolBalance] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, kind: str, detail: str, **where: Any) -> None:
        """Note a problem of one of KINDS."""
        assert kind in KINDS, kind
        self.found += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(kind, detail, **where))

    @property
    def is_ok(self) -> bool:
        return not self.found

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.is_ok}


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was found in all shows."""

    shows: Sequence[ShowReport]

    @property
    def is_ok(self) -> bool:
        return all(show.is_ok for show in self.shows)

    def to_json(self) -> str:
        shows = [show.as_dict() for show in self.shows]
        return json.dumps({"ok": self.is_ok, "shows": shows}, ensure_ascii=False)

    def to_text(self) -> str:
        """For people: one line per pool, one per problem."""
        lines = [line for show in self.shows for line in _lines(show)]
        found = sum(show.found for show in self.shows)
        verdict = "every unit is where it should be" if self.is_ok else f"{found} problems"
        return "\n".join([*lines, f"{len(self.shows)} shows: {verdict}"])


def _lines(show: ShowReport) -> list[str]:
    more = show.found - len(show.problems)
    return [
        f"{show.show_id}: epoch {show.epoch}, {show.orders} orders, {show.claims} claims",
        *(
            f"  pool {p.pool}: available {p.available} + backlog {p.backlog} + reserved"
            f" {p.reserved} + sold {p.sold} + dead {p.dead} + pending give {p.pending_give}"
            f" = initial {p.initial} + restocked {p.restocked} - lowered {p.lowered}"
            + (f" {p.difference:+d}" if p.difference else "")
            for p in show.pools
        ),
        *(f"  PROBLEM {problem.kind}: {problem.detail}" for problem in show.problems),
        *([f"  and {more} more problems"] if more else []),
    ]
