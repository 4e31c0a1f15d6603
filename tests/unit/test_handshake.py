"""The short way through the handshake takes what is usual, and only what websockets takes too."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from server.web.handshake import Handshake, read_usual, response

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
USUAL = {
    b"host": b"shop.example",
    b"upgrade": b"websocket",
    b"connection": b"Upgrade",
    b"sec-websocket-key": KEY,
    b"sec-websocket-version": b"13",
}


def read(target: bytes = b"/ws/demo1", **headers: bytes | None) -> Handshake | None:
    """The usual handshake with some headers changed (`_` for `-`) or left out (None)."""
    named = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    whole = {**USUAL, **named}
    return read_usual(target, [(name, value) for name, value in whole.items() if value is not None])


def test_read_when_a_browser_asks_then_all_of_it_is_there() -> None:
    found = read(
        b"/ws/demo1?resume=12.34",
        connection=b"keep-alive, Upgrade",
        origin=b"https://shop.example",
        sec_websocket_protocol=b"livesale.v1.msgpack, other",
        sec_websocket_extensions=b"permessage-deflate; client_max_window_bits",
        user_agent=b"Browser",
    )
    assert found == Handshake(
        show_id="demo1",
        resume="12.34",
        host="shop.example",
        origin="https://shop.example",
        subprotocols=["livesale.v1.msgpack", "other"],
        extensions="permessage-deflate; client_max_window_bits",
        accept=ACCEPT,
    )


def test_response_when_written_then_as_the_rfc_says() -> None:
    found = read()
    assert found is not None
    lines = response(found, "livesale.v1.json").decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 101 Switching Protocols"
    assert set(lines[1:-2]) == {
        "upgrade: websocket",
        "connection: upgrade",
        f"sec-websocket-accept: {ACCEPT}",
        "sec-websocket-protocol: livesale.v1.json",
    }
    assert lines[-2:] == ["", ""]
    assert b"protocol: " not in response(found, None)
    assert b"extensions: " not in response(found, None)
    assert b"\r\nsec-websocket-extensions: x; y\r\n" in response(found, None, "x; y")


@pytest.mark.parametrize(
    "headers",
    [
        {"upgrade": None},
        {"upgrade": b"h2c"},
        {"upgrade": b"websocket, h2c"},
        {"connection": None},
        {"connection": b"close"},
        {"connection": b"upgraded"},
        {"sec_websocket_version": b"8"},
        {"sec_websocket_version": None},
        {"sec_websocket_key": None},
        {"sec_websocket_key": b""},
        {"sec_websocket_key": KEY[:-1]},
        {"sec_websocket_key": KEY + b"="},
        {"sec_websocket_key": b"dGhlIHNhbXBsZSBub25j!Q=="},
        {"sec_websocket_key": b"\xff" * 24},
        {"sec_websocket_protocol": b""},
        {"sec_websocket_protocol": b"a,,b"},
        {"sec_websocket_protocol": b"with space"},
        {"content_length": b"0"},
        {"transfer_encoding": b"chunked"},
    ],
)
def test_read_when_something_is_odd_then_left_to_the_endpoint(headers: Any) -> None:
    assert read(**headers) is None


@pytest.mark.parametrize(
    "target",
    [
        *(b"/ws/", b"/ws/abc", b"/ws/DEMO1", b"/ws/demo1/", b"/ws/demo%31", b"/ws/../demo1"),
        *(b"/other/demo1", b"/ws/demo1?", b"/ws/demo1?resume=", b"/ws/demo1?resume=1.2&x=1"),
        *(b"/ws/demo1?token=secret", b"/ws/demo1\n", b"http://shop.example/ws/demo1"),
    ],
)
def test_read_when_the_target_is_odd_then_left_to_the_endpoint(target: bytes) -> None:
    assert read(target) is None


@pytest.mark.parametrize("name", sorted(USUAL))
def test_read_when_a_header_is_there_twice_then_left_to_the_endpoint(name: bytes) -> None:
    assert read_usual(b"/ws/demo1", [*USUAL.items(), (name, USUAL[name])]) is None


def test_read_when_offers_are_in_two_headers_then_left_to_the_endpoint() -> None:
    offers = [(b"sec-websocket-extensions", b"permessage-deflate")] * 2
    assert read_usual(b"/ws/demo1", [*USUAL.items(), *offers]) is None


NAMES = st.sampled_from([*USUAL, b"origin", b"sec-websocket-protocol", b"cookie"])
VALUES = st.one_of(
    st.sampled_from([*USUAL.values(), b"Upgrade, keep-alive", b"WebSocket", b"a, b", b"13 ", b""]),
    st.binary(min_size=16, max_size=16).map(base64.b64encode),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=30).map(str.encode),
)


@given(changes=st.lists(st.tuples(NAMES, VALUES), max_size=4))
def test_read_when_it_takes_a_request_then_websockets_answers_the_same(
    changes: list[tuple[bytes, bytes]],
) -> None:
    headers = list({**USUAL, **dict(changes)}.items())
    found = read_usual(b"/ws/demo1", headers)
    if found is None:
        return
    request = Request("/ws/demo1", Headers([(n.decode(), v.decode("latin-1")) for n, v in headers]))
    answer = ServerProtocol().accept(request)
    assert answer.status_code == 101
    assert answer.headers["Sec-WebSocket-Accept"] == found.accept
