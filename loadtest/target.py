"""Whom a run tests: addresses, tokens, the host API, and what may be done to its parts.

A run makes a show of its own, sells there, and ends it. It never touches another one.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jwt
import msgspec
import redis
import redis.asyncio as aioredis

from loadtest import process
from loadtest.scenario import SaleTerms, Usage
from loadtest.stand import HOST, Stand, stand
from server import config
from server.embedded.data import DataDirectory
from server.protocol.messages import SUBPROTOCOL_MSGPACK, Time

TOKEN_SECONDS: Final = 2 * 3600
CLOCK_SAMPLES: Final = 20
CLOCK_PAUSE_S: Final = 0.02  # below the pace that the server allows
CALL_SECONDS: Final = 30.0
SERVER_NICE: Final = 5  # a third of a loader's weight
TITLE: Final = "load test"
NOT_SINGLE: Final = (
    "the audit reads one Redis server, not Sentinels or a Cluster: give --url without --redis-url, "
    "and only what clients see is audited"
)


class OpenedSale(NamedTuple):
    """A sale that was made; `opens_at`: ms of Redis time."""

    sale: int
    price_version: int
    opens_at: int


class Clock(NamedTuple):
    """Redis' clock as seen from here: its µs are those of ours (monotonic) and `offset_us`.

    Wrong by at most `error_us`, half of the quickest round trip.
    """

    offset_us: int
    error_us: int


class Parts(Protocol):
    """Processes that faults are done to (loadtest/stand.py)."""

    def part(self, name: str) -> list[int]: ...

    async def stop_for(self, name: str, seconds: float) -> None: ...

    async def kill_and_start(self, name: str, seconds: float) -> None: ...

    async def restart(self, name: str) -> None: ...


class Target(Protocol):
    """What a run needs of whom it tests. `show` is empty until it is opened."""

    show: str
    urls: Sequence[str]  # one per room
    redis_url: str  # both empty: no witness, no audit of the books
    database_url: str
    source_net: str
    parts: Parts | None

    async def open_show(self, run: str, title: str) -> None: ...

    async def open_sale(
        self, terms: SaleTerms, opens_at_ms: int, duration_s: int
    ) -> OpenedSale: ...

    async def end_show(self) -> None: ...

    async def clock(self) -> Clock: ...

    def tokens(self, users: Sequence[str]) -> list[str]: ...

    def facts(self) -> dict[str, Any]: ...

    def cpu_us(self) -> dict[str, float]: ...


# --- A server that we were given -----------------------------------------------------------------


class Server:
    """A livesale reached by HTTP. Host tokens are minted with `secret`, or `credentials` has them.

    Raises Usage when it refuses what a host may do, or does not answer.
    """

    source_net = "127.0.0"
    parts: Parts | None = None

    def __init__(
        self, urls: Sequence[str], *, secret: str = "", credentials: "Credentials | None" = None,
        redis_url: str = "", database_url: str = "", started_by: str = "",
    ) -> None:  # fmt: skip
        self.urls: Sequence[str] = list(urls)
        self.redis_url, self.database_url = redis_url, database_url
        self.show = ""
        self._secret = secret
        self._credentials = credentials
        self._started_by = started_by

    # --- Who we are ---------------------------------------------------------------------------

    def _minted(self, role: str, user: str, show: str) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {"sub": user, "name": user[-24:], "role": role, "show": show}
        claims |= {"aud": "livesale", "iat": now, "exp": now + TOKEN_SECONDS}
        return jwt.encode(claims, self._secret, "HS256")

    @property
    def _host_token(self) -> str:
        if self._credentials is not None:
            return self._credentials.host
        return self._minted("host", HOST, self.show or "*")

    def tokens(self, users: Sequence[str]) -> list[str]:
        """A token for each of them, in order. Raises Usage: there are not enough."""
        if self._credentials is not None:
            return self._credentials.taken(users)
        return [self._minted("viewer", user, self.show) for user in users]

    # --- What a host does ---------------------------------------------------------------------

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """One call of the host API. Raises Usage: it was refused, or nobody answers."""
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
        headers = {"Authorization": f"Bearer {self._host_token}"}
        url = self.urls[0] + path
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers) as session,
                session.request(method, url, json=body, allow_redirects=False) as answer,
            ):
                if answer.status >= 300:
                    text = (await answer.text())[:200]
                    raise Usage(f"{method} {url}: {answer.status} {text}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Usage(f"{url} does not answer: {error or type(error).__name__}") from None

    async def open_show(self, run: str, title: str) -> None:
        """A new show, live. With tokens of its own it is the one they are for, if it is new."""
        if self._credentials is None:
            show = await self.call("POST", "/api/shows", {"title": f"{title or TITLE} {run}"[:60]})
            self.show = show["show"]
        else:
            show = await self.call("GET", f"/api/shows/{self._credentials.show}")
            if show["status"] != "scheduled":
                raise Usage("the show of these tokens has begun already: make a new one")
            self.show = self._credentials.show
        await self.call("POST", f"/api/shows/{self.show}/start")

    async def open_sale(self, terms: SaleTerms, opens_at_ms: int, duration_s: int) -> OpenedSale:
        """A product with one sku, and a sale of all of it that opens at `opens_at_ms`."""
        api = f"/api/shows/{self.show}"
        sku = {"title": TITLE, "price": terms.list_price, "currency": "CNY"}
        product = await self.call(
            "POST",
            f"{api}/products",
            {"title": TITLE, "skus": [{**sku, "inventory": terms.units}]},
        )
        body = {"sku": product["skus"][0]["sku"], "price": terms.price, "units": terms.units}
        body |= {"limit_per_buyer": terms.limit, "pay_within_s": terms.pay_within_s}
        body |= {"duration_s": duration_s, "start": "at", "starts_at": opens_at_ms}
        sale = await self.call("POST", f"{api}/sales", body)
        return OpenedSale(sale["sale"], sale["price_version"], sale["opens_at"])

    async def end_show(self) -> None:
        """End the run's show; nothing happens when there is none, or nobody answers."""
        if self.show:
            with suppress(Usage):
                await self.call("POST", f"/api/shows/{self.show}/end")

    async def clock(self) -> Clock:
        """Cristian's algorithm over `time` commands of one viewer: the quickest reply counts."""
        return await clock_of(f"{self.urls[0]}/ws/{self.show}")

    # --- What it is ---------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """For the summary: where, never who."""
        hosts = ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in self.urls)
        return {"host": hosts, "started_by": self._started_by}

    def cpu_us(self) -> dict[str, float]:
        """CPU time in µs that each part has used so far; here nobody knows."""
        return {}


