"""Shadow shows: where a sale is rehearsed, and who may come in.

A shadow show is told by its id alone, so that the door never has to ask anybody. Real shows have
shorter ids (server/acts/shows.py), a check of the table `rehearsals` keeps to the form.
"""

import hmac
from hashlib import sha256
from typing import Final

from server import clock

_LETTER: Final = "r"
_RANDOM_CHARS: Final = 24
_CHARS: Final = len(_LETTER) + _RANDOM_CHARS
_TICKET_CHARS: Final = 32  # 16 bytes in hex


def new_shadow_id() -> str:
    """The id of a new shadow show; nobody can guess it."""
    return _LETTER + clock.new_short_id(_RANDOM_CHARS)


def is_shadow(show_id: str) -> bool:
    """Is this the id of a shadow show?"""
    return len(show_id) == _CHARS and show_id.startswith(_LETTER)


def ticket_for(secret: bytes, show_id: str) -> str:
    """What lets viewers into the shadow show `show_id` (RFC 2104, the first 16 bytes in hex)."""
    return hmac.new(secret, b"rehearsal:" + show_id.encode(), sha256).hexdigest()[:_TICKET_CHARS]


def lets_in(secret: bytes, show_id: str, ticket: str) -> bool:
    """May somebody with this ticket enter? Everybody may enter a show that is no shadow."""
    if not is_shadow(show_id):
        return True
    return hmac.compare_digest(ticket_for(secret, show_id).encode(), ticket.encode())
