"""The table of faults, rows 9-13, 19, 20 and 24: replies lost, ids repeated, clocks wrong.

tests/faults/test_table.py says where every row is.
"""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from server import clock
from server.errors import ERRORS
from server.protocol import messages as m
from server.store import scripts
from server.store.scripts import Scripts
from server.store.stock import Stock
from server.store.types import Give
from server.web import auth
from tests.conftest import LONG, ValkeyFactory
from tests.crowd import Crowd, Shop
from tests.deployment import SETTINGS, end
from tests.history import read_books, violations
from tests.live import (
    SECRET,
    Client,
    Host,
    LiveSystem,
    call,
    free_port,
    token_of,
    until,
    until_answer,
)
from tests.proxy import Proxy
from tests.shop import EPOCH, HUB, SHOW, claim, open_shop
from tests.web_stage import WebStage, sees_sale, web_stage

pytestmark = pytest.mark.faults

HOUR_S = 3600
# A process whose wall clock is wrong by argv[1] seconds; the rest is the command line.
WRONG_CLOCK = """
import sys, time
shift = int(sys.argv.pop(1))
real, real_ns = time.time, time.time_ns
time.time, time.time_ns = lambda: real() + shift, lambda: real_ns() + shift * 10**9
from server.cli import main
main()
"""


def ask_for(sale: dict[str, Any], ref: int, claim_id: str = "", **fields: Any) -> m.Claim:
    values = {"quantity": 1, "price_version": sale["price_version"], **fields}
    return m.Claim(ref=ref, sale=sale["sale"], claim_id=claim_id or new_id(), **values)


def new_id() -> str:
    return str(clock.new_uuid7())


async def answer(client: Client, sale: dict[str, Any], claim_id: str = "", **fields: Any) -> Any:
    """The claim's state, or the name of the refusal."""
    reply = await client.ask(lambda ref: ask_for(sale, ref, claim_id, **fields))
    return reply.name if isinstance(reply, m.RefusedReply) else reply.claim


@pytest.fixture
async def behind_proxy(
    valkey_factory: ValkeyFactory, database_url: str
) -> AsyncIterator[tuple[Proxy, WebStage, WebStage]]:
    """Two hubs; the way of the first one to Valkey can be broken."""
    valkey = await valkey_factory()
    async with (
        Proxy.before(f"unix:{valkey.socket}") as proxy,
        web_stage(f"redis://127.0.0.1:{proxy.port}/0", database_url) as first,
        web_stage(valkey.url, database_url) as second,
    ):
        yield proxy, first, second
        proxy.heal()


@pytest.mark.parametrize("units", [10, 1], ids=["some", "the last unit"])
async def test_row_09_reply_dropped_after_the_script_ran_then_the_other_hub_answers_the_same(
    behind_proxy: tuple[Proxy, WebStage, WebStage], units: int
) -> None:
    proxy, first, second = behind_proxy
    show = await first.show()
    sale = await first.sale(show, units=units)
    here, there = await first.viewer(show, "ann"), await second.viewer(show, "ann")
    rival = await second.viewer(show, "bob")
    for client in (here, there, rival):
        await sees_sale(client, sale["sale"])
    claim_id = new_id()
    proxy.stall("down")
    _, sending = here.post(lambda ref: ask_for(sale, ref, claim_id))
    await sending
    stock = f"stock:{sale['sale']}"
    await until(lambda: there.state[stock]["left"] == units - 1, "the script ran")
    again = await answer(there, sale, claim_id, attempt=1)
    assert (again.status, again.seq) == ("held", 1)
    if units == 1:
        assert await answer(rival, sale) == "sold_out"
    await until(lambda: bool(here.replies.keys() - {1}), "the first hub gives up waiting")
    assert here.replies[2].name == "outcome_unknown"
    proxy.heal()
    assert there.state[stock]["left"] == units - 1
    for client in (here, there, rival):
        await client.close()


async def test_row_10_client_library_repeats_evalsha_then_one_unit(redis_url: str) -> None:
    """redis-py with retries of its own, as an application might set it up."""
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=5)
        path = shop.clients.commands.connection_pool.connection_kwargs["path"]
        async with Proxy.before(f"unix:{path}") as proxy:
            eager = aioredis.Redis(port=proxy.port, protocol=2, retry=Retry(NoBackoff(), 3))
            stock = Stock(Scripts(eager))
            await stock.claim_batch(SHOW, HUB, EPOCH, [claim(1)])
            proxy.lose_reply()
            (repeated,) = (await stock.claim_batch(SHOW, HUB, EPOCH, [claim(2)])).answers
            await eager.aclose()
        assert proxy.replies_lost == 1
        assert repeated.state is not None
        assert (repeated.code, repeated.state.status, repeated.state.seq) == (1, "held", 2)
        cut = await shop.stock.audit_cut(SHOW)
        assert cut is not None
        assert (cut.pools[1].available, len(cut.pending)) == (3, 2)


