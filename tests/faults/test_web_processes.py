"""`livesale web --processes 2` as operators run it: crashes, rolling restarts, stops.

One parent for most of the tests; the last one kills it.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from server import clock
from tests.conftest import run_sql, with_database
from tests.crowd import Line, Shop, Shopper
from tests.door_stage import handshake
from tests.edge.test_tls import make_certificate
from tests.history import History, read_books, violations
from tests.live import Host, LiveSystem, call, free_port, token_of, until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SETTINGS = {
    "log_json": "1",
    "drain_seconds": "0.5",
    "claims_per_second": "100",
    "viewers_per_address_max": "20000",
}
BUYERS = 6
UNITS = 100_000
CALLERS = 32  # that none of them comes to one of two slots: once in 2^32 runs
STOP_SECONDS = 0.5 + 5.5 + 3  # drain, slack, and a busy machine


@dataclass
class Processes:
    """A parent and what it says about its processes."""

    live: LiveSystem
    parent: "subprocess.Popen[bytes]"
    log: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What parent and processes logged under this name so far."""
        found = []
        for line in self.log.read_text().splitlines():
            with_event = json.loads(line) if line.startswith("{") else {}
            if with_event.get("event") == event:
                found.append(with_event)
        return found

    def serving(self, process: str) -> dict[str, Any]:
        """The newest process of a slot: its `pid` and `internal` URL."""
        return [line for line in self.lines("process_serves") if line["process"] == process][-1]

    def states(self, process: str) -> list[str]:
        told = self.lines("process_state")
        return [line["state"] for line in told if line["process"] == process]

    async def until_logged(self, event: str, times: int) -> None:
        def logged() -> bool:
            assert self.parent.poll() is None, self.log.read_text()
            return len(self.lines(event)) >= times

        await until(logged, f"{times} x {event} in the log")


def start_processes(live: LiveSystem, count: int = 2, **environment: str) -> Processes:
    port = free_port()
    parent = live.start("web", "--processes", str(count), PORT=str(port), **environment)
    log = live.log_dir / f"{len(live.processes) - 1}-web.log"
    return Processes(live, parent, log, port)


