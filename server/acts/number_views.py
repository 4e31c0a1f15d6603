"""What the host API answers about a show's numbers. Money in minor units, times in ms since 1970.

Every number is a total, never a rate: whoever draws rates sees gaps as gaps.
"""

from msgspec import Struct

from server.acts.views import SaleStats


class PulseView(Struct, frozen=True):
    """How a show is at the instant `at` (Redis ms). Likes, lines of danmaku and first claims are
    totals; they fall only when Redis was lost.

    `backlog`: entries of the order stream (each the takes of one call) that are not booked yet,
    the oldest of them since `oldest_ms`. `pending`: things that PostgreSQL has had for a second
    and Redis has not. `gate`: scheduled, open, paused, ended or rebuilding.
    """

    at: int
    online: int
    likes: int
    lines: int
    claims: int
    backlog: int
    oldest_ms: int
    pending: int
    gate: str


class Sample(Struct, frozen=True):
    """A show's totals at an instant. Units of all its started sales by the books: those that are
    left, held (confirmed and not paid, or dead) and sold; orders that stand, and their amounts by
    currency (empty for moderators): these may be older than the units. `claims` counts a claim
    each time it comes with `attempt` 0."""

    at: int
    online: int
    likes: int
    lines: int
    claims: int
    left: int
    held: int
    sold: int
    orders: int
    amounts: dict[str, int]


class SeriesView(Struct, frozen=True):
    """Samples after an instant, oldest first, at most one in `step_s` seconds. Where there is none
    for longer, nothing is known: neither this server nor the numbers stood still."""

    step_s: int
    samples: list[Sample]


class PinWindow(Struct, frozen=True):
    """While `product` was being explained, until now if it still is: people online on average (0:
    not known), and of the orders confirmed meanwhile those that stand.

    `conversion_pm`: buyers per 1,000 people online, -1: not known, or more buyers than those.
    `amounts` by currency, empty for moderators.
    """

    product: int
    title: str
    since: int
    until: int
    online: int
    buyers: int
    orders: int
    units: int
    amounts: dict[str, int]
    conversion_pm: int


class PinList(Struct, frozen=True):
    """The newest windows, oldest first."""

    pins: list[PinWindow]


class SaleSummary(SaleStats, frozen=True):
    """`offered`: units allotted and restocked without those that the host took out by lowering.
    Stopping, the window's end and the show's end take back what did not sell: that was offered, so
    `total <= offered` and, with units of orders that stand, `units <= offered`; the share sold is
    `units / offered`. `sold_out_after_ms`: from its opening until its last unit was taken for the
    first time, -1: that never happened. `amount` is 0 for moderators."""

    offered: int
    opens_at: int
    sold_out_after_ms: int


class SummaryView(Struct, frozen=True):
    """A show as a whole: people online (peak at `peak_at`; 0: not known), totals of what viewers
    did, orders that stand with their buyers and units, all orders by status, its sales (oldest
    first) and newest pin windows. `amounts` by currency, empty for moderators."""

    show: str
    title: str
    started_at: int
    ended_at: int
    peak_online: int
    peak_at: int
    avg_online: int
    likes: int
    lines: int
    claims: int
    buyers: int
    orders: int
    units: int
    amounts: dict[str, int]
    by_status: dict[str, int]
    sales: list[SaleSummary]
    pins: list[PinWindow]
