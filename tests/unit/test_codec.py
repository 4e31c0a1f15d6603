"""Messages and bytes: the vectors, and what the codecs say of bad commands."""

import json
import zlib
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest

from server import limits
from server.errors import ERRORS
from server.protocol import frames
from server.protocol.codec import CODECS, DEFLATING, JSON, MSGPACK, Codec, Malformed
from server.protocol.messages import (
    COMMANDS,
    EVENTS,
    SERVER_MESSAGES,
    STATE_VALUES,
    Claim,
    Command,
    Like,
    ServerMessage,
)

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "messages.json").read_text()
)["vectors"]
TYPES = {"client": Command, "server": ServerMessage}
CLAIM = {
    "t": "claim",
    "ref": 7,
    "sale": 1,
    "claim_id": "0199c5e2-7b3c-7c11-9e2a-1b2c3d4e5f60",
    "quantity": 1,
    "price_version": 1,
}


def as_bytes(codec: Codec, value: object) -> bytes:
    return msgpack.packb(value) if codec is MSGPACK else json.dumps(value).encode()


def struct_of(vector: dict[str, Any]) -> msgspec.Struct:
    found: msgspec.Struct = msgspec.convert(vector["value"], TYPES[vector["from"]])
    return found


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_encode_when_given_a_vector_then_writes_its_bytes(vector: dict[str, Any]) -> None:
    message = struct_of(vector)
    assert MSGPACK.encode(message).hex() == vector["msgpack"]
    assert JSON.encode(message).decode() == vector["json"]


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v["from"] == "client"], ids=lambda vector: vector["name"]
)
def test_decode_when_given_a_vector_then_reads_its_command(vector: dict[str, Any]) -> None:
    assert MSGPACK.decode_command(bytes.fromhex(vector["msgpack"])) == struct_of(vector)
    assert JSON.decode_command(vector["json"].encode()) == struct_of(vector)


def test_vectors_when_listed_then_cover_every_message_event_and_state_key() -> None:
    tags = {vector["value"]["t"] for vector in VECTORS}
    assert tags == {one.__struct_config__.tag for one in (*COMMANDS, *SERVER_MESSAGES)}
    ticks = [vector["value"] for vector in VECTORS if vector["value"]["t"] == "tick"]
    kinds = {event["k"] for tick in ticks for event in tick.get("events", ())}
    assert kinds == {one.__struct_config__.tag for one in EVENTS}
    keys = {key.partition(":")[0] for tick in ticks for key in tick.get("state", ())}
    assert keys == set(STATE_VALUES)


