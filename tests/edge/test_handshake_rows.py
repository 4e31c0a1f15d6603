"""Connections and handshakes that attack the listener; test_rows.py says where the other rows are
tested."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
import redis
from structlog.testing import capture_logs

from server import limits
from server.telemetry import metrics
from server.web.admission import FREE_JOINS, RETRY_AFTER_ADDRESS_S, RETRY_AFTER_S
from tests.door_stage import handshake, read_all, status_of
from tests.edge.raw import RawViewer, connect, wait_until
from tests.live import LiveSystem, call, token_of
from tests.web_stage import WebStage, web_stage

FOREIGN = "https://evil.example"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def answer_to(url: str, raw: bytes, source: str = "127.0.0.1") -> bytes:
    """All that the listener answers to these bytes, until it closes."""
    with connect(url, source) as client:
        client.sendall(raw)
        return read_all(client)


def test_h01_foreign_origin_then_403_counted_and_named_in_the_log_now_and_then(
    web: WebStage, show: str
) -> None:
    asked = 50
    before = metrics.handshakes.count("origin_refused")
    with capture_logs() as lines:
        for _ in range(asked):
            answer = answer_to(web.url, handshake(f"/ws/{show}", f"Origin: {FOREIGN}"))
            assert status_of(answer) == 403
    assert metrics.handshakes.count("origin_refused") == before + asked
    told = [line["origin"] for line in lines if line["event"] == "origin_refused"]
    assert set(told) == {f"'{FOREIGN}'"}
    assert len(told) < asked / 5  # a stranger does not fill the disk


HEADS = {
    "129 headers": [f"X-{number}: 1" for number in range(129)],
    "one of 17 KiB": ["Cookie: " + "c" * 17 * 1024],
    "many of 1 KiB": ["X: " + "x" * 1024] * 17,
    "10 MB": ["Cookie: " + "c" * 10_000_000],
}


@pytest.mark.parametrize("kind", HEADS)
def test_h06_head_above_its_bounds_then_431_and_the_end(
    web: WebStage, show: str, kind: str
) -> None:
    raw = handshake(f"/ws/{show}", *HEADS[kind])
    with connect(web.url) as client:
        try:
            client.sendall(raw)
        except OSError:
            assert len(raw) > limits.HEADER_BYTES_MAX  # refused while it was being sent
        assert status_of(read_all(client)) in ((431, 0) if len(raw) > 1_000_000 else (431,))


async def test_h08_one_address_connects_in_silence_then_503_and_others_are_served(
    redis_url: str, database_url: str
) -> None:
    most = 20
    async with web_stage(redis_url, database_url, viewers_per_address_max=most) as web:
        await asyncio.to_thread(be_silent, web, most)


def be_silent(web: WebStage, most: int) -> None:
    with ExitStack() as crowd:
        for _ in range(most):
            crowd.enter_context(connect(web.url))
        refused = answer_to(web.url, b"")
        assert status_of(refused) == 503
        assert b"retry-after: %d" % RETRY_AFTER_ADDRESS_S in refused
        assert status_of(answer_to(web.url, LIVEZ, source="127.0.0.2")) == 200
    wait_until(lambda: status_of(answer_to(web.url, LIVEZ)) == 200, "the crowd is gone")


async def test_h11_one_address_joins_without_end_then_503_and_others_come_in(
    redis_url: str, database_url: str
) -> None:
    rate = 4 * FREE_JOINS
    async with web_stage(redis_url, database_url, joins_per_second_max=rate) as web:
        show = await web.show()
        inside = await web.viewer(show)  # the room is open
        await asyncio.to_thread(flood_with_joins, web.url, show, 2 * rate)
        await inside.close()


def flood_with_joins(url: str, show: str, count: int) -> None:
    answers = []
    for number in range(count):
        with connect(url) as client:
            client.sendall(handshake(f"/ws/{show}"))
            answers.append(client.recv(65_536))
        if number % 20 == 0:
            with RawViewer(url, show, source="127.0.0.2") as other:
                assert other.message()["t"] == "welcome"
    refused = [answer for answer in answers if status_of(answer) == 503]
    assert refused
    assert all(b"retry-after: %d" % RETRY_AFTER_S in answer for answer in refused)
    assert {status_of(answer) for answer in answers} == {101, 503}


NOWHERE = {
    "/ws/": (403, 404),
    "/ws/..": (404,),
    "/ws/../../etc": (404,),
    "/ws/..%2f..%2fkeys": (404,),
    "/ws/%00": (404,),
    "/ws/{*}": (404,),
    "/ws/abcd:meta": (404,),
    "/ws/%E7%9B%B4%E6%92%AD": (404,),
    "/ws/直播": (400,),  # a path is ASCII
    "/ws/" + "a" * 1_000: (404,),
    "/ws/" + "a" * 10_000: (414,),
    "/ws/nosuchshow": (404,),
}


def test_h13_show_that_cannot_be_then_404_and_nothing_of_it_reaches_redis(
    web: WebStage, session_redis_url: str
) -> None:
    with redis.Redis.from_url(session_redis_url, decode_responses=True) as client:

        def names() -> set[str]:
            return {*client.keys("*"), *client.execute_command("PUBSUB", "SHARDCHANNELS")}

        before = names()
        for path, allowed in NOWHERE.items():
            raw = handshake("PATH").replace(b"PATH", path.encode())
            assert status_of(answer_to(web.url, raw)) in allowed, path
        assert names() <= before
    assert not any(path.removeprefix("/ws/") in web.process.hub.rooms for path in NOWHERE)


async def test_h15_process_is_full_then_503_at_once_and_it_says_so_but_lives(
    redis_url: str, database_url: str
) -> None:
    async with web_stage(redis_url, database_url, viewers_max=1) as web:
        show = await web.show()
        viewer = await web.viewer(show)
        for path in (f"/ws/{show}", "/ws/nosuchshow"):  # before anything is looked up
            raw = handshake(path, f"Origin: {FOREIGN}")
            answer = await asyncio.to_thread(answer_to, web.url, raw)
            assert status_of(answer) == 503
            assert b"retry-after: " in answer
        assert (await call("GET", f"{web.url}/livez"))[0] == 200
        status, told = await call("GET", f"{web.url}/readyz")
        assert (status, told["parts"]["door"]) == (503, "failed")
        await viewer.close()


@pytest.fixture
async def system(redis_url: str, database_url: str, tmp_path: Path) -> AsyncIterator[LiveSystem]:
    live = LiveSystem(redis_url, database_url, tmp_path, {"drain_seconds": "0"})
    yield live
    assert await asyncio.to_thread(live.stop) == [0]


async def test_h16_no_descriptors_left_then_it_serves_on_without_spinning(
    system: LiveSystem,
) -> None:
    url = await system.start_web()
    token = token_of("ming", "*", "host")
    made = await call("POST", f"{url}/api/shows", token, {"title": "t"})
    process = psutil.Process(system.processes[0].pid)
    await asyncio.to_thread(exhaust, url, made[1]["show"], process)
    assert "Traceback" not in system.logs()


def exhaust(url: str, show: str, process: psutil.Process) -> None:
    spare = 10
    with RawViewer(url, show) as inside:
        bound = process.num_fds() + spare
        process.rlimit(psutil.RLIMIT_NOFILE, (bound, bound))
        with ExitStack() as crowd:
            for _ in range(5 * spare):
                crowd.enter_context(connect(url))
            before = cpu_seconds(process)
            time.sleep(1)
            assert cpu_seconds(process) - before < 0.3
            assert inside.ask({"t": "time", "ref": 1})["t"] == "accepted"
        wait_until(lambda: comes_in(url, show), "descriptors are free again")


def comes_in(url: str, show: str) -> bool:
    try:
        with RawViewer(url, show) as viewer:
            return bool(viewer.message()["t"] == "welcome")
    except OSError:  # accepted and closed at once: the crowd is not gone yet
        return False


def cpu_seconds(process: psutil.Process) -> float:
    used = process.cpu_times()
    return float(used.user + used.system)
