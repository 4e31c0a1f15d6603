"""What the client does about refusals and closes agrees with server/errors.py."""

import re
from pathlib import Path

import pytest

from server.errors import CLOSES, ERRORS

SOURCES = Path(__file__).parents[2] / "client-demo" / "src"
TABLES = (SOURCES / "live" / "errors.ts").read_text("utf-8")


def test_close_table_when_compared_then_agrees() -> None:
    rows = re.findall(r'(\d{4}): \{ name: "(\w+)", reconnect: (true|false) \}', TABLES)
    declared = {(int(code), name, flag == "true") for code, name, flag in rows}
    assert declared == {(row.code, row.name, row.reconnect) for row in CLOSES.values()}


def refusals_in(table: str) -> set[str]:
    match = re.search(rf"{table}[^=]*= new Set\(\[(.*?)\]\)", TABLES, re.S)
    assert match is not None
    return set(re.findall(r'"(\w+)"', match[1]))


@pytest.mark.parametrize("table", ["UNDECIDED_REFUSALS", "SIGN_IN_OVER"])
def test_refusals_when_treated_specially_then_exist(table: str) -> None:
    names = refusals_in(table)
    assert names
    assert names <= set(ERRORS)


def test_refusals_of_the_claim_script_when_remembered_then_the_client_takes_them_as_final() -> None:
    """All but stock_rebuilding, which the script does not remember."""
    script = Path(__file__).parents[2] / "server" / "store" / "lua" / "claim_batch.lua"
    told = set(re.findall(r"\bCODE\.(\w+)", script.read_text("utf-8")))
    assert told & refusals_in("UNDECIDED_REFUSALS") == {"stock_rebuilding"}


def test_refusals_when_named_in_the_pages_then_exist() -> None:
    """A misspelt name in `refusal.name === "..."` would never match."""
    named = {
        name
        for file in SOURCES.rglob("*.ts*")
        for name in re.findall(r'refusal\??\.name === "(\w+)"', file.read_text("utf-8"))
    }
    assert named
    assert named <= set(ERRORS)


def test_texts_of_refusals_when_looked_for_then_are_only_the_servers() -> None:
    """They come with each refusal; a copy in the pages would go stale."""
    dictionaries = "".join(
        (SOURCES / "i18n" / name).read_text("utf-8") for name in ("zh.ts", "en.ts")
    )
    assert not [row.name for row in ERRORS.values() if f'"refusal.{row.name}"' in dictionaries]