async def test_row_11_same_id_a_thousand_times_and_one_buyer_on_many_sockets_then_the_limit_holds(
    redis_url: str, database_url: str
) -> None:
    sockets, repeats, limit = 50, 20, 2
    more = {"viewers_per_user_max": 100, "claims_per_second": 1000}
    async with (
        web_stage(redis_url, database_url, **more) as first,
        web_stage(redis_url, database_url, **more) as second,
    ):
        show = await first.show()
        sale = await first.sale(show, units=100, limit_per_buyer=limit)
        hubs = [first, second] * (sockets // 2)
        clients = await asyncio.gather(*(hub.viewer(show, "ann") for hub in hubs))
        await sees_sale(clients[-1], sale["sale"])
        claim_id = new_id()
        same = [
            client.post(lambda ref: ask_for(sale, ref, claim_id))[1]
            for client in clients
            for _ in range(repeats)
        ]
        others = [client.post(lambda ref: ask_for(sale, ref))[1] for client in clients]
        await asyncio.gather(*same, *others)
        expected = repeats + 2  # and the answer to hello
        await until(lambda: all(len(c.replies) == expected for c in clients), "all answers")
        replies = [reply for client in clients for reply in client.replies.values()]
        states = [r.claim for r in replies if isinstance(r, m.Accepted) and r.claim]
        accepted = {state.claim_id: state.seq for state in states}
        assert len(accepted) <= limit
        assert len({(state.claim_id, state.seq) for state in states}) == len(accepted)
        assert sum(state.claim_id == claim_id for state in states) in (0, sockets * repeats)
        stock = f"stock:{sale['sale']}"
        await until(lambda: clients[0].state[stock]["left"] == 100 - len(accepted), "the counter")
        await asyncio.gather(*(client.close() for client in clients))


async def test_row_11_same_id_twice_in_one_batch_then_one_unit(redis_url: str) -> None:
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=5, limit_per_buyer=5)
        batch = [claim(1), claim(1), claim(2, buyer="buyer-1"), claim(1)]
        answers = (await shop.stock.claim_batch(SHOW, HUB, EPOCH, batch)).answers
        assert [answer.code for answer in answers] == [0, 1, 0, 1]
        assert [answer.state.seq for answer in answers if answer.state] == [1, 1, 2, 1]
        cut = await shop.stock.audit_cut(SHOW)
        assert cut is not None
        assert (cut.pools[1].available, [len(e.takes) for e in cut.pending]) == (3, [2])


@dataclass
class TwoWays:
    """Two web processes; the first one, and the worker, reach Valkey through a proxy."""

    proxy: Proxy
    proxied: LiveSystem
    ports: tuple[int, int]
    crowd: Crowd


@pytest.fixture
async def two_ways(
    valkey_factory: ValkeyFactory, database_url: str, tmp_path: Path
) -> AsyncIterator[TwoWays]:
    """With a sale of 50 units, and a watcher at the second process."""
    valkey = await valkey_factory()
    direct = LiveSystem(valkey.url, database_url, tmp_path, dict(SETTINGS))
    async with Proxy.before(f"unix:{valkey.socket}") as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        proxied = LiveSystem(url, database_url, tmp_path, dict(SETTINGS))
        try:
            first, second = [await system.start_web() for system in (proxied, direct)]
            proxied.start_worker()
            # Cut off before that it would end, for its supervisor to start it again.
            await until(lambda: "worker_ready" in proxied.logs(), "the worker is ready")
            show, sale = await sale_at(Host(second, token_of("ming", "*", "host")), units=50)
            ports = (int(first.rsplit(":", 1)[1]), int(second.rsplit(":", 1)[1]))
            crowd = Crowd(Shop([ports[0]], show, sale))
            await crowd.watch(ports[1])
            yield TwoWays(proxy, proxied, ports, crowd)
            await crowd.leave()
        finally:
            proxy.heal()
            await asyncio.to_thread(proxied.stop)  # they still talk through the proxy
            direct.stop()


async def everybody_answered(crowd: Crowd, database_url: str) -> None:
    await crowd.answered(60)
    assert (crowd.count("confirmed"), crowd.count("sold_out")) == (50, 30)
    found = violations(crowd.history, await read_books(database_url, crowd.shop.show))
    assert not found, found[:10]


