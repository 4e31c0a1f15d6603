"""Host API: how a show does, now and over time. Answers are shared: many consoles cost as one."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Final, Generic

from msgspec.structs import replace

from server.acts.messages import Body, Moment
from server.acts.number_views import PinList, PulseView, SeriesView, SummaryView
from server.acts.numbers import View, without_money
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW
from server.web.shared import Shared

FRESH_SECONDS: Final = 2.0  # at least so long an answer is told again,
FRESH_FACTOR: Final = 10.0  # and so many times as long as it took: big shows are asked less often
KEPT_MAX: Final = 100  # answers of a kind; then the oldest goes
GRID_MS: Final = 60_000  # series are read after such instants: consoles share what they know


class SeriesQuery(Body, frozen=True):
    """Samples after the instant `after`."""

    after: Moment = 0


class _Answers(Generic[View]):
    """Answers of one kind, by what was asked; `turn` when they cost much (Shared)."""

    def __init__(self, turn: asyncio.Lock | None = None) -> None:
        self._turn = turn
        self._known: dict[Hashable, Shared[View]] = {}

    async def of(self, call: Call, asked: Hashable, source: Callable[[], Awaitable[View]]) -> View:
        """What `source` says, or said a moment ago, for whoever may see it. Raises Refused,
        StoreUnavailable, RecordsUnavailable."""
        # Of a show that has just ended nobody is told how it stood before.
        key = (asked, await call.acts.numbers.authorise(call.identity, call.show))
        if key not in self._known:
            self._make_room()
            self._known[key] = Shared(source, FRESH_SECONDS, FRESH_FACTOR, self._turn)
        view = await self._known[key]()
        return view if call.identity.role == "host" else without_money(view)

    def _make_room(self) -> None:
        """Forget what is stale, and the oldest answer if there are too many."""
        self._known = {key: known for key, known in self._known.items() if not known.is_stale}
        if len(self._known) >= KEPT_MAX:
            del self._known[next(iter(self._known))]


class NumbersDesk:
    """The endpoints, and the answers they share.

    What reads all orders of a show takes its turn: four big shows would hold every connection to
    PostgreSQL that payments, acts and health checks go by.
    """

    def __init__(self) -> None:
        turn = asyncio.Lock()
        self._pulses = _Answers[PulseView]()
        self._series = _Answers[SeriesView]()
        self._pins = _Answers[PinList](turn)
        self._summaries = _Answers[SummaryView](turn)

    async def pulse(self, call: Call) -> PulseView:
        source = partial(call.acts.numbers.pulse, call.show)
        return await self._pulses.of(call, call.show, source)

    async def series(self, call: Call) -> SeriesView:
        after: int = call.query.after
        asked = (call.show, after - after % GRID_MS)
        view = await self._series.of(call, asked, partial(call.acts.numbers.series, *asked))
        return replace(view, samples=[sample for sample in view.samples if sample.at > after])

    async def pins(self, call: Call) -> PinList:
        return await self._pins.of(call, call.show, partial(call.acts.numbers.pins, call.show))

    async def summary(self, call: Call) -> SummaryView:
        source = partial(call.acts.numbers.summary, call.show)
        return await self._summaries.of(call, call.show, source)

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint(
                "GET", f"{SHOW}/pulse", "pulse", "How the show does at this instant",
                self.pulse, PulseView,
            ),
            Endpoint(
                "GET", f"{SHOW}/series", "series", "How it did after `after`, oldest first",
                self.series, SeriesView, query=SeriesQuery,
            ),
            Endpoint(
                "GET", f"{SHOW}/pins", "pins", "What was sold while each product was pinned",
                self.pins, PinList,
            ),
            Endpoint(
                "GET", f"{SHOW}/summary", "summary", "The show as a whole, also after its end",
                self.summary, SummaryView,
            ),
        )  # fmt: skip
