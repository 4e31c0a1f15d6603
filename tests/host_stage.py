"""A host API on real servers, without sockets: what its tests share."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from starlette.applications import Starlette

from server import limits
from server.acts.host_acts import HostActs
from server.acts.timetable import Timetable
from server.errors import StoreUnavailable
from server.orders.worker import ShowConsumer, Tools
from server.records.pool import Pool, open_pool
from server.store import keys
from server.store.client import RedisClients
from server.store.room import RoomStore
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import ClaimAnswer, ClaimRequest
from server.web import auth, viewer_api
from server.web.host_api import ENDPOINTS
from server.web.host_numbers import NumbersDesk
from server.web.openapi import openapi_route

SECRET = b"a secret of the tests, long enough for HS256"


class MovableClock:
    """Redis time that a test can move."""

    def __init__(self, now_ms: int) -> None:
        self.now = now_ms

    def now_ms(self) -> int:
        return self.now


class FlakyScripts(Scripts):
    """Scripts whose calls fail on command: `lost` ones do not arrive (but may later, by
    `deliver`), `cut` ones run but lose the reply."""

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self.lost: set[str] = set()
        self.cut: set[str] = set()
        self._on_the_way: list[tuple[str, Sequence[str], Sequence[Any]]] = []

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self.lost & {name, "all"}:
            self._on_the_way.append((name, keys, args))
            raise StoreUnavailable("lost on the way")
        reply = await super().run(name, keys, args)
        if self.cut & {name, "all"}:
            raise StoreUnavailable("reply lost")
        return reply

    async def deliver(self) -> list[Any]:
        """Run what was lost, late; the replies."""
        return [await super(FlakyScripts, self).run(*call) for call in self._on_the_way]


@dataclass
class Stage:
    """The parts behind the API, and a client of it."""

    pool: Pool
    clients: RedisClients
    scripts: FlakyScripts
    stock: Stock
    room_store: RoomStore
    clock: MovableClock
    acts: HostActs
    timetable: Timetable
    client: httpx2.AsyncClient
    host_token: str = ""

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **more: Any
    ) -> httpx2.Response:
        """One request; the host's token unless another one (or "" for none) is given."""
        token = self.host_token if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if body is not None:
            more["json"] = body
        return await self.client.request(method, path, headers=headers, **more)

    async def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of an answer that has to be a success."""
        response = await self.call(method, path, body, **more)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def refused(self, method: str, path: str, body: Any = None, **more: Any) -> str:
        """The error name of an answer that has to be a refusal, checked for its form."""
        response = await self.call(method, path, body, **more)
        assert response.status_code >= 400, response.text
        error = response.json()["error"]
        assert set(error) == {
            "code", "name", "retryable", "retry_ms", "zh", "en", "detail", "field",
        }  # fmt: skip
        assert error["zh"]
        assert error["en"]
        return str(error["name"])

    async def live_show(self, **fields: Any) -> str:
        """Path of a new show that is live."""
        made = await self.ok("POST", "/api/shows", {"title": "周五好物", **fields})
        path = f"/api/shows/{made['show']}"
        await self.ok("POST", f"{path}/start")
        return path

    async def sku(self, show: str, inventory: int = 100, price: int = 12900) -> int:
        """A sku of a new product."""
        sku = {"title": "600 ml", "price": price, "inventory": inventory}
        made = await self.ok("POST", f"{show}/products", {"title": "手冲壶", "skus": [sku]})
        return int(made["skus"][0]["sku"])

    async def sale(self, show: str, sku: int, **fields: Any) -> dict[str, Any]:
        """A new sale of 10 units, limit 2, started now unless told otherwise."""
        body = {
            "sku": sku, "price": 9900, "units": 10, "limit_per_buyer": 2, "duration_s": 60,
            "start": "now",
        }  # fmt: skip
        made: dict[str, Any] = await self.ok("POST", f"{show}/sales", {**body, **fields})
        return made

    async def find_sale(self, show: str, sale: int) -> dict[str, Any]:
        sales = (await self.ok("GET", f"{show}/sales"))["sales"]
        return next(view for view in sales if view["sale"] == sale)

    async def allotted(self, sku: int) -> int:
        value: int = await self.pool.fetchval("SELECT allotted FROM skus WHERE sku_id = $1", sku)
        return value

    async def claim(
        self, show: str, sale: int, buyer: str, quantity: int = 1, price_version: int = 1
    ) -> ClaimAnswer:
        """One claim of a viewer, as a hub sends it."""
        request = ClaimRequest(buyer, uuid.uuid4().bytes, sale, quantity, price_version)
        answer = await self.stock.claim_batch(show_id_of(show), "hub1", 1, [request])
        return answer.answers[0]

    @asynccontextmanager
    async def worker(self, show: str) -> AsyncIterator[None]:
        """An order worker books the show's takes during the block."""
        tools = Tools("w1", self.clients, self.scripts, self.stock, self.pool, 256)
        stopping = asyncio.Event()
        task = asyncio.create_task(ShowConsumer(show_id_of(show), tools).run(stopping))
        try:
            yield
        finally:
            stopping.set()
            await asyncio.wait_for(task, 10)

    async def book(self, show: str) -> None:
        """A worker books all that was taken."""
        async with self.worker(show):
            await until(lambda: self._is_booked(show))

    async def _is_booked(self, show: str) -> bool:
        return not await self.clients.commands.xlen(keys.orders(show_id_of(show)))

    async def sweep(self) -> int:
        """A sweep that also takes requests of this very moment."""
        await self.pool.execute("UPDATE stock_requests SET at = at - interval '1 minute'")
        return await self.acts.projector.sweep()

    async def until_closed(self, show: str, sale: int) -> dict[str, Any]:
        """The sale once the worker has booked its closing."""
        await until(lambda: self._is_closed(show, sale))
        return await self.find_sale(show, sale)

    async def _is_closed(self, show: str, sale: int) -> bool:
        return bool((await self.find_sale(show, sale))["status"] == "closed")

    async def state(self, show: str) -> dict[str, dict[str, Any]]:
        """What viewers see of a show."""
        snapshot = await self.room_store.snapshot(show_id_of(show))
        assert snapshot is not None
        return snapshot.state

    async def events(self, show: str) -> list[dict[str, Any]]:
        """All events of a show, oldest first."""
        snapshot = await self.room_store.snapshot(show_id_of(show))
        assert snapshot is not None
        found = await self.room_store.events_after(show_id_of(show), snapshot.epoch, 0, 300)
        return found or []


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    """Wait until `condition` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def show_id_of(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def token(user: str = "ming", role: str = "host", show: str = "*", **more: Any) -> str:
    return auth.issue(SECRET, user=user, role=role, show=show, **more)


def request_id() -> str:
    return str(uuid.uuid4())


@asynccontextmanager
async def open_stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    """A stage on these servers, closed after the block."""
    clients = await RedisClients.open(redis_url)
    pool = await open_pool(database_url, size=8)
    scripts = FlakyScripts(clients.commands)
    seconds, micros = await clients.commands.time()
    clock = MovableClock(seconds * 1000 + micros // 1000)
    stock, room_store = Stock(scripts), RoomStore(scripts)
    acts = HostActs(pool, stock, room_store, clock)
    served = (*ENDPOINTS, *NumbersDesk().endpoints(), *viewer_api.endpoints(demo=False))
    routes = [*(endpoint.route() for endpoint in served), openapi_route(ENDPOINTS)]
    app = Starlette(routes=routes, max_body_size=limits.BODY_BYTES_MAX)
    app.state.host_acts, app.state.secret = acts, SECRET
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield Stage(
            pool, clients, scripts, stock, room_store, clock, acts,
            Timetable(pool, acts.projector, clock), client, token(),
        )  # fmt: skip
    await pool.close()
    await clients.aclose()
