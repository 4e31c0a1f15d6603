"""Where web processes listen: ports of several, TLS, and who answers while nobody serves."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from server import config
from server.errors import Misconfigured
from server.web import listeners, processes
from server.web.listeners import INTERNAL, PUBLIC


def test_cores_when_there_is_one_then_there_is_still_a_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for cores, expected in ((1, 1), (2, 1), (8, 7)):
        cpus = set(range(cores))
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cpus=cpus: cpus, raising=False)
        assert processes.processes_by_cores() == expected


OpenSlots = Callable[..., list[processes.Slot]]


@pytest.fixture
def open_slots(tmp_path: Path) -> Iterator[OpenSlots]:
    """So many slots; closed after the test."""
    opened: list[processes.Slot] = []

    def make(count: int, **settings: Any) -> list[processes.Slot]:
        opened.extend(processes.open_slots(config.Settings(port=0, **settings), count, tmp_path))
        return opened

    yield make
    for slot in opened:
        for each in slot.sockets.values():
            each.close()


def test_slots_when_they_are_opened_then_they_share_a_port_and_not_the_internal_one(
    open_slots: OpenSlots,
) -> None:
    slots = open_slots(3)
    assert len({slot.url for slot in slots}) == 1
    assert len({slot.sockets[INTERNAL].getsockname() for slot in slots}) == 3
    with pytest.raises(ConnectionRefusedError):  # nobody serves yet
        socket.create_connection(slots[0].sockets[PUBLIC].getsockname())


def test_internal_port_when_there_are_several_processes_then_they_have_one_after_the_other() -> (
    None
):
    settings = config.Settings(internal_port=9100)
    assert [processes.internal_port(settings, number) for number in (1, 2)] == [9100, 9101]
    assert processes.internal_port(config.Settings(), 2) == 0
    with pytest.raises(Misconfigured, match="port 65536"):
        processes.internal_port(config.Settings(internal_port=65535), 2)


def test_internal_port_when_it_is_the_public_one_then_refused() -> None:
    settings = config.Settings(port=8001, internal_port=8000)
    assert processes.internal_port(settings, 1) == 8000
    with pytest.raises(Misconfigured, match="LIVESALE_INTERNAL_PORT"):
        processes.internal_port(settings, 2)
    with pytest.raises(Misconfigured, match="LIVESALE_INTERNAL_PORT"):
        listeners.open_listeners(config.Settings(port=8000, internal_port=8000))


def test_own_socket_when_somebody_listens_there_then_refused() -> None:
    with listeners.own_socket("127.0.0.1", 0) as first:
        first.listen()
        with pytest.raises(Misconfigured, match="cannot listen"):
            listeners.own_socket("127.0.0.1", first.getsockname()[1])


async def test_caller_when_a_process_is_long_away_then_he_hears_when_to_come_again(
    open_slots: OpenSlots,
) -> None:
    (slot,) = open_slots(1)
    where = slot.sockets[PUBLIC].getsockname()
    pause = asyncio.create_task(slot._pause(60))
    answer = b""
    while not answer:
        with suppress(ConnectionRefusedError):  # not listening yet
            answer = await answer_to(await call(where))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2\r\n" in answer
    pause.cancel()
    await asyncio.wait({pause})
    socket.create_connection(where).close()  # the slot's queue is still there


async def test_stop_when_callers_wait_and_there_is_no_process_then_they_are_answered(
    open_slots: OpenSlots,
) -> None:
    (slot,) = open_slots(1)
    slot.sockets[PUBLIC].listen()
    where = slot.sockets[PUBLIC].getsockname()
    callers = [await call(where) for _ in range(20)]
    answers = [asyncio.create_task(answer_to(caller)) for caller in callers]
    await slot.stop()
    assert all(task.done() for task in answers)  # whoever started us may end now
    for answer in await asyncio.gather(*answers):
        assert answer.startswith(b"HTTP/1.1 503 ")
    with pytest.raises(ConnectionRefusedError):
        await call(where)


Caller = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def call(where: tuple[str, int]) -> Caller:
    reader, writer = await asyncio.open_connection(*where)
    writer.write(b"GET / HTTP/1.1\r\n")
    return reader, writer


async def answer_to(caller: Caller) -> bytes:
    reader, writer = caller
    answer = await reader.read()
    writer.close()
    return answer


def test_tls_when_only_one_file_is_named_then_it_is_refused() -> None:
    for fields in ({"tls_cert": "cert.pem"}, {"tls_key": "key.pem"}):
        with pytest.raises(Misconfigured, match="both or none"):
            config.load(**fields)


def test_tls_when_a_file_cannot_be_used_then_the_fault_is_named(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    settings = config.Settings(tls_cert=str(cert), tls_key=str(key))
    with pytest.raises(Misconfigured, match="No such file"):
        listeners.tls_context(settings)
    for path in (cert, key):
        path.write_text("no certificate")
    with pytest.raises(Misconfigured, match=str(cert)):
        listeners.tls_context(settings)
