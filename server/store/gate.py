"""The gate of a show in Redis, as the order worker moves it, and what tells that it must.

The scripts themselves refuse whatever moves units on a Redis other than the one the stock epoch
was opened on (lua/_gate.lua); here the worker finds that out, and closes the gate by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from server.store import keys
from server.store.scripts import Scripts

# In the order of lua/_damage.lua, which knows their types.
_KEYS: Final = (
    *(keys.meta, keys.orders, keys.claims, keys.applied, keys.evidence, keys.presented),
    *(keys.refusals, keys.room, keys.state, keys.events, keys.chat),
    *(keys.like_batches, keys.presence, keys.people, keys.policy, keys.lease, keys.counts),
)
_VITALS_AT_ONCE: Final = 25  # shows in one round trip; each holds Redis up for some 60 µs


@dataclass(frozen=True, slots=True)
class Vitals:
    """What Redis says of a show's stock. `epoch` 0: it has none.

    `same_run`: it is the process the epoch was opened on. `backlog`: entries in the order stream.
    `seqs`: pool -> seq of its last take, -1 for a pool that is not there. `versions`: pool ->
    newest version of its row in the books that Redis was told of. `damage`: which keys cannot be
    what they must be, for people; the other values are then of those that can be read.
    """

    epoch: int
    gate: str
    same_run: bool
    has_group: bool
    backlog: int
    seqs: Mapping[int, int]
    versions: Mapping[int, int]
    damage: tuple[str, ...] = ()


async def read_vitals(scripts: Scripts, show_id: str, pools: Sequence[int]) -> Vitals:
    """Raises StoreUnavailable."""
    return (await read_all_vitals(scripts, {show_id: pools}))[show_id]


async def read_all_vitals(
    scripts: Scripts, pools: Mapping[str, Sequence[int]]
) -> dict[str, Vitals]:
    """By show; `pools` are each show's. A round trip has many shows. Raises StoreUnavailable."""
    shows = list(pools)
    found: dict[str, Vitals] = {}
    for start in range(0, len(shows), _VITALS_AT_ONCE):
        some = shows[start : start + _VITALS_AT_ONCE]
        calls = [(_keys_of(show_id, pools[show_id]), (keys.ORDER_GROUP,)) for show_id in some]
        replies = await scripts.run_many("diagnose", calls)
        for show_id, reply in zip(some, replies, strict=True):
            found[show_id] = _vitals(reply, pools[show_id])
    return found


def _keys_of(show_id: str, pools: Iterable[int]) -> list[str]:
    of_pools = (key(show_id, pool) for pool in pools for key in (keys.pool, keys.buyers))
    return [*(key(show_id) for key in _KEYS), *of_pools]


def _vitals(reply: list[Any], pools: Sequence[int]) -> Vitals:
    epoch, gate, same_run, has_group, backlog, seqs, versions, damage = reply
    return Vitals(
        epoch=epoch,
        gate=gate.decode(),
        same_run=bool(same_run),
        has_group=bool(has_group),
        backlog=backlog,
        seqs=dict(zip(pools, seqs, strict=True)),
        versions=dict(zip(pools, versions, strict=True)),
        damage=tuple(text.decode() for text in damage),
    )


async def close_for_rebuilding(
    scripts: Scripts, show_id: str, *, rebuild: str = "", epoch: int | None = None
) -> bool:
    """Refuse whatever moves units of the show with stock_rebuilding; idempotent.

    `epoch`: only if this is the one in Redis (0: none), lest somebody who was frozen closes the
    gate of a later one. `rebuild`: the rebuild that begins; hubs are told to present to it. False
    when nothing was to be done. Raises StoreUnavailable (effect unknown).
    """
    names = [keys.meta(show_id), keys.bus_channel(show_id)]
    seen = "" if epoch is None else epoch
    return bool(await scripts.run("close_gate", names, (rebuild, seen)))


async def stop_gathering(scripts: Scripts, show_id: str, rebuild: str) -> bool:
    """Take no more evidence for this rebuild; idempotent. False: another one has the show.

    Raises StoreUnavailable (effect unknown).
    """
    return bool(await scripts.run("stop_gathering", [keys.meta(show_id)], (rebuild,)))


async def drop_damaged(scripts: Scripts, show_id: str, rebuild: str, pools: Sequence[int]) -> bool:
    """Remove keys of the wrong type, once this rebuild has closed the gate; idempotent.

    False: another one has the show. Raises StoreUnavailable (effect unknown).
    """
    return bool(await scripts.run("drop_damaged", _keys_of(show_id, pools), (rebuild,)))
