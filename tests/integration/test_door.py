"""The door over raw sockets: deadlines, caps, and every trap of the hand-over."""

import gc
import itertools
import random
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from server import limits
from server.telemetry import metrics
from server.web import door
from tests.door_stage import (
    BIG_BYTES,
    DoorStage,
    door_stage,
    handshake,
    read_all,
    read_until,
    status_of,
)

# Who comes in the usual way is ushered in at once; the others go through the endpoint.
BOTH_WAYS = pytest.mark.parametrize("path", ["/ws/demo", "/ws/usual"])


@pytest.fixture
def stage() -> Iterator[DoorStage]:
    with door_stage() as running:
        yield running


def wait_until(condition: Callable[[], bool]) -> None:
    """The stage runs in another thread: look until it has got there."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def wait_until_nobody_is_counted(stage: DoorStage) -> None:
    wait_until(lambda: stage.admission.viewers == 0)


# --- The hand-over ----------------------------------------------------------------------------


@BOTH_WAYS
def test_upgrade_when_nothing_comes_early_then_the_viewer_has_the_transport(
    stage: DoorStage, path: str
) -> None:
    with stage.connect() as client:
        client.sendall(handshake(path))
        answer = read_until(client, b"HELLO:")
        assert status_of(answer) == 101
        client.sendall(b"ping")
        assert read_until(client, b"ping") == b"ping"
    wait_until_nobody_is_counted(stage)
    assert stage.early == [0]


@BOTH_WAYS
def test_upgrade_when_a_frame_is_in_the_segment_of_the_handshake_then_it_is_kept(
    stage: DoorStage, path: str
) -> None:
    with stage.connect() as client:
        client.sendall(handshake(path) + b"frame-behind")
        assert read_until(client, b"frame-behind").endswith(b"HELLO:frame-behind")


def test_upgrade_when_frames_come_in_pieces_while_the_endpoint_awaits_then_all_are_kept(
    stage: DoorStage,
) -> None:
    stage.gate.clear()
    with stage.connect() as client:
        client.sendall(handshake() + b"\x81\x85half")
        assert stage.entered.wait(5)
        for piece in (b"-a", b"-frame", b"-and more."):
            client.sendall(piece)
            time.sleep(0.02)  # separate segments
        stage.gate.set()
        assert read_until(client, b"more.").endswith(b"HELLO:\x81\x85half-a-frame-and more.")


@BOTH_WAYS
def test_upgrade_when_the_handshake_comes_byte_by_byte_then_it_works(
    stage: DoorStage, path: str
) -> None:
    with stage.connect() as client:
        for byte in handshake(path) + b"tail":
            client.sendall(bytes((byte,)))
        assert read_until(client, b"tail").endswith(b"HELLO:tail")


@pytest.mark.parametrize("seed", range(12))
@BOTH_WAYS
def test_upgrade_when_the_bytes_are_cut_anywhere_then_all_arrive_once_and_in_order(
    stage: DoorStage, seed: int, path: str
) -> None:
    chance = random.Random(seed)
    sent = handshake(path) + bytes(chance.randrange(1, 256) for _ in range(300)) + b"END"
    cuts = sorted(chance.sample(range(1, len(sent)), 8))
    with stage.connect() as client:
        for begin, end in itertools.pairwise([0, *cuts, len(sent)]):
            client.sendall(sent[begin:end])
            time.sleep(chance.choice((0, 0.002)))  # sometimes a segment of its own
        got = read_until(client, b"END")
    assert got.endswith(b"HELLO:" + sent[len(handshake(path)) :])


@pytest.mark.parametrize(
    ("path", "header", "ushered"),
    [
        ("/ws/usual", "Cookie: a=b", 1),
        ("/ws/usual", "Sec-WebSocket-Protocol: a,,b", 0),
        ("/ws/usual", "Sec-WebSocket-Version: 8", 0),
        ("/ws/usual?token=x", "Cookie: a=b", 0),
        ("/ws/demo", "Cookie: a=b", 0),
    ],
)
def test_upgrade_when_it_is_not_the_usual_one_then_the_endpoint_sees_to_it(
    stage: DoorStage, path: str, header: str, ushered: int
) -> None:
    with stage.connect() as client:
        client.sendall(handshake(path, header))
        assert status_of(client.recv(65_536)) in (101, 400, 426)
    wait_until_nobody_is_counted(stage)
    assert stage.ushered == ushered


def test_upgrade_when_too_much_comes_early_then_the_viewer_is_told_so(stage: DoorStage) -> None:
    stage.gate.clear()
    with stage.connect() as client:
        client.sendall(handshake() + b"x" * (limits.EARLY_BYTES_MAX + 1))
        assert stage.entered.wait(5)
        stage.gate.set()
        read_until(client, b"HELLO:")
    wait_until_nobody_is_counted(stage)
    assert stage.early[0] > limits.EARLY_BYTES_MAX


def test_upgrade_when_the_client_is_gone_before_accept_then_the_place_is_free_again(
    stage: DoorStage,
) -> None:
    stage.gate.clear()
    client = stage.connect()
    client.sendall(handshake())
    assert stage.entered.wait(5)
    client.close()
    wait_until_nobody_is_counted(stage)
    stage.gate.set()
    with stage.connect() as other:
        other.sendall(handshake())
        read_until(other, b"HELLO:")
    wait_until(lambda: sorted(stage.outcomes) == ["gone", "taken"])  # in either order


def test_upgrade_when_the_client_resets_before_accept_then_nothing_is_left(
    stage: DoorStage,
) -> None:
    stage.gate.clear()
    client = stage.connect()
    client.sendall(handshake() + b"early")
    assert stage.entered.wait(5)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    stage.gate.set()
    wait_until_nobody_is_counted(stage)


@pytest.mark.parametrize(("path", "status"), [("/ws/denied", 404), ("/ws/broken", 500)])
def test_upgrade_when_the_endpoint_denies_then_a_real_status_and_the_place_is_free(
    stage: DoorStage, path: str, status: int
) -> None:
    with stage.connect() as client:
        client.sendall(handshake(path) + b"early")
        assert status_of(read_all(client)) == status
    wait_until_nobody_is_counted(stage)


def test_upgrade_when_the_route_is_unknown_then_it_is_refused(stage: DoorStage) -> None:
    with stage.connect() as client:
        client.sendall(handshake("/elsewhere"))
        assert status_of(read_all(client)) in (403, 404)
    wait_until_nobody_is_counted(stage)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (handshake(method="POST"), 405),
        (handshake(key="short"), 400),
        (handshake().replace(b"Version: 13", b"Version: 8"), 400),
        (handshake().replace(b"Sec-WebSocket-Key", b"X-Key"), 400),
        (handshake("/ws/demo", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400),
        (handshake("/ws/demo", "Content-Length: 5"), 400),
        (handshake("/ws/demo", "Transfer-Encoding: chunked"), 400),
        (handshake("/ws/\xff"), 400),
    ],
    ids=["POST", "key", "version", "no key", "two keys", "body", "chunked", "not ascii"],
)
def test_handshake_when_it_is_wrong_then_a_client_error(
    stage: DoorStage, raw: bytes, status: int
) -> None:
    with stage.connect() as client:
        client.sendall(raw)
        assert status_of(read_all(client)) == status
    wait_until_nobody_is_counted(stage)


def test_handshake_when_a_header_is_larger_than_websockets_would_read_then_it_still_works(
    stage: DoorStage,
) -> None:
    with stage.connect() as client:
        client.sendall(handshake("/ws/demo", "Cookie: " + "c" * 9_000))
        assert status_of(read_until(client, b"HELLO:")) == 101


# --- Caps -------------------------------------------------------------------------------------


@BOTH_WAYS
def test_upgrade_when_the_process_is_full_then_503_with_retry_after(path: str) -> None:
    with door_stage(viewers_max=2) as stage:
        inside = [stage.connect() for _ in range(2)]
        for client in inside:
            client.sendall(handshake(path))
            read_until(client, b"HELLO:")
        with stage.connect() as late:
            late.sendall(handshake(path))
            answer = read_all(late)
        assert status_of(answer) == 503
        assert b"retry-after: " in answer
        inside.pop().close()
        wait_for_viewers(stage, 1)
        with stage.connect() as again:
            again.sendall(handshake(path))
            assert status_of(read_until(again, b"HELLO:")) == 101
        inside.pop().close()


def wait_for_viewers(stage: DoorStage, count: int) -> None:
    end = time.monotonic() + 10
    while stage.admission.viewers != count and time.monotonic() < end:
        time.sleep(0.005)
    assert stage.admission.viewers == count


def test_upgrade_when_one_address_has_too_many_then_only_that_one_is_refused() -> None:
    proxy = {"trusted_proxies": "127.0.0.0/8", "viewers_per_address_max": 1}
    with door_stage(**proxy) as stage:
        clients = []
        for address, status in (("198.51.100.7", 101), ("198.51.100.7", 503), ("2001:db8::1", 101)):
            client = stage.connect()
            clients.append(client)
            client.sendall(handshake("/ws/demo", f"X-Forwarded-For: {address}"))
            assert status_of(client.recv(65_536)) == status
        for client in clients:
            client.close()
        wait_until_nobody_is_counted(stage)


@BOTH_WAYS
def test_upgrade_when_handshakes_come_too_fast_then_503(path: str) -> None:
    with door_stage(joins_per_second_max=1) as stage:
        answers = []
        for _ in range(3):
            with stage.connect() as client:
                client.sendall(handshake(path))
                answers.append(status_of(client.recv(65_536)))
        assert answers[0] == 101
        assert 503 in answers


# --- HTTP bounds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * limits.HEADER_BYTES_MAX + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * (limits.HEADER_COUNT_MAX + 1) + b"\r\n", 431),
        (b"GET /" + b"a" * limits.URL_BYTES_MAX + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"NONSENSE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"0\r\n\r\n",
            400,
        ),
    ],
    ids=["bytes", "count", "url", "nonsense", "tls", "smuggling"],
)
def test_request_when_its_head_is_out_of_bounds_then_it_is_refused_at_once(
    stage: DoorStage, raw: bytes, status: int
) -> None:
    with stage.connect() as client:
        client.sendall(raw)
        assert status_of(read_all(client)) == status


def test_request_when_a_header_never_ends_then_431_and_no_memory_is_used_up(
    stage: DoorStage,
) -> None:
    with stage.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nX: ")
        sent = 0
        try:
            while sent < 10_000_000:
                sent += client.send(b"a" * 65_536)
        except OSError:
            pass
        assert status_of(read_all(client)) in (431, 0)  # 0: reset overtook the answer
        assert sent < 10_000_000


def test_request_when_the_trailers_are_many_then_it_is_refused(stage: DoorStage) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with stage.connect() as client:
        client.sendall(head + b"1\r\na\r\n0\r\n" + b"T: 1\r\n" * (limits.HEADER_COUNT_MAX + 1))
        assert status_of(read_all(client)) == 431


def test_request_when_the_body_is_endless_then_413(stage: DoorStage) -> None:
    with stage.connect() as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        try:
            for _ in range(100):
                client.sendall(b"b" * 65_536)
        except OSError:
            pass
        assert status_of(read_all(client)) in (413, 0)


@pytest.fixture
def short_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HEADER_SECONDS", 0.3)


@pytest.mark.usefixtures("short_deadline")
@pytest.mark.parametrize(
    "begin",
    [b"", b"GET / HT", b"\r\n", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"],
    ids=["silent", "half a head", "empty lines", "half a body"],
)
def test_connection_when_the_request_is_not_complete_in_time_then_408_and_closed(
    stage: DoorStage, begin: bytes
) -> None:
    with stage.connect() as client:
        client.sendall(begin)
        assert status_of(read_all(client)) == 408


@pytest.mark.usefixtures("short_deadline")
def test_connection_when_bytes_keep_dripping_then_the_deadline_still_stands(
    stage: DoorStage,
) -> None:
    with stage.connect() as client:
        got = b""
        client.settimeout(0.05)
        for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 1_000:
            try:
                client.sendall(bytes((byte,)))
                got += client.recv(65_536)
                break
            except TimeoutError:
                continue
            except OSError:
                break
        assert status_of(got) in (408, 0)


@pytest.mark.usefixtures("short_deadline")
def test_connection_when_it_is_kept_then_each_request_has_its_own_deadline(
    stage: DoorStage,
) -> None:
    with stage.connect() as client:
        for _ in range(3):
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert status_of(read_until(client, b"127.0.0.1:0")) == 200
            time.sleep(0.2)  # idle, within keep-alive: no deadline runs
        client.sendall(b"GET / HT")
        assert status_of(read_all(client)) == 408


@pytest.mark.usefixtures("short_deadline")
def test_connection_when_it_was_upgraded_then_no_deadline_is_left(stage: DoorStage) -> None:
    with stage.connect() as client:
        client.sendall(handshake())
        read_until(client, b"HELLO:")
        time.sleep(0.5)
        client.sendall(b"still here")
        assert read_until(client, b"still here") == b"still here"


def test_answer_when_the_client_does_not_read_it_then_it_is_cut_off(
    stage: DoorStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STALL_SECONDS", 0.2)
    with stage.connect() as client:
        client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1)
        end = time.monotonic() + 10
        while stage.server.server_state.connections and time.monotonic() < end:
            time.sleep(0.005)
        assert len(read_all(client)) < BIG_BYTES


def test_answer_when_the_client_reads_it_late_then_it_gets_all(stage: DoorStage) -> None:
    with stage.connect() as client:
        client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        time.sleep(0.2)
        assert len(read_all(client)) > BIG_BYTES


def test_requests_when_they_are_pipelined_then_all_are_answered(stage: DoorStage) -> None:
    with stage.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 5)
        got = b""
        while got.count(b"127.0.0.1:0") < 5:
            got += client.recv(65_536)
        assert got.count(b"HTTP/1.1 200") == 5


@BOTH_WAYS
def test_upgrade_when_it_stands_behind_an_unanswered_request_then_it_is_refused(
    stage: DoorStage, path: str
) -> None:
    stage.gate.clear()
    with stage.connect() as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        assert stage.entered.wait(5)
        client.sendall(handshake(path))
        assert status_of(read_all(client)) == 400
    stage.gate.set()
    assert stage.admission.viewers == 0


@BOTH_WAYS
def test_upgrade_when_it_stands_behind_an_answered_request_then_it_works(
    stage: DoorStage, path: str
) -> None:
    with stage.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(client, b"127.0.0.1:0")
        client.sendall(handshake(path))
        assert status_of(read_until(client, b"HELLO:")) == 101


@BOTH_WAYS
def test_upgrade_when_an_earlier_answer_is_not_taken_yet_then_it_is_refused(
    stage: DoorStage, path: str
) -> None:
    """The viewer would not learn that its transport is full, and its frames could come before the
    rest of that answer."""
    with stage.connect() as client:
        client.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1, socket.MSG_PEEK)  # it is answered, and most of that waits
        refused = metrics.http_refused.count("400")
        client.sendall(handshake(path))
        wait_until(lambda: metrics.http_refused.count("400") > refused)
        whole = read_all(client)
    head, _, rest = whole.partition(b"\r\n\r\n")
    assert status_of(head) == 200
    assert rest[:BIG_BYTES] == b"x" * BIG_BYTES
    assert status_of(rest[BIG_BYTES:]) == 400
    wait_until_nobody_is_counted(stage)


def test_connections_when_there_are_too_many_then_503_without_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.web.admission.HTTP_CONNECTIONS_SPARE", 2)
    with door_stage(viewers_max=1) as stage:
        silent = [stage.connect() for _ in range(3)]
        time.sleep(0.1)
        with stage.connect() as late:
            assert status_of(read_all(late)) == 503
        for client in silent:
            client.close()


# --- Addresses --------------------------------------------------------------------------------


def test_address_when_the_peer_is_no_trusted_proxy_then_forwarded_for_is_ignored(
    stage: DoorStage,
) -> None:
    with stage.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n")
        assert b"127.0.0.1:0" in read_until(client, b":0")


def test_raw_response_when_made_then_it_is_whole() -> None:
    raw = door.raw_response(503, retry_after=7)
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"retry-after: 7" in head
    assert b"content-length: %d" % len(body) in head


@BOTH_WAYS
def test_viewers_when_they_come_and_go_then_nothing_of_the_door_is_left_for_the_collector(
    stage: DoorStage, path: str
) -> None:
    left = ("ServerProtocol", "BoundDoorHttpProtocol", "BoundDoorWebSocketProtocol", "WebSocket")

    def alive() -> dict[str, int]:
        kinds = [type(thing).__name__ for thing in gc.get_objects()]
        return {name: kinds.count(name) for name in left}

    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(20):
            with stage.connect() as client:
                client.sendall(handshake(path))
                read_until(client, b"HELLO:")
        wait_until_nobody_is_counted(stage)
        assert alive() == before
    finally:
        gc.enable()
