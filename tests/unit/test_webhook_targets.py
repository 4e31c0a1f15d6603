"""Which URLs webhooks go to: nothing inside of the operator's network, however it is written."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from server.webhooks.send import Answer, Outgoing, Post, SystemResolver, open_post
from server.webhooks.sign import new_secret
from server.webhooks.target import (
    TargetRefused,
    parse_target,
    require_public,
    require_target,
)
from tests.receiver import Receiver, receiving

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

INSIDE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255",
    "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.100.100.200", "198.18.0.1",
    "192.0.0.192", "192.0.2.1", "168.63.129.16", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
    "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2001:db8::1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a00:1::1",
    "2001:0:7f00:1::80ff:fffe", "100::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"]


class Names:
    """A name server that answers what it is told, a different answer each time if told several."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def addresses(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return list(found)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        made.secret = new_secret()
        yield made


@pytest.mark.parametrize("address", INSIDE)
async def test_address_when_it_is_inside_then_refused_literally_and_behind_a_name(
    address: str,
) -> None:
    with pytest.raises(TargetRefused):
        require_public(address)
    host = f"[{address}]" if ":" in address else address
    with pytest.raises(TargetRefused):
        await require_target(f"https://{host}/x", Names(["1.1.1.1"]), allow_private=False)
    with pytest.raises(TargetRefused):
        await require_target("https://a.test/", Names(["1.1.1.1", address]), allow_private=False)


@pytest.mark.parametrize("address", OUTSIDE)
async def test_address_when_it_is_public_then_accepted(address: str) -> None:
    require_public(address)
    await require_target("https://shop.test:8443/hook?a=1", Names([address]), allow_private=False)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://a.test/", "file:///etc/passwd", "gopher://a.test/", "javascript:1", "//a.test/", "",
        "https://", "https:///x", "https://user@a.test/", "https://user:pw@a.test/",
        "https://:pw@a.test/", "https://a.test/#x", "https://a.test:0/", "https://a.test:22/",
        "https://a.test:25/", "https://a.test:99999/", "http://2130706433/", "http://0x7f000001/",
        "http://0x7f.1/", "http://017700000001/", "http://0177.0.0.1/", "http://127.1/",
        "http://127.0.1/", "http://0/", "http://1.1.1.1.:0/", "http://[::1", "http://a.0x7f/",
        "https://a.test/" + "x" * 1100,
    ],
)  # fmt: skip
def test_url_when_it_is_odd_then_refused_before_any_name_is_looked_up(url: str) -> None:
    with pytest.raises(TargetRefused):
        parse_target(url, allow_private=False)


async def test_name_when_unknown_then_refused() -> None:
    with pytest.raises(TargetRefused, match="cannot be resolved"):
        await require_target("https://a.test/", Names([]), allow_private=False)


async def test_private_target_when_allowed_then_accepted() -> None:
    await require_target("http://127.0.0.1:9/", Names([]), allow_private=True)
    with pytest.raises(TargetRefused):
        await require_target("http://user@127.0.0.1/", Names([]), allow_private=True)


# --- The address that is connected to ---------------------------------------------------------


async def attempt(post: Post, receiver: Receiver, host: str = "") -> Answer:
    url = receiver.url.replace("127.0.0.1", host) if host else receiver.url
    return await post.send(Outgoing(url, receiver.secret, "msg_1", '{"a": "汉"}'))


async def test_name_when_it_resolves_to_the_inside_later_then_nobody_is_connected_to(
    receiver: Receiver,
) -> None:
    names = Names(["93.184.216.34"], ["127.0.0.1"])
    await require_target("http://rebinding.test:8080/", names, allow_private=False)
    async with open_post(names, allow_private=False) as post:
        answer = await attempt(post, receiver, "rebinding.test")
    assert answer == Answer(0, "the host's address is not public")
    assert receiver.requests == []


@pytest.mark.parametrize("host", ["", "2130706433", "0x7f.1", "127.1"])
async def test_literal_when_it_is_inside_then_nobody_is_connected_to(
    receiver: Receiver, host: str
) -> None:
    async with open_post(Names(["127.0.0.1"]), allow_private=False) as post:
        assert (await attempt(post, receiver, host)).status == 0
    assert receiver.requests == []


async def test_name_when_private_targets_are_allowed_then_the_message_arrives_signed(
    receiver: Receiver,
) -> None:
    async with open_post(Names(["127.0.0.1"]), allow_private=True) as post:
        assert await attempt(post, receiver, "inside.test") == Answer(200)
    assert receiver.messages() == [{"a": "汉", "id": "msg_1"}]
    headers, _ = receiver.requests[0]
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("livesale/")


async def test_target_when_nobody_listens_then_the_answer_says_so() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    async with open_post(Names([]), allow_private=True) as post:
        answer = await post.send(Outgoing(url, new_secret(), "msg_1", "{}"))
    assert answer.status == 0
    assert answer.error


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    """URL of a server whose only connection is handled by `talk`; ends when that has ended."""
    ended = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await talk(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with asyncio.timeout(5):
            await ended.wait()


async def test_target_when_its_answer_never_ends_then_its_head_counts() -> None:
    """An answer's body is not read, however long it is: the connection is closed."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await writer.drain()

    async with serving(talk) as url, open_post(Names([]), allow_private=True) as post:
        answer = await post.send(Outgoing(url, new_secret(), "msg_1", "{}"))
    assert answer == Answer(200)


async def test_target_when_it_is_silent_then_the_attempt_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("server.limits.WEBHOOK_SECONDS", 0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as url, open_post(Names([]), allow_private=True) as post:
        answer = await post.send(Outgoing(url, new_secret(), "msg_1", "{}"))
    assert answer.status == 0
    assert answer.is_overloaded


async def test_system_resolver_when_asked_for_this_machine_then_it_knows_it() -> None:
    resolver = SystemResolver()
    try:
        assert "127.0.0.1" in await resolver.addresses("localhost", 80)
    finally:
        resolver.close()