async def test_row_13_hub_killed_with_a_batch_in_flight_then_clients_find_out_elsewhere(
    two_ways: TwoWays, database_url: str
) -> None:
    """The batch reached Valkey, its reply never reached the hub, and the hub died."""
    crowd, sale = two_ways.crowd, two_ways.crowd.shop.sale
    await crowd.gather(80)
    two_ways.proxy.stall("down")
    crowd.rush()
    await until(lambda: crowd.watchers[0].left.get(sale) != 50, "a batch was decided")
    crowd.shop.ports = [two_ways.ports[1]]
    end(two_ways.proxied.processes[0])
    two_ways.proxy.heal()
    await everybody_answered(crowd, database_url)


async def test_row_network_to_redis_fails_in_every_way_then_all_go_on(
    two_ways: TwoWays, database_url: str
) -> None:
    proxy, crowd = two_ways.proxy, two_ways.crowd
    await crowd.gather(80)
    crowd.rush(over_s=3.0)
    for fail in (proxy.cut, proxy.half_open, proxy.lose_reply, proxy.stall):
        before = sum(bool(shopper.final) for shopper in crowd.shoppers)
        fail()
        await asyncio.sleep(0.3)
        proxy.heal()
        await until(
            lambda before=before: sum(bool(s.final) for s in crowd.shoppers) > before,
            "somebody is answered after it",
        )
    await everybody_answered(crowd, database_url)


async def sale_at(host: Host, **terms: Any) -> tuple[str, int]:
    """A live show and a sale in it; `start` now unless told otherwise."""
    show = (await host.ask("POST", "/api/shows", {"title": "晚八点"}))["show"]
    sku = {"title": "600 ml", "price": 12900, "inventory": 1000}
    body = {"title": "手冲壶", "skus": [sku]}
    product = await host.ask("POST", f"/api/shows/{show}/products", body)
    await host.ask("POST", f"/api/shows/{show}/start")
    asked = {
        "sku": product["skus"][0]["sku"], "price": 9900, "units": 10, "limit_per_buyer": 1,
        "countdown_s": 0, "duration_s": 300, "start": "now", **terms,
    }  # fmt: skip
    return show, (await host.ask("POST", f"/api/shows/{show}/sales", asked))["sale"]


def start_with_wrong_clock(live: LiveSystem, shift_s: int, name: str, port: int) -> None:
    """`livesale <name>` with a wall clock that is wrong by `shift_s`."""
    with (live.log_dir / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", WRONG_CLOCK, str(shift_s), name],
            env={**live.environment(), "PORT": str(port)}, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
    live.processes.append(process)


@asynccontextmanager
async def wrong_clocks(live: LiveSystem, web_s: int, worker_s: int) -> AsyncIterator[str]:
    """A web process and a worker whose clocks are wrong by so many seconds; the web's URL."""
    port = free_port()
    start_with_wrong_clock(live, web_s, "web", port)
    start_with_wrong_clock(live, worker_s, "worker", port)
    url = f"http://127.0.0.1:{port}"

    async def is_ready() -> bool:
        try:
            return (await call("GET", f"{url}/readyz"))[0] == 200
        except OSError:
            return False

    try:
        await until_answer(is_ready, "web ready")
        yield url
    finally:
        live.stop()


@pytest.mark.parametrize("web_s", [HOUR_S, -HOUR_S] if LONG else [HOUR_S])
async def test_row_19_clocks_jump_by_an_hour_then_windows_are_redis_time_and_deadlines_postgresqls(
    redis_url: str, database_url: str, tmp_path: Path, web_s: int
) -> None:
    live = LiveSystem(redis_url, database_url, tmp_path)
    async with wrong_clocks(live, web_s, -web_s) as url:
        token = auth_token("ming", "*", "host")
        show, sale_id = await sale_at(Host(url, token), countdown_s=1, pay_within_s=900)
        client = await Client.open(url, show)
        await client.ask(lambda ref: m.Hello(ref=ref, token=auth_token("ann", show)))
        await sees_sale(client, sale_id)
        sale = client.state[f"sale:{sale_id}"]
        assert await answer(client, sale) == "sale_not_open"
        claim_id = new_id()

        async def is_open() -> bool:
            return await answer(client, sale, claim_id) != "sale_not_open"

        await until_answer(is_open, "the sale opens")
        await until(lambda: bool(client.orders), "confirmed")
        assert client.orders[0].status == "confirmed"
        await client.close()
    connection = await asyncpg.connect(database_url)
    wait, age, at = await connection.fetchrow(
        "SELECT pay_by - confirmed_at, now() - confirmed_at, extract(epoch FROM confirmed_at)"
        " FROM orders"
    )
    await connection.close()
    assert wait.total_seconds() == 900
    assert age.total_seconds() < 60
    assert float(at) * 1000 >= sale["opens_at"] - 1000  # one machine here, two clocks elsewhere


async def test_row_19_window_ends_by_redis_time_then_nobody_buys_early_or_late(
    redis_url: str,
) -> None:
    async with open_shop(redis_url) as shop:
        now_ms = await shop.now_ms()
        await shop.open_show()
        await shop.open_sale(1, opens_at=now_ms + 60_000)
        await shop.open_sale(2, opens_at=now_ms - 60_000, closes_at=now_ms)
        await shop.open_sale(3, opens_at=now_ms, closes_at=now_ms + 60_000)
        batch = [claim(n, pool=n) for n in (1, 2, 3)]
        answers = (await shop.stock.claim_batch(SHOW, HUB, EPOCH, batch)).answers
    names = ERRORS["sale_not_open"].code, ERRORS["sale_closed"].code, 0
    assert tuple(answer.code for answer in answers) == names


def auth_token(user: str, show: str, role: str = "viewer") -> str:
    """A token that is valid for processes whose clock is an hour late or early."""
    return auth.issue(SECRET.encode(), user=user, role=role, show=show, name=user, ttl_s=3 * HOUR_S)


async def test_row_20_restock_twice_with_one_id_then_its_units_come_once(redis_url: str) -> None:
    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=5)
        give = Give("act", 1, 3, "restock")
        assert await shop.stock.give_batch(SHOW, [give, give]) == [True, True]
        assert await shop.stock.give_batch(SHOW, [give]) == [True]
        cut = await shop.stock.audit_cut(SHOW)
        assert cut is not None
        assert (cut.pools[1].available, cut.pools[1].units) == (8, 8)


