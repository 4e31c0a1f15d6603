"""Many things to do, each on its own: one that fails does not keep the others from being done."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import structlog

from server.errors import (
    LivesaleError,
    RecordsUnavailable,
    Refused,
    StoreDamaged,
    StoreUnavailable,
)

log = structlog.get_logger()

OUTAGES_MAX: Final = 3  # in a row; then the rest of the round is left to the next one
TROUBLED_MAX: Final = 10_000  # remembered; then they are forgotten, and logged as errors again


class Work:
    """One round of calls, made one after the other, whatever becomes of each.

    It ends early after OUTAGES_MAX outages in a row: a silent server costs a timeout each time.

    `troubled`: what failed when it was last done. Its owner keeps it from round to round, so that
    only the first of a row of failures is logged as an error.
    """

    def __init__(self, troubled: set[object]) -> None:
        self.done = 0
        self._troubled = troubled
        self._outage: LivesaleError | None = None
        self._outages = 0  # in a row

    async def each(
        self, act: Callable[..., Awaitable[int]], arguments: Iterable[tuple[Any, ...]]
    ) -> None:
        """Call `act` with each of the arguments; `done` counts what it returns.

        Several calls of this may share one iterator: then so many things are under way at once.
        """
        for args in arguments:
            if self._outages >= OUTAGES_MAX:
                return
            thing = (act.__qualname__, *args)
            try:
                done = await act(*args)
                self.done += done
                self._troubled.discard(thing)
            except Refused as refusal:
                log.debug("work_refused", thing=str(thing), reason=refusal.error.name)
            except StoreDamaged as damage:
                self._note(thing, damage)
            except (StoreUnavailable, RecordsUnavailable) as outage:
                self._outage = outage
                self._outages += 1
                continue
            except Exception as fault:
                self._note(thing, fault)
            self._outages = 0

    def end(self) -> int:
        """What was done in all. Raises the last outage seen (StoreUnavailable,
        RecordsUnavailable); a thing that is damaged itself is none."""
        if self._outage is not None:
            raise self._outage
        return self.done

    def _note(self, thing: object, fault: Exception) -> None:
        if thing in self._troubled:
            log.debug("work_failed_again", thing=str(thing), reason=str(fault))
            return
        if len(self._troubled) >= TROUBLED_MAX:
            self._troubled.clear()
        self._troubled.add(thing)
        log.error("work_failed", thing=str(thing), exc_info=fault)
