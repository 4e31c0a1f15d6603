"""The gate of a show in Redis, as the order worker moves it, and what tells that it must.

The scripts themselves refuse whatever moves units on a Redis other than the one the stock epoch
was opened on (lua/_gate.lua); here the worker finds that out, and closes the gate by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from server.store import keys
from server.store.scripts import Scripts


@dataclass(frozen=True, slots=True)
class Vitals:
    """What Redis says of a show's stock. `epoch` 0: it has none.

    `same_run`: it is the process the epoch was opened on. `seqs`: pool -> seq of its last take,
    -1 for a pool that is not there. `versions`: pool -> newest version of its row in the books
    that Redis was told of.
    """

    epoch: int
    gate: str
    same_run: bool
    has_group: bool
    seqs: Mapping[int, int]
    versions: Mapping[int, int]


async def read_vitals(scripts: Scripts, show_id: str, pools: list[int]) -> Vitals:
    """Raises StoreUnavailable."""
    names = [keys.meta(show_id), keys.orders(show_id), *(keys.pool(show_id, p) for p in pools)]
    epoch, gate, same_run, has_group, *columns = await scripts.run(
        "diagnose", names, (keys.ORDER_GROUP,)
    )
    of_pools = (dict(zip(pools, column, strict=True)) for column in columns)
    return Vitals(epoch, gate.decode(), bool(same_run), bool(has_group), *of_pools)


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