async def test_row_21_two_versions_of_the_scripts_then_both_keep_the_stock(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a release is rolled out: every other call comes from the newer one."""
    current = scripts.load

    def newer(name: str) -> scripts.Script:
        source = current(name).source + "\n-- a newer version\n"
        return scripts.Script(source, hashlib.sha1(source.encode()).hexdigest())

    async with open_shop(redis_url) as shop:
        await shop.open_show()
        await shop.open_sale(units=15)
        codes = []
        for n in range(10):
            monkeypatch.setattr(scripts, "load", newer if n % 2 else current)
            batch = [claim(2 * n), claim(2 * n + 1), claim(2 * max(0, n - 1))]
            codes += [
                a.code for a in (await shop.stock.claim_batch(SHOW, HUB, EPOCH, batch)).answers
            ]
        cut = await shop.stock.audit_cut(SHOW)
    assert cut is not None
    takes = [take for entry in cut.pending for take in entry.takes]
    assert (codes.count(0), cut.pools[1].available) == (15, 0)
    assert [take.seq for take in takes] == list(range(1, 16))


async def test_row_24_crowd_at_a_sold_out_sale_then_redis_hardly_hears_of_it(
    redis_url: str, database_url: str
) -> None:
    people, claims_each = 100, 20
    async with (
        open_shop(redis_url) as shop,
        web_stage(redis_url, database_url, claims_per_second=100) as stage,
    ):
        show = await stage.show()
        sale = await stage.sale(show, units=1, limit_per_buyer=1)
        winner = await stage.viewer(show, "winner")
        late = await asyncio.gather(*(stage.viewer(show, f"late-{n}") for n in range(people)))
        await sees_sale(winner, sale["sale"])
        assert (await answer(winner, sale)).status == "held"
        before = await scripts_run(shop.clients.commands)
        crowd = [client for client in late for _ in range(claims_each)]
        await asyncio.gather(*(c.post(lambda ref: ask_for(sale, ref))[1] for c in crowd))
        await until(lambda: all(c.next_ref in c.replies for c in late), "the last answers")
        said = [reply for client in late for reply in client.replies.values()]
        refusals = [reply.name for reply in said if isinstance(reply, m.RefusedReply)]
        assert refusals == ["sold_out"] * len(crowd)
        assert await scripts_run(shop.clients.commands) - before < len(crowd) / 20
        await asyncio.gather(*(client.close() for client in (winner, *late)))


async def scripts_run(client: "aioredis.Redis") -> int:
    stats = await client.info("commandstats")
    return int(stats["cmdstat_evalsha"]["calls"])
