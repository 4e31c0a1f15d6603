"""Writing a show's stock into Redis anew, from PostgreSQL; server/orders/reconcile.py says when.

Every script names the stock epoch it opens and the rebuild it belongs to, and does nothing once
another rebuild has begun, Redis was restarted or its data are gone: `Superseded`.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from server.errors import LivesaleError
from server.store import keys, packing
from server.store.scripts import Scripts
from server.store.stock import sale_terms
from server.store.types import SaleProjection

_PAIRS_AT_ONCE: Final = 1_000  # fields of a hash in one script

Pair = tuple[bytes | str, bytes | int]


class Superseded(LivesaleError):
    """The rebuild must be started again: another has begun, or Redis lost its data meanwhile."""


@dataclass(frozen=True, slots=True)
class PoolStock:
    """A pool as PostgreSQL has it: its sale's terms and its counters at `version` of its row.

    `units` belong to it, `available` of them can be claimed; `seq` is its last take's.
    """

    projection: SaleProjection
    units: int
    available: int
    reserved: int
    sold: int
    dead: int
    version: int
    seq: int


class Rebuild:
    """One rebuild of one show, into `epoch`. Raises Superseded and StoreUnavailable; whatever was
    written then is overwritten by the next rebuild, and nobody sells from it."""

    def __init__(self, scripts: Scripts, show_id: str, rebuild_id: str, epoch: int) -> None:
        self._scripts = scripts
        self._show_id = show_id
        self._token = (epoch, rebuild_id)

    async def begin(self, pools: Collection[int], phase: str) -> None:
        """Forget the show's stock; `pools` are all that PostgreSQL knows of the show.

        Refusals of repeats are kept; write_claims goes over those that were accepted later.
        """
        show = self._show_id
        names = [
            *(keys.meta(show), keys.claims(show), keys.orders(show), keys.applied(show)),
            *(keys.evidence(show), keys.presented(show), keys.state(show), keys.refusals(show)),
            *(key for pool in pools for key in (keys.pool(show, pool), keys.buyers(show, pool))),
        ]
        args = (*self._token, keys.ORDER_GROUP, phase, packing.pack(list(pools)))
        self._check(await self._scripts.run("rebuild_begin", names, args))

    async def write_pool(self, stock: PoolStock) -> None:
        """Write a pool, and show it to viewers."""
        show, sale = self._show_id, stock.projection.sale
        fields = {
            **sale_terms(stock.projection),
            "rev": stock.projection.revision,
            "v": 1,
            "q": stock.seq,
            "a": stock.available,
            "n": stock.units,
            "s": stock.sold,
            "r": stock.reserved,
            "d": stock.dead,
            "rv": stock.version,
        }
        names = [keys.meta(show), keys.pool(show, sale), keys.state(show), keys.bus_channel(show)]
        args = (*self._token, sale, packing.pack(fields))
        self._check(await self._scripts.run("rebuild_pool", names, args))

    async def write_claims(self, claims: Iterable[Pair]) -> None:
        """Fields (keys.claim_field) and packed states."""
        await self._fill(keys.claims(self._show_id), list(claims))

    async def write_applied(self, marks: Iterable[Pair]) -> None:
        """What must not be applied to Redis again: ids of gives, host's acts and payments."""
        await self._fill(keys.applied(self._show_id), list(marks))

    async def write_buyers(self, pool: int, units: Mapping[str, int]) -> None:
        """Units that count against the buyers' limit."""
        await self._fill(keys.buyers(self._show_id, pool), list(units.items()))

    async def _fill(self, key: str, pairs: list[Pair]) -> None:
        names = [keys.meta(self._show_id), key]
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            flat = [value for pair in pairs[start : start + _PAIRS_AT_ONCE] for value in pair]
            self._check(await self._scripts.run("rebuild_fill", names, (*self._token, *flat)))

    async def open(self) -> None:
        """Let the show sell again, as its phase says."""
        names = [keys.meta(self._show_id)]
        self._check(await self._scripts.run("rebuild_open", names, self._token))

    def _check(self, done: int) -> None:
        if not done:
            raise Superseded(f"epoch {self._token[0]} of {self._show_id} was superseded")
