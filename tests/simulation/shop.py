"""The show of a run: its rows in PostgreSQL, and what its host does meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from server.acts.messages import ChangeUnits
from server.domain.identity import Identity
from server.errors import RecordsUnavailable, Refused
from tests.simulation.network import BASE_MS
from tests.simulation.world import SHOW, WebNode, World, uuid7_of

HOST: Final = Identity("host", "host", "host", SHOW, 2**50)
PRICE: Final = 100
INVENTORY: Final = 1_000


class Sale(msgspec.Struct):
    """A flash sale of the run. Seconds are virtual ones after the start."""

    sale: int
    units: int
    limit: int
    pay_within_s: int
    opens_s: float
    closes_s: float


def draw_sales(world: World) -> list[Sale]:
    """One or two small sales, so that units, limits and ends all come into play."""
    rng = world.rng
    return [
        Sale(
            sale=number,
            units=rng.choice([1, 3, 8, 20]),
            limit=rng.choice([1, 2, 2, 5]),
            pay_within_s=rng.choice([0, 1, 2, 4]),
            opens_s=rng.choice([0.3, 0.5, 1.0]),
            closes_s=rng.choice([3.0, 6.0, 60.0, 600.0]),
        )
        for number in range(1, rng.choice([2, 2, 3]))
    ]


def rows_of(sales: list[Sale], now_ms: int) -> str:
    """SQL for the show and its sales, nothing of it projected to Redis yet."""
    statements = [
        f"INSERT INTO shows (show_id, host_id, title, status) VALUES ('{SHOW}','host','t','live')",
        f"INSERT INTO stock_epochs (show_id) VALUES ('{SHOW}')",
        f"INSERT INTO products (show_id, title, position) VALUES ('{SHOW}', 'p', 1)",
    ]
    for sale in sales:
        opens, closes = (now_ms + int(s * 1000) for s in (sale.opens_s, sale.closes_s))
        statements += [
            "INSERT INTO skus (product_id, show_id, title, price, currency, inventory, allotted)"
            f" VALUES (1, '{SHOW}', 's', {PRICE}, 'CNY', {INVENTORY}, {sale.units})",
            "INSERT INTO pools (show_id, sku_id, limit_per_buyer, initial)"
            f" VALUES ('{SHOW}', {sale.sale}, {sale.limit}, {sale.units})",
            "INSERT INTO stock_ledger (pool_id, reason, units, give_id)"
            f" VALUES ({sale.sale}, 'allotted', {sale.units}, 'made-{sale.sale}')",
            "INSERT INTO sales (sale_id, show_id, price, countdown_s, duration_s, pay_within_s,"
            f" status, opens_at_ms, closes_at_ms) VALUES ({sale.sale}, '{SHOW}', {PRICE}, 0, 60,"
            f" {sale.pay_within_s}, 'scheduled', {opens}, {closes})",
            f"INSERT INTO sale_prices (sale_id, price_version, price) VALUES ({sale.sale}, 1,"
            f" {PRICE})",
        ]
    return "; ".join(statements)


def insert_rows(world: World, sales: list[Sale]) -> None:
    """Before the run starts, past all faults."""
    server = world.postgres.server
    now_ms = BASE_MS + int(world.loop.now * 1000)
    head = f"SET sim.now = '{world.postgres.now()}'; "
    server.drive(server.monitor.execute(head + rows_of(sales, now_ms)))


class Host:
    """Restocks, lowers and stops; repeats a request until it has an answer."""

    def __init__(self, world: World, sales: list[Sale]) -> None:
        self._world = world
        self._sales = sales
        self.is_done = False

    async def run(self, acts: int) -> None:
        world, rng = self._world, self._world.rng
        for _ in range(acts):
            await asyncio.sleep(rng.uniform(0.1, 1.5))
            sale = rng.choice(self._sales).sale
            body = ChangeUnits(request_id=uuid7_of(rng), units=rng.choice([1, 2, 5]))
            what = rng.choice(["restock", "restock", "lower", "lower", "stop"])
            if what == "stop" and rng.random() < 0.5:
                continue
            await self._until_answered(what, sale, body)
        self.is_done = True
        world.note("host is done")

    async def _until_answered(self, what: str, sale: int, body: ChangeUnits) -> None:
        for _ in range(40):
            answer = await on_web(self._world, lambda node: _act(node, what, sale, body))
            self._world.note(f"host {what} sale {sale} units {body.units}: {answer}")
            if answer not in ("lost", "outcome_unknown", "unavailable", "stock_rebuilding"):
                return
            await asyncio.sleep(0.5)


async def _act(node: WebNode, what: str, sale: int, body: ChangeUnits) -> str:
    sales = node.acts.sales
    if what == "restock":
        await sales.restock(HOST, SHOW, sale, body)
    elif what == "lower":
        await sales.lower(HOST, SHOW, sale, body)
    else:
        await sales.stop(HOST, SHOW, sale)
    return "done"


Request = Callable[[WebNode], Awaitable[str]]


async def on_web(world: World, act: Request, seconds: float = 5.0) -> str:
    """An HTTP request to some web process: its answer, the name of an error, or `lost`."""
    nodes = [node for node in world.webs if node.is_ready]
    if not nodes:
        return "lost"
    node = world.rng.choice(nodes)
    answer: asyncio.Future[str] = world.loop.create_future()
    world.loop.deliver(node.process, world.network.delay(), _serve, world, node, act, answer)
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        return "lost"


def _serve(world: World, node: WebNode, act: Request, answer: "asyncio.Future[str]") -> None:
    """In the web process: carry the request out, send the answer."""

    async def serve() -> None:
        try:
            told = await act(node)
        except Refused as refused:
            told = refused.error.name
        except RecordsUnavailable:
            told = "unavailable"
        except Exception as fault:
            world.fail(f"a request failed: {fault!r}")
            raise
        world.loop.at(world.network.delay(), _reply, answer, told)

    _TASKS.add(task := asyncio.get_running_loop().create_task(serve()))
    task.add_done_callback(_TASKS.discard)


_TASKS: set["asyncio.Task[None]"] = set()


def _reply(answer: "asyncio.Future[str]", told: str) -> None:
    if not answer.done():
        answer.set_result(told)
