"""Where things lie and who can reach them."""

import os
import pwd
from pathlib import Path

import pytest

from server.embedded import place
from server.embedded.binaries import Binary
from server.supervision.child import Account

STRANGER = Account("nobody", 65534, 65534)


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A PostgreSQL installation below a directory that only its owner may enter."""
    program = tmp_path / "home" / "pkg" / "pginstall" / "bin" / "postgres"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o700)
    (program.parent.parent / "lib").mkdir()
    (program.parent.parent / "lib" / "libpq.so").write_text("")
    (tmp_path / "home" / "pkg.libs").mkdir()
    (tmp_path / "home").chmod(0o700)
    return program


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
def test_account_when_root_finds_somebodys_data_then_it_is_their_owner(tmp_path: Path) -> None:
    assert place.account_for_postgres(tmp_path / "none") == place.account_for_postgres()
    owner = pwd.getpwnam("daemon")
    os.chown(tmp_path, owner.pw_uid, owner.pw_gid)
    assert place.account_for_postgres(tmp_path) == Account("daemon", owner.pw_uid, owner.pw_gid)


def test_path_when_a_directory_above_is_closed_then_a_stranger_cannot_reach_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    assert not place.reachable(tmp_path / "closed" / "data", STRANGER)


def test_path_when_no_account_is_needed_then_reachable(tmp_path: Path) -> None:
    assert place.reachable(tmp_path / "closed" / "data", None)


def test_path_when_every_directory_is_open_then_reachable() -> None:
    assert place.reachable(Path("/usr/bin/env"), STRANGER)


def test_program_when_closed_then_a_copy_everybody_can_run_is_made_once(
    installation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "SHARED", tmp_path / "shared")
    binary = Binary("wheel", "PostgreSQL", (18, 6), installation)
    copy = place.reachable_binary(binary, STRANGER)
    assert copy.path != installation
    assert copy.path.stat().st_mode & 0o777 == 0o755
    assert (copy.path.parents[3] / "pkg.libs").is_dir()
    assert place.reachable_binary(binary, STRANGER) == copy
    assert len(list((tmp_path / "shared").iterdir())) == 1


def test_program_when_installed_unreadable_then_not_usable_by_a_stranger(
    installation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "reachable", lambda path, account: True)
    assert not place.usable_by(installation, STRANGER)
    assert place.usable_by(installation, None)


def test_home_when_the_data_directory_is_closed_then_below_the_shared_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "SHARED", tmp_path / "shared")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = place.new_home(closed, STRANGER)
    assert home.parent == tmp_path / "shared"
    assert (home / "owner").read_text() == f"{closed}\n"
    assert place.new_home(closed, None) == closed


def test_sockets_when_the_temporary_directory_is_deep_then_paths_still_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    folder = place.new_socket_directory()
    try:
        assert len(os.fsencode(folder / place.LONGEST_SOCKET)) <= place.SOCKET_PATH_BYTES_MAX
        assert folder.stat().st_mode & 0o066 == 0
    finally:
        folder.rmdir()