@pytest.fixture(scope="module")
def live(
    session_redis_url: str,
    session_database_url: str,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveSystem]:
    name = f"livesale_processes_{os.getpid()}"
    create = f"CREATE DATABASE {name} TEMPLATE {template_database}"
    asyncio.run(run_sql(session_database_url, create))
    database_url = with_database(session_database_url, name)
    system = LiveSystem(
        session_redis_url, database_url, tmp_path_factory.mktemp("processes"), SETTINGS
    )
    yield system
    system.stop()
    asyncio.run(run_sql(session_database_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="module")
def started(live: LiveSystem) -> Processes:
    return start_processes(live)


@pytest.fixture
async def processes(started: Processes) -> Processes:
    await started.until_logged("processes_ready", 1)
    return started


class Caller:
    """One connection that asks whether somebody lives there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        self._writer = writer
        self.answer = asyncio.create_task(self._read(reader))

    @classmethod
    async def come(cls, port: int, context: ssl.SSLContext | None = None) -> "Caller":
        return cls(*await asyncio.open_connection("127.0.0.1", port, ssl=context))

    async def _read(self, reader: asyncio.StreamReader) -> int:
        async with asyncio.timeout(30):
            head = await reader.readline()
        self._writer.close()
        return int(head.split()[1])


async def answers(port: int) -> list[int]:
    """Status of each of many callers."""
    callers = [await Caller.come(port) for _ in range(CALLERS)]
    return [await caller.answer for caller in callers]


async def live_show(url: str) -> str:
    host = Host(url, token_of("host-1", "*", role="host"))
    show = (await host.ask("POST", "/api/shows", {"title": "晚八点"}))["show"]
    await host.ask("POST", f"/api/shows/{show}/start")
    return str(show)


async def test_processes_when_they_run_then_each_has_its_own_internal_address(
    processes: Processes,
) -> None:
    told = [processes.serving(name) for name in ("web-1", "web-2")]
    assert len({one["internal"] for one in told}) == 2
    for one in told:
        assert (await call("GET", f"{one['internal']}/readyz"))[0] == 200
        status, text = await call("GET", f"{one['internal']}/metrics")
        assert status == 200
        assert "livesale_viewers" in text
    assert (await call("GET", f"{processes.url}/metrics"))[0] == 404
    assert (await call("GET", f"{processes.url}/readyz"))[0] == 200
    assert set(await answers(processes.port)) == {200}


async def test_process_when_it_is_killed_then_the_other_serves_and_nobody_is_reset(
    processes: Processes,
) -> None:
    victim, other = processes.serving("web-1"), processes.serving("web-2")
    os.kill(victim["pid"], signal.SIGKILL)
    assert (await call("GET", f"{other['internal']}/livez"))[0] == 200
    assert set(await answers(processes.port)) == {200}
    await until(lambda: "restarted" in processes.states("web-1"), "restarted")
    assert processes.states("web-1") == ["crashed", "restarted"]
    assert processes.serving("web-1")["internal"] == victim["internal"]
    assert processes.serving("web-2") == other


async def test_callers_when_their_process_is_frozen_and_replaced_then_the_new_one_serves_them(
    processes: Processes,
) -> None:
    before = len(processes.lines("restarted"))
    frozen = processes.serving("web-1")["pid"]
    os.kill(frozen, signal.SIGSTOP)
    callers = [await Caller.come(processes.port) for _ in range(CALLERS)]
    _, waiting = await asyncio.wait([caller.answer for caller in callers], timeout=0.5)
    assert waiting
    os.kill(processes.serving("web-2")["pid"], signal.SIGHUP)  # as if sent to the whole group
    processes.parent.send_signal(signal.SIGHUP)
    assert {await caller.answer for caller in callers} == {200}
    os.kill(frozen, signal.SIGCONT)
    await processes.until_logged("restarted", before + 1)
    assert not psutil.pid_exists(frozen)


@dataclass
class Careful(Shopper):
    """A shopper who notes what went wrong when connecting, but for 503: that is an answer."""

    faults: list[str] = field(default_factory=list)
    bought: int = 0

    async def _connect(self, port: int) -> Line:
        try:
            return await super()._connect(port)
        except OSError as error:
            if "503" not in str(error):
                self.faults.append(repr(error))
            raise


async def buy_on(shopper: Careful, is_over: asyncio.Event) -> None:
    """One claim after the other."""
    while not is_over.is_set():
        shopper.claim_id, shopper.final = str(clock.new_uuid7()), ""
        shopper.attempts, shopper.hold = 0, None
        await shopper.buy()
        assert shopper.final == "confirmed"
        shopper.bought += 1


async def call_on(port: int, is_over: asyncio.Event) -> set[int]:
    """One new connection after the other; the answers. Raises OSError when one is reset."""
    heard = set()
    while not is_over.is_set():
        heard.add(await (await Caller.come(port)).answer)
    return heard


async def open_sale(url: str) -> tuple[str, int]:
    host = Host(url, token_of("host-1", "*", role="host"))
    show = await live_show(url)
    sku = {"title": "黑色", "price": 12900, "currency": "CNY", "inventory": UNITS}
    body = {"title": "手冲咖啡壶", "skus": [sku]}
    product = await host.ask("POST", f"/api/shows/{show}/products", body)
    terms = {
        "sku": product["skus"][0]["sku"], "price": 9900, "units": UNITS,
        "limit_per_buyer": UNITS, "countdown_s": 0, "duration_s": 600, "start": "now",
    }  # fmt: skip
    return show, (await host.ask("POST", f"/api/shows/{show}/sales", terms))["sale"]


async def test_restart_when_a_sale_runs_then_every_claim_is_answered_and_nobody_is_reset(
    processes: Processes,
) -> None:
    processes.live.start_worker()
    before = {name: processes.serving(name)["pid"] for name in ("web-1", "web-2")}
    restarts = len(processes.lines("restarted"))
    show, sale = await open_sale(processes.url)
    history, is_over = History(), asyncio.Event()
    shop = Shop([processes.port], show, sale)
    shoppers = [Careful(f"buyer-{n}", shop, history) for n in range(BUYERS)]
    buying = [asyncio.create_task(buy_on(shopper, is_over)) for shopper in shoppers]
    calling = [asyncio.create_task(call_on(processes.port, is_over)) for _ in range(2)]
    await until(lambda: all(shopper.bought for shopper in shoppers), "everybody has bought")

    processes.parent.send_signal(signal.SIGHUP)
    await processes.until_logged("restarted", restarts + 1)
    is_over.set()
    await asyncio.gather(*buying)
    assert set().union(*await asyncio.gather(*calling)) <= {200, 503}
    assert [fault for shopper in shoppers for fault in shopper.faults] == []

    assert all(processes.serving(name)["pid"] != pid for name, pid in before.items())
    assert not any(psutil.pid_exists(pid) for pid in before.values())
    books = await read_books(processes.live.database_url, show)
    assert violations(history, books) == []
    assert len(books.orders) == sum(shopper.bought for shopper in shoppers)
    audited = await asyncio.to_thread(processes.live.run, "audit", "--json", "--show", show)
    assert audited.returncode == 0, audited.stdout
    for shopper in shoppers:
        assert shopper.line
        assert shopper.line.transport
        shopper.line.transport.abort()


async def test_stop_when_peers_never_answer_and_callers_wait_then_all_end_in_time_with_exit_code_0(
    live: LiveSystem,
) -> None:
    processes = start_processes(live)
    await processes.until_logged("processes_ready", 1)
    show = await live_show(processes.url)
    peers = []
    for first in (handshake(f"/ws/{show}"), b"GET / HT", b"") * 4:
        peer = socket.create_connection(("127.0.0.1", processes.port))
        peer.sendall(first)
        peers.append(peer)
    pids = [processes.serving(name)["pid"] for name in ("web-1", "web-2")]
    os.kill(pids[0], signal.SIGSTOP)  # so that some are still in the kernel's hands
    callers = [await Caller.come(processes.port) for _ in range(CALLERS)]
    processes.parent.send_signal(signal.SIGTERM)
    heard = {await caller.answer for caller in callers}
    assert 503 in heard
    assert heard <= {200, 503}
    os.kill(pids[0], signal.SIGCONT)
    assert await asyncio.to_thread(processes.parent.wait, STOP_SECONDS) == 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert b"Traceback" not in processes.log.read_bytes()
    for peer in peers:
        peer.close()


async def test_stop_when_callers_wait_in_the_queue_of_the_only_process_then_all_are_answered(
    live: LiveSystem,
) -> None:
    internal = free_port()
    alone = start_processes(live, count=1, LIVESALE_INTERNAL_PORT=str(internal))
    await alone.until_logged("listening", 1)
    assert (await call("GET", f"http://127.0.0.1:{internal}/metrics"))[0] == 200
    assert (await call("GET", f"{alone.url}/metrics"))[0] == 404
    os.kill(alone.parent.pid, signal.SIGSTOP)
    callers = [await Caller.come(alone.port) for _ in range(CALLERS)]
    alone.parent.send_signal(signal.SIGTERM)
    os.kill(alone.parent.pid, signal.SIGCONT)
    assert [await caller.answer for caller in callers] == [200] * CALLERS
    assert await asyncio.to_thread(alone.parent.wait, STOP_SECONDS) == 0


async def test_restart_when_the_new_process_cannot_start_then_the_old_ones_go_on(
    live: LiveSystem, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    make_certificate(openssl, tmp_path)
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    context = ssl.create_default_context(cafile=cert)
    processes = start_processes(
        live, LIVESALE_TLS_CERT=cert, LIVESALE_TLS_KEY=key, LIVESALE_DRAIN_SECONDS="60"
    )
    await processes.until_logged("processes_ready", 1)
    os.remove(key)
    processes.parent.send_signal(signal.SIGHUP)
    await processes.until_logged("restart_failed", 1)
    callers = [await Caller.come(processes.port, context) for _ in range(CALLERS)]
    assert {await caller.answer for caller in callers} == {200}
    assert len(processes.lines("process_serves")) == 2

    watching = socket.create_connection(("127.0.0.1", processes.port))
    processes.parent.send_signal(signal.SIGTERM)
    await processes.until_logged("stopping", 2)
    processes.parent.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(processes.parent.wait, STOP_SECONDS) == 0
    watching.close()


async def test_parent_when_it_is_killed_then_its_processes_end(processes: Processes) -> None:
    pids = [processes.serving(name)["pid"] for name in ("web-1", "web-2")]
    processes.parent.kill()
    processes.parent.wait()
    await until(lambda: not any(map(psutil.pid_exists, pids)), "no process is left")
