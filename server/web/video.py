"""Where viewers' pages may fetch video from: the show's origin, and those the operator names."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import structlog

from server import limits
from server.errors import StoreUnavailable
from server.web.content_policy import origin_of
from server.web.shared import Shared

log = structlog.get_logger()

KEPT_SECONDS: Final = 5.0  # how long an answer serves everybody who opens the show's page
SHOWS_MAX: Final = 1_000  # shows with an answer; the one asked for first goes
WAIT_SECONDS: Final = 1.0  # a page does not wait longer; it comes without video then
_SHOW_ID: Final = re.compile(limits.SHOW_ID_PATTERN)

PlaybackUrl = Callable[[str], Awaitable[str]]


class VideoOrigins:
    """`playback_url` tells of a show, and raises StoreUnavailable; `always` are everybody's."""

    def __init__(self, playback_url: PlaybackUrl, always: Sequence[str] = ()) -> None:
        self._playback_url = playback_url
        self._always = tuple(always)
        self._shows: dict[str, Shared[str]] = {}

    async def of(self, show_id: str) -> tuple[str, ...]:
        """For the Content-Security-Policy of the show's page; without the show's own origin when
        that cannot be told, or no show can have this id: anybody may ask for anything."""
        if not _SHOW_ID.fullmatch(show_id):
            return self._always
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                origin = origin_of(await self._shared(show_id)())
        except (StoreUnavailable, TimeoutError):
            log.warning("playback_url_not_read", show_id=show_id)
            origin = ""
        own = (origin,) if origin and origin not in self._always else ()
        return (*own, *self._always)

    def _shared(self, show_id: str) -> Shared[str]:
        shared = self._shows.get(show_id)
        if shared is None:
            if len(self._shows) >= SHOWS_MAX:
                del self._shows[next(iter(self._shows))]
            shared = Shared(partial(self._playback_url, show_id), KEPT_SECONDS)
            self._shows[show_id] = shared
        return shared


async def _no_url(show_id: str) -> str:
    return ""


NO_VIDEO: Final = VideoOrigins(_no_url)
