"""The audit log of hosts and moderators in PostgreSQL; statements are in sql/acts.sql."""

import json
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from server.records.pool import Connection
from server.records.sql import load
from server.records.transaction import to_ms

_SQL = load("acts")


class ActRow(NamedTuple):
    """One act. `outcome`: pending, done or refused for restocks and lowerings, else empty."""

    act_id: uuid.UUID
    actor: str
    role: str
    action: str
    detail: dict[str, Any]
    at: int
    outcome: str


async def insert_act(
    conn: Connection,
    act_id: uuid.UUID,
    show_id: str,
    actor: str,
    role: str,
    action: str,
    detail: Mapping[str, Any],
) -> None:
    """Append an act; in the transaction of the change it tells about."""
    row = (act_id, show_id, actor, role, action, json.dumps(detail, ensure_ascii=False))
    await conn.execute(_SQL["insert_act"], *row)


async def get_act(conn: Connection, act_id: uuid.UUID) -> tuple[str, dict[str, Any]] | None:
    """Action and detail of an act."""
    record = await conn.fetchrow(_SQL["get_act"], act_id)
    return (record["action"], json.loads(record["detail"])) if record else None


async def list_acts(
    conn: Connection, show_id: str, before: uuid.UUID | None, limit: int
) -> list[ActRow]:
    """Acts of a show, newest first, older than act `before`."""
    records = await conn.fetch(_SQL["list_acts"], show_id, before, limit)
    return [
        ActRow(r["act_id"], r["actor"], r["role"], r["action"], json.loads(r["detail"]),
               to_ms(r["at"]), r["outcome"])
        for r in records
    ]  # fmt: skip
