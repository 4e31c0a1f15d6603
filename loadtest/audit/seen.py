"""What the people of a run saw, put together from all loaders."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple

from loadtest.measures.claims import REPEATED, Claim, rows
from loadtest.swarm.pipe import Harvest, Offence, Shown
from server.errors import ERRORS

# Refusals of shows and sales that say no. What buyers repeat says nothing, also as the last word
# to somebody who gave up.
DECIDED: Final = frozenset(
    row.code for name, row in ERRORS.items() if row.code // 100 == 13 and name not in REPEATED
)

ClaimKey = tuple[str, bytes]  # user, claim id of 16 bytes


class Terms(NamedTuple):
    """A sale as the run made it. `pays`: units of unpaid orders come back."""

    units: int
    limit: int
    price: int
    pays: bool = False


class Asked(NamedTuple):
    """One claim of one user: a row of the log for each socket it went through."""

    rows: tuple[Claim, ...]

    @property
    def key(self) -> ClaimKey:
        return self.rows[0].user, self.rows[0].claim_id

    @property
    def sale(self) -> int:
        return self.rows[0].sale

    @property
    def quantity(self) -> int:
        return self.rows[0].quantity

    @property
    def attempts(self) -> int:
        return sum(row.attempts for row in self.rows)

    @property
    def held_us(self) -> int:
        return _first(row.held_us for row in self.rows)

    @property
    def confirmed_us(self) -> int:
        return _first(row.confirmed_us for row in self.rows)

    @property
    def refused_us(self) -> int:
        """When it was refused for good, on every socket; 0: not, or there is a better answer."""
        if self.held_us or self.confirmed_us or not all(map(_is_refused, self.rows)):
            return 0
        return max(row.ended_us for row in self.rows)

    @property
    def let_go_us(self) -> int:
        """When a hold that was never confirmed was taken back from the buyer; 0: never."""
        if not self.held_us or self.confirmed_us:
            return 0
        return max(
            (row.ended_us for row in self.rows if not row.code or _is_refused(row)), default=0
        )

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """(lost_us, back_us) of each time its buyer was cut off; AWAY_US: never back."""
        return sorted(cut for row in self.rows for cut in row.cuts)

    @property
    def is_split(self) -> bool:
        """Whether one socket was told yes and another one no."""
        lost = any(_is_refused(row) and not row.held_us for row in self.rows)
        return lost and bool(self.held_us or self.confirmed_us)

    @property
    def codes(self) -> set[int]:
        """Its last refusals."""
        return {row.code for row in self.rows if row.code}

    @property
    def order_ids(self) -> set[int]:
        return {row.order_id for row in self.rows if row.order_id}

    @property
    def places(self) -> set[tuple[int, int]]:
        """(stock epoch, seq) as told; more than one only if the server contradicts itself."""
        return {(row.epoch, row.seq) for row in self.rows if row.seq}


def _is_refused(row: Claim) -> bool:
    """Whether a claim ended by a decision of the sale, not because nobody knew (busy, unknown)."""
    return bool(row.ended_us) and row.code in DECIDED


def _first(instants: Iterable[int]) -> int:
    """The earliest of those that happened; 0: none did."""
    return min(filter(None, instants), default=0)


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that people saw. Instants are t_us: µs since `zero_us` of the monotonic clock.

    Users of the run are named `lt-{run}-...`. From `finish_us` on people asked what became of
    claims they had no answer to; what they heard before, the server had told them by itself.
    `sales`: those that the run made. `webs_lost`: web processes that were killed or restarted.
    `faults_us`: (start, end) of what was broken on purpose, with the aftermath.
    """

    run: str
    zero_us: int
    part_us: tuple[int, int]
    finish_us: int
    sales: Mapping[int, Terms]
    claims: Mapping[ClaimKey, Asked]
    offences: Sequence[Offence] = ()
    shown: Sequence[Shown] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    webs_lost: int = 0
    faults_us: Sequence[tuple[int, int]] = ()

    def is_ours(self, user: str) -> bool:
        """Whether this is a user of the run."""
        return user.startswith(f"lt-{self.run}-")


def gathered(claims: Iterable[Claim]) -> dict[ClaimKey, Asked]:
    """Rows of the log by claim."""
    by_key: dict[ClaimKey, list[Claim]] = {}
    for claim in claims:
        by_key.setdefault((claim.user, claim.claim_id), []).append(claim)
    return {key: Asked(tuple(found)) for key, found in by_key.items()}


def seen_by(
    harvests: Sequence[Harvest],
    *,
    run: str,
    zero_us: int,
    part_us: tuple[int, int],
    finish_us: int,
    sales: Mapping[int, Terms],
    webs_lost: int = 0,
    faults_us: Sequence[tuple[int, int]] = (),
) -> Seen:
    """What all loaders saw together; the names are those of Seen."""
    counts: Counter[str] = Counter()
    for harvest in harvests:
        counts.update(harvest.counts)
    return Seen(
        run=run,
        zero_us=zero_us,
        part_us=part_us,
        finish_us=finish_us,
        sales=sales,
        claims=gathered(chain.from_iterable(rows(harvest.claims) for harvest in harvests)),
        offences=[offence for harvest in harvests for offence in harvest.offences],
        shown=[screens for harvest in harvests for screens in harvest.shown],
        counts=counts,
        webs_lost=webs_lost,
        faults_us=faults_us,
    )
