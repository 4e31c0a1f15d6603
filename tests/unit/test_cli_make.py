"""The Makefile: its list of targets, and what it says to a machine without a usable Python."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A Python as Debian installs it without python3-venv.
BARE = """#!/bin/sh
case "$*" in
  *version_info*3,*) exit 0 ;;
  *ensurepip*) echo "No module named ensurepip" >&2; exit 1 ;;
  *python3.*) echo python3.11-venv ;;
esac
"""
OLD = """#!/bin/sh
exit 1
"""


def make(*args: str, path: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["make", "--no-print-directory", *args],
        env={"PATH": path, "HOME": os.environ.get("HOME", "/")},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A copy of the project's frame and a PATH directory with a shell's tools, without Python."""
    (tmp_path / "tree" / "client-demo").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / "tree")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("sh", "make", "find", "cat", "echo", "awk", "printf", "mkdir", "touch"):
        found = shutil.which(tool)
        assert found is not None
        (tools / tool).symlink_to(found)
    return tmp_path


def add_python(machine: Path, script: str) -> None:
    for name in ("python3.14", "python3.13", "python3.12", "python3.11", "python3", "python"):
        program = machine / "bin" / name
        program.write_text(script)
        program.chmod(0o755)


def test_help_when_asked_then_targets_are_listed() -> None:
    shown = make("-C", str(ROOT), "help", path=os.environ["PATH"]).stdout
    for target in ("up", "test", "check", "fmt", "clean", "client", "bench", "docs"):
        assert f"make {target} " in shown


def test_venv_when_python_cannot_make_one_then_the_package_to_install_is_named(
    machine: Path,
) -> None:
    add_python(machine, BARE)
    done = make("-C", str(machine / "tree"), ".venv/up", path=str(machine / "bin"))
    assert done.returncode != 0
    assert "apt install python3.11-venv" in done.stderr


def test_venv_when_python_is_too_old_then_the_floor_is_named(machine: Path) -> None:
    add_python(machine, OLD)
    done = make("-C", str(machine / "tree"), ".venv/up", path=str(machine / "bin"))
    assert done.returncode != 0
    assert "no Python >= 3.11 found" in done.stderr


def test_venv_when_the_tree_was_moved_then_it_is_made_anew(machine: Path) -> None:
    add_python(machine, OLD)
    venv = machine / "tree" / ".venv"
    venv.mkdir()
    (venv / "here").write_text(f"{machine / 'tree'}\n")
    (venv / "up").touch()
    settled = make("-C", str(machine / "tree"), ".venv/up", path=str(machine / "bin"))
    assert settled.returncode == 0, settled.stderr
    (machine / "tree").rename(machine / "elsewhere")
    moved = make("-C", str(machine / "elsewhere"), ".venv/up", path=str(machine / "bin"))
    assert "no Python >= 3.11 found" in moved.stderr
