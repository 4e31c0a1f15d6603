"""The life of a show: scheduled -> live <-> paused -> ended. Pure rules."""

from typing import Final, Literal

from server.errors import Refused

ShowStatus = Literal["scheduled", "live", "paused", "ended"]
ShowAct = Literal["start", "pause", "resume", "end"]

TARGETS: Final[dict[ShowAct, ShowStatus]] = {
    "start": "live",
    "pause": "paused",
    "resume": "live",
    "end": "ended",
}
_FROM: Final[dict[ShowAct, frozenset[ShowStatus]]] = {
    "start": frozenset(("scheduled",)),
    "pause": frozenset(("live",)),
    "resume": frozenset(("paused",)),
    "end": frozenset(("scheduled", "live", "paused")),
}


def next_status(status: ShowStatus, act: ShowAct) -> ShowStatus:
    """The status after `act`; the same when the act was already done (a repeat is harmless).

    Raises Refused: show_ended, show_not_live, or conflict when the act does not fit.
    """
    if status == TARGETS[act] or status in _FROM[act]:
        return TARGETS[act]
    if status == "ended":
        raise Refused("show_ended")
    if status == "scheduled":
        raise Refused("show_not_live")
    raise Refused("conflict", f"A show that is {status} cannot {act}")


def require_running(status: ShowStatus) -> None:
    """Sales start only in a live show. Raises Refused(show_not_live|show_paused|show_ended)."""
    if status == "scheduled":
        raise Refused("show_not_live")
    if status == "paused":
        raise Refused("show_paused")
    require_not_ended(status)


def require_not_ended(status: ShowStatus) -> None:
    """An ended show takes no further acts. Raises Refused(show_ended)."""
    if status == "ended":
        raise Refused("show_ended")
