"""Dead letters: seen, redriven or given back by the host, whatever else happens meanwhile."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from server.errors import ERRORS, Refused
from server.orders.reconcile import reconcile
from server.orders.tools import Tools
from server.records import dead_letters, orders, webhooks
from server.store import keys
from server.store.types import ClaimRequest
from tests.host_stage import Stage, open_stage, token, until
from tests.letter_desk import Desk, buy, make_desk, stored


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


@pytest.fixture
async def desk(stage: Stage) -> Desk:
    return await make_desk(stage)


# --- Looking ----------------------------------------------------------------------------------


async def test_letter_when_shown_then_its_take_is_readable(desk: Desk) -> None:
    letter = await desk.stage.ok("GET", desk.path)
    content = letter.pop("content")
    assert letter | {"error": "", "at": 0} == {
        "dead_letter": desk.letter, "sale": desk.sale, "epoch": 1, "seq": 2, "entry": "",
        "units": 2, "error": "", "status": "parked", "at": 0,
    }  # fmt: skip
    assert "fault" in letter["error"]
    assert content.pop("at_ms") > 0
    assert content == {
        "kind": "claim", "pool": desk.sale, "seq": 2, "buyer": "eve", "quantity": 2,
        "claim_id": str(uuid.UUID(bytes=desk.claim_id)), "price": 9900, "price_version": 1,
    }  # fmt: skip
    assert (await desk.state()).status == "held"
    assert await desk.counters() == (0, 2, 2)
    assert await desk.problems() == []


async def test_letters_when_listed_then_by_status_and_in_pages(desk: Desk) -> None:
    for status, count in (("parked", 1), ("redriven", 0), ("given_back", 0)):
        found = await desk.stage.ok("GET", f"{desk.show}/dead-letters?status={status}")
        assert len(found["dead_letters"]) == count
    older = await desk.stage.ok("GET", f"{desk.show}/dead-letters?before={desk.letter}")
    assert older == {"dead_letters": []}


async def test_letter_when_it_is_an_unreadable_entry_then_shown_and_only_given_back(
    desk: Desk,
) -> None:
    fields: Any = {"e": 1, "h": "hub1", "t": b"\xc1\xff"}
    await desk.stage.clients.commands.xadd(keys.orders(desk.show_id), fields)
    await stored(desk.stage, desk.show)
    newest = (await desk.stage.ok("GET", f"{desk.show}/dead-letters"))["dead_letters"][0]
    assert (newest["sale"], newest["units"]) == (0, 0)
    assert newest["content"] == {"e": "1", "h": "hub1", "t": "c1ff"}
    path = f"{desk.show}/dead-letters/{newest['dead_letter']}"
    assert await desk.stage.refused("POST", f"{path}/redrive") == "conflict"
    assert (await desk.stage.ok("POST", f"{path}/give-back"))["status"] == "given_back"
    assert await desk.problems() == []


# --- Redriving --------------------------------------------------------------------------------


async def test_letter_when_redriven_then_its_claim_is_confirmed_at_its_own_place(
    desk: Desk,
) -> None:
    await desk.mend()
    assert (await desk.stage.ok("POST", f"{desk.path}/redrive"))["status"] == "redriven"
    (order,) = await desk.stage.pool.fetch("SELECT * FROM orders WHERE buyer = 'eve'")
    assert (order["epoch"], order["seq"], order["quantity"]) == (1, 2, 2)
    state = await desk.state()
    assert (state.status, state.order_id) == ("confirmed", order["order_id"])
    assert await desk.counters() == (0, 4, 0)
    assert await desk.left() == 6
    assert await desk.problems() == []
    acts = (await desk.stage.ok("GET", f"{desk.show}/acts"))["acts"]
    detail = {"dead_letter": desk.letter, "order": order["order_id"]}
    assert [a["detail"] for a in acts if a["action"] == "redrive_dead_letter"] == [detail]


async def test_letter_when_redriven_then_no_page_of_the_sales_orders_misses_any(
    desk: Desk,
) -> None:
    """Its order has the place of the claim and a later id; pages go by ids."""
    await desk.mend()
    await desk.stage.ok("POST", f"{desk.path}/redrive")
    found, bound = {}, {"after": 0, "before": 2**53 - 1}
    for way, at in bound.items():
        buyers: list[str] = []
        while True:
            path = f"{desk.show}/orders?sale={desk.sale}&limit=1&{way}={at}"
            page = (await desk.stage.ok("GET", path))["orders"]
            if not page:
                break
            buyers += [order["buyer"] for order in page]
            at = page[-1]["order_id"]
        found[way] = buyers
    assert found == {"after": ["ann", "bob", "eve"], "before": ["eve", "bob", "ann"]}


async def test_letter_when_the_sale_has_a_payment_step_then_redriving_starts_the_time_to_pay(
    stage: Stage,
) -> None:
    desk = await make_desk(stage, pay_within_s=600)
    await stage.pool.execute("UPDATE dead_letters SET at = at - interval '1 hour'")
    await desk.mend()
    await stage.ok("POST", f"{desk.path}/redrive")
    assert await desk.counters() == (4, 0, 0)
    pay_in = await stage.pool.fetchval(
        "SELECT extract(epoch FROM pay_by - now()) FROM orders WHERE buyer = 'eve'"
    )
    assert 590 < pay_in <= 600
    assert (await desk.state()).pay_by > 0
    assert await desk.problems() == []


async def test_letter_when_its_fault_is_still_there_then_redriving_says_so_and_changes_nothing(
    desk: Desk,
) -> None:
    before = await desk.rows()
    response = await desk.stage.call("POST", f"{desk.path}/redrive")
    assert response.status_code == 409
    assert "fault is still there" in response.json()["error"]["detail"]
    assert await desk.rows() == before
    assert (await desk.state()).status == "held"
    assert await desk.problems() == []


async def test_letter_when_the_buyer_has_reached_the_limit_since_then_redriving_is_refused(
    desk: Desk,
) -> None:
    await desk.mend()
    await desk.stage.pool.execute(
        "INSERT INTO pool_buyers (pool_id, buyer, units) VALUES ($1, 'eve', 1)", desk.sale
    )
    before = await desk.rows()
    assert await desk.stage.refused("POST", f"{desk.path}/redrive") == "limit_reached"
    assert await desk.rows() == before


async def test_letter_when_its_data_is_faulty_in_itself_then_redriving_is_refused(
    desk: Desk,
) -> None:
    await desk.mend()
    take = [0, desk.sale, 2, "eve", b"short", 2, 9900, 1, 1]
    payload = msgpack.packb(take)
    await desk.stage.pool.execute("UPDATE dead_letters SET payload = $1", payload)
    assert await desk.stage.refused("POST", f"{desk.path}/redrive") == "conflict"
    await desk.stage.ok("POST", f"{desk.path}/give-back")
    assert await desk.counters() == (0, 2, 0)
    assert await desk.left() == 8


# --- Giving back ------------------------------------------------------------------------------


async def test_letter_when_given_back_then_its_units_return_and_its_claim_is_released(
    desk: Desk,
) -> None:
    assert await desk.left() == 6
    assert (await desk.stage.ok("POST", f"{desk.path}/give-back"))["status"] == "given_back"
    assert (await desk.state()).status == "released_by_incident"
    assert await desk.counters() == (0, 2, 0)
    assert await desk.left() == 8
    assert await desk.problems() == []
    answer = await desk.stage.claim(desk.show, desk.sale, "eve", 2)
    assert answer.state is not None  # the units do not count against the buyer any more
    acts = (await desk.stage.ok("GET", f"{desk.show}/acts"))["acts"]
    assert "give_back_dead_letter" in {act["action"] for act in acts}


async def test_letter_when_its_sale_is_over_then_its_units_go_back_to_the_inventory(
    desk: Desk,
) -> None:
    await desk.stage.ok("POST", f"{desk.show}/sales/{desk.sale}/stop")
    async with desk.stage.worker(desk.show):
        view = await desk.stage.until_closed(desk.show, desk.sale)
        await desk.stage.ok("POST", f"{desk.path}/give-back")

        async def returned() -> bool:
            view = await desk.stage.find_sale(desk.show, desk.sale)
            return bool(await desk.stage.allotted(view["sku"]) == 2)

        await until(returned)
    assert await desk.stage.allotted(view["sku"]) == 2
    assert (await desk.state()).status == "released_by_incident"
    assert await desk.problems() == []


async def test_letter_when_nothing_of_it_is_counted_then_its_claim_is_released_all_the_same(
    desk: Desk,
) -> None:
    """Its pool had no room for it either: there is no give that tells of it."""
    await count_nothing(desk)
    await desk.stage.ok("POST", f"{desk.path}/give-back")
    assert (await desk.state()).status == "released_by_incident"
    assert await untold(desk) == 0


async def count_nothing(desk: Desk) -> None:
    """The letter's units are counted nowhere."""
    await desk.stage.pool.execute("UPDATE dead_letters SET units = 0")
    await desk.stage.pool.execute("UPDATE pools SET dead = 0")


