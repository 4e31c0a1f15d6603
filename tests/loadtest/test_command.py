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

import asyncpg
import jwt
import psutil
import pytest

from loadtest import command, target
from loadtest.report import summary as summaries
from loadtest.scenario import Usage
from tests.conftest import ValkeyFactory
from tests.live import SECRET, Host, call, token_of
from tests.loadtest.conftest import Running

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


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://10.0.0.1:1,10.0.0.2:1/primary", "not Sentinels or a Cluster"),
        ("redis+cluster://127.0.0.1:7000", "not Sentinels or a Cluster"),
        ("redis://127.0.0.1:1", "Redis does not answer: ConnectionError"),
    ],
)
def test_loadtest_when_the_audit_cannot_read_this_redis_then_exit_2_and_no_verdict(
    url: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("LIVESALE_SECRET", "x" * 32)
    whom = [
        "--url",
        "http://127.0.0.1:1",
        "--redis-url",
        url,
        "--database-url",
        "postgresql:///x?host=/tmp",
    ]
    code, found = told(capsys, "smoke", *whom, "--out", str(tmp_path))
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert said in found


async def test_require_single_when_a_node_of_a_cluster_is_named_then_refused(
    valkey_factory: ValkeyFactory,
) -> None:
    node = await valkey_factory(cluster_enabled="yes")
    with pytest.raises(Usage, match="a Cluster"):
        await target.require_single(node.url)


async def test_require_single_when_there_is_one_server_or_none_then_allowed(redis_url: str) -> None:
    await target.require_single(redis_url)
    await target.require_single("")


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


FEW = """
version = 1
name = "few"
seconds = {seconds}
warmup_s = 1
settle_s = 5
sale = {{units = 200, limit = 99, opens_at_s = 0.5}}
crowd = [{{persona = "watcher", count = 20}},
  {{persona = "buyer", count = 10, claims_each = 99, acts = {{kind = "poisson", per_s = 20}}}},
  {{persona = "bot", count = 2, sockets = 2}}]
thresholds = {{"stale.p99_ms" = "{stale}"}}
"""


def few(tmp_path: Path, **terms: object) -> str:
    file = tmp_path / "few.toml"
    file.write_text(FEW.format(**terms))
    return str(file)


def whom(running: Running) -> list[str]:
    books = ["--redis-url", running.redis_url, "--database-url", running.database_url]
    return ["--url", running.url, *books]


async def tokens_of(running: Running, tmp_path: Path) -> tuple[str, Path]:
    """A show that has not begun, and a file with tokens for it, some more than are needed."""
    host = Host(running.url, token_of("host", "*", "host"))
    show = (await host.ask("POST", "/api/shows", {"title": "压测"}))["show"]
    people = [f"lt-own-{kind}{n}" for kind, count in (("b", 12), ("x", 3)) for n in range(count)]
    lines = [token_of("host", show, "host"), *(token_of(each, show) for each in people)]
    file = tmp_path / "tokens"
    file.write_text("\n".join(lines))
    return show, file


MEASURED = 'livesale_loadtest_phase{phase="measure"} 1.0'


async def scraped(child: "subprocess.Popen[str]") -> tuple[str, str]:
    """What a scrape is answered while people are measured, and all that was said."""
    said: list[str] = []
    where = found = ""
    assert child.stdout is not None
    while line := await asyncio.to_thread(child.stdout.readline):
        said.append(line)
        event = json.loads(line)
        if event["event"] == "note" and event["text"].endswith("/metrics"):
            where = event["text"]
        if event["event"] == "progress" and event["phase"] == "measure" and not found:
            while MEASURED not in found and child.poll() is None:  # it may be told a moment later
                _, found = await call("GET", where)
    return found, "".join(said)


async def test_run_when_a_server_is_there_then_its_tokens_are_used_and_a_scrape_answers(
    running: Running, tmp_path: Path
) -> None:
    show, file = await tokens_of(running, tmp_path)
    child = start(
        few(tmp_path, seconds=6, stale="<60000"), *whom(running), "--tokens", str(file),
        "--prometheus", "0", "--json", "--out", str(tmp_path),
    )  # fmt: skip
    with child:
        metrics, said = await scraped(child)
    assert child.returncode in (0, 12), said  # the machine may be busy
    rows = dict(row.rsplit(" ", 1) for row in metrics.splitlines() if row[0] != "#")
    assert rows["livesale_loadtest_exit_code"] == "-1.0"
    assert rows['livesale_loadtest_phase{phase="measure"}'] == "1.0"
    assert rows["livesale_loadtest_open"] == "34.0"
    summary = summaries.read((tmp_path / "summary.json").read_bytes())
    assert (summary.run, summary.target["started_by"]) == ("own", "--url")
    assert (summary.audit.scope, summary.audit.findings) == ("full", [])
    assert summary.counts["joined"] == 34
    assert await buyers_of(running, show) <= {
        f"lt-own-{kind}{n}" for kind in "bx" for n in range(12)
    }
    assert summary.counts["confirmed"] > 0


async def buyers_of(running: Running, show: str) -> set[str]:
    connection = await asyncpg.connect(running.database_url)
    try:
        rows = await connection.fetch("SELECT buyer FROM orders WHERE show_id = $1", show)
    finally:
        await connection.close()
    assert rows
    return {row["buyer"] for row in rows}


async def test_run_when_it_cannot_pass_any_more_then_it_ends_and_says_so(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVESALE_SECRET", SECRET)
    asked = few(tmp_path, seconds=20, stale="<0")
    child = start(asked, *whom(running), "--abort-on-fail", "--out", str(tmp_path))
    said, _ = await asyncio.to_thread(child.communicate, timeout=40)
    assert child.returncode == 10, said
    assert "ends early: stale.p99_ms" in said
    summary = summaries.read((tmp_path / "summary.json").read_bytes())
    assert {check.name for check in summary.checks if not check.ok} == {"stale.p99_ms"}
    assert (summary.audit.scope, summary.audit.ok) == ("full", True)
    assert max(point.t_s for point in summary.series) < 15
    assert (tmp_path / "report.html").exists()


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
