"""Role tokens: signed JWTs (RFC 7519, HS256) that say who somebody is and in which show.

Claims: `sub` user id, `name` shown to others, `role` host|moderator|viewer, `show` a show id or
`*` (hosts only), `aud` livesale, `iat`, `exp`. Nothing else in the token is believed: the
algorithm is pinned, `exp`, `sub` and `aud` are required, and the secret has at least 32 bytes.
"""

import re
from typing import Any, Final, cast

import jwt

from server import clock, limits
from server.config import SECRET_BYTES_MIN
from server.domain.identity import EVERY_SHOW, ROLES, Identity, Role
from server.errors import Misconfigured, Refused

ALGORITHM: Final = "HS256"
AUDIENCE: Final = "livesale"
HOST_TOKEN_S: Final = 12 * 3600  # a show's preparation and its stream
VIEWER_TOKEN_S: Final = 2 * 3600  # refreshed in-band by `hello`

_SHOW = re.compile(limits.SHOW_ID_PATTERN.removesuffix("$") + r"\Z")
# No NUL (it separates buyer and claim id in Redis), no control characters, no spaces.
_USER = re.compile(rf"\A[^\s\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{limits.USER_ID_CHARS_MAX}}}\Z")
_NAME = re.compile(rf"\A[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{0,{limits.NAME_CHARS_MAX}}}\Z")
_OPTIONS: Final[Any] = {"require": ["exp", "sub", "aud"], "verify_iat": False}


def issue(
    secret: bytes, *, user: str, role: str, show: str, name: str = "", ttl_s: int = VIEWER_TOKEN_S
) -> str:
    """A token for `user`, valid for `ttl_s` seconds. Raises Refused(bad_field), Misconfigured."""
    _require_long(secret)
    problem = _problem(user, role, show, name)
    if problem:
        raise Refused("bad_field", f"The {problem} of a token is not valid", field=problem)
    now = clock.now_ms() // 1000
    claims = {
        "sub": user,
        "name": name,
        "role": role,
        "show": show,
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + ttl_s,
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def verify(secret: bytes, token: str) -> Identity:
    """Who the token belongs to. Raises Refused: token_expired when only its time is over,
    token_invalid for anything else; Misconfigured for a short secret."""
    _require_long(secret)
    if len(token) > limits.TOKEN_CHARS_MAX:
        raise Refused("token_invalid", "The token is too long")
    try:
        claims = jwt.decode(
            token, secret, algorithms=[ALGORITHM], audience=AUDIENCE, options=_OPTIONS
        )
    except jwt.ExpiredSignatureError:
        raise Refused("token_expired") from None
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        # ValueError and RecursionError: JSON in the token's parts that breaks the JSON parser.
        raise Refused("token_invalid") from None
    return _identity(claims)


def _identity(claims: dict[str, Any]) -> Identity:
    user, role, show = claims["sub"], claims.get("role"), claims.get("show")
    name = claims.get("name", "")
    problem = _problem(user, role, show, name)
    if problem:
        raise Refused("token_invalid", f"The {problem} in the token is not valid")
    return Identity(
        user, name or user, cast(Role, role), cast(str, show), int(claims["exp"]) * 1000
    )


def _problem(user: object, role: object, show: object, name: object) -> str:
    """Name of the first claim that is not valid, or an empty string."""
    if not (isinstance(user, str) and _USER.match(user)):
        return "sub"
    if not (isinstance(role, str) and role in ROLES):
        return "role"
    if not (isinstance(show, str) and _is_scope(role, show)):
        return "show"
    if not (isinstance(name, str) and _NAME.match(name)):
        return "name"
    return ""


def _is_scope(role: str, show: str) -> bool:
    return role == "host" if show == EVERY_SHOW else _SHOW.match(show) is not None


def _require_long(secret: bytes) -> None:
    if len(secret) < SECRET_BYTES_MIN:
        raise Misconfigured(f"The signing secret must have at least {SECRET_BYTES_MIN} bytes")
