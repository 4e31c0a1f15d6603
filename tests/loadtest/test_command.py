"""`livesale loadtest`: what is refused before anything starts, and whole runs of real processes."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jwt
import psutil
import pytest

from loadtest import command, target
from loadtest.report import summary as summaries
from loadtest.scenario import Usage

SMALL = ("--set", "warmup_s=1", "--set", "sale.opens_at_s=1")
HOST = {"sub": "h", "role": "host", "show": "s1"}


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = command.main(arguments)
    said = capsys.readouterr()
    return code, said.out + said.err


# --- Usage ---------------------------------------------------------------------------------------


def test_list_when_asked_then_every_preset_with_its_title(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, said = told(capsys, "list")
    assert code == 0
    assert "herd-10k" in said
    assert "万人同抢" in said


def test_show_when_a_preset_is_named_then_its_toml(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, "show", "smoke")
    assert code == 0
    assert 'name = "smoke"' in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["smok", "--up"], "did you mean smoke?"),
        (["smoke", "--up", "--set", "crowd"], "write PLACE=VALUE"),
        (["smoke", "--url", "http://10.0.0.1:8000"], "10.0.0.1 is not this machine"),
        (["smoke", "--url", "http://[2001:db8::1]/"], "2001:db8::1 is not this machine"),
        (["smoke", "--url", "10.0.0.1:8000"], "no address"),
        (
            ["smoke", "--url", "http://127.0.0.1:1", "--redis-url", "redis://10.0.0.2"],
            "10.0.0.2 is not this machine",
        ),
        (
            ["smoke", "--url", "http://127.0.0.1:1", "--database-url", "postgresql:///x?host=10.0.0.3"],
            "10.0.0.3 is not this machine",
        ),
        (["smoke", "--url", "http://127.0.0.1:1"], "LIVESALE_SECRET"),
        (["smoke", "--data", "/nonexistent"], "give --up"),
        (["reconnect-storm", "--url", "http://127.0.0.1:1"], "faults of web-1 need --up"),
        (["herd-10k", "--up", "--set", "crowd.0.count=17000"], ""),
    ],
)  # fmt: skip
def test_loadtest_when_it_must_not_or_cannot_be_then_exit_2_with_a_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.delenv("LIVESALE_SECRET", raising=False)
    monkeypatch.setattr(command, "DESCRIPTORS_SPARE", 1 << 30 if not said else 0)
    code, found = told(capsys, *arguments, "--out", str(tmp_path))
    assert code == 2
    assert (said or "files may have to be open") in found


async def test_require_here_when_a_name_resolves_elsewhere_then_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def resolve(host: str, *_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, 0, 0, "", (each, 0)) for each in ("127.0.0.1", "192.0.2.7")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    with pytest.raises(Usage, match=r"shop\.example is not this machine"):
        await target.require_here(["https://shop.example/"])


async def test_require_here_when_all_is_loopback_or_a_socket_then_allowed() -> None:
    here = ["http://127.0.0.9:1", "http://localhost", "http://[::1]:8000", "unix:///tmp/v.sock"]
    await target.require_here([*here, "postgresql://u@/d?host=/tmp/p", ""])


def tokens(tmp_path: Path, *claims: dict[str, str]) -> Path:
    file = tmp_path / "tokens"
    file.write_text("\n".join(jwt.encode(dict(each), "x" * 32, "HS256") for each in claims))
    return file


def test_credentials_when_dealt_then_bots_and_people_get_their_own(tmp_path: Path) -> None:
    people = [{"sub": f"lt-r1-{each}", "role": "viewer", "show": "s1"} for each in ("b1", "x1")]
    found = target.Credentials(tokens(tmp_path, HOST, *people))
    assert (found.run, found.show) == ("r1", "s1")
    bot, buyer = found.taken(["lt-z-x0_0", "lt-z-b0_0"])
    assert jwt.decode(bot, options={"verify_signature": False})["sub"] == "lt-r1-x1"
    assert jwt.decode(buyer, options={"verify_signature": False})["sub"] == "lt-r1-b1"
    with pytest.raises(Usage, match="fewer tokens"):
        found.taken(["lt-z-b0_1"])


@pytest.mark.parametrize(
    "claims",
    [
        [{"sub": "lt-r1-b1", "role": "viewer", "show": "s1"}],
        [HOST, {"sub": "a", "role": "viewer", "show": "s1"}],
        [HOST, {"sub": "lt-r-b", "role": "viewer", "show": "s2"}],
    ],
)  # fmt: skip
def test_credentials_when_they_could_be_somebodys_then_refused(
    claims: list[dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(Usage):
        target.Credentials(tokens(tmp_path, *claims))


# --- Whole runs ----------------------------------------------------------------------------------


def start(*arguments: str) -> "subprocess.Popen[str]":
    line = [sys.executable, "-m", "server.cli", "loadtest", *arguments]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_smoke_when_run_with_up_then_everything_is_written_and_audited(tmp_path: Path) -> None:
    out, junit = tmp_path / "out", tmp_path / "junit.xml"
    child = start(
        "smoke", "--up", "--seconds", "3", *SMALL, "--out", str(out), "--junit", str(junit),
        "--json", "--set", "fault=[{at_s=2, kind='drop', share=0.2}]",
    )  # fmt: skip
    said, _ = child.communicate(timeout=60)
    summary = summaries.read((out / "summary.json").read_bytes())
    assert child.returncode == summary.exit, said
    assert summary.audit.scope == "full"
    assert summary.audit.ok, summary.audit.findings
    assert summary.counts["joined"] == summary.counts["people"] == 284
    assert summary.counts["held"] == summary.counts["confirmed"] == 30
    assert summary.counts["reconnects"] == summary.counts["sockets_dropped"] == 57
    assert {mark.what for mark in summary.marks} == {"sale_opens", "sold_out", "drop 20 %"}
    assert summary.verdict in ("pass", "threshold", "invalid")  # the machine may be busy
    assert "<html" in (out / "report.html").read_text()
    assert (out / "loaders.log").read_text() == ""
    assert ElementTree.parse(junit).getroot().tag == "testsuites"
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events[0] == "progress"
    assert "done" in events


def test_smoke_when_interrupted_then_130_with_a_report_and_nobody_is_left(tmp_path: Path) -> None:
    child = start("smoke", "--up", *SMALL, "--lang", "en", "--out", str(tmp_path))
    assert child.stdout is not None
    for line in child.stdout:
        if re.search(r"joining", line):
            break
    family = psutil.Process(child.pid).children(recursive=True)
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    assert child.returncode == 130
    summary = summaries.read((tmp_path / "summary.json").read_bytes())
    assert summary.verdict == "interrupted"
    assert summary.audit.scope == "full"
    assert (tmp_path / "report.html").exists()
    assert len(family) > 4
    assert psutil.wait_procs(family, timeout=5)[1] == []
