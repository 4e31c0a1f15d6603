"""The people of one loader: made from its slices, dealt their acts in turn."""

from base64 import urlsafe_b64decode
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from loadtest.scenario import Crowd
from loadtest.swarm.buying import Till
from loadtest.swarm.connection import Connection
from loadtest.swarm.entrance import ADDRESSES_MAX, PEOPLE_PER_ADDRESS, Swarm, Who
from loadtest.swarm.personas import (
    Bot,
    Commenter,
    Customer,
    Flapper,
    Liker,
    Payer,
    Person,
    SlowReader,
    Watcher,
)
from loadtest.swarm.pipe import CrowdSlice

LATE_US: Final = 1_000_000  # an act later than this is dropped
LOOK_S: Final = 0.02  # how often those who wait for their person are looked at
STEP_S: Final = 0.001  # the loop's timers have steps of 1 ms
TRACES_MAX: Final = 200
TRACED_SHARE: Final = 0.02

Actor: TypeAlias = Person | Customer

_WATCHING: Final[dict[str, type[Person]]] = {
    "watcher": Watcher,
    "liker": Liker,
    "commenter": Commenter,
    "slow_reader": SlowReader,
    "flapper": Flapper,
}
_BUYING: Final[dict[str, type[Customer]]] = {"buyer": Customer, "hesitant": Customer, "bot": Bot}
_LETTERS: Final = {"buyer": "b", "hesitant": "h", "bot": "x", "liker": "l", "commenter": "c"}


def user_of(run: str, crowd: int, persona: str, number: int) -> str:
    """What somebody of a crowd is called: lt-RUN-KIND+CROWD_NUMBER, so that everybody knows
    whose it is and what (x: a bot). Tokens are to be made for these names."""
    letter = _LETTERS.get(persona, persona[0])
    return f"lt-{run}-{letter}{crowd}_{number}"


def user_in(token: str) -> str:
    """The user a token is for (RFC 7519 section 4.1.2); its signature is the server's business.
    Raises ValueError when it is none."""
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    claims = msgspec.json.decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if not isinstance(claims, dict) or "sub" not in claims:
        raise ValueError("a token without a subject")
    return str(claims["sub"])


class Timetable:
    """Calls at given instants (t_us), in order, as punctual as the loop's timers are."""

    def __init__(self, swarm: Swarm, entries: Sequence[tuple[int, Callable[[int], None]]]) -> None:
        self._swarm = swarm
        self._entries = sorted(entries, key=lambda entry: entry[0])
        self._next = 0
        self.stopped = False

    def run(self) -> None:
        """Call all that is due, and come again for the next."""
        entries, at = self._entries, self._next
        while not self.stopped and at < len(entries):
            t_us, call = entries[at]
            early_us = t_us - self._swarm.now_us()
            if early_us > 0:
                self._swarm.loop.call_later(max(STEP_S, early_us / 1e6), self.run)
                break
            at += 1
            self._next = at
            call(t_us)


class Turns:
    """The acts of one crowd's people: each act is the next one's who has something left to do.

    Who is away or busy acts as soon as possible, or after LATE_US not at all: then the act is
    `dropped`.
    """

    def __init__(self, swarm: Swarm, people: Sequence[Actor], *, claiming: bool) -> None:
        self._swarm = swarm
        self._people: deque[Actor] = deque(people)
        self._waiting: deque[tuple[int, Actor]] = deque()
        self._claiming = claiming
        self._looking = False

    def act(self, intended_us: int) -> None:
        """It is somebody's turn."""
        while self._people and not self._people[0].wants:
            self._people.popleft()
        if not self._people:
            self._swarm.counts["acts_spare"] += 1
            return
        person = self._people[0]
        self._people.rotate(-1)
        self._swarm.counts["acts"] += 1
        if person.ready:
            self._let_act(person, intended_us)
        else:
            self._waiting.append((intended_us, person))
            self._look_later()

    def _let_act(self, person: Actor, intended_us: int) -> None:
        person.act(intended_us)
        if not self._claiming:  # claims are measured where they are made
            now_us = self._swarm.now_us()
            self._swarm.measured.record("schedule_lag", intended_us, now_us - intended_us)
            self._swarm.acted(intended_us, now_us)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            self._swarm.loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        self._looking = False
        waiting, self._waiting = self._waiting, deque()
        now_us = self._swarm.now_us()
        for intended_us, person in waiting:
            if now_us - intended_us > LATE_US:
                self._swarm.counts["dropped"] += 1
            elif person.ready and person.wants:
                self._let_act(person, intended_us)
            else:
                self._waiting.append((intended_us, person))
        if self._waiting:
            self._look_later()

    def stop(self) -> None:
        """Who still waits is too late."""
        self._swarm.counts["dropped"] += len(self._waiting)
        self._waiting.clear()


