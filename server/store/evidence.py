"""What hubs and buyers know of claims that Redis may have lost: handed in here, while the show's
stock is being rebuilt, and read by whoever rebuilds it.
"""

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from server import clock
from server.domain.claim import KIND_CLAIM
from server.protocol.messages import ClaimState
from server.store import keys, packing
from server.store.client import command, server_of
from server.store.scripts import Scripts
from server.store.types import Take

_HOLDS_AT_ONCE: Final = 500


class Hold(NamedTuple):
    """A claim that was held in stock epoch `epoch`, and its take."""

    epoch: int
    take: Take


class Evidence:
    """Of all shows on one Redis. Every method raises StoreUnavailable (effect unknown)."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def present(
        self,
        show_id: str,
        rebuild_id: str,
        claims: Sequence[tuple[str, ClaimState]],
        hub_id: str = "",
    ) -> bool:
        """Hand in claims that were held, as (buyer, state); with `hub_id` they are all that this
        hub has. False: too late. Repeating is harmless."""
        names = [keys.meta(show_id), keys.evidence(show_id), keys.presented(show_id)]
        starts = range(0, len(claims) or 1, _HOLDS_AT_ONCE)
        for start in starts:
            portion = claims[start : start + _HOLDS_AT_ONCE]
            flat = [word for buyer, state in portion for word in _packed(buyer, state)]
            args = (rebuild_id, hub_id if start == starts[-1] else "", *flat)
            if not await self._scripts.run("present", names, args):
                return False
        return True

    async def count_hubs(self, show_id: str) -> tuple[int, int]:
        """(hubs that have presented all they have, hubs that listen)."""
        client = self._scripts.client
        presented = await command(client, "SCARD", keys.presented(show_id))
        channel = keys.bus_channel(show_id)
        server = server_of(client, channel)
        _, listening = await command(server, "PUBSUB", "SHARDNUMSUB", channel)
        return int(presented), int(listening)

    async def holds(self, show_id: str) -> AsyncIterator[list[Hold]]:
        """What was handed in, some at a time; a hold may come twice."""
        cursor = 0
        while True:
            words = ("HSCAN", keys.evidence(show_id), cursor, "COUNT", _HOLDS_AT_ONCE)
            cursor, found = await command(self._scripts.client, *words)
            yield [_hold(packed) for packed in found.values()]
            if cursor == 0:
                return


def hold_of(buyer: str, state: ClaimState) -> Hold:
    """The hold that a claim was, or still is."""
    take = Take(
        kind=KIND_CLAIM,
        pool=state.sale,
        seq=state.seq,
        buyer=buyer,
        claim_id=uuid.UUID(state.claim_id).bytes,
        quantity=state.quantity,
        price=state.price,
        price_version=state.price_version,
        at_ms=clock.now_ms(),
    )
    return Hold(state.epoch, take)


def _packed(buyer: str, state: ClaimState) -> tuple[bytes, bytes]:
    """Field and value of a hold: [epoch, take]."""
    hold = hold_of(buyer, state)
    return keys.claim_field(buyer, hold.take.claim_id), packing.pack(hold)


def _hold(packed: bytes) -> Hold:
    epoch, row = packing.unpack_raw(packed)
    return Hold(epoch, packing.take_of(row))
