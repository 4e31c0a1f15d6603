"""What a loader has learned: gathered once a second while it runs, handed over at its end."""

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Final

from loadtest.measures.staleness import Arrived, Staleness, made, record_ages
from loadtest.measures.witness import Witness
from loadtest.swarm.buying import Till
from loadtest.swarm.connection import Connection
from loadtest.swarm.entrance import Swarm
from loadtest.swarm.pipe import Harvest, Health, Shown, Trace
from loadtest.swarm.sight import Facts, Sight
from server.protocol.messages import Tick

US_PER_S: Final = 1_000_000
BUCKET_BITS: Final = 8  # as in measures.staleness
# The claim log tells these itself.
IN_CLAIM_LOG: Final = ("held", "confirmed", "refused", "given_up", "dropped", "open")


class Ledger:
    """Frames, ages and awareness of all connections of a loader."""

    def __init__(
        self, swarm: Swarm, till: Till, connections: Iterable[Connection], witness: Witness | None
    ) -> None:
        self._swarm = swarm
        self._till = till
        self._timely = [each for each in connections if each.timely]
        self._staleness = Staleness(swarm.measured, witness)
        self._aware: dict[int, Counter[int]] = {}  # sale -> t_us >> 8 -> viewers
        self._told: Counter[str] = Counter()
        self._sizes: dict[Connection, int] = {}
        self.health: list[Health] = []

    # --- Once a second ------------------------------------------------------------------------

    def fold(self) -> None:
        """Take over what the sights have gathered."""
        arrived: list[Arrived] = []
        for sight in self._swarm.sights:
            arrived += self._fold(sight)
        for sight in self._swarm.slow_sights:
            for facts in sight.fold().facts:
                self._count(facts, facts.viewers)
        self._staleness.fold(arrived)

    def _fold(self, sight: Sight) -> list[Arrived]:
        folded = sight.fold()
        for sale, arrivals in folded.aware:
            self._aware.setdefault(sale, Counter()).update(arrivals)
        arrived = []
        for facts in folded.facts:
            arrivals = facts.arrivals()
            viewers = sum(arrivals.values())
            self._count(facts, viewers)
            if isinstance(facts.message, Tick):
                self._count_lines(facts.message, viewers)
                if facts.levels:
                    stock = {sale: level[:3] for sale, level in facts.levels.items()}
                    arrived.append(Arrived(sight.room, stock, arrivals))
        return arrived

    def _count(self, facts: Facts, viewers: int) -> None:
        self._swarm.counts["frames"] += viewers
        self._swarm.counts["bytes"] += viewers * facts.size
        self._swarm.counts["frames_read"] += 1

    def _count_lines(self, tick: Tick, viewers: int) -> None:
        self._swarm.counts["lines_delivered"] += len(tick.chat) * viewers
        self._swarm.counts["lines_folded"] += tick.folded * viewers

    def growth(self) -> dict[str, int]:
        """By how much each count has grown since the last call."""
        counts = self._swarm.counts
        grown = {name: value - self._told[name] for name, value in counts.items()}
        self._told = Counter(counts)
        return {name: value for name, value in grown.items() if value}

    # --- The measured part --------------------------------------------------------------------

    def part_begins(self) -> None:
        """From now on the bytes of those who are here are measured, and lines are due to them."""
        self._sizes = {each: each.size for each in self._timely if each.welcomed}
        self._swarm.counts["line_watchers"] = len(self._sizes)

    def part_ends(self) -> None:
        """Bytes per second, of each viewer."""
        measured = self._swarm.measured
        start, end = measured.part_us
        for each, size in self._sizes.items():
            rate = (each.size - size) * US_PER_S // max(1, end - start)
            measured.record("bytes_per_viewer_s", end - 1, rate, room=each.room)

    # --- At the end ---------------------------------------------------------------------------

    def harvest(self) -> Harvest:
        """Everything. After it nothing more is measured."""
        for _ in range(3):  # the last arrivals, and then those that waited for the witness
            self.fold()
        traces = list(self._traces())
        record_ages(self._swarm.measured, traces, self._staleness.instants)
        measured = self._swarm.measured
        counts = {name: n for name, n in self._swarm.counts.items() if name not in IN_CLAIM_LOG}
        counts |= {
            "stale_early": self._staleness.early,
            "levels_witnessed": self._staleness.witnessed,
            "levels_lost": self._staleness.lost,
            "clipped": measured.clipped,
        }
        return Harvest(
            histograms=measured.histograms(),
            blocks=measured.blocks(),
            claims=self._till.table.log(),
            awareness=self._awareness(),
            traces=traces,
            offences=self._swarm.offences,
            health=self.health,
            counts=counts,
            shown=self._shown(),
        )

    def _traces(self) -> Iterable[Trace]:
        for each in self._timely:
            sales = sorted({sale for sale, _, _ in each.trace or ()})
            for sale in sales:
                shown = [(at, *level[:2]) for of, at, level in each.trace or () if of == sale]
                yield made(each.name, each.room, sale, shown)

    def _awareness(self) -> dict[int, bytes]:
        """One instant per viewer who had seen units left; 0 for those who still do."""
        columns: dict[int, array[int]] = {}
        for sale, arrivals in self._aware.items():
            column = columns.setdefault(sale, array("q"))
            for bucket, viewers in sorted(arrivals.items()):
                column.extend([bucket << BUCKET_BITS] * viewers)
        for each in self._timely:
            for sale, level in each.view.levels.items():
                if level.left and sale not in each.view.aware:
                    columns.setdefault(sale, array("q")).append(0)
        return {sale: column.tobytes() for sale, column in columns.items()}

    def _shown(self) -> list[Shown]:
        """What stands on the screens of those who are here and read in time."""
        screens = Counter(
            (each.room, sale, *level[:3])
            for each in self._timely
            if each.welcomed
            for sale, level in each.view.levels.items()
        )
        return [Shown(*screen, viewers) for screen, viewers in sorted(screens.items())]
