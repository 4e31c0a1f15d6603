"""What a hub tells of the people in a room, and what it is told (store/lua/report_presence.lua)."""

from collections.abc import Sequence
from typing import NamedTuple


class PresenceReport(NamedTuple):
    """Who came to a hub, and who left, since its report number `after`.

    `after` 0: the hub begins to tell of everybody there. `came`, `left`: users, each once, together
    at most PRESENCE_PORTION_MAX. `anonymous`: connections that nobody signed in on, now.
    `more_follow`: the number is not complete yet. `may_let_go`: hubs that did not report in time
    are gone; false from one who may have missed their reports together with its own.
    """

    number: int
    after: int
    came: Sequence[str]
    left: Sequence[str]
    anonymous: int = 0
    more_follow: bool = False
    may_let_go: bool = False


class PresenceAnswer(NamedTuple):
    """`counts` false: what is known of the hub is not what it told; it must begin anew.

    `people` watch on all hubs together. `is_unswept`: some of them are those of hubs that are gone,
    and each further report takes a portion of them out.
    """

    counts: bool
    people: int
    is_unswept: bool
