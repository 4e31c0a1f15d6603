"""The Lua scripts as files: complete headers, resolved parts, no keys of their own making."""

import re

import pytest

from server.errors import ERRORS
from server.store import scripts

HEADINGS = ("KEYS", "ARGV", "Returns", "Errors")


@pytest.mark.parametrize("name", scripts.names())
def test_script_when_read_then_its_header_says_all(name: str) -> None:
    source = scripts._read(name)
    needed = [word for word in HEADINGS if word != "ARGV" or "ARGV[" in source]
    assert not [word for word in needed if not re.search(rf"(?m)^-- {word} ", source)]


@pytest.mark.parametrize("name", scripts.names())
def test_script_when_loaded_then_no_name_is_left_to_resolve(name: str) -> None:
    source = scripts.load(name).source
    code = re.sub(r"--.*", "", source)
    assert "include:" not in source
    assert "CODE." not in code
    assert "LIMIT." not in code
    assert "ls:" not in code  # keys come from server/store/keys.py, by KEYS


def test_load_when_a_script_names_a_code_then_the_number_of_the_table_is_in_it() -> None:
    assert str(ERRORS["sold_out"].code) in scripts.load("claim_batch").source
