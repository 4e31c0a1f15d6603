"""One attempt to tell a target something: a POST without redirects, with bounds on everything."""

import asyncio
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

import server
from server import clock, limits
from server.webhooks.sign import signed_headers
from server.webhooks.target import Resolver, TargetRefused, parse_target, require_public

CONNECT_SECONDS: Final = 5.0
ANSWER_BUFFER_BYTES: Final = 16 * 1024  # of an answer's body, which nobody reads
NAMES_KEPT_SECONDS: Final = 30
LOOKUPS_MAX: Final = 16  # names looked up at the same time; a slow name server holds a thread


class Outgoing(NamedTuple):
    """A message for one target. `body`: JSON text; `webhook_id` is the same in every attempt."""

    url: str
    secret: str
    webhook_id: str
    body: str


class Answer(NamedTuple):
    """What became of an attempt. `status` 0: no answer, `error` says why; the target may still
    have got the message. Nothing of an answer's content is kept."""

    status: int
    error: str = ""

    @property
    def is_delivered(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_gone(self) -> bool:
        return self.status == 410

    @property
    def is_overloaded(self) -> bool:
        """Nothing that is sent to this target now has a chance."""
        return self.status in (0, 429, 502, 503, 504)


class SystemResolver:
    """Looks names up by the system's resolver, in threads of its own."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS_MAX, "lookup")

    async def addresses(self, host: str, port: int) -> list[str]:
        """All addresses of `host`. Raises OSError, also after CONNECT_SECONDS."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.run_in_executor(self._threads, _look_up, host, port)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Without waiting for name servers that are silent."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class _Lookup(AbstractResolver):
    """A Resolver in the form that the HTTP client wants."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._resolver.addresses(host, port)
        ]

    async def close(self) -> None:
        """The resolver belongs to whoever made it."""


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for an address that is about to be connected to. Raises OSError if not public."""
    family, kind, proto, _, where = address
    try:
        require_public(str(where[0]))
    except TargetRefused as refusal:
        raise PermissionError(str(refusal)) from None
    return socket.socket(family, kind, proto)


class Post:
    """Sends messages. `allow_private`: also to addresses that are not public."""

    def __init__(self, session: aiohttp.ClientSession, *, allow_private: bool) -> None:
        self._session = session
        self._allow_private = allow_private

    async def send(self, message: Outgoing) -> Answer:
        """One attempt; at most WEBHOOK_SECONDS. Never raises for what a target does."""
        try:
            url = parse_target(message.url, allow_private=self._allow_private)
            async with asyncio.timeout(limits.WEBHOOK_SECONDS):
                return await self._post(url, message)
        except TimeoutError:
            return Answer(0, f"no answer within {limits.WEBHOOK_SECONDS:.0f} s")
        except TargetRefused as refusal:
            return Answer(0, str(refusal))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(0, _told(error))

    async def _post(self, url: URL, message: Outgoing) -> Answer:
        signed = signed_headers(
            message.secret, message.webhook_id, clock.now_ms() // 1000, message.body
        )
        headers = {"Content-Type": "application/json", **signed}
        async with self._session.post(
            url, data=message.body.encode(), headers=headers, allow_redirects=False
        ) as response:
            error = "" if response.ok and response.status < 300 else f"HTTP {response.status}"
            return Answer(response.status, error)


def _told(error: Exception) -> str:
    """What to keep of a failure: its kind, and our own reason where the address was refused."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host's name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError):
        return error.os_error.strerror or str(error.os_error) or "cannot connect"
    return type(error).__name__


@asynccontextmanager
async def open_post(resolver: Resolver, *, allow_private: bool) -> AsyncIterator[Post]:
    """A sender whose connections end with the block.

    No cookies, no proxy from the environment; connections are used again, names looked up again
    after NAMES_KEPT_SECONDS.
    """
    connector = aiohttp.TCPConnector(
        limit=limits.WEBHOOKS_IN_HAND_MAX,
        resolver=_Lookup(resolver),
        ttl_dns_cache=NAMES_KEPT_SECONDS,
        socket_factory=None if allow_private else _public_socket,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"livesale/{server.__version__}"},
        auto_decompress=False,
        read_bufsize=ANSWER_BUFFER_BYTES,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
    )
    async with session:
        yield Post(session, allow_private=allow_private)
