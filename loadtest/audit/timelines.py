"""All that is known about one claim, in order: its people's log, Redis, PostgreSQL."""

import uuid
from collections.abc import Iterator

from loadtest.audit.books import Books
from loadtest.audit.seen import Asked, ClaimKey, Seen
from loadtest.report.summary import Timeline
from loadtest.swarm.pipe import Offence
from server.errors import ERRORS_BY_CODE

Step = tuple[int, str, str]  # t_us, client | redis | postgres, what


class Timelines:
    """Makes them. `books` None: only what clients saw is known."""

    def __init__(self, seen: Seen, books: Books | None) -> None:
        self._seen = seen
        self._books = books

    def of_claim(self, key: ClaimKey) -> Timeline:
        """One claim."""
        user, claim_id = key
        steps = [*self._by_client(key), *self._by_redis(key), *self._by_postgres(key)]
        return self._timeline(steps, user, str(uuid.UUID(bytes=claim_id)))

    def of_offence(self, offence: Offence) -> Timeline:
        """What one viewer should not have been told."""
        what = f"room {offence.room + 1}: {offence.was} -> {offence.now}"
        return self._timeline([(offence.t_us, "client", what)], offence.viewer)

    def of_facts(self, user: str = "", **facts: str) -> Timeline:
        """What a party (client, redis, postgres) says in the end of something that is no claim."""
        steps = [(self._seen.finish_us, where, what) for where, what in facts.items()]
        return self._timeline(steps, user)

    def _timeline(self, steps: list[Step], user: str, claim_id: str = "") -> Timeline:
        zero_us = self._seen.part_us[0]
        ordered = sorted(steps, key=lambda step: step[0])
        return Timeline(
            claim_id,
            user,
            [(round((t_us - zero_us) / 1e6, 4), where, what) for t_us, where, what in ordered],
        )

    def _by_client(self, key: ClaimKey) -> Iterator[Step]:
        asked = self._seen.claims.get(key)
        if asked is None:
            return
        for row in asked.rows:
            told = (
                (row.intended_us, "intended"),
                (row.sent_us, f"sent, room {row.room + 1}"),
                (row.held_us, f"held: seq {row.seq}, {_units(row.quantity)}"),
                (row.confirmed_us, f"confirmed: order {row.order_id}"),
                (row.ended_us, _ending(row.code, row.attempts)),
            )
            yield from ((t_us, "client", what) for t_us, what in told if t_us)

    def _by_redis(self, key: ClaimKey) -> Iterator[Step]:
        known = self._books and self._books.store.claims.get(key)
        if known:
            order = f", order {known.order_id}" if known.order_id else ""
            yield known.t_us, "redis", f"claims: {known.status}, seq {known.seq}{order}"

    def _by_postgres(self, key: ClaimKey) -> Iterator[Step]:
        if self._books is None:
            return
        records, asked = self._books.records, self._seen.claims.get(key)
        if order := records.orders.get(key):
            place = f"seq {order.seq}, {_units(order.quantity)}"
            yield order.t_us, "postgres", f"orders {order.order_id}: confirmed, {place}"
            for move in records.moves.get(order.order_id, ()):
                what = f"orders {order.order_id}: {move.status} ({move.reason})"
                yield move.t_us, "postgres", what
        if released := records.released.get(key):
            yield released.t_us, "postgres", f"released: {released.reason}, seq {released.seq}"
        yield from self._dead(asked)

    def _dead(self, asked: Asked | None) -> Iterator[Step]:
        """Dead letters at the places where the claim was held."""
        if asked is None or self._books is None:
            return
        for epoch, seq in asked.places:
            take = self._books.records.other_takes.get((asked.sale, epoch, seq))
            if take is not None:
                yield take.t_us, "postgres", f"{take.kind}, seq {seq}: {take.detail}"


def _units(count: int) -> str:
    return "1 unit" if count == 1 else f"{count} units"


def _ending(code: int, attempts: int) -> str:
    """How a claim was ended without an order."""
    known = ERRORS_BY_CODE.get(code)
    why = known.name if known else "let go"
    return f"refused: {why}, attempt {max(attempts, 1)}" if known else f"ended: {why}"
