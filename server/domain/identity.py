"""Who is asking: what a verified token says (server/web/auth.py makes and checks tokens)."""

from typing import Final, Literal, NamedTuple, get_args

from server.domain.rehearsal import is_shadow
from server.errors import Refused

Role = Literal["host", "moderator", "viewer"]
ROLES: Final[frozenset[str]] = frozenset(get_args(Role))
EVERY_SHOW: Final = "*"


class Identity(NamedTuple):
    """A user in a role. `show` is the show the token is for; `*` (hosts only): all of their own.

    `expires_at` is in ms since 1970.
    """

    user: str
    name: str
    role: Role
    show: str
    expires_at: int

    def covers(self, show_id: str) -> bool:
        """Whether the token was made for this show; for a shadow show only its own tokens are."""
        return self.show == show_id or (self.show == EVERY_SHOW and not is_shadow(show_id))


def require_show_maker(identity: Identity) -> None:
    """Only a host whose token is not bound to one show makes shows. Raises Refused(forbidden)."""
    if identity.role != "host" or identity.show != EVERY_SHOW:
        raise Refused("forbidden", "Making shows needs a host token for every show")


def require_host(identity: Identity, show_id: str, host_id: str) -> None:
    """The host of this show, with a token that covers it. Raises Refused(forbidden)."""
    if identity.role != "host" or identity.user != host_id or not identity.covers(show_id):
        raise Refused("forbidden", "Only the host of this show may do this")


def require_moderator(identity: Identity, show_id: str, host_id: str) -> None:
    """A moderator of this show, or its host. Raises Refused(forbidden)."""
    if identity.role == "moderator" and identity.show == show_id:
        return
    if identity.role == "host" and identity.user == host_id and identity.covers(show_id):
        return
    raise Refused("forbidden", "Only the host and moderators of this show may do this")
