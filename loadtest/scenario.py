"""What a load test does: who comes, when they act, what is sold, what breaks, what must hold."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from loadtest.report import thresholds
from server import limits

SOCKETS_MAX = 20_000  # of one scenario
SOCKETS_PER_ROOM_MAX = 18_000
SOCKETS_PER_USER_MAX = 10
SOCKETS_PER_LOADER = 3_000  # read within 20 to 30 ms
PRESETS: Final = Path(__file__).with_name("presets")
BUYING: Final = frozenset({"buyer", "hesitant", "bot"})
SIGNED_IN: Final = BUYING | {"liker", "commenter"}
# What one person may do per second, below what the server lets through.
PACE_MAX: Final = {"liker": 5.0, "commenter": 0.8}
_PART: Final = re.compile(r"web-[1-9]\d*|worker|valkey|postgres")


class Usage(Exception):
    """What was asked cannot be done; the text says what to write instead."""


Persona = Literal[
    "watcher", "liker", "commenter", "buyer", "hesitant", "bot", "slow_reader", "flapper"
]


class Arrivals(Struct, frozen=True, forbid_unknown_fields=True):
    """When something is intended to happen, decided before it happens: an open model.

    `trace`: one number of ms since T0 per line of `file`. `human` reaction: log-normal with median
    350 ms and sigma 0.5, cut at 3 s; `uniform`: within `spread_ms`; `bot`: at once.
    """

    kind: Literal["at_once", "poisson", "herd", "ramp", "evenly", "trace"]
    at_s: float = 0.0  # since the measured part began; herd: since T0, when the sale opens
    over_s: float = 0.0  # ramp, evenly: spread
    per_s: float = 0.0  # poisson
    to_per_s: float = 0.0  # ramp of a rate: per_s -> to_per_s over over_s
    reaction: Literal["human", "uniform", "bot"] = "human"  # herd
    spread_ms: float = 500.0
    file: str = ""  # trace


class Crowd(Struct, frozen=True, forbid_unknown_fields=True):
    """People of one persona. Rates in `acts` are those of the whole crowd."""

    persona: Persona
    count: Annotated[int, Meta(ge=1, le=SOCKETS_MAX)]
    joins: Arrivals = Arrivals("evenly", over_s=-1)  # -1: over the whole warm-up
    acts: Arrivals | None = None  # claims, likes, lines; None: as the persona does by itself
    quantity: int = 1
    claims_each: int = 1
    sockets: int = 1  # bot: parallel sockets of one user, <= 10
    pays: float = 1.0  # share of held claims; only with sale.pay_within_s > 0
    pay_after_s: tuple[float, float] = (1, 3)
    reads_bytes_per_s: int = 0  # slow_reader; 0: stops reading
    up_s: float = 5.0  # flapper
    down_s: float = 1.0


class SaleTerms(Struct, frozen=True, forbid_unknown_fields=True):
    """What is sold. Prices in minor units. `repeat_every_s`: a new sale each time; 0: one."""

    units: int
    limit: int = 1
    price: int = 990
    list_price: int = 9900
    opens_at_s: float = 2.0
    pay_within_s: int = 0
    repeat_every_s: float = 0


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """What breaks at `at_s`: `drop` a share of all sockets, or do something to a `part` (web-1..,
    worker, valkey, postgres): `stop` it (SIGSTOP) or `kill` it for `for_s`, or `restart` it."""

    at_s: float
    kind: Literal["drop", "stop", "kill", "restart"]
    share: float = 0.0
    within_ms: float = 200
    jitter: bool = True
    part: str = ""
    for_s: float = 2.0


class Scenario(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole load test. `seconds`: of the measured part; `settle_s`: upper bound."""

    version: Literal[1]
    name: str
    seconds: float
    crowd: list[Crowd]
    title: dict[str, str] = {}  # by language: zh, en
    sale: SaleTerms | None = None
    warmup_s: float = 5
    settle_s: float = 30
    rooms: int = 1  # web processes, when we start the server
    loaders: int = 0  # 0: max(1, cores - 2)
    seed: int = 1
    fault: list[Fault] = []
    thresholds: dict[str, str] = {}  # "claim_held.p99_ms" = "<300"

    @property
    def sockets(self) -> int:
        """Connections when everybody is there."""
        return sum(crowd.count * crowd.sockets for crowd in self.crowd)

    @property
    def processes(self) -> int:
        """Loader processes: two cores are left for the server, if that leaves any; but acts wait
        while a loader reads what all its viewers were sent, so none has too many."""
        spare = max(1, (os.cpu_count() or 1) - 2)
        return self.loaders or max(spare, -(-self.sockets // SOCKETS_PER_LOADER))

    def parts(self) -> list[str]:
        """Processes that a fault is done to."""
        return [fault.part for fault in self.fault if fault.part]


# --- Reading one ---------------------------------------------------------------------------------


def presets() -> list[str]:
    """Names of the scenarios that come along."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def path_of(name_or_path: str) -> Path:
    """The file of a scenario. Raises Usage naming the presets."""
    preset = PRESETS / f"{name_or_path}.toml"
    if "/" not in name_or_path and preset.is_file():
        return preset
    if (path := Path(name_or_path)).is_file():
        return path
    near = difflib.get_close_matches(name_or_path, presets(), 1)
    meant = f" (did you mean {near[0]}?)" if near else ""
    raise Usage(f"no preset and no file: {name_or_path}{meant}; presets: {', '.join(presets())}")


def load(name_or_path: str, changes: Mapping[str, str] | None = None) -> Scenario:
    """A preset by name, or a TOML file. `changes` come before what it says: "crowd.0.count" ->
    "50", values as in TOML; with other `seconds`, faults after them are left out. Raises Usage.
    """
    path = path_of(name_or_path)
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # TOMLDecodeError, UnicodeDecodeError
        raise Usage(f"{path}: {error}") from None
    for where, value in (changes or {}).items():
        _change(values, where, value)
    scenario = _decoded(values, str(path))
    scenario = _with_traces(scenario, path.parent)
    if "seconds" in (changes or {}):
        kept = [fault for fault in scenario.fault if fault.at_s < scenario.seconds]
        scenario = msgspec.structs.replace(scenario, fault=kept)
    require_possible(scenario)
    return scenario


def _change(values: dict[str, Any], where: str, value: str) -> None:
    """Set one value in the tree. Raises Usage: there is no such place."""
    *way, last = where.split(".")
    at: Any = values
    try:
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
        at[int(last) if isinstance(at, list) else last] = _plain(value)
    except (LookupError, ValueError, TypeError):
        raise Usage(f"no place for {where}={value}") from None


def _plain(value: str) -> Any:
    """A value as TOML writes it; what is none is text."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _decoded(values: Mapping[str, Any], where: str) -> Scenario:
    try:
        return msgspec.convert(values, Scenario)
    except msgspec.ValidationError as error:
        raise Usage(f"{where}: {_explained(str(error))}") from None


def _explained(problem: str) -> str:
    """What msgspec says, with the nearest name for an unknown field."""
    unknown = re.search(r"unknown field `(\w+)`", problem)
    if unknown is None:
        return problem
    known = {f for s in (Scenario, SaleTerms, Crowd, Arrivals, Fault) for f in s.__struct_fields__}
    near = difflib.get_close_matches(unknown[1], sorted(known), 1)
    return problem + (f" (did you mean `{near[0]}`?)" if near else "")


def _with_traces(scenario: Scenario, folder: Path) -> Scenario:
    """Trace files stand beside the scenario."""

    def found(arrivals: Arrivals) -> Arrivals:
        return msgspec.structs.replace(
            arrivals, file=str(folder / arrivals.file) if arrivals.file else ""
        )

    crowds = [
        msgspec.structs.replace(each, joins=found(each.joins), acts=each.acts and found(each.acts))
        for each in scenario.crowd
    ]
    return msgspec.structs.replace(scenario, crowd=crowds)


# --- Whether it can be done ----------------------------------------------------------------------


def require_possible(scenario: Scenario) -> None:
    """Raises Usage with everything that is wrong, a line each."""
    if wrong := list(_problems(scenario)):
        raise Usage("\n".join(f"{scenario.name}: {each}" for each in wrong))


def _problems(scenario: Scenario) -> Iterator[str]:
    if scenario.seconds <= 0 or scenario.warmup_s <= 0 or scenario.rooms < 1:
        yield "seconds, warmup_s and rooms are above 0"
    if not scenario.crowd:
        yield "nobody comes: a crowd is needed"
    if scenario.sockets > min(SOCKETS_MAX, SOCKETS_PER_ROOM_MAX * scenario.rooms):
        yield (
            f"{scenario.sockets} connections: at most {SOCKETS_MAX}, "
            f"and {SOCKETS_PER_ROOM_MAX} for each of `rooms`"
        )
    if scenario.sale is not None:
        yield from _problems_of_sale(scenario.sale, scenario.seconds)
    for place, crowd in enumerate(scenario.crowd):
        for problem in _problems_of_crowd(crowd, scenario.sale):
            yield f"crowd.{place} ({crowd.persona}): {problem}"
    for place, fault in enumerate(scenario.fault):
        for problem in _problems_of_fault(fault, scenario):
            yield f"fault.{place} ({fault.kind}): {problem}"
    for name, wanted in scenario.thresholds.items():
        if problem := thresholds.problem(name, wanted):
            yield problem


def _problems_of_sale(sale: SaleTerms, seconds: float) -> Iterator[str]:
    if sale.units < 1 or sale.limit < 1 or sale.price < 0 or sale.pay_within_s < 0:
        yield "sale: units and limit are at least 1, price and pay_within_s at least 0"
    if not 0 <= sale.opens_at_s < seconds:
        yield "sale: it opens within the measured part (opens_at_s)"
    if 0 < sale.repeat_every_s < limits.SALE_SECONDS_MIN:
        yield f"sale: repeat_every_s is at least {limits.SALE_SECONDS_MIN}"
    if (sale.repeat_every_s or seconds) > limits.SALE_SECONDS_MAX / 2:
        yield f"sale: one sale lasts at most {limits.SALE_SECONDS_MAX // 2} s: use repeat_every_s"


def _problems_of_crowd(crowd: Crowd, sale: SaleTerms | None) -> Iterator[str]:
    if sale is None and crowd.persona in BUYING:
        yield "there is nothing to buy: give a sale"
    if not 1 <= crowd.sockets <= SOCKETS_PER_USER_MAX:
        yield f"sockets is 1 to {SOCKETS_PER_USER_MAX}"
    if crowd.sockets > 1 and crowd.persona != "bot":
        yield "only a bot has several sockets"
    if crowd.quantity < 1 or crowd.claims_each < 1:
        yield "quantity and claims_each are at least 1"
    if not 0 <= crowd.pays <= 1:
        yield "pays is a share, 0 to 1"
    if (crowd.pays < 1 or crowd.persona == "hesitant") and not (sale and sale.pay_within_s):
        yield "nobody pays here: give sale.pay_within_s"
    for what, arrivals in (("joins", crowd.joins), ("acts", crowd.acts)):
        for problem in _problems_of_arrivals(arrivals, sale) if arrivals else ():
            yield f"{what}: {problem}"
    pace, rate = PACE_MAX.get(crowd.persona), crowd.acts
    if pace and rate and max(rate.per_s, rate.to_per_s) > pace * crowd.count:
        yield f"one person may do at most {pace:g} a second: more people or less per_s"


def _problems_of_arrivals(arrivals: Arrivals, sale: SaleTerms | None) -> Iterator[str]:
    if arrivals.kind == "herd" and sale is None:
        yield "a herd waits for a sale"
    if arrivals.kind == "poisson" and arrivals.per_s <= 0:
        yield "poisson needs per_s"
    if arrivals.kind == "ramp" and (arrivals.over_s <= 0 or arrivals.per_s == arrivals.to_per_s):
        yield "ramp needs over_s, and per_s and to_per_s that differ"
    if min(arrivals.per_s, arrivals.to_per_s, arrivals.spread_ms, arrivals.at_s) < 0:
        yield "per_s, to_per_s, spread_ms and at_s are at least 0"
    if arrivals.kind == "trace" and not Path(arrivals.file).is_file():
        yield f"no such file: {arrivals.file or 'trace needs file'}"


def _problems_of_fault(fault: Fault, scenario: Scenario) -> Iterator[str]:
    if not 0 <= fault.at_s < scenario.seconds:
        yield "at_s is within the measured part"
    if fault.for_s <= 0 or fault.within_ms < 0:
        yield "for_s is above 0, within_ms at least 0"
    if fault.kind == "drop":
        if fault.part or not 0 < fault.share <= 1:
            yield "drop has a share of all sockets, above 0 and at most 1, and no part"
    elif not _PART.fullmatch(fault.part):
        yield "part is web-1, web-2, ..., worker, valkey or postgres"
    elif fault.part.startswith("web-") and int(fault.part[4:]) > scenario.rooms:
        yield f"there is no {fault.part}: rooms = {scenario.rooms}"