async def make_lowering(desk: Desk) -> None:
    """The letter is of units that the host took back."""
    take = msgpack.packb([1, desk.sale, 2, "", b"short", 2, 9900, 1, 1])
    await desk.stage.pool.execute("UPDATE dead_letters SET payload = $1", take)


async def untold(desk: Desk) -> int:
    count: int = await desk.stage.pool.fetchval("SELECT count(untold_since) FROM dead_letters")
    return count


async def test_lowering_when_it_died_then_redriving_returns_its_units_to_the_inventory(
    desk: Desk,
) -> None:
    sku = (await desk.stage.find_sale(desk.show, desk.sale))["sku"]
    await make_lowering(desk)
    assert await desk.stage.refused("POST", f"{desk.path}/give-back") == "conflict"
    await desk.stage.ok("POST", f"{desk.path}/redrive")
    assert await desk.counters() == (0, 2, 0)
    assert await desk.stage.allotted(sku) == 8


# --- Crashes and several at once --------------------------------------------------------------


@pytest.mark.parametrize("decision", ["redrive", "give-back"])
@pytest.mark.parametrize("fault", ["lost", "cut"])
async def test_decision_when_the_process_dies_before_redis_is_told_then_the_sweep_tells(
    desk: Desk, decision: str, fault: str
) -> None:
    await desk.mend()
    setattr(desk.stage.scripts, fault, {"confirm_batch", "give_batch"})
    await desk.stage.ok("POST", f"{desk.path}/{decision}")
    assert await desk.problems() == []
    setattr(desk.stage.scripts, fault, set())
    await desk.stage.sweep()
    status = {"redrive": "confirmed", "give-back": "released_by_incident"}[decision]
    assert (await desk.state()).status == status
    assert await desk.left() == {"redrive": 6, "give-back": 8}[decision]
    assert await desk.problems() == []


