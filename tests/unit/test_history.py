"""The history checker: a sound run passes, and every violation planted in one is found."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from server.protocol.messages import ClaimState
from tests.history import Books, History, OrderRow, Taken, violations

SALE = 7


@dataclass
class Run:
    """A history and its books, written together as a sound system would."""

    history: History = field(default_factory=History)
    books: Books = field(default_factory=lambda: Books(limits={SALE: 2}))
    epoch: int = 1
    seq: int = 0
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def state(self, buyer: str, status: str, **changes: int) -> ClaimState:
        values = {
            "sale": SALE, "quantity": 1, "price": 100, "price_version": 1,
            "epoch": self.epoch, "seq": self.seq, "order_id": 0, **changes,
        }  # fmt: skip
        return ClaimState(claim_id=f"claim-{buyer}", status=status, **values)  # type: ignore[arg-type]

    def ask(self, buyer: str, connection: str = "") -> None:
        self.history.note_sent(connection or f"c-{buyer}", buyer, f"claim-{buyer}", SALE)

    def tell(self, buyer: str, status: str, connection: str = "", **changes: int) -> None:
        state = self.state(buyer, status, **changes)
        self.history.note_state(connection or f"c-{buyer}", buyer, state)

    def refuse(self, buyer: str, name: str) -> None:
        self.history.note_refusal(f"c-{buyer}", buyer, f"claim-{buyer}", name)

    def buy(self, buyer: str) -> None:
        """Asked, held, confirmed, and the viewers see one unit less."""
        self.ask(buyer)
        self.seq += 1
        self.tell(buyer, "held")
        self.store(buyer)
        self.tell(buyer, "confirmed", order_id=self.seq)

    def store(self, buyer: str, status: str = "confirmed") -> None:
        terms = (buyer, f"claim-{buyer}", SALE, self.epoch, self.seq, 1, 100, status)
        self.books.orders.append(OrderRow(self.seq, *terms))

    def show(self, left: int, connection: str = "viewer", version: int = 0, sold: int = 0) -> None:
        value = {"sale": SALE, "epoch": self.epoch, "version": version or next(self.versions)}
        held = 10 - left - sold
        self.history.note_stock(
            connection, {**value, "left": left, "held": held, "sold": sold, "total": 10}
        )


def sound() -> Run:
    run = Run()
    run.show(10)
    run.buy("ann")
    run.show(9)
    run.buy("bob")
    run.show(8)
    run.ask("cid")
    run.refuse("cid", "busy")
    run.ask("cid")
    run.refuse("cid", "sold_out")
    return run


def names(run: Run, **options: bool) -> set[str]:
    return {line.split(":")[0] for line in violations(run.history, run.books, **options)}


def test_violations_when_the_run_is_sound_then_none() -> None:
    assert violations(sound().history, sound().books) == []


def confirmed_without_order(run: Run) -> None:
    run.books.orders.pop()


def order_with_another_price(run: Run) -> None:
    run.books.orders[0] = run.books.orders[0]._replace(price=99)


def order_of_somebody_else(run: Run) -> None:
    run.books.orders[0] = run.books.orders[0]._replace(buyer="eve")


def held_and_forgotten(run: Run) -> None:
    run.ask("dan")
    run.seq += 1
    run.tell("dan", "held")


def order_and_incident(run: Run) -> None:
    run.books.released.append(Taken("ann", "claim-ann", SALE, 1, 3))


def never_answered(run: Run) -> None:
    run.ask("dan")
    run.refuse("dan", "outcome_unknown")


def two_orders(run: Run) -> None:
    run.seq += 1
    run.books.orders.append(run.books.orders[0]._replace(seq=run.seq, order_id=99))


def two_places(run: Run) -> None:
    run.tell("ann", "held", connection="other", seq=9)


def another_price_promised(run: Run) -> None:
    run.tell("ann", "held", connection="other", seq=1, price=1)


def yes_and_no(run: Run) -> None:
    run.refuse("ann", "sold_out")


def confirmed_and_released(run: Run) -> None:
    run.tell("bob", "released_by_incident", connection="other")


def hole(run: Run) -> None:
    run.seq += 1
    run.buy("dan")


def shared_place(run: Run) -> None:
    run.seq -= 1
    run.buy("dan")


def overtaken(run: Run) -> None:
    """Dan asked after bob was answered and stands before him."""
    run.history.heard.clear()
    run.books.orders.clear()
    run.seq = 2
    run.tell("bob", "held")
    run.store("bob")
    run.tell("bob", "confirmed", order_id=2)
    run.seq = 1
    run.ask("dan")
    run.tell("dan", "held")
    run.store("dan")
    run.tell("dan", "confirmed", order_id=1)
    run.refuse("ann", "sold_out")


def too_many_bought(run: Run) -> None:
    run.books.limits[SALE] = 0


def too_many_promised(run: Run) -> None:
    run.books.limits[SALE] = 1
    for claim in ("x", "y"):
        run.seq += 1
        state = ClaimState(claim, "confirmed", SALE, 1, 100, 1, 1, run.seq, run.seq)
        run.history.note_state("c", "dan", state)


def held_after_confirmed(run: Run) -> None:
    run.tell("bob", "held")


def counter_goes_back(run: Run) -> None:
    run.show(8, version=2)


def one_version_two_values(run: Run) -> None:
    run.show(5, connection="other", version=2)


def does_not_add_up(run: Run) -> None:
    run.show(8, sold=5)


def unit_from_nowhere(run: Run) -> None:
    run.show(9)


PLANTED: list[tuple[str, Callable[[Run], None]]] = [
    ("I4", confirmed_without_order),
    ("I4", order_with_another_price),
    ("I4", order_of_somebody_else),
    ("I4", held_and_forgotten),
    ("I4", order_and_incident),
    ("I4", never_answered),
    ("I5", two_orders),
    ("I5", two_places),
    ("I5", another_price_promised),
    ("I5", yes_and_no),
    ("I5", confirmed_and_released),
    ("I6", hole),
    ("I6", shared_place),
    ("I7", overtaken),
    ("I8", too_many_bought),
    ("I8", too_many_promised),
    ("I9", held_after_confirmed),
    ("I11", counter_goes_back),
    ("I11", one_version_two_values),
    ("I11", does_not_add_up),
    ("I11", unit_from_nowhere),
]


@pytest.mark.parametrize(("name", "plant"), PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_violations_when_one_is_planted_then_it_is_named(
    name: str, plant: Callable[[Run], None]
) -> None:
    run = sound()
    plant(run)
    assert name in names(run)


def test_violations_when_redis_lost_a_hold_then_it_may_be_taken_again() -> None:
    run = sound()
    held_and_forgotten(run)
    run.epoch = 2
    run.buy("dan")
    assert names(run, lost=True) == set()


def test_violations_when_redis_lost_data_then_a_confirmation_still_counts() -> None:
    run = sound()
    confirmed_without_order(run)
    assert "I4" in names(run, lost=True)


def test_violations_when_units_were_given_back_then_the_counter_may_rise() -> None:
    run = sound()
    unit_from_nowhere(run)
    run.books.returned[SALE] = 1
    assert names(run) == set()


def test_violations_when_the_run_was_cut_short_then_silence_is_no_fault() -> None:
    run = sound()
    never_answered(run)
    assert names(run, unanswered=True) == set()
