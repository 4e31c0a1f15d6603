"""Every claim of a loader, from the instant it was intended to its last answer."""

from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple

from loadtest.measures.histogram import Measured
from loadtest.swarm.pipe import ClaimLog

NUMBERS: Final = (
    "crowd", "sale", "quantity", "intended_us", "sent_us", "held_us", "confirmed_us", "ended_us",
    "attempts", "code", "order_id", "epoch", "seq", "room", "back_us",
)  # fmt: skip
ID_BYTES: Final = 16
AWAY_US: Final = 1 << 62  # `back_us` of a buyer who has not come back


class Claim(NamedTuple):
    """One row of a ClaimLog; 0: never, none. `back_us`: when its buyer, who had lost the connection
    while it was open, was signed in again."""

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
    back_us: int = 0

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

    def back(self, row: int, t_us: int) -> None:
        """Its buyer is signed in again; AWAY_US: has lost the connection."""
        self._numbers["back_us"][row] = t_us

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
        return ClaimLog(len(self), columns)


def rows(log: ClaimLog) -> Iterator[Claim]:
    """The claims of a log, in the order of its rows."""
    if not log.n:
        return
    ids = log.columns["claim_id"]
    cut = [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
    numbers = [array("q", log.columns[name]) for name in NUMBERS]
    users = log.columns["user"].decode().split("\0")
    for user, claim_id, *values in zip(users, cut, *numbers, strict=True):
        yield Claim(user, claim_id, *values)
