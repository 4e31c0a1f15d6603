"""The client's types are those of server/protocol/messages.py: names, fields, order, kinds."""

import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest
from msgspec import Struct

from server import limits
from server.protocol import messages

LIVE = Path(__file__).parents[2] / "client-demo" / "src" / "live"
SOURCE = (LIVE / "messages.ts").read_text("utf-8")
# TypeScript has an Event of its own.
RENAMED = {"Event": "LiveEvent"}


def interfaces() -> dict[str, dict[str, tuple[str, bool]]]:
    """Name -> field -> (type, optional) of every interface, in the order of the file."""
    found = {}
    for name, body in re.findall(r"export interface (\w+) \{\n(.*?)\n\}", SOURCE, re.S):
        fields = re.findall(r"^  (\w+)(\??): ([^;]+);$", body, re.M)
        found[name] = {field: (kind, mark == "?") for field, mark, kind in fields}
    return found


def is_struct(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Struct) and value is not Struct


# Every message and every Struct inside one.
STRUCTS: list[type[Struct]] = [value for value in vars(messages).values() if is_struct(value)]


def kind_of(annotation: Any) -> str:
    """The TypeScript type of a field's Python type."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return kind_of(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return union_of(get_args(annotation))
    if origin is list:
        return f"{kind_of(get_args(annotation)[0])}[]"
    if origin is dict:
        return "StateMap"
    if origin is Literal:
        return "ClaimStatus"
    plain = {int: "number", float: "number", str: "string", bool: "boolean"}
    return plain.get(annotation) or str(annotation.__name__)


def union_of(members: tuple[Any, ...]) -> str:
    if set(members) == set(messages.EVENTS):
        return RENAMED["Event"]
    absent = (type(None), msgspec.UnsetType)
    named = [kind_of(member) for member in members if member not in absent]
    return " | ".join(named + (["null"] if type(None) in members else []))


def expected_fields(struct: type[Struct]) -> dict[str, tuple[str, bool]]:
    """What the interface of `struct` must declare, its tag first."""
    config = struct.__struct_config__
    expected = {}
    if config.tag is not None:
        expected[config.tag_field] = (f'"{config.tag}"', False)
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        optional = not field.required
        kind = kind_of(hints[field.name])
        # A field that is left out never travels as null.
        expected[field.name] = (kind.removesuffix(" | null") if optional else kind, optional)
    return expected


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_interface_when_compared_with_its_struct_then_agrees(struct: type[Struct]) -> None:
    declared = interfaces().get(struct.__name__)
    assert declared is not None, f"messages.ts lacks {struct.__name__}"
    assert list(declared.items()) == list(expected_fields(struct).items())


def test_interfaces_when_counted_then_none_is_unknown_to_the_server() -> None:
    server_names = {struct.__name__ for struct in STRUCTS}
    assert set(interfaces()) - {"StateValues"} == server_names


def test_state_keys_when_compared_then_agree() -> None:
    declared = interfaces()["StateValues"]
    assert {key: kind for key, (kind, _) in declared.items()} == {
        key: struct.__name__ for key, struct in messages.STATE_VALUES.items()
    }


def union_in_source(name: str) -> set[str]:
    match = re.search(rf"export type {name} =([^;]+);", SOURCE)
    assert match is not None
    return {part.strip().strip('"') for part in match[1].split("|") if part.strip()}


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("Command", messages.COMMANDS),
        ("ServerMessage", messages.SERVER_MESSAGES),
        ("LiveEvent", messages.EVENTS),
    ],
)
def test_union_when_compared_then_agrees(name: str, members: tuple[type[Any], ...]) -> None:
    assert union_in_source(name) == {member.__name__ for member in members}


def test_claim_statuses_when_compared_then_agree() -> None:
    assert union_in_source("ClaimStatus") == set(get_args(messages.ClaimStatus))


def constants(file: str) -> dict[str, str]:
    text = (LIVE / file).read_text("utf-8")
    return dict(re.findall(r"export const (\w+) = ([^;]+);", text))


def test_subprotocols_when_compared_then_agree() -> None:
    declared = constants("messages.ts")
    assert declared["SUBPROTOCOL_MSGPACK"] == f'"{messages.SUBPROTOCOL_MSGPACK}"'
    assert declared["SUBPROTOCOL_JSON"] == f'"{messages.SUBPROTOCOL_JSON}"'


def test_limits_when_compared_then_agree() -> None:
    declared = constants("limits.ts")
    assert declared
    for name, text in declared.items():
        number = 2**31 - 1 if text == "2 ** 31 - 1" else int(text.replace("_", ""))
        assert number == getattr(limits, name), name