@pytest.mark.parametrize("fault", ["lost", "cut"])
async def test_letter_when_it_gives_no_units_back_and_redis_is_away_then_the_sweep_tells(
    desk: Desk, fault: str
) -> None:
    await count_nothing(desk)
    setattr(desk.stage.scripts, fault, {"confirm_batch"})
    await desk.stage.ok("POST", f"{desk.path}/give-back")
    assert await untold(desk) == 1
    setattr(desk.stage.scripts, fault, set())
    assert await desk.stage.sweep() == 1
    assert (await desk.state()).status == "released_by_incident"
    assert await untold(desk) == 0
    assert await desk.stage.sweep() == 0


async def test_lowering_when_it_is_redriven_and_redis_is_away_then_the_sweep_tells(
    desk: Desk,
) -> None:
    """No order's step and no give tells of the counters."""
    await make_lowering(desk)
    desk.stage.scripts.lost = {"confirm_batch"}
    await desk.stage.ok("POST", f"{desk.path}/redrive")
    assert [problem.kind for problem in await told_problems(desk)] == ["told"]
    desk.stage.scripts.lost = set()
    assert await desk.stage.sweep() == 1
    assert await told_problems(desk) == []


async def told_problems(desk: Desk) -> list[Any]:
    return [problem for problem in await desk.problems() if problem.kind in ("told", "viewers")]


