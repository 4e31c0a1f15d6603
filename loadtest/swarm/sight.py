"""What viewers are shown: each distinct frame is read once, every viewer is checked.

A room sends the same bytes to all who stand at the same place. So a frame is decoded when it comes
for the first time, and what it does to a view is worked out once for each view it meets: a viewer's
own part is two look-ups. Nothing is sampled.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from server.protocol.messages import Tick, Welcome

KNOWN_MAX: Final = 4_096  # distinct frames kept until the next fold
_DECODER: Final = msgspec.msgpack.Decoder(Tick | Welcome)


class Level(NamedTuple):
    """The stock of one sale at one version. The first two order the levels of a sale."""

    epoch: int
    version: int
    left: int
    total: int


class Fault(NamedTuple):
    """Something that must never be shown. `kind` as in pipe.Offence."""

    kind: str
    was: str
    now: str


class View:
    """All that is checked of what a viewer sees. Equal views are one object within a fold.

    `epoch`, `seq`: the newest host event. `aware`: sales that it has seen sold out.
    """

    __slots__ = ("aware", "epoch", "levels", "seq")

    def __init__(
        self, epoch: int, seq: int, levels: Mapping[int, Level], aware: frozenset[int]
    ) -> None:
        self.epoch = epoch
        self.seq = seq
        self.levels = levels
        self.aware = aware


NOTHING: Final = View(0, 0, {}, frozenset())


class Step:
    """What one frame makes of one view. `arrivals`: t_us >> 8 -> how many viewers took the step;
    `aware`: sales that they see sold out for the first time, after having seen units left."""

    __slots__ = ("arrivals", "aware", "view")

    def __init__(self, view: View, aware: frozenset[int]) -> None:
        self.view = view
        self.aware = aware
        self.arrivals: defaultdict[int, int] = defaultdict(int)


class Facts:
    """One decoded tick or welcome. `steps` by the view it met; `size` in bytes, header included."""

    __slots__ = ("faults", "levels", "message", "size", "steps")

    def __init__(self, message: Tick | Welcome, size: int) -> None:
        self.message = message
        self.size = size
        self.levels, self.faults = _levels(message.state)
        self.steps: dict[View, Step] = {}

    @property
    def viewers(self) -> int:
        """How many it reached."""
        return sum(sum(step.arrivals.values()) for step in self.steps.values())

    def arrivals(self) -> Counter[int]:
        """t_us >> 8 -> viewers, over all steps."""
        total: Counter[int] = Counter()
        for step in self.steps.values():
            total.update(step.arrivals)
        return total


def _levels(state: Mapping[str, Any]) -> tuple[dict[int, Level], list[Fault]]:
    """The stock in a state map, and what does not add up in it."""
    levels, faults = {}, []
    for key, value in state.items():
        if key.startswith("stock:"):
            total = value["total"]
            levels[value["sale"]] = Level(value["epoch"], value["version"], value["left"], total)
            parts = value["left"], value["held"], value["sold"]
            if sum(parts) != total or min(parts) < 0:
                faults.append(Fault("stock_sum", f"total {total}", f"left, held, sold {parts}"))
    return levels, faults


# --- From view to view ---------------------------------------------------------------------------


def after(
    view: View, facts: Facts, unpaid_return: Callable[[int], bool]
) -> tuple[View, list[Fault]]:
    """The view after a frame, and what is wrong with that.

    `unpaid_return` tells of a sale whether units may come back without a word: they are paid for
    later.
    """
    message = facts.message
    if isinstance(message, Welcome):
        epoch, seq, faults = _welcomed(view, message)
    else:
        epoch, seq, faults = _ticked(view, message)
    levels = view.levels
    if facts.levels:
        levels, wrong = _merged(view.levels, facts, unpaid_return)
        faults += wrong
    sold_out = {sale for sale in facts.levels if not levels[sale].left}
    return View(epoch, seq, levels, view.aware | sold_out), faults


def _ticked(view: View, tick: Tick) -> tuple[int, int, list[Fault]]:
    seq = view.seq
    for event in tick.events:
        if tick.epoch != view.epoch or event.seq > seq + 1:
            was, now = f"event {view.epoch}.{seq}", f"event {tick.epoch}.{event.seq}"
            return tick.epoch, tick.events[-1].seq, [Fault("gap", was, now)]
        seq = max(seq, event.seq)
    return view.epoch, seq, []


def _welcomed(view: View, welcome: Welcome) -> tuple[int, int, list[Fault]]:
    """A snapshot is the truth, unless it claims that with its events nothing is missing."""
    faults = []
    if welcome.recovered:
        missed = [event.seq for event in welcome.events if event.seq > view.seq]
        if welcome.epoch != view.epoch or missed != list(range(view.seq + 1, welcome.seq + 1)):
            told = f"recovered up to {welcome.epoch}.{welcome.seq} with {missed}"
            faults.append(Fault("gap", f"event {view.epoch}.{view.seq}", told))
    return welcome.epoch, welcome.seq, faults


def _merged(
    old: Mapping[int, Level], facts: Facts, unpaid_return: Callable[[int], bool]
) -> tuple[dict[int, Level], list[Fault]]:
    """The newer level of each sale. Only a tick must not be older than what was shown."""
    merged, faults = dict(old), []
    for sale, new in facts.levels.items():
        was = old.get(sale)
        if was is None or new[:2] > was[:2]:
            merged[sale] = new
        if was is None or new == was:
            continue
        if new[:2] <= was[:2]:
            if isinstance(facts.message, Tick) or new[:2] == was[:2]:
                faults.append(_fault("counter_back", sale, was, new))
        elif new.left > was.left and new[::3] == was[::3] and not unpaid_return(sale):
            faults.append(_fault("stock_rose", sale, was, new))
    return merged, faults


def _fault(kind: str, sale: int, was: Level, now: Level) -> Fault:
    return Fault(kind, f"sale {sale}: {tuple(was)}", f"sale {sale}: {tuple(now)}")


# --- What all viewers of a room share ------------------------------------------------------------


class Folded(NamedTuple):
    """What a sight has gathered since the last fold."""

    facts: list[Facts]
    aware: list[tuple[int, Mapping[int, int]]]  # sale, t_us >> 8 -> viewers


class Sight:
    """The frames that viewers of one room got. `timely`: of those who read as fast as they can.

    `known` holds ticks by their whole bytes; whoever finds one there takes a `step` with it.
    `on_fault` is told (fault, name of the first viewer).
    """

    def __init__(
        self, room: int, *, timely: bool, on_fault: Callable[[Fault, str, int], None]
    ) -> None:
        self.room = room
        self.timely = timely
        self.known: dict[bytes, Facts] = {}
        self.pays_later: set[int] = set()
        self._welcomes: dict[bytes, Facts] = {}
        self._views: dict[object, View] = {}
        self._full: list[Facts] = []  # forgotten before the fold
        self._on_fault = on_fault

    def tick(self, frame: bytes, start: int, viewer: str) -> Facts:
        """The facts of a whole tick frame whose payload begins at `start`."""
        facts = self.known.get(frame)
        return facts or self._read(self.known, frame, start, viewer)

    def welcome(self, frame: bytes, start: int, viewer: str) -> Facts:
        """The same of a welcome."""
        facts = self._welcomes.get(frame)
        return facts or self._read(self._welcomes, frame, start, viewer)

    def _read(self, into: dict[bytes, Facts], frame: bytes, start: int, viewer: str) -> Facts:
        if len(into) >= KNOWN_MAX:
            self._full += into.values()
            into.clear()
        facts = into[frame] = Facts(_DECODER.decode(memoryview(frame)[start:]), len(frame))
        for key, value in facts.message.state.items():
            if key.startswith("sale:") and value["pay_within_s"]:
                self.pays_later.add(value["sale"])
        for fault in facts.faults:
            self._on_fault(fault, viewer, self.room)
        return facts

    def step(self, facts: Facts, view: View, viewer: str) -> Step:
        """What `facts` make of `view`; each new kind of step is checked."""
        step = facts.steps.get(view)
        if step is None:
            fresh, faults = after(view, facts, self.pays_later.__contains__)
            step = facts.steps[view] = Step(self._same(fresh), _newly_aware(view, fresh))
            for fault in faults:
                self._on_fault(fault, viewer, self.room)
        return step

    def _same(self, view: View) -> View:
        key = view.epoch, view.seq, tuple(view.levels.items()), view.aware
        return self._views.setdefault(key, view)

    def fold(self) -> Folded:
        """Forget everything but what it came to."""
        facts = [*self._full, *self.known.values(), *self._welcomes.values()]
        self._full.clear()
        self.known.clear()
        self._welcomes.clear()
        self._views.clear()
        return Folded(facts, list(_awareness(facts)))


def _newly_aware(before: View, now: View) -> frozenset[int]:
    return frozenset(
        sale
        for sale in now.aware - before.aware
        if sale in before.levels and before.levels[sale].left
    )


def _awareness(facts: list[Facts]) -> Iterator[tuple[int, Mapping[int, int]]]:
    for each in facts:
        for step in each.steps.values():
            for sale in step.aware:
                yield sale, step.arrivals