def here_only() -> aiohttp.TraceConfig:
    """For sessions that open WebSockets, which follow redirects otherwise: whoever answers may not
    send us to a host that nobody allowed us to load. The request raises aiohttp.ClientError."""

    async def refuse(
        _: aiohttp.ClientSession, __: SimpleNamespace, told: aiohttp.TraceRequestRedirectParams
    ) -> None:
        told.response.close()
        raise aiohttp.ClientError("it redirects")

    config = aiohttp.TraceConfig()
    config.on_request_redirect.append(refuse)
    return config


async def clock_of(url: str) -> Clock:
    """The clock behind a viewer's address, http(s)://HOST/ws/SHOW. Raises Usage."""
    best = Clock(0, 1 << 62)
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=CALL_SECONDS), trace_configs=[here_only()]
            ) as session,
            session.ws_connect(
                url, protocols=(SUBPROTOCOL_MSGPACK,), origin=url.partition("/ws/")[0]
            ) as viewer,
        ):
            for ref in range(1, CLOCK_SAMPLES + 1):
                best = min(best, await _reading(viewer, ref), key=lambda each: each.error_us)
                await asyncio.sleep(CLOCK_PAUSE_S)
    except (aiohttp.ClientError, TimeoutError) as error:
        where = url.partition("?")[0]  # a ticket may follow; what aiohttp says may have it too
        why = str(error) or type(error).__name__
        if isinstance(error, aiohttp.ClientResponseError):
            why = f"{error.status} {error.message}"
        raise Usage(f"{where} does not answer: {why}") from None
    return best


