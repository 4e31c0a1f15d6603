"""permessage-deflate: which offers are taken, and what is sent deflated."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.headers import build_extension, parse_extension

from server import limits
from server.protocol import deflate
from server.protocol.deflate import ANSWER, is_acceptable

SMALLER = deflate.WINDOW_BITS - 1


def inflated(payload: bytes) -> bytes:
    """As a client inflates it that was told of our window."""
    inflate = zlib.decompressobj(-deflate.WINDOW_BITS)
    return inflate.decompress(payload + b"\x00\x00\xff\xff")


@pytest.mark.parametrize(
    "offers",
    [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",  # browsers
        "permessage-deflate; client_max_window_bits=8",
        'permessage-deflate; client_max_window_bits="10"',
        "permessage-deflate; server_max_window_bits=15",
        f"permessage-deflate; server_max_window_bits={deflate.WINDOW_BITS}",
        "permessage-deflate;server_no_context_takeover;client_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9, permessage-deflate",  # the second
        "permessage-deflate; colour=blue, permessage-deflate; client_max_window_bits",
        "x-webkit-deflate-frame, permessage-deflate",
        "permessage-bzip2; level=9, permessage-deflate",
    ],
)
def test_offer_when_we_can_do_it_then_taken(offers: str) -> None:
    assert is_acceptable(offers)


@pytest.mark.parametrize(
    "offers",
    [
        "",
        "x-webkit-deflate-frame",
        "permessage-deflate2",
        f"permessage-deflate; server_max_window_bits={SMALLER}",
        "permessage-deflate; server_max_window_bits=8",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=015",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=15; server_max_window_bits=15",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=1.5",
        "permessage-deflate; client_max_window_bits; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; colour",
        "permessage-deflate; ",
        "permessage-deflate permessage-deflate",
        "permessage-deflate, ;",
        ", ".join(["permessage-deflate"] * limits.OFFERS_CHARS_MAX),
    ],
)
def test_offer_when_it_is_odd_or_more_than_we_do_then_declined(offers: str) -> None:
    assert not is_acceptable(offers)


PIECES = (
    *("permessage-deflate", "client_max_window_bits", "server_max_window_bits", "15"),
    *(";", ",", "=", '"', "\\", " ", "\t", "é", "\0"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_offer_when_it_is_any_text_then_judged_without_an_error(offers: str) -> None:
    assert is_acceptable(offers) in (True, False)


BITS = st.integers(9, 15)


@given(
    st.lists(
        st.builds(
            ClientPerMessageDeflateFactory,
            st.booleans(),
            st.booleans(),
            st.one_of(st.none(), BITS),
            st.one_of(st.none(), st.just(True), BITS),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_answer_when_an_offer_is_taken_then_it_is_one_that_this_client_can_accept(
    clients: list[ClientPerMessageDeflateFactory],
) -> None:
    offers = build_extension([(client.name, client.get_request_params()) for client in clients])
    suited = [client for client in clients if (client.server_max_window_bits or 15) > SMALLER]
    assert is_acceptable(offers) == bool(suited)
    [(_, parameters)] = parse_extension(ANSWER)
    for client in suited:
        agreed = client.process_response_params(parameters, [])
        assert agreed.local_no_context_takeover
        assert agreed.remote_no_context_takeover
        assert agreed.remote_max_window_bits == deflate.WINDOW_BITS


@given(st.binary(max_size=300), st.integers(1, 400))
def test_deflated_when_it_is_smaller_then_it_inflates_by_itself(part: bytes, times: int) -> None:
    payload = part * times
    small = deflate.deflated(payload)
    if small is not None:
        assert len(small) < len(payload)
        assert inflated(small) == payload


def test_deflated_when_there_is_nothing_to_gain_then_none() -> None:
    assert deflate.deflated(b"x" * (deflate.PAYLOAD_BYTES_MIN - 1)) is None
    assert deflate.deflated(b"x" * deflate.PAYLOAD_BYTES_MIN) is not None
    assert deflate.deflated(bytes(range(256))) is None
