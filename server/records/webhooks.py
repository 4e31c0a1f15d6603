"""Webhook endpoints, and what is to be sent to them; statements are in sql/webhooks.sql.

A delivery is one message for one endpoint. It is pending until an attempt succeeded or the last
one failed. Whoever sends takes deliveries in hand for a time; when that is over (the worker was
killed) others may, so a message is sent at least once.
"""

import json
from collections.abc import Collection, Iterable
from typing import Final, Literal, NamedTuple

from server.domain.order import RANK
from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import to_ms

_SQL: Final = load("webhooks")
_RANKS: Final = json.dumps(dict(RANK))

DeliveryStatus = Literal["pending", "delivered", "failed"]


class EndpointRow(NamedTuple):
    """An endpoint without its secret, and how its deliveries stand. Times in ms, 0: not set.

    `removed_by`: a user, or `gone` when the target answered 410.
    """

    endpoint_id: int
    url: str
    topics: list[str]
    created_at: int
    removed_at: int
    removed_by: str
    pending: int
    failed: int


class DeliveryRow(NamedTuple):
    """One line of the delivery log. `next_at`: of the next attempt, ms, 0: none.

    `http_status` 0: nobody has answered; `last_error` is empty once it is delivered.
    """

    delivery_id: int
    webhook_id: str
    topic: str
    at: int
    status: DeliveryStatus
    attempts: int
    http_status: int
    last_error: str
    next_at: int
    updated_at: int


class InHand(NamedTuple):
    """A delivery that this process may try now. `schedule`: which attempt of the schedule, from 1.

    `body` is the JSON text to be signed and sent, the same in every attempt.
    """

    delivery_id: int
    endpoint_id: int
    attempts: int
    schedule: int
    url: str
    secret: str
    webhook_id: str
    body: str


class Outcome(NamedTuple):
    """What became of an attempt; `wait_s`: seconds until the next one."""

    delivery_id: int
    attempts: int
    status: DeliveryStatus
    http_status: int
    error: str
    wait_s: float


def webhook_id(show_id: str, message_id: int) -> str:
    """The id that receivers see."""
    return f"msg_{show_id}_{message_id}"


# --- Endpoints --------------------------------------------------------------------------------


async def insert_endpoint(
    conn: Connection, show_id: str, url: str, secret: str, topics: Collection[str]
) -> int:
    """Id of a new endpoint; it is told what is committed from now on."""
    row = (show_id, url, secret, list(topics))
    endpoint_id: int = await conn.fetchval(_SQL["insert_endpoint"], *row)
    return endpoint_id


async def list_endpoints(conn: Connection, show_id: str, limit: int) -> list[EndpointRow]:
    """A show's endpoints, newest first, removed ones last."""
    records = await conn.fetch(_SQL["list_endpoints"], show_id, limit)
    return [
        EndpointRow(r["endpoint_id"], r["url"], r["topics"], to_ms(r["created_at"]),
                    to_ms(r["removed_at"]), r["removed_by"], r["pending"], r["failed"])
        for r in records
    ]  # fmt: skip


async def has_endpoint(conn: Connection, show_id: str, endpoint_id: int) -> bool:
    """Whether the show has or had this endpoint."""
    return await conn.fetchval(_SQL["has_endpoint"], show_id, endpoint_id) is not None


async def remove_endpoint(conn: Connection, show_id: str, endpoint_id: int, by: str) -> bool:
    """Nothing more is sent to it. False: there is no such endpoint, or no longer."""
    row = (show_id, endpoint_id, by)
    return await conn.fetchval(_SQL["remove_endpoint"], *row) is not None


async def endpoint_gone(conn: Connection, endpoint_id: int) -> str | None:
    """The target wants nothing more; its show, None when the endpoint was removed already."""
    show_id: str | None = await conn.fetchval(_SQL["endpoint_gone"], endpoint_id)
    return show_id


# --- Log --------------------------------------------------------------------------------------