async def test_audit_when_a_letter_is_untold_for_long_then_it_is_late(desk: Desk) -> None:
    await count_nothing(desk)
    desk.stage.scripts.lost = {"confirm_batch"}
    await desk.stage.ok("POST", f"{desk.path}/give-back")
    await desk.stage.pool.execute(
        "UPDATE dead_letters SET untold_since = untold_since - interval '2 minutes'"
    )
    late = [problem.detail for problem in await desk.problems() if problem.kind == "late"]
    assert len(late) == 1
    assert f"dead letter {desk.letter}" in late[0]


@pytest.mark.parametrize("decision", ["redrive", "give-back"])
async def test_decision_when_repeated_then_it_is_made_once(desk: Desk, decision: str) -> None:
    await desk.mend()
    first = await desk.stage.ok("POST", f"{desk.path}/{decision}")
    before = await desk.rows()
    assert await desk.stage.ok("POST", f"{desk.path}/{decision}") == first
    assert await desk.rows() == before
    other = {"redrive": "give-back", "give-back": "redrive"}[decision]
    assert await desk.stage.refused("POST", f"{desk.path}/{other}") == "conflict"
    assert await desk.rows() == before


async def test_operators_when_several_decide_at_once_then_one_decision_is_made(
    desk: Desk,
) -> None:
    await desk.mend()
    asked = [f"{desk.path}/{decision}" for decision in ("redrive", "give-back") * 4]
    answers = await asyncio.gather(*(desk.stage.call("POST", path) for path in asked))
    made = {answer.json()["status"] for answer in answers if answer.is_success}
    assert len(made) == 1
    assert sum(answer.is_success for answer in answers) == 4
    assert len(await desk.stage.pool.fetch("SELECT FROM gives")) == (made == {"given_back"})
    assert await desk.problems() == []


async def test_decision_when_a_worker_books_the_same_pool_then_both_are_in_the_books(
    desk: Desk,
) -> None:
    await desk.mend()
    buyers = [f"b{n}" for n in range(6)]
    async with desk.stage.worker(desk.show):
        claims = [buy(desk.stage, desk.show, desk.sale, buyer) for buyer in buyers]
        await asyncio.gather(desk.stage.ok("POST", f"{desk.path}/redrive"), *claims)
        await until(lambda: all_sold(desk, 10))
    assert await desk.counters() == (0, 10, 0)
    assert await desk.problems() == []


async def all_sold(desk: Desk, units: int) -> bool:
    return (await desk.counters())[1] == units


async def test_decision_when_the_show_is_halted_then_it_waits_for_the_reconciliation(
    desk: Desk,
) -> None:
    await desk.mend()
    await desk.stage.pool.execute("UPDATE stock_epochs SET halted_at = now(), halted_by = 'test'")
    before = await desk.rows()
    for decision in ("redrive", "give-back"):
        refusal = await desk.stage.refused("POST", f"{desk.path}/{decision}")
        assert refusal == "stock_rebuilding"
    assert await desk.rows() == before


async def test_decision_when_the_transaction_fails_then_nothing_is_left_of_it(desk: Desk) -> None:
    await desk.mend()
    before = await desk.rows()
    async with desk.stage.pool.acquire() as conn:
        dying = conn.transaction()
        await dying.start()
        await dead_letters.redrive(conn, desk.show_id, desk.letter, "ming")
        await dying.rollback()
    assert await desk.rows() == before


# --- Who --------------------------------------------------------------------------------------