class Crowds:
    """All people of a loader. `connections` are all sockets; `joins`, `acts` what is to happen."""

    def __init__(
        self, swarm: Swarm, till: Till, payer: Payer, slices: Sequence[CrowdSlice], run: str,
        loader: int, loaders: int,
    ) -> None:  # fmt: skip
        self._swarm = swarm
        self._till = till
        self._payer = payer
        self._run = run
        self.connections: list[Connection] = []
        sockets = sum(each.count * each.crowd.sockets for each in slices)
        self._addresses = max(1, -(-sockets // PEOPLE_PER_ADDRESS))
        self._first_address = loader * (ADDRESSES_MAX // max(1, loaders))
        self.turns: list[Turns] = []
        joins: list[tuple[int, Callable[[int], None]]] = []
        acts: list[tuple[int, Callable[[int], None]]] = []
        for number, each in enumerate(slices):
            people = [self._person(number, each, place) for place in range(each.count)]
            turns = Turns(swarm, people, claiming=each.crowd.persona in _BUYING)
            self.turns.append(turns)
            for person, join_us in zip(people, each.join_us, strict=True):
                joins += [(join_us, socket.come) for socket in _sockets(person)]
            acts += [(act_us, turns.act) for act_us in each.act_us]
        self.joins = Timetable(swarm, joins)
        self.acts = Timetable(swarm, acts)
        self._keep_traces(joins)

    def _person(self, number: int, each: CrowdSlice, place: int) -> Actor:
        token = each.tokens[place]
        name = user_of(self._run, number, each.crowd.persona, each.first + place)
        name = user_in(token) if token else name
        sockets: list[Actor] = []
        for _ in range(each.crowd.sockets):
            sockets.append(self._socket(number, each.crowd, name, each.room[place], token))
            self.connections.append(sockets[-1])
        first = sockets[0]
        if isinstance(first, Bot):
            first.others = [other for other in sockets[1:] if isinstance(other, Bot)]
            for other in first.others:
                other.purchases = first.purchases
        return first

    def _socket(self, number: int, crowd: Crowd, name: str, room: int, token: str) -> Actor:
        who = Who(name, room, token, self._address())
        if buying := _BUYING.get(crowd.persona):
            return buying(self._swarm, who, crowd, number, self._till, self._payer)
        return _WATCHING[crowd.persona](self._swarm, who, crowd)

    def _address(self) -> int:
        """Of the next connection: they take all addresses in turn."""
        return self._first_address + len(self.connections) % self._addresses

    def _keep_traces(self, joins: Sequence[tuple[int, Callable[[int], None]]]) -> None:
        """Of a sample of those who read in time, evenly over the order of joining; of watchers if
        there are any."""
        timely = [each for each in self.connections if each.timely]
        sampled = [each for each in timely if isinstance(each, Watcher)] or timely
        wanted = min(TRACES_MAX, max(1, int(len(sampled) * TRACED_SHARE)), len(sampled))
        for place in range(wanted):
            sampled[place * len(sampled) // wanted].keep_trace()


def _sockets(person: Actor) -> Sequence[Connection]:
    return [person, *person.others] if isinstance(person, Bot) else [person]