def test_codecs_when_asked_by_subprotocol_then_default_is_text() -> None:
    assert CODECS[None] is JSON
    assert CODECS["livesale.v1.msgpack"] is MSGPACK
    assert (MSGPACK.opcode, JSON.opcode) == (frames.BINARY, frames.TEXT)


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=repr)
def test_shared_frame_when_deflating_was_agreed_then_only_what_many_get_is_deflated(
    codec: Codec,
) -> None:
    tick = {"t": "tick", "n": 1, "now": 2, "state": {"show": {"title": "晚八点" * 100}}}
    twin = DEFLATING[codec]
    assert (twin.opcode, twin.subprotocol) == (codec.opcode, codec.subprotocol)
    plain = codec.frame(tick)
    assert codec.shared_frame(tick) == twin.frame(tick) == plain
    small = twin.shared_frame(tick)
    assert small[0] == plain[0] | frames.RSV1
    assert len(small) < len(plain) / 4
    assert zlib.decompressobj(-15).decompress(small[2:] + b"\0\0\xff\xff") == codec.encode(tick)
    assert twin.shared_frame({"t": "tick", "n": 1, "now": 2})[0] == plain[0]


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=repr)
@pytest.mark.parametrize(
    ("change", "name", "field", "ref"),
    [
        ({"quantity": 0}, "bad_field", "quantity", 7),
        ({"quantity": -5}, "bad_field", "quantity", 7),
        ({"quantity": limits.CLAIM_QUANTITY_MAX + 1}, "bad_field", "quantity", 7),
        ({"quantity": 1.5}, "bad_field", "quantity", 7),
        ({"quantity": 1.0}, "bad_field", "quantity", 7),
        ({"quantity": "1e3"}, "bad_field", "quantity", 7),
        ({"quantity": True}, "bad_field", "quantity", 7),
        ({"quantity": None}, "bad_field", "quantity", 7),
        ({"quantity": 2**63}, "bad_field", "quantity", 7),
        ({"sale": 2**53}, "bad_field", "sale", 7),
        ({"sale": 2**64 - 1}, "bad_field", "sale", 7),
        ({"claim_id": "0199C5E2-7b3c-7c11-9e2a-1b2c3d4e5f60"}, "bad_field", "claim_id", 7),
        ({"claim_id": CLAIM["claim_id"] + "\n"}, "bad_field", "claim_id", 7),
        ({"ref": -1}, "bad_field", "ref", None),
        ({"ref": True}, "bad_field", "ref", None),
        ({"ref": limits.REF_MAX + 1}, "bad_field", "ref", None),
        ({"t": "bid"}, "unknown_command", "t", 7),
        ({"t": 5}, "unknown_command", "t", 7),
        ({"t": "welcome"}, "unknown_command", "t", 7),
    ],
    ids=str,
)
def test_decode_when_a_field_is_bad_then_it_is_named_with_the_ref(
    codec: Codec, change: dict[str, object], name: str, field: str, ref: int | None
) -> None:
    with pytest.raises(Malformed) as caught:
        codec.decode_command(as_bytes(codec, CLAIM | change))
    assert (caught.value.name, caught.value.field, caught.value.ref) == (name, field, ref)
    assert caught.value.name in ERRORS


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=repr)
def test_decode_when_a_field_is_missing_then_it_is_named(codec: Codec) -> None:
    with pytest.raises(Malformed) as caught:
        codec.decode_command(as_bytes(codec, {"t": "claim", "ref": 3}))
    assert (caught.value.name, caught.value.field, caught.value.ref) == ("bad_field", "sale", 3)


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=repr)
def test_decode_when_fields_are_unknown_then_they_are_ignored(codec: Codec) -> None:
    extra = {"role": "host", "price": 0, "__proto__": {"x": 1}}
    assert isinstance(codec.decode_command(as_bytes(codec, CLAIM | extra)), Claim)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",  # never used
        b"\x81\xa1t" * 2_000 + b"\x01",  # nested maps
        b"\x91" * 4_000,  # nested arrays
        b"\xdd\xff\xff\xff\xff",  # array32 of 2^32 - 1
        b"\xdf\xff\xff\xff\xff",  # map32 of 2^32 - 1
        b"\xc6\xff\xff\xff\xff",  # bin32 of 2^32 - 1
        b"\xd6\xff\xff\xff\xff\xff",  # a timestamp
        b"\x81\x91\x01\x02",  # a map with an array as key
        b"\x05",
        b"\xc0",
        b"\x82\xa1t\xa4like\xa3ref\xa1\xff",  # not UTF-8
    ],
    ids=lambda payload: payload[:12].hex(),
)
def test_decode_when_msgpack_is_hostile_then_malformed_at_once(payload: bytes) -> None:
    with pytest.raises(Malformed):
        MSGPACK.decode_command(payload)


def test_decode_when_bytes_trail_then_malformed() -> None:
    for codec, rest in ((MSGPACK, b"\x00"), (JSON, b" 1")):
        with pytest.raises(Malformed) as caught:
            codec.decode_command(codec.encode(Like()) + rest)
        assert caught.value.name == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[" * 4_000,
        b'{"x":' * 800 + b"1" + b"}" * 800,
        b'{"t":"time","ref":1,"sent_at":NaN}',
        b'{"t":"time","ref":1,"sent_at":1e400}',
        b'{"t":"chat","text":"\\ud800"}',
        b'{"t":"like","taps":' + b"9" * 4_000 + b"}",
        b"null",
        b"\xff",
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_decode_when_json_is_hostile_then_malformed_at_once(payload: bytes) -> None:
    with pytest.raises(Malformed):
        JSON.decode_command(payload)


def test_decode_when_a_float_is_not_a_number_then_bad_field() -> None:
    payload = msgpack.packb({"t": "time", "ref": 1, "sent_at": float("nan")})
    with pytest.raises(Malformed) as caught:
        MSGPACK.decode_command(payload)
    assert (caught.value.field, caught.value.ref) == ("sent_at", 1)


def test_frame_when_built_then_holds_the_encoded_message() -> None:
    frame = MSGPACK.frame(Like())
    assert frame == frames.server_frame(frames.BINARY, MSGPACK.encode(Like()))
