"""What was built stays small: the SDK, and what each page needs before it shows anything."""

import gzip
import json
import re
from pathlib import Path

import pytest

DIST = Path(__file__).parents[2] / "client-demo" / "dist"
SDK = DIST / "sdk" / "livesale.js"
SDK_BYTES_MAX = 12 * 1024  # gzip -9
# Page, its scripts and styles; pictures and headers come on top (tests/e2e/test_budget.py).
VIEWER_BYTES_MAX = 100 * 1024
CONSOLE_BYTES_MAX = 90 * 1024


@pytest.fixture(autouse=True)
def built() -> None:
    if not SDK.is_file():
        pytest.fail("the client is not built: make client")


def test_sdk_when_compressed_then_has_less_than_12_kib() -> None:
    assert len(gzip.compress(SDK.read_bytes(), 9)) < SDK_BYTES_MAX


def test_sdk_when_read_then_is_one_file_without_dependencies() -> None:
    code = SDK.read_text("utf-8")
    assert not re.search(r"\bimport\b", code)
    assert re.search(r"\bexport\s*\{[^}]*\bLiveSession\b", code)


def test_files_when_built_then_their_compressed_twins_are_the_same_text() -> None:
    files = [file for file in DIST.rglob("*") if file.suffix in (".js", ".css", ".svg", ".html")]
    large = [file for file in files if file.stat().st_size >= 1024]
    assert large
    for file in large:
        twin = file.with_name(f"{file.name}.gz")
        assert gzip.decompress(twin.read_bytes()) == file.read_bytes(), file.name
        assert file.with_name(f"{file.name}.br").stat().st_size < file.stat().st_size


def first_load(page: str) -> dict[str, int]:
    """Bytes (gzip -9) of every file that `page` loads before any other is asked for."""
    manifest = json.loads((DIST / ".vite" / "manifest.json").read_text("utf-8"))
    files, chunks = {page}, [page]
    for key in chunks:  # grows while it is read
        chunk = manifest[key]
        files |= {chunk["file"], *chunk.get("css", [])}
        chunks += [name for name in chunk.get("imports", []) if name not in chunks]
    return {file: len(gzip.compress((DIST / file).read_bytes(), 9)) for file in sorted(files)}


@pytest.mark.parametrize(
    ("page", "most"), [("viewer.html", VIEWER_BYTES_MAX), ("host.html", CONSOLE_BYTES_MAX)]
)
def test_page_when_loaded_first_then_is_small(page: str, most: int) -> None:
    files = first_load(page)
    assert len(files) > 3
    assert sum(files.values()) <= most, files


@pytest.mark.parametrize("page", ["viewer.html", "host.html"])
def test_page_when_loaded_first_then_video_and_charts_wait(page: str) -> None:
    assert not [file for file in first_load(page) if re.search("hls|uplot|Plot", file)]
