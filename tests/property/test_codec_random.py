"""The codecs against the msgpack package and the standard library, on whatever comes in."""

import json
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import limits
from server.errors import ERRORS
from server.protocol.codec import JSON, MSGPACK, Codec, Malformed
from server.protocol.messages import COMMANDS, Claim, Command

CODECS = pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=repr)
TAGS = [one.__struct_config__.tag for one in COMMANDS]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
fields = st.sampled_from(
    ["ref", "sale", "claim_id", "quantity", "price_version", "attempt", "taps", "text", "token"]
)
almost_commands = st.dictionaries(fields, values, max_size=9).flatmap(
    lambda message: st.sampled_from([*TAGS, "x"]).map(lambda tag: {"t": tag, **message})
)


def decode(codec: Codec, payload: bytes) -> Command | Malformed:
    """The command, or why there is none; anything else that is raised fails the test."""
    try:
        return codec.decode_command(payload)
    except Malformed as malformed:
        known = malformed.name in ERRORS
        return malformed if known else pytest.fail(f"no row named {malformed.name}")


def dump(codec: Codec, value: object) -> bytes:
    return msgpack.packb(value) if codec is MSGPACK else json.dumps(value).encode()


@CODECS
@given(st.sampled_from(COMMANDS).flatmap(lambda one: st.from_type(one)))
def test_codec_when_a_command_is_encoded_then_it_is_decoded_to_itself(
    codec: Codec, command: Command
) -> None:
    try:
        expected = msgspec.convert(msgspec.to_builtins(command), Command)
    except msgspec.ValidationError:
        return  # hypothesis does not know every bound
    assert codec.decode_command(codec.encode(command)) == expected


@given(values)
def test_codec_when_values_are_plain_then_bytes_equal_the_msgpack_package(value: Any) -> None:
    assert MSGPACK.encode(value) == msgpack.packb(value)


@CODECS
@given(almost_commands)
def test_codec_when_fields_are_odd_then_a_bounded_command_or_malformed(
    codec: Codec, message: dict[str, Any]
) -> None:
    command = decode(codec, dump(codec, message))
    if isinstance(command, Malformed):
        ref = message.get("ref")
        valid = type(ref) is int and 0 <= ref <= limits.REF_MAX
        assert command.ref == (ref if valid else None)
        return
    assert command.ref is None or 0 <= command.ref <= limits.REF_MAX
    if isinstance(command, Claim):
        assert 1 <= command.quantity <= limits.CLAIM_QUANTITY_MAX
        assert type(command.quantity) is int


@CODECS
@given(st.binary(max_size=300))
def test_codec_when_bytes_are_random_then_only_malformed_is_raised(
    codec: Codec, payload: bytes
) -> None:
    decode(codec, payload)


@CODECS
@given(st.data())
def test_codec_when_a_byte_of_a_claim_is_damaged_then_only_malformed_is_raised(
    codec: Codec, data: st.DataObject
) -> None:
    claim = Claim(1, 2, "0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60", 1, 1)
    payload = bytearray(codec.encode(claim))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    decode(codec, bytes(payload))
