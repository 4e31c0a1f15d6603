"""Who keeps a record of holds that were lost for good.

A hold that Redis lost and its buyer proves after the stock was rebuilt takes part like any claim
(hub/proofs.py). When its units are gone the buyer is told released_by_incident, and here it is
counted, logged and written into the books. Nothing rests on that record, so nobody waits for it:
while PostgreSQL is away the newest LATE_RELEASES_MAX wait in memory.

Only what carries our signature comes here, and of each claim one row is kept: clients cannot fill
the table with anything but holds they had.
"""

import asyncio
from typing import Any, Final
from uuid import UUID

import structlog

from server import clock
from server.errors import RecordsUnavailable
from server.hub.room import Room
from server.protocol.messages import ClaimState
from server.records import late_releases
from server.records.late_releases import LateRelease
from server.records.pool import Pool
from server.telemetry import metrics

log = structlog.get_logger()

LATE_RELEASES_MAX: Final = 10_000  # that wait; the oldest make way, their log lines remain
SEEN_MAX: Final = 10_000  # claims that are not counted or logged again; the oldest are forgotten
_BATCH: Final = 500
_RETRY_MS: Final = 1_000

_Key = tuple[str, str, str]  # show, buyer, claim id


class LateReleases:
    """Of one web process. `note` is for the hub; `run` writes, for ever."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._seen: dict[_Key, None] = {}
        self._waiting: dict[_Key, LateRelease] = {}
        self._came = asyncio.Event()

    def note(self, room: Room, buyer: str, hold: ClaimState, refusal: str) -> None:
        """`hold` was proved by `buyer` and refused for the reason `refusal`."""
        key = (room.show_id, buyer, hold.claim_id)
        if key in self._seen:
            return
        _put(self._seen, key, None, SEEN_MAX)
        metrics.released_late.add(refusal)
        release = _release(room.show_id, buyer, hold, refusal)
        log.warning("claim_released_late", **_without_person(release))
        _put(self._waiting, key, release, LATE_RELEASES_MAX)
        self._came.set()

    async def run(self) -> None:
        """Write what was noted."""
        while True:
            await self._came.wait()
            self._came.clear()
            try:
                await self.flush()
            except RecordsUnavailable as outage:
                log.warning("late_releases_wait", n=len(self._waiting), reason=str(outage))
                self._came.set()
                await asyncio.sleep(clock.jittered(_RETRY_MS) / 1_000)
            except Exception:  # what was noted is in the log, and the next one may be better
                log.exception("late_releases_not_kept", n=len(self._waiting))
                self._waiting.clear()

    async def flush(self) -> None:
        """Write all that wait. Raises RecordsUnavailable: those not written still wait."""
        while self._waiting:
            some = dict(list(self._waiting.items())[:_BATCH])
            await late_releases.insert(self._pool, list(some.values()))
            for key in some:
                self._waiting.pop(key, None)


def _put(found: dict[_Key, Any], key: _Key, value: Any, most: int) -> None:
    """Above the bound the oldest makes way."""
    found[key] = value
    if len(found) > most:
        del found[next(iter(found))]


def _release(show_id: str, buyer: str, hold: ClaimState, refusal: str) -> LateRelease:
    return LateRelease(
        show_id=show_id,
        buyer=buyer,
        claim_id=UUID(hold.claim_id),
        pool=hold.sale,
        quantity=hold.quantity,
        price=hold.price,
        price_version=hold.price_version,
        epoch=hold.epoch,
        seq=hold.seq,
        refusal=refusal,
    )


def _without_person(release: LateRelease) -> dict[str, Any]:
    """For the log."""
    fields = {**release._asdict(), "claim_id": str(release.claim_id)}
    del fields["buyer"]
    return fields
