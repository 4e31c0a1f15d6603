"""What hosts send, before anything is done with it: accepted whole, or refused by name."""

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from server.acts import messages as m
from server.errors import Refused
from server.web.endpoint import parse_json, to_struct

KINDS = sorted(m.Body.__subclasses__(), key=lambda kind: kind.__name__)
KINDS = [kind for kind in KINDS if kind.__module__ == m.__name__]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def refusal_of(check: Callable[[], Any]) -> Refused | None:
    try:
        check()
    except Refused as refusal:
        return refusal
    return None


def url_or_refusal(url: str) -> str:
    refusal = refusal_of(lambda: to_struct({"cover_url": url}, m.EditShow))
    return refusal.error.name if refusal else url


@given(st.binary(max_size=60))
@example(b"\xff")
@example(b'{"a":1e999}')
def test_bytes_when_they_are_anything_then_json_or_malformed(raw: bytes) -> None:
    refusal = refusal_of(lambda: parse_json(raw))
    assert refusal is None or refusal.error.name == "malformed"


@given(st.sampled_from(KINDS), JSON)
def test_value_when_it_is_any_json_then_a_body_or_a_named_field(
    kind: type[m.Body], value: Any
) -> None:
    refusal = refusal_of(lambda: to_struct(value, kind))
    if refusal:
        assert refusal.error.name == "bad_field"
        assert "regex" not in refusal.detail


@given(st.text(max_size=90))
@example("a\n")
@example("\u202eabc")
@example("e\u0301")
def test_title_when_accepted_then_one_clean_line_within_its_bounds(text: str) -> None:
    tidy = unicodedata.normalize("NFC", text).strip()
    allowed = 1 <= len(tidy) <= 80 and not FORBIDDEN.search(tidy)
    try:
        raw = parse_json(("{" + f'"title": {json.dumps(text)}' + "}").encode())
        title = to_struct(raw, m.EditShow).title
    except Refused:
        assert not allowed or any(0xD800 <= ord(c) <= 0xDFFF for c in text)
    else:
        assert allowed
        assert title == tidy


@pytest.mark.parametrize(
    "url",
    [
        "", "/", "/demo/cover.svg", "https://cdn.example/a/b.m3u8?x=1#y", "http://127.0.0.1:8000/x",
        "https://a.example/图.png", "http://[::1]/x", "/a//b",
    ],
)  # fmt: skip
def test_url_when_it_is_http_or_a_path_of_the_site_then_accepted(url: str) -> None:
    assert url_or_refusal(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:alert(1)",
        "JavaScript:alert(1)", " javascript:alert(1)", "data:text/html,x", "https:/x", "https://",
        "http:///x", "https://a b", "ftp://a.example", "cover.svg", "./x", "https://a\n.example",
        "https://a.example/\x00", "https://a.example/\u202e", "blob:x", "/a\n", "/a b", '/a"b',
        "/a<b", "https://@", "https://\\@evil.example",
    ],
)  # fmt: skip
def test_url_when_it_is_anything_else_then_refused(url: str) -> None:
    assert url_or_refusal(url) == "bad_field"


def test_changed_fields_when_only_some_are_sent_then_only_those() -> None:
    body = to_struct({"title": "x", "starts_at": 0}, m.EditShow)
    assert m.changed_fields(body) == {"title": "x", "starts_at": 0}
    assert m.changed_fields(to_struct({}, m.EditShow)) == {}
