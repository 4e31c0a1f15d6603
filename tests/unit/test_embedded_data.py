"""The data directory: lock, secret, record of the servers."""

import json
import os
from pathlib import Path

import pytest

from server.embedded import place
from server.embedded.binaries import Binary
from server.embedded.data import DataDirectory, Running
from server.errors import Misconfigured
from server.supervision.child import Account


@pytest.fixture
def data(tmp_path: Path) -> DataDirectory:
    directory = DataDirectory(tmp_path / "data")
    with directory.locked():
        pass
    return directory


def running(http: str, pid: int = 0) -> Running:
    return Running(pid or os.getpid(), http, "unix:///x", "postgresql:///x", "/tmp/none")


def test_lock_when_held_then_the_second_is_told_where_it_runs(data: DataDirectory) -> None:
    with data.locked():
        data.write_running(running("http://127.0.0.1:8000"))
        with (
            pytest.raises(Misconfigured, match=r"already running at http://127\.0\.0\.1:8000"),
            DataDirectory(data.path).locked(),
        ):
            pass
    assert data.running() is None


def test_lock_when_the_first_is_still_starting_then_refused_without_address(
    data: DataDirectory,
) -> None:
    with (
        data.locked(),
        pytest.raises(Misconfigured, match="already running, data in"),
        DataDirectory(data.path).locked(),
    ):
        pass


def test_running_when_its_process_is_gone_then_none(data: DataDirectory) -> None:
    data.write_running(running("http://127.0.0.1:8000", pid=2**22 - 1))
    assert data.running() is None


def test_secret_when_asked_twice_then_the_same_and_private(data: DataDirectory) -> None:
    first = data.secret()
    assert len(first) >= 32
    assert DataDirectory(data.path).secret() == first
    assert (data.path / "secret").stat().st_mode & 0o777 == 0o600


def test_server_when_recorded_then_known_again_only_while_it_has_data(
    data: DataDirectory,
) -> None:
    binary = Binary("wheel", "Valkey", (9, 1, 2), Path("/somewhere/valkey-server"))
    data.record("valkey", binary)
    folder = data.path / "valkey"
    assert data.recorded("valkey", folder) is None
    folder.mkdir()
    (folder / "appendonlydir").mkdir()
    assert DataDirectory(data.path).recorded("valkey", folder) == binary


def test_home_when_chosen_then_recorded_and_followed_when_the_directory_moves(
    data: DataDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "SHARED", tmp_path / "shared")
    data.path.chmod(0o700)
    home = data.home(Account("nobody", 65534, 65534))
    assert home.parent == tmp_path / "shared"
    moved = DataDirectory(data.path.rename(tmp_path / "moved"))
    assert moved.home(None) == home


def test_home_when_it_is_gone_then_refused(data: DataDirectory) -> None:
    (data.path / "servers.json").write_text(json.dumps({"home": "/nonexistent/livesale"}))
    with pytest.raises(Misconfigured, match="which is gone"):
        data.home(None)


def test_directory_when_a_file_is_in_the_way_then_refused(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with (
        pytest.raises(Misconfigured, match="cannot use"),
        DataDirectory(tmp_path / "data").locked(),
    ):
        pass


def test_remains_when_the_last_supervisor_was_killed_then_its_sockets_are_removed(
    data: DataDirectory, tmp_path: Path
) -> None:
    left = tmp_path / "livesale-left"
    left.mkdir()
    data.write_running(Running(2**22 - 1, "", "", "", str(left)))
    with data.locked():
        assert not left.exists()
