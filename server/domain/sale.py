"""The life of a flash sale and its window. Pure rules.

draft -> open | scheduled -> closing -> closed; scheduled -> open when its time comes. Times are
Redis ms: the claim script decides by the same clock.
"""

from typing import Literal, NamedTuple

from server import limits
from server.errors import Refused

SaleStatus = Literal["draft", "scheduled", "open", "closing", "closed"]


class Window(NamedTuple):
    """Claims are accepted while opens_at <= Redis time < closes_at (ms since 1970)."""

    opens_at: int
    closes_at: int


def window_now(now_ms: int, countdown_s: int, duration_s: int) -> Window:
    """The window of a sale started by hand: a countdown, then `duration_s` seconds."""
    opens_at = now_ms + countdown_s * 1000
    return Window(opens_at, opens_at + duration_s * 1000)


def window_at(now_ms: int, starts_at: int, duration_s: int) -> Window:
    """The window of a sale that opens by itself at `starts_at`.

    Raises Refused(bad_field) for a time that is over or more than SALE_AHEAD_S_MAX ahead.
    """
    if starts_at <= now_ms:
        raise Refused("bad_field", "The start is in the past", field="starts_at")
    if starts_at > now_ms + limits.SALE_AHEAD_S_MAX * 1000:
        raise Refused("bad_field", "The start is too far ahead", field="starts_at")
    return Window(starts_at, starts_at + duration_s * 1000)


def is_over(status: SaleStatus, closes_at: int, now_ms: int) -> bool:
    """Whether nothing can be claimed any more: stopped, or the window's end has passed."""
    if status in ("closing", "closed"):
        return True
    return status != "draft" and closes_at <= now_ms


def require_draft(status: SaleStatus) -> None:
    """Only a draft can be started. Raises Refused(sale_closed|conflict)."""
    if status in ("closing", "closed"):
        raise Refused("sale_closed")
    if status != "draft":
        raise Refused("conflict", f"The sale is {status} already")


def require_not_over(status: SaleStatus, closes_at: int, now_ms: int) -> None:
    """Units and price change only before the end. Raises Refused(sale_closed)."""
    if is_over(status, closes_at, now_ms):
        raise Refused("sale_closed")