async def list_deliveries(
    conn: Connection,
    endpoint_id: int,
    status: DeliveryStatus | None,
    before: int | None,
    limit: int,
) -> list[DeliveryRow]:
    """An endpoint's deliveries, newest first, older than delivery `before`."""
    records = await conn.fetch(_SQL["list_deliveries"], endpoint_id, status, before, limit)
    return [
        DeliveryRow(
            delivery_id=r["delivery_id"],
            webhook_id=webhook_id(r["show_id"], r["message_id"]),
            topic=r["topic"],
            at=to_ms(r["at"]),
            status=r["status"],
            attempts=r["attempts"],
            http_status=r["http_status"] or 0,
            last_error=r["last_error"],
            next_at=to_ms(r["next_at"]),
            updated_at=to_ms(r["updated_at"]),
        )
        for r in records
    ]


async def can_resend(
    conn: Connection, show_id: str, endpoint_id: int, delivery_id: int
) -> bool | None:
    """False: its endpoint was removed. None: there is no such delivery."""
    row = (show_id, endpoint_id, delivery_id)
    found: bool | None = await conn.fetchval(_SQL["known_delivery"], *row)
    return found


async def resend(conn: Connection, endpoint_id: int, delivery_id: int | None) -> int:
    """Send a delivery again from now on, or (None) all that failed; how many.

    One that is being sent at this moment is left alone: its schedule goes on.
    """
    return len(await conn.fetch(_SQL["resend"], endpoint_id, delivery_id))


# --- Messages ---------------------------------------------------------------------------------


async def has_work(conn: Connection) -> bool:
    """Whether there is an endpoint, or anything left to be told."""
    return bool(await conn.fetchval(_SQL["has_work"]))


async def make_messages(conn: Connection, rows: int) -> int:
    """Turn the oldest rows of the outbox into messages and deliveries; how many rows.

    Several may do it at once; each row is turned once.
    """
    done: int = await conn.fetchval(_SQL["make_messages"], rows, _RANKS)
    return done


async def note_stock(conn: Connection, ended_days: int) -> int:
    """Messages for pools that changed since they were told of, at most one a second each.

    Shows that ended longer ago than `ended_days` are left out. How many messages.
    """
    told: int = await conn.fetchval(_SQL["note_stock"], ended_days)
    return told


async def forget_old(conn: Connection, days: int, messages: int) -> None:
    """Delete the oldest messages, at most so many, where they are older than `days`."""
    await conn.execute(_SQL["forget_old"], days, messages)


# --- Deliveries -------------------------------------------------------------------------------


async def endpoints_due(conn: Connection, without: Collection[int], limit: int) -> list[int]:
    """Some endpoints that have something due now, none of `without`."""
    rows = await conn.fetch(_SQL["endpoints_due"], list(without), limit)
    return [row["endpoint_id"] for row in rows]


async def take_in_hand(
    conn: Connection, endpoint_id: int, limit: int, seconds: float
) -> list[InHand]:
    """Deliveries of an endpoint that are due, longest due first, for `seconds`.

    Nobody else gets them meanwhile.
    """
    rows = await conn.fetch(_SQL["take_in_hand"], endpoint_id, limit, seconds)
    return [
        InHand(
            delivery_id=row["delivery_id"],
            endpoint_id=row["endpoint_id"],
            attempts=row["attempts"],
            schedule=row["schedule"],
            url=row["url"],
            secret=row["secret"],
            webhook_id=webhook_id(row["show_id"], row["message_id"]),
            body=_body(row["topic"], row["at"].isoformat(timespec="milliseconds"), row["data"]),
        )
        for row in rows
    ]


def _body(topic: str, at: str, data: str) -> str:
    """`data` is JSON text already, the same whenever it is read."""
    return f'{{"type": "{topic}", "timestamp": "{at}", "data": {data}}}'


async def settle(conn: Connection, outcomes: Iterable[Outcome]) -> None:
    """Write down what became of attempts; those that others took over meanwhile are left out."""
    columns = list(zip(*outcomes, strict=True))
    if columns:
        await conn.execute(_SQL["settle"], *columns)
