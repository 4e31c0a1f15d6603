"""The command line: what it refuses, in one line; what it takes from the data directory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import cli, config
from server.embedded.data import DataDirectory, Running
from server.web import auth
from tests.conftest import with_database

SECRET = "a secret for tests, long enough to be one"
OURS = ("LIVESALE_", "REDIS_URL", "DATABASE_URL", "PORT")


def livesale(*args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run one command to its end, with none of our settings but these."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-m", "server.cli", *args],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_when_asked_then_every_command_is_listed() -> None:
    shown = livesale("--help").stdout
    for command in ("up", "web", "worker", "migrate", "token", "audit", "bench", "build-client"):
        assert f" {command} " in shown


@pytest.mark.parametrize("command", ["web", "worker", "migrate"])
def test_command_when_a_setting_is_wrong_then_one_line_and_exit_2(command: str) -> None:
    done = livesale(command, LIVESALE_TICK_MS="1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: bad settings: tick_ms:")
    assert done.stderr.count("\n") == 1


def test_migrate_when_postgres_is_away_then_one_line_and_exit_1() -> None:
    done = livesale("migrate", DATABASE_URL="postgresql://livesale@127.0.0.1:1/livesale")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_up_when_a_setting_is_wrong_and_json_is_asked_for_then_the_error_is_json() -> None:
    done = livesale("up", "--json", LIVESALE_TICK_MS="1")
    assert done.returncode == 2
    assert json.loads(done.stdout)["event"] == "error"
    assert done.stderr == ""


def test_up_when_a_given_redis_does_not_answer_then_refused(
    tmp_path: Path, database_url: str
) -> None:
    done = livesale(
        *("up", "--port", "0", "--data", str(tmp_path / "data")),
        REDIS_URL="redis://127.0.0.1:1/0",
        DATABASE_URL=database_url,
    )
    assert done.returncode == 2
    assert "given by REDIS_URL does not answer" in done.stdout


def test_up_when_the_given_database_is_missing_then_postgres_own_words(
    tmp_path: Path, session_database_url: str
) -> None:
    missing = with_database(session_database_url, "no_such_database")
    done = livesale("up", "--port", "0", "--data", str(tmp_path / "data"), DATABASE_URL=missing)
    assert done.returncode == 2
    assert 'error: PostgreSQL refuses: database "no_such_database" does not exist' in done.stdout


def test_token_when_a_secret_is_given_then_signed_with_it() -> None:
    done = livesale(
        *("token", "--role", "host", "--show", "*", "--sub", "h1", "--name", "主播"),
        LIVESALE_SECRET=SECRET,
    )
    who = auth.verify(SECRET.encode(), done.stdout.strip())
    assert (who.user, who.role, who.show, who.name) == ("h1", "host", "*", "主播")


def test_token_when_no_secret_is_given_then_the_data_directorys_is_used(tmp_path: Path) -> None:
    data = DataDirectory(tmp_path)
    secret = data.secret()
    done = livesale(*("token", "--role", "viewer", "--show", "demo", "--sub", "v"),
                    *("--data", str(tmp_path)))  # fmt: skip
    assert auth.verify(secret.encode(), done.stdout.strip()).user == "v"


def test_token_when_there_is_no_secret_at_all_then_refused(tmp_path: Path) -> None:
    done = livesale(*("token", "--role", "viewer", "--show", "demo", "--sub", "v"),
                    *("--data", str(tmp_path)))  # fmt: skip
    assert done.returncode == 2
    assert "LIVESALE_SECRET" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_token_when_the_role_is_unknown_then_refused() -> None:
    done = livesale(*("token", "--role", "king", "--show", "demo", "--sub", "v"),
                    LIVESALE_SECRET=SECRET)  # fmt: skip
    assert done.returncode == 2
    assert "role" in done.stderr


def test_migrate_when_the_database_is_empty_then_tables_are_there(empty_database_url: str) -> None:
    for _ in range(2):
        assert livesale("migrate", DATABASE_URL=empty_database_url).returncode == 0


def test_servers_when_up_is_running_then_other_commands_find_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql:///given")
    data = DataDirectory(tmp_path)
    data.write_running(Running(os.getpid(), "http://x", "unix:///r", "postgresql:///p", ""))
    settings = cli.with_running(config.load(), tmp_path)
    assert settings.redis_url == "unix:///r"
    assert settings.database_url == "postgresql:///given"


@pytest.mark.parametrize(
    ("argument", "environment", "profile"),
    [
        (None, "", "fast"),
        ("strict", "", "strict"),
        (None, "none", "none"),
        ("fast", "none", "fast"),
    ],
)
def test_up_when_a_durability_is_asked_for_then_the_option_comes_before_the_environment(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, environment: str, profile: str
) -> None:
    monkeypatch.delenv("LIVESALE_DURABILITY", raising=False)
    if environment:
        monkeypatch.setenv("LIVESALE_DURABILITY", environment)
    assert cli._options(None, None, Path("x"), 1, argument).durability == profile
