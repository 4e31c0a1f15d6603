"""A show's numbers, kept every SAMPLE_S while it is on, for the charts of its host.

Every worker does this: the first to write an instant's sample has written it for all. What is not
known is left out: without Redis, or while the stock is being rebuilt, there is no sample.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

import structlog

from server import clock, limits
from server.acts.desk import Clock
from server.domain.rehearsal import is_shadow
from server.errors import RecordsUnavailable, StoreUnavailable
from server.orders.waiting import keep_on
from server.records import numbers
from server.records.numbers import Money, SampleRow, Units
from server.records.pool import Pool, acquire
from server.store.room import RoomStore
from server.store.types import RoomPulse

log = structlog.get_logger()

ROUND_MS: Final = 250  # how late a sample may be
STEP_MS: Final = 1_000 * limits.SAMPLE_S
KEPT_MS: Final = limits.SAMPLES_KEPT_DAYS * 24 * 3_600_000
FORGET_EVERY_MS: Final = 3_600_000
MONEY_SHARE: Final = 0.05  # of the time may go into adding up orders,
MONEY_SECONDS: Final = 4.0  # and so much into those of one show at once: all others wait
_NO_VERSION: Final = -1


class _KnownMoney(NamedTuple):
    """Orders as they were at `version` of the units; not read again before `until_ms`. When they
    could not be read: as they were before (None: never known), at no version."""

    money: Money | None
    version: int
    until_ms: float


class Sampler:
    """Samples all shows that are on, but no rehearsals. `clock_port` tells Redis time."""

    def __init__(self, pool: Pool, room_store: RoomStore, clock_port: Clock) -> None:
        self._pool = pool
        self._room_store = room_store
        self._clock = clock_port
        self._at = 0  # the last instant that was dealt with
        self._money: dict[str, _KnownMoney] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Samples until `stopping` is set; outages are waited out."""
        await keep_on(self.round, stopping, every_ms=ROUND_MS, name="sampler")

    async def round(self) -> int:
        """Sample what has no sample of this instant yet; how many shows. Raises
        RecordsUnavailable."""
        now_ms = self._clock.now_ms()
        at = now_ms - now_ms % STEP_MS
        if at == self._at:
            return 0
        async with acquire(self._pool) as conn:
            found = await numbers.shows_on(conn, at)
            if at % FORGET_EVERY_MS == 0:
                await numbers.forget_samples(conn, found, at - KEPT_MS)
        self._money = {show: known for show, known in self._money.items() if show in found}
        unsampled = [show for show in found if not found[show] and not is_shadow(show)]
        pulses = await self._pulses(unsampled)
        if pulses:
            samples = await self._samples(at, pulses)
            async with acquire(self._pool) as conn:
                await numbers.insert_samples(conn, samples)
        self._at = at
        return len(pulses)

    async def _pulses(self, show_ids: Sequence[str]) -> dict[str, RoomPulse]:
        """Of the shows that Redis has all of."""
        found = await asyncio.gather(*map(self._pulse, show_ids))
        pulses = {show: pulse for show, pulse in zip(show_ids, found, strict=True) if pulse}
        if len(pulses) < len(show_ids):
            log.warning("shows_not_sampled", shows=len(show_ids) - len(pulses))
        return pulses

    async def _pulse(self, show_id: str) -> RoomPulse | None:
        try:
            pulse = await self._room_store.pulse(show_id)
        except StoreUnavailable:
            return None
        except Exception:  # what this show has in Redis; the others must not wait
            log.exception("sampling_failed", show_id=show_id)
            return None
        return None if pulse is None or pulse.gate == "rebuilding" else pulse

    async def _samples(self, at: int, pulses: dict[str, RoomPulse]) -> dict[str, SampleRow]:
        """Of the shows whose money is known."""
        async with acquire(self._pool) as conn:
            units = await numbers.units(conn, pulses)
        samples = {}
        for show_id, pulse in pulses.items():
            stock = units.get(show_id, Units())
            money = await self._money_of(show_id, stock.version, len(pulses))
            seen = (pulse.online, pulse.likes, pulse.lines, pulse.claims)
            if money is not None:
                row = SampleRow(at, *seen, stock.left, stock.held, stock.sold, *money)
                samples[show_id] = row
        return samples

    async def _money_of(self, show_id: str, version: int, shows: int) -> Money | None:
        """Read only when the units have changed, and then not too often: each of `shows` wants a
        part of the time. One that cannot be read keeps its last, and waits as long for the next."""
        known = self._money.get(show_id)
        began = clock.monotonic_ms()
        if known is not None and (known.version == version or began < known.until_ms):
            return known.money
        try:
            async with acquire(self._pool) as conn:
                money: Money | None = await numbers.money(conn, show_id, MONEY_SECONDS)
        except RecordsUnavailable:
            log.warning("orders_not_added_up", show_id=show_id)
            money, version = known and known.money, _NO_VERSION
        now = clock.monotonic_ms()
        pause_ms = (now - began) * shows / MONEY_SHARE
        self._money[show_id] = _KnownMoney(money, version, now + pause_ms)
        return money
