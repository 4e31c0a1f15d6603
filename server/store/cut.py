"""One instant of a show's stock, read so that Redis does not stop for long.

What only grows towards the instant, the entries of the order stream, is read in pieces before it;
the script then cuts what is small, and adds the newest entries. An entry that was settled in
between was in PostgreSQL before it was deleted, so naming it does no harm. What carries its own
place in history, the marks of gives (the pool's version they made), is read after the instant.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from server.store import keys, packing
from server.store.client import command
from server.store.order_stream import surviving_entries
from server.store.scripts import Scripts
from server.store.types import AuditCut, PoolCut

_FIELDS_AT_ONCE: Final = 1_000


async def read_cut(scripts: Scripts, show_id: str, pool_ids: Sequence[int]) -> AuditCut | None:
    """Every pool that Redis knows of, and those of `pool_ids` that exist; None when Redis does
    not know the show. Raises StoreUnavailable."""
    portions = [entries async for entries in surviving_entries(scripts, show_id)]
    pending = [entry for entries in portions for entry in entries]
    last = pending[-1].entry_id if pending else "0-0"
    reply: Any = b"more"
    while reply == b"more":
        wanted = sorted({*pool_ids, *await _known_pools(scripts, show_id)})
        names = [
            *(keys.meta(show_id), keys.orders(show_id), keys.state(show_id)),
            *(keys.pool(show_id, pool) for pool in wanted),
        ]
        reply = await scripts.run("audit_cut", names, (packing.pack(wanted), last))
    if reply is None:
        return None
    now_ms, epoch, gate, same_run, pools, entries = reply
    return AuditCut(
        now_ms=now_ms,
        epoch=int(epoch),
        gate=gate.decode(),
        same_run=bool(same_run),
        pools={p: _pool_cut(p, flat) for p, flat in zip(wanted, pools, strict=True) if flat},
        pending=[*pending, *(packing.unpack_order_entry(i, _pairs(f)) for i, f in entries)],
        applied={
            field.decode(): _mark(value)
            async for field, value in scan_hash(scripts, keys.applied(show_id))
        },
    )


async def _known_pools(scripts: Scripts, show_id: str) -> list[int]:
    names = await command(scripts.client, "HKEYS", keys.state(show_id))
    return [int(name[6:]) for name in names if name.startswith(b"stock:")]


async def scan_hash(scripts: Scripts, key: str) -> AsyncIterator[tuple[bytes, bytes]]:
    """Every field that is there all the while, perhaps twice; those made meanwhile perhaps."""
    cursor = 0
    while True:
        cursor, found = await command(
            scripts.client, "HSCAN", key, cursor, "COUNT", _FIELDS_AT_ONCE
        )
        for pair in found.items():
            yield pair
        if cursor == 0:
            return


def _mark(value: bytes) -> int:
    """What a give's mark says; of other marks, which have no version, 0."""
    return int(value) if value.isdigit() else 0


def _pool_cut(pool: int, flat: list[bytes]) -> PoolCut:
    fields = _pairs(flat)
    return PoolCut(
        pool=pool,
        available=int(fields[b"a"]),
        seq=int(fields[b"q"]),
        version=int(fields[b"v"]),
        units=int(fields[b"n"]),
        sold=int(fields[b"s"]),
        reserved=int(fields[b"r"]),
        dead=int(fields[b"d"]),
        records_version=int(fields[b"rv"]),
        status=fields[b"st"].decode(),
    )


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
