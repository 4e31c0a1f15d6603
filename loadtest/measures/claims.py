"""Every claim of a loader, from the instant it was intended to its last answer."""

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from loadtest.measures.histogram import Measured
from loadtest.swarm.pipe import ClaimLog
from server.errors import ERRORS

NUMBERS: Final = (
    "crowd", "sale", "quantity", "intended_us", "sent_us", "held_us", "confirmed_us", "ended_us",
    "attempts", "code", "order_id", "epoch", "seq", "room",
)  # fmt: skip
ID_BYTES: Final = 16
# Refusals that say nothing about the goods: the same claim goes out again. sold_out may be tried
# again too, with a new id and patience that nobody has here.
REPEATED: Final = frozenset({
    "busy", "outcome_unknown", "unavailable", "internal", "rate_limited", "stock_rebuilding",
    "sale_not_open", "show_not_live", "show_paused", "token_required", "token_expired",
})  # fmt: skip
UNDECIDED: Final = frozenset(ERRORS[name].code for name in REPEATED)
AWAY_US: Final = 1 << 62  # instead of the instant at which a buyer was back: not yet


class Claim(NamedTuple):
    """One row of a ClaimLog; 0: never, none. `cuts`: (lost_us, back_us) of each time that its buyer
    lost the connection while it was open, and was signed in again (AWAY_US: was not)."""

    user: str
    claim_id: bytes
    crowd: int
    sale: int
    quantity: int
    intended_us: int
    sent_us: int
    held_us: int
    confirmed_us: int
    ended_us: int
    attempts: int
    code: int
    order_id: int
    epoch: int
    seq: int
    room: int
    cuts: tuple[tuple[int, int], ...] = ()

    @property
    def is_given_up(self) -> bool:
        """Whether its buyer stopped sending it, and no order came of it."""
        return bool(self.ended_us) and not self.confirmed_us and self.code in UNDECIDED

    @property
    def is_bot(self) -> bool:
        """Users are named lt-RUN-KIND+NUMBER, kind x for bots."""
        return self.user.rpartition("-")[2].startswith("x")


class ClaimTable:
    """The claims of one loader by row, and their latencies from both clocks.

    `claim_held` and `claim_confirmed` count from the intended instant, `.._service` from the first
    sending; `schedule_lag` lies between. All belong to the intended instant.
    """

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._users: list[str] = []
        self._ids = bytearray()
        self._numbers = {name: array("q") for name in NUMBERS}
        self._cuts = array("q")  # row, lost_us, back_us of each
        self._away: dict[int, int] = {}  # row -> where its back_us will stand

    def __len__(self) -> int:
        return len(self._users)

    def intend(
        self,
        user: str,
        claim_id: bytes,
        *,
        crowd: int,
        sale: int,
        quantity: int,
        intended_us: int,
        room: int,
    ) -> int:
        """A new claim. Returns its row."""
        known = {
            "crowd": crowd,
            "sale": sale,
            "quantity": quantity,
            "intended_us": intended_us,
            "room": room,
        }
        for name, column in self._numbers.items():
            column.append(known.get(name, 0))
        self._ids += claim_id
        self._users.append(user)
        return len(self._users) - 1

    def sent(self, row: int, t_us: int) -> None:
        """An attempt goes out; the first one ends the schedule lag."""
        self._numbers["attempts"][row] += 1
        if self._first("sent_us", row, t_us):
            intended_us = self._numbers["intended_us"][row]
            self._measured.record("schedule_lag", intended_us, t_us - intended_us)

    def held(self, row: int, t_us: int, epoch: int, seq: int) -> None:
        """The server says that the units are this buyer's. Said again, it changes nothing."""
        if self._first("held_us", row, t_us):
            self._numbers["epoch"][row], self._numbers["seq"][row] = epoch, seq
            self._answered("claim_held", row, t_us)

    def confirmed(self, row: int, t_us: int, order_id: int, epoch: int, seq: int) -> None:
        """The order is stored. Who was not told `held` before is told now."""
        self.held(row, t_us, epoch, seq)
        if self._first("confirmed_us", row, t_us):
            self._numbers["order_id"][row] = order_id
            self._answered("claim_confirmed", row, t_us)

    def refused(self, row: int, t_us: int, code: int, *, final: bool) -> None:
        """The attempt is refused; `final`: the buyer gives the claim up."""
        self._numbers["code"][row] = code
        if final:
            self._first("ended_us", row, t_us)

    def cut(self, row: int, t_us: int) -> None:
        """Its buyer has lost the connection. Said again while away, it changes nothing."""
        if row not in self._away:
            self._cuts.extend((row, t_us, AWAY_US))
            self._away[row] = len(self._cuts) - 1

    def back(self, row: int, t_us: int) -> None:
        """Its buyer is signed in, again if there was a cut."""
        if (place := self._away.pop(row, None)) is not None:
            self._cuts[place] = t_us

    def _first(self, name: str, row: int, t_us: int) -> bool:
        """Note when it happened, unless it has happened before."""
        column = self._numbers[name]
        if column[row]:
            return False
        column[row] = t_us
        return True

    def _answered(self, name: str, row: int, t_us: int) -> None:
        intended_us, room = self._numbers["intended_us"][row], self._numbers["room"][row]
        service_us = t_us - self._numbers["sent_us"][row]
        self._measured.record(name, intended_us, t_us - intended_us, room=room)
        self._measured.record(f"{name}_service", intended_us, service_us, room=room)

    def log(self) -> ClaimLog:
        """All rows, as they go to the coordinator."""
        columns = {name: column.tobytes() for name, column in self._numbers.items()}
        columns["user"] = "\0".join(self._users).encode()
        columns["claim_id"] = bytes(self._ids)
        columns["cuts"] = self._cuts.tobytes()
        return ClaimLog(len(self), columns)


def rows(log: ClaimLog) -> Iterator[Claim]:
    """The claims of a log, in the order of its rows."""
    if not log.n:
        return
    ids = log.columns["claim_id"]
    cut = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
    numbers = [array("q", log.columns[name]) for name in NUMBERS]
    users = log.columns["user"].decode().split("\0")
    cuts = _cuts(log)
    for row, (user, claim_id, *values) in enumerate(zip(users, cut, *numbers, strict=True)):
        yield Claim(user, claim_id, *values)._replace(cuts=tuple(cuts.get(row, ())))


def _cuts(log: ClaimLog) -> dict[int, list[tuple[int, int]]]:
    """Row -> its cuts, in the order in which they happened."""
    found: dict[int, list[tuple[int, int]]] = {}
    flat = iter(array("q", log.columns["cuts"]))
    for row, lost_us, back_us in zip(flat, flat, flat, strict=True):
        found.setdefault(row, []).append((lost_us, back_us))
    return found