async def _reading(viewer: aiohttp.ClientWebSocketResponse, ref: int) -> Clock:
    sent_ns = time.monotonic_ns()
    await viewer.send_bytes(msgspec.msgpack.encode(Time(ref)))
    while True:
        frame = msgspec.msgpack.decode(await viewer.receive_bytes(timeout=CALL_SECONDS))
        now_ns = time.monotonic_ns()
        if frame.get("ref") == ref and frame.get("t") == "accepted":
            here_us = (sent_ns + now_ns) // 2000
            # Redis says whole ms: its µs are half of one later in the mean.
            return Clock(frame["time"]["now"] * 1000 + 500 - here_us, (now_ns - sent_ns) // 2000)


# --- A server that we start ----------------------------------------------------------------------


class Started(Server):
    """A livesale of our own (`--up`): one web process per room, each with its own port."""

    def __init__(self, running: Stand, ports: Sequence[int]) -> None:
        super().__init__(
            [f"http://127.0.0.1:{port}" for port in ports],
            secret=running.secret,
            redis_url=running.valkey.url,
            database_url=running.database_url,
            started_by="--up",
        )
        self._running = running
        self.parts = running

    def cpu_us(self) -> dict[str, float]:
        """By web, worker, valkey, postgres; what is down right now counts nothing."""
        used: dict[str, float] = {}
        for part in self._running.parts():
            name = part.partition("-")[0]
            spent = sum(map(process.cpu_of, self._running.part(part)))
            used[name] = used.get(name, 0.0) + spent
        return used


@asynccontextmanager
async def started(
    rooms: int, *, root: Path | None = None, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Started]:
    """Start a livesale with the limits of production, and stop it at the end.

    Where loaders share its cores they go first: what comes late is then the server's doing.
    `root`: another tree whose server is started. `settings`: LIVESALE_ names.
    """
    given = {"LIVESALE_DEMO": "1", "LIVESALE_DRAIN_SECONDS": "1", **(settings or {})}
    async with stand(roomy=False, settings=given, root=root, nice=SERVER_NICE) as running:
        await running.start_web()
        ports = [running.port]
        for _ in range(1, rooms):
            ports.append((await running.start_another_web())[1])
        running.start_worker()
        yield Started(running, ports)


def running_here(data: Path) -> Server:
    """The `livesale up` at work in a data directory. Raises Usage: there is none."""
    directory = DataDirectory(data)
    running = directory.running()
    if running is None or not running.http:
        raise Usage(
            f"nothing runs in {data}: give --up to start a server, or --url, or run `livesale up`"
        )
    settings = config.load()
    given = settings.model_fields_set
    return Server(
        [running.http],
        secret=settings.secret.get_secret_value() or directory.secret(),
        redis_url=running.redis_url or (settings.redis_url if "redis_url" in given else ""),
        database_url=running.database_url
        or (settings.database_url if "database_url" in given else ""),
        started_by="livesale up",
    )


def is_single(redis_url: str) -> bool:
    """Whether an address is that of one Redis server (server/store/address.py has the others)."""
    return "+" not in urlsplit(redis_url).scheme


async def require_single(redis_url: str) -> None:
    """Raises Usage when Redis does not answer, or is behind Sentinels or a Cluster, where witness
    and audit, which ask one server, would find half of the truth. Empty: nobody asks."""
    if not redis_url:
        return
    is_one = is_single(redis_url)
    try:
        if is_one:
            async with aioredis.Redis.from_url(redis_url) as client:
                is_one = not (await client.info("cluster")).get("cluster_enabled")
    except (OSError, ValueError, redis.RedisError) as error:
        raise Usage(f"Redis does not answer: {type(error).__name__}") from None
    if not is_one:
        raise Usage(NOT_SINGLE)


def secret_given() -> str:
    """LIVESALE_SECRET, or an empty string."""
    return config.load().secret.get_secret_value()


# --- Tokens that were given ----------------------------------------------------------------------


class Credentials:
    """Tokens from a file, a line each: one of a host, the others of viewers named lt-RUN-..., all
    for one show that has not begun. Raises Usage when they are not that."""

    def __init__(self, path: Path) -> None:
        try:
            lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
            claims = [jwt.decode(line, options={"verify_signature": False}) for line in lines]
        except (OSError, ValueError, jwt.InvalidTokenError) as error:
            raise Usage(f"{path}: {error}") from None
        people = [
            (token, str(claim.get("sub", "")))
            for token, claim in zip(lines, claims, strict=True)
            if claim.get("role") != "host"
        ]
        hosts = [token for token, claim in zip(lines, claims, strict=True)
                 if claim.get("role") == "host"]  # fmt: skip
        shows = {str(claim.get("show")) for claim in claims} - {"*"}
        runs = {user.split("-")[1] for _, user in people if user.startswith("lt-")}
        if not hosts or len(shows) != 1 or len(runs) > 1:
            raise Usage(f"{path}: needs a host's token and viewers' of one run, for one show")
        if not all(user.startswith("lt-") for _, user in people):
            raise Usage(f"{path}: viewers are named lt-RUN-..., so that they cannot be anybody's")
        self.host, self.show = hosts[0], shows.pop()
        self.run = runs.pop() if runs else ""
        self._bots = [token for token, user in people if user.rpartition("-")[2][:1] == "x"]
        self._people = [token for token, user in people if user.rpartition("-")[2][:1] != "x"]

    def taken(self, users: Sequence[str]) -> list[str]:
        """Tokens for as many people and bots (named lt-RUN-x...), each once."""
        made = []
        for user in users:
            left = self._bots if user.rpartition("-")[2][:1] == "x" else self._people
            if not left:
                raise Usage(
                    "there are fewer tokens than people: more in --tokens, or a smaller crowd"
                )
            made.append(left.pop(0))
        return made


# --- Safety --------------------------------------------------------------------------------------


def hosts_of(url: str) -> list[str]:
    """The hosts an address names; none for a unix socket. Raises Usage: it is no address."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return []
    listed = [each for key in ("host", "hostaddr") for each in parse_qs(parts.query).get(key, [])]
    netloc = parts.netloc.rpartition("@")[2]
    listed += [urlsplit(f"//{each}").hostname or "" for each in netloc.split(",") if each]
    named = [host for one in listed for host in one.split(",") if not host.startswith("/")]
    if not (parts.scheme and listed) or "" in named:
        raise Usage(f"no address: {netloc or url}")
    return named


async def require_here(urls: Sequence[str]) -> None:
    """Raises Usage unless every address of every host named is this machine's loopback."""
    loop = asyncio.get_running_loop()
    for host in (host for url in urls if url for host in hosts_of(url)):
        try:
            found = {each[4][0] for each in await loop.getaddrinfo(host, None)}
        except OSError as error:
            raise Usage(f"{host}: {error.strerror or error}") from None
        if not all(_is_loopback(str(each)) for each in found):
            raise Usage(
                f"{host} is not this machine: a load test is an attack on whom it does not belong "
                "to; if it is yours, say --i-own-this-host"
            )


def _is_loopback(address: str) -> bool:
    found = ip_address(address.partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback
