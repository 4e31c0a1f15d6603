"""Shows that Redis does not know: perhaps it has just lost them, and the books have them.

Guessing show ids is free for whoever does it, so PostgreSQL is asked one question at a time, for
all shows that were asked for meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress

from server.errors import RecordsUnavailable, Refused

Books = Callable[[Collection[str]], Awaitable[Mapping[str, bool]]]


class _Question:
    """The shows of one question; `found` once `is_over`, None when there was no answer."""

    __slots__ = ("found", "is_over", "shows")

    def __init__(self) -> None:
        self.shows: set[str] = set()
        self.is_over = False
        self.found: Mapping[str, bool] | None = None


class KnownShows:
    """`books` tells of shows which ones there are, and whether they were over long ago. It raises
    RecordsUnavailable."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._next = _Question()
        self._one_at_a_time = asyncio.Lock()

    async def refusal(self, show_id: str) -> Refused:
        """What somebody is told who wants to enter a show that Redis does not know."""
        found = await self._find(show_id)
        if found is None:
            return Refused("unavailable")
        if show_id not in found:
            return Refused("not_found", "No such show")
        return Refused("show_ended" if found[show_id] else "stock_rebuilding")

    async def _find(self, show_id: str) -> Mapping[str, bool] | None:
        """None when PostgreSQL does not answer: whoever asked with us is not to ask again."""
        question = self._next
        question.shows.add(show_id)
        async with self._one_at_a_time:
            if not question.is_over:
                self._next = _Question()  # whoever comes from here on
                with suppress(RecordsUnavailable):
                    question.found = await self._books(question.shows)
                question.is_over = True
        return question.found
