"""What counts against each buyer's limit: Redis against the books, without I/O.

Redis' counts are read after the cut, so they are compared only for pools that nothing has happened
to since. There Redis has, for each buyer, the books' units and those of takes and gives that the
books and Redis do not share yet. Units of dead letters and of claims beyond the stock stay counted
in Redis alone: it may say more where such are.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from server.audit.conservation import Conservation, PoolTally
from server.audit.report import ShowReport
from server.domain.claim import KIND_CLAIM, KIND_RETAKE
from server.records.audit import BuyerBook, GiveBook


class BuyerCounts:
    """The buyers of all pools of a show; fills `report`."""

    def __init__(self, report: ShowReport) -> None:
        self.report = report
        self._units: dict[int, dict[str, int]] = defaultdict(dict)

    def enter(self, rows: Iterable[BuyerBook]) -> None:
        """Add rows of the books."""
        for row in rows:
            self._units[row.pool][row.buyer] = row.units

    def check(self, pool: int, conservation: Conservation, counted: Mapping[str, int]) -> None:
        """`counted`: what Redis counts in a pool that is as it was at the cut."""
        tally, gives = conservation.pools[pool], conservation.pending_gives[pool]
        expected, unsure = self._expected(pool, tally, gives)
        may_have_more = bool(tally.dead or tally.released)
        for buyer in {**expected, **counted}:
            has, should = counted.get(buyer, 0), expected.get(buyer, 0)
            if buyer not in unsure and (has < should or (has > should and not may_have_more)):
                detail = f"pool {pool}: Redis counts {has} units of {buyer}, not {should}"
                self.report.add("limit", detail, pool=pool, buyer=buyer)

    def _expected(
        self, pool: int, tally: PoolTally, gives: Iterable[GiveBook]
    ) -> tuple[dict[str, int], set[str]]:
        """Units by buyer; and buyers of re-takes under way, which may count or not."""
        expected, unsure = defaultdict(int, self._units[pool]), set()
        for take in tally.backlog:
            if take.kind == KIND_CLAIM:
                expected[take.buyer] += take.quantity
            elif take.kind == KIND_RETAKE:
                unsure.add(take.buyer)
        for give in gives:
            if give.buyer and give.forgiven:
                expected[give.buyer] += give.units
        return expected, unsure
