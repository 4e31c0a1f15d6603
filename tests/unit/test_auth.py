"""Role tokens: what is accepted, what is refused, and that the two refusals differ."""

import base64
import json
from typing import Any

import jwt
import pytest

from server import clock
from server.domain.identity import (
    Identity,
    require_host,
    require_moderator,
    require_show_maker,
)
from server.errors import Misconfigured, Refused
from server.web import auth

SECRET = b"0123456789abcdef0123456789abcdef"


def forge(secret: bytes = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    """A token with these claims; None removes one."""
    now = clock.now_ms() // 1000
    full = {
        "sub": "ming", "role": "host", "show": "*", "aud": "livesale", "exp": now + 60, **claims,
    }  # fmt: skip
    kept = {name: value for name, value in full.items() if value is not None}
    return jwt.encode(kept, secret, algorithm=algorithm)


def refusal(token: str) -> str:
    with pytest.raises(Refused) as caught:
        auth.verify(SECRET, token)
    return caught.value.error.name


def test_token_when_issued_then_it_says_who() -> None:
    token = auth.issue(SECRET, user="u1", role="viewer", show="abcd", name="小明", ttl_s=60)
    identity = auth.verify(SECRET, token)
    assert identity[:4] == ("u1", "小明", "viewer", "abcd")
    assert 0 < identity.expires_at - clock.now_ms() <= 60_000


def test_token_when_it_has_no_name_then_the_user_id_is_shown() -> None:
    assert auth.verify(SECRET, forge()).name == "ming"


def test_token_when_its_time_is_over_then_expired() -> None:
    assert refusal(auth.issue(SECRET, user="u", role="host", show="*", ttl_s=-1)) == "token_expired"


def test_token_when_expired_with_a_wrong_signature_then_invalid() -> None:
    assert refusal(forge(secret=b"x" * 32, exp=1)) == "token_invalid"


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None}, {"sub": None}, {"aud": None}, {"role": None}, {"show": None},
        {"aud": "other"}, {"aud": ["livesale2"]}, {"exp": "soon"}, {"nbf": 2**33},
        {"sub": ""}, {"sub": 7}, {"sub": "a b"}, {"sub": "a\x00b"}, {"sub": "x" * 65},
        {"sub": "a\n"}, {"role": "admin"}, {"role": ["host"]}, {"role": "viewer", "show": "*"},
        {"role": "moderator", "show": "*"}, {"show": "UPPER"}, {"show": "ab"},
        {"show": "abcd\n"}, {"show": 7}, {"name": 7}, {"name": "x" * 25}, {"name": "a\x07"},
    ],
)  # fmt: skip
def test_token_when_a_claim_is_missing_or_bad_then_invalid(claims: dict[str, Any]) -> None:
    assert refusal(forge(**claims)) == "token_invalid"


def test_token_when_the_audience_is_one_of_several_then_accepted() -> None:
    assert auth.verify(SECRET, forge(aud=["livesale", "shop"])).user == "ming"


def test_token_when_made_a_little_in_the_future_then_accepted() -> None:
    assert auth.verify(SECRET, forge(iat=clock.now_ms() // 1000 + 30)).user == "ming"


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "token",
    [
        "", "a", "a.b", "a.b.c", "..", "x" * 5_000, "é.é.é",
        f"{part({'alg': 'none'})}.{part({'sub': 'ming', 'exp': 2**33})}.",
        f"{part({'alg': 'HS256', 'kid': '../../dev/null'})}.{part({'sub': 'ming'})}.AAAA",
        f"{part([])}.{part([])}.AAAA",
        f"{part({'alg': 'HS256', 'crit': ['x']})}.{part({'sub': 'ming'})}.AAAA",
    ],
)  # fmt: skip
def test_token_when_it_is_rubbish_then_invalid(token: str) -> None:
    assert refusal(token) == "token_invalid"


def test_token_when_deeply_nested_then_invalid() -> None:
    nested = base64.urlsafe_b64encode(b"[" * 1_000).rstrip(b"=").decode()
    assert refusal(f"{nested}.{nested}.AAAA") == "token_invalid"


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_token_when_signed_by_another_algorithm_then_invalid(algorithm: str) -> None:
    long = SECRET * 2
    token = forge(secret=long, algorithm=algorithm)
    with pytest.raises(Refused, match="token_invalid"):
        auth.verify(long, token)


def test_secret_when_shorter_than_32_bytes_then_misconfigured() -> None:
    with pytest.raises(Misconfigured):
        auth.issue(b"x" * 31, user="u", role="host", show="*")
    with pytest.raises(Misconfigured):
        auth.verify(b"", forge())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"user": "a b"}, "sub"), ({"role": "boss"}, "role"), ({"show": "!"}, "show"),
        ({"role": "viewer"}, "show"), ({"name": "x" * 25}, "name"),
    ],
)  # fmt: skip
def test_issue_when_a_field_is_bad_then_refused(fields: dict[str, str], field: str) -> None:
    good = {"user": "u", "role": "host", "show": "*", "name": ""}
    with pytest.raises(Refused) as caught:
        auth.issue(SECRET, **{**good, **fields})
    assert (caught.value.error.name, caught.value.field) == ("bad_field", field)


def identity(role: Any, show: str, user: str = "ming") -> Identity:
    return Identity(user, user, role, show, 0)


@pytest.mark.parametrize(
    ("who", "host", "moderator"),
    [
        (identity("host", "*"), True, True),
        (identity("host", "abcd"), True, True),
        (identity("host", "efgh"), False, False),
        (identity("host", "*", "eve"), False, False),
        (identity("host", "abcd", "eve"), False, False),
        (identity("moderator", "abcd", "mod"), False, True),
        (identity("moderator", "abcd"), False, True),
        (identity("moderator", "efgh", "mod"), False, False),
        (identity("viewer", "abcd"), False, False),
    ],
)
def test_permission_when_asked_for_a_show_then_by_role_owner_and_scope(
    who: Identity, host: bool, moderator: bool
) -> None:
    for require, allowed in ((require_host, host), (require_moderator, moderator)):
        if allowed:
            require(who, "abcd", "ming")
        else:
            with pytest.raises(Refused, match="forbidden"):
                require(who, "abcd", "ming")


def test_permission_when_making_a_show_then_only_with_a_token_for_every_show() -> None:
    require_show_maker(identity("host", "*"))
    for who in (identity("host", "abcd"), identity("viewer", "abcd"), identity("moderator", "*")):
        with pytest.raises(Refused, match="forbidden"):
            require_show_maker(who)
