"""The pages: both languages whole, nothing from elsewhere, nothing inline."""

import json
import re
from pathlib import Path

import pytest

from server.limits import (
    COUNTDOWN_S_MAX,
    SALE_SECONDS_MAX,
    SALE_SECONDS_MIN,
    SLOW_MODE_S_MAX,
)

CLIENT = Path(__file__).parents[2] / "client-demo"
SOURCES = sorted((CLIENT / "src").rglob("*.ts*"))
PAGES = [CLIENT / "viewer.html", CLIENT / "host.html"]
HAN = re.compile(r"[\u4e00-\u9fff]")


def dictionary(lang: str) -> dict[str, str]:
    text = (CLIENT / "src" / "i18n" / f"{lang}.ts").read_text("utf-8")
    rows = re.findall(r'^  (?:"([\w.]+)"|(\w+)):\s+"([^"]*)",$', text, re.M)
    return {quoted or bare: value for quoted, bare, value in rows}


def test_languages_when_compared_then_have_the_same_keys() -> None:
    chinese, english = dictionary("zh"), dictionary("en")
    assert len(chinese) > 150  # the pattern finds them
    assert set(chinese) == set(english)
    assert all(chinese.values())
    assert all(english.values())


def test_keys_when_looked_for_then_each_is_used() -> None:
    code = "".join(file.read_text("utf-8") for file in SOURCES if file.parent.name != "i18n")
    families = tuple(re.findall(r"`([\w.]+\.)\$\{", code))
    unused = {key for key in dictionary("zh") if f'"{key}"' not in code}
    assert {key for key in unused if not key.startswith(families)} == set()


def test_keys_when_written_out_in_the_pages_then_exist() -> None:
    keys = set(dictionary("zh"))
    used = {
        key
        for file in SOURCES
        for key in re.findall(r'\bt\(\s*"([\w.]+)"', file.read_text("utf-8"))
    }
    assert used
    assert used <= keys


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_source_when_read_then_texts_are_in_the_dictionaries(file: Path) -> None:
    if file.parent.name == "i18n":
        return
    code = re.sub(r"/\*.*?\*/|//[^\n]*", "", file.read_text("utf-8"), flags=re.S)
    assert not HAN.search(code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_when_read_then_nothing_is_inline_or_from_elsewhere(page: Path) -> None:
    html = page.read_text("utf-8")
    assert not re.search(r"<style|style=|\son\w+=|https?://", html)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", html))


def test_sources_when_searched_then_put_no_markup_from_text() -> None:
    banned = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(")
    assert not [file.name for file in SOURCES if banned.search(file.read_text("utf-8"))]


def test_lock_file_when_read_then_names_no_registry() -> None:
    lock = (CLIENT / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock


def test_lock_file_when_read_then_serves_every_platform() -> None:
    """npm leaves out optional packages it did not find, and `npm ci` then refuses the lock."""
    packages = json.loads((CLIENT / "package-lock.json").read_text("utf-8"))["packages"]
    locked = {path.rpartition("node_modules/")[2] for path in packages}
    wanted = {name for row in packages.values() for name in row.get("optionalDependencies", {})}
    assert wanted <= locked


def test_sale_form_when_compared_then_has_the_servers_bounds() -> None:
    form = (CLIENT / "src" / "host" / "sales.tsx").read_text("utf-8")
    room = (CLIENT / "src" / "host" / "room.tsx").read_text("utf-8")
    assert re.search(rf'name="countdown_s"[^/]*max=\{{{COUNTDOWN_S_MAX}\}}', form)
    bounds = rf"min=\{{{SALE_SECONDS_MIN}\}}\s+max=\{{{SALE_SECONDS_MAX}\}}"
    assert re.search(rf'name="duration_s"\s+{bounds}', form)
    assert re.search(rf'name="slow_mode_s"[^/]*max=\{{{SLOW_MODE_S_MAX}\}}', room)
