"""Restarting what crashes, telling about it, ports and node versions."""

import asyncio
import io
import json
import socket
from collections.abc import Iterator

import pytest

from server.config import Settings
from server.embedded import network, node
from server.embedded.report import Report
from server.errors import Misconfigured
from server.supervision import parts
from server.supervision.child import Child, until


def test_crashes_when_they_repeat_then_delays_double_up_to_a_limit_and_a_loop_is_told() -> None:
    restarts = parts.Restarts()
    delays = []
    for n in range(8):
        delays.append(restarts.after_crash(now_ms=n * 1000))
        assert restarts.looping is (n >= parts.LOOP_CRASHES - 1)
    assert delays[:4] == [250, 500, 1000, 2000]
    assert max(delays) <= parts.DELAY_MS_MAX


def test_crash_when_the_last_was_long_ago_then_restarted_quickly() -> None:
    restarts = parts.Restarts()
    restarts.after_crash(0)
    assert restarts.after_crash(parts.LOOP_WINDOW_MS + 1) == parts.FIRST_DELAY_MS
    assert not restarts.looping


class Flaky:
    """Starts for the n-th time as `plan` says: True runs, False fails to start."""

    def __init__(self, plan: list[bool]) -> None:
        self.plan = iter(plan)
        self.starts = 0
        self.child = Child.spawn("flaky", ["false"])

    async def start(self) -> None:
        self.starts += 1
        if not next(self.plan):
            raise Misconfigured("not today")
        self.child = Child.spawn("flaky", ["sleep", "60"])

    async def stop(self) -> None:
        self.kill()

    def kill(self) -> None:
        self.child.kill()


async def test_part_when_it_crashes_then_started_again_until_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts, "FIRST_DELAY_MS", 1)
    monkeypatch.setattr(parts, "WATCH_SECONDS", 0.01)
    told: list[tuple[str, str]] = []
    flaky = Flaky([False, False, True])
    part = parts.Part("flaky", flaky, lambda name, state, detail: told.append((name, state)))
    keeping = asyncio.create_task(part.keep())
    assert await until(lambda: ("flaky", "restarted") in told, 10)
    keeping.cancel()
    flaky.kill()
    assert flaky.starts == 3
    assert [state for _, state in told].count("failed") == 2


def test_report_when_json_then_every_line_is_an_object() -> None:
    out = io.StringIO()
    report = Report(out, as_json=True)
    report.part("valkey", "ready", "Valkey")
    report.ready({"http": "http://127.0.0.1:1"}, ["for people"])
    report.error("直播 broke")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["part", "ready", "error"]
    assert lines[2]["message"] == "直播 broke"


def test_report_when_the_reader_is_gone_then_nothing_breaks() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Report(Gone(), as_json=False).part("valkey", "ready")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_port_when_named_and_busy_then_refused(listener: socket.socket) -> None:
    with pytest.raises(network.Taken, match="in use"):
        network.hold_port("127.0.0.1", listener.getsockname()[1])


def test_port_when_unnamed_and_busy_then_the_next_free_one(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy = listener.getsockname()[1]
    monkeypatch.setattr(network, "PORT", busy)
    held = network.hold_port("127.0.0.1", None)
    assert busy < held.port < busy + network.PORTS_TRIED
    held.close()


def test_port_when_held_then_another_supervisor_does_not_get_it_but_a_web_process_does() -> None:
    held = network.hold_port("127.0.0.1", 0)
    with pytest.raises(network.Taken):
        network.hold_port("127.0.0.1", held.port)
    with socket.create_server(("127.0.0.1", held.port), reuse_port=True) as web:
        socket.create_connection(web.getsockname()).close()
        web.accept()[0].close()
    held.close()


def test_host_when_not_of_this_machine_then_refused() -> None:
    with pytest.raises(Misconfigured, match="cannot listen"):
        network.hold_port("192.0.2.1", 0)


def test_url_when_the_host_is_a_wildcard_then_this_machine_is_named() -> None:
    assert network.http_url(Settings(host="0.0.0.0")) == "http://127.0.0.1:8000"
    assert network.http_url(Settings(host="::1")) == "http://[::1]:8000"
    assert network.lan_url(Settings(host="127.0.0.1")) == ""


@pytest.mark.parametrize(
    ("version", "good"),
    [
        ((18, 20, 0), False), ((20, 18, 9), False), ((20, 19, 0), True), ((21, 7, 0), False),
        ((22, 11, 0), False), ((22, 12, 0), True), ((24, 0, 0), True),
    ],
)  # fmt: skip
def test_node_when_its_version_is_read_then_vites_condition_decides(
    version: tuple[int, ...], good: bool
) -> None:
    assert node.acceptable(version) is good