async def test_letter_when_it_is_of_another_show_then_it_is_not_found(desk: Desk) -> None:
    await desk.mend()
    other = await desk.stage.live_show()
    before = await desk.rows()
    for method, path in (("GET", ""), ("POST", "/redrive"), ("POST", "/give-back")):
        path = f"{other}/dead-letters/{desk.letter}{path}"
        assert await desk.stage.refused(method, path) == "not_found"
    stranger = token("eve")
    path = f"{desk.path}/redrive"
    assert await desk.stage.refused("POST", path, token=stranger) == "forbidden"
    assert await desk.rows() == before


async def test_worker_when_the_entry_comes_again_after_redriving_then_nothing_changes(
    desk: Desk,
) -> None:
    await desk.mend()
    await desk.stage.ok("POST", f"{desk.path}/redrive")
    letter = await dead_letters_of(desk)
    take = letter.take
    assert take is not None
    before = await desk.rows()
    async with desk.stage.pool.acquire() as conn:
        result = await orders.commit_takes(conn, desk.show_id, 1, [take])
    assert (result.repeated, result.stored, result.dead) == (1, 0, 0)
    assert await desk.rows() == before


async def dead_letters_of(desk: Desk) -> dead_letters.Letter:
    async with desk.stage.pool.acquire() as conn:
        try:
            return await dead_letters.get_letter(conn, desk.show_id, desk.letter)
        except Refused as refusal:
            raise AssertionError from refusal


# --- A stock that was rebuilt in between ------------------------------------------------------


async def rebuild(desk: Desk) -> None:
    stage = desk.stage
    tools = Tools("w9", stage.clients, stage.scripts, stage.stock, stage.pool, 256)
    await reconcile(desk.show_id, tools, "test: asked", "a test")


@pytest.mark.parametrize("decision", ["redrive", "give-back"])
async def test_letter_when_the_stock_was_rebuilt_meanwhile_then_decided_as_before(
    desk: Desk, decision: str
) -> None:
    await desk.mend()
    await rebuild(desk)
    assert (await desk.state()).status == "held"
    assert await desk.problems() == []
    await desk.stage.ok("POST", f"{desk.path}/{decision}")
    status, left = {"redrive": ("confirmed", 6), "give-back": ("released_by_incident", 8)}[decision]
    assert ((await desk.state()).status, await desk.left()) == (status, left)
    assert await desk.problems() == []
    await rebuild(desk)
    assert ((await desk.state()).status, await desk.left()) == (status, left)
    assert await desk.problems() == []


async def test_buyer_when_a_parked_claim_counts_then_also_after_the_stock_was_rebuilt(
    desk: Desk,
) -> None:
    await desk.mend()
    await rebuild(desk)
    request = ClaimRequest("eve", uuid.uuid4().bytes, desk.sale, 1, 1)
    answer = await desk.stage.stock.claim_batch(desk.show_id, "hub1", 2, [request])
    assert answer.answers[0].code == ERRORS["limit_reached"].code


# --- The merchant -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "topics"),
    [
        ("redrive", ["order.confirmed"] * 3),
        ("give-back", ["order.confirmed"] * 2 + ["order.released"]),
    ],
)
@pytest.mark.parametrize("told_first", [True, False])
async def test_decision_when_made_then_the_merchant_is_told_once(
    stage: Stage, decision: str, topics: list[str], told_first: bool
) -> None:
    """Whether the batch in which the take died was told before the decision or after it."""
    desk = await make_desk(stage, with_webhook=True)
    await desk.mend()
    async with stage.pool.acquire() as conn:
        if told_first:
            await webhooks.make_messages(conn, 10)
        await stage.ok("POST", f"{desk.path}/{decision}")
        await webhooks.make_messages(conn, 10)
    rows = await stage.pool.fetch("SELECT topic, data FROM webhook_messages")
    assert sorted(row["topic"] for row in rows) == topics
    mine = [json.loads(row["data"]) for row in rows if '"eve"' in row["data"]]
    assert [(data["claim_id"], data["quantity"]) for data in mine] == [
        (str(uuid.UUID(bytes=desk.claim_id)), 2)
    ]
