"""What must be true when a run has come to rest, computed anew from the tables, from the model
Redis and from what the buyers heard: independent of the server's own audit.

The numbers I1 to I12 are those of tests/simulation/README.md.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgpack

from server.domain.order import may_become
from server.store import keys
from tests.simulation.bank import Bank
from tests.simulation.buyers import RANK, Buyer
from tests.simulation.shop import Sale
from tests.simulation.world import SHOW, World

LIVE: Final = frozenset({"confirmed", "paid", "fulfilled"})
Row = Any


class Books:
    """The tables of a run."""

    def __init__(self, world: World) -> None:
        server = world.postgres.server

        def read(table: str, order: str) -> list[Row]:
            rows: list[Row] = server.drive(
                server.monitor.fetch(f"SELECT * FROM {table} ORDER BY {order}")
            )
            return rows

        self.pools = {row["pool_id"]: row for row in read("pools", "pool_id")}
        self.orders = read("orders", "order_id")
        self.incidents = read("incidents", "pool_id, epoch, seq")
        self.lowerings = read("lowerings", "pool_id, epoch, seq")
        self.dead_letters = read("dead_letters", "dead_letter_id")
        self.retakes = read("retakes", "pool_id, epoch, seq")
        self.gives = read("gives", "give_id")
        self.moves = read("order_moves", "move_id")
        self.payments = read("payments", "payment_id")
        self.buyers = read("pool_buyers", "pool_id, buyer")
        self.skus = read("skus", "sku_id")


def check_all(
    world: World, sales: Sequence[Sale], buyers: Sequence[Buyer], bank: Bank
) -> dict[str, int]:
    """Report every broken invariant to the world; some numbers of the run."""
    books = Books(world)
    for sale in sales:
        _check_pool(world, books, sale)
    _check_sequences(world, books)
    _check_moves(world, books)
    _check_payments(world, books, bank)
    for buyer in buyers:
        _check_buyer(world, books, buyer)
    _check_orders(world, books, buyers)
    if books.incidents and not world.redis.losses:
        world.fail(f"I4 Redis lost nothing, yet claims were released: {books.incidents[0]}")
    if world.postgres.deadlocks:
        world.fail(f"{world.postgres.deadlocks} deadlocks in PostgreSQL")
    return {
        "orders": len(books.orders),
        "incidents": len(books.incidents),
        "gives": len(books.gives),
        "moves": len(books.moves),
        "payments": len(books.payments),
        "retakes": len(books.retakes),
        "epoch": max((row["epoch"] for row in books.pools.values()), default=1),
        "claims": sum(len(buyer.purchases) for buyer in buyers),
        "released": sum(
            any(state.status == "released_by_incident" for state in purchase.heard)
            for buyer in buyers
            for purchase in buyer.purchases.values()
        ),
    }


# --- Units -----------------------------------------------------------------------------------


def _check_pool(world: World, books: Books, sale: Sale) -> None:
    """I1, I2, I3, I8 for one pool."""
    row = books.pools[sale.sale]
    orders = [order for order in books.orders if order["pool_id"] == sale.sale]
    live = sum(order["quantity"] for order in orders if order["status"] in LIVE)
    total = row["initial"] + row["restocked"] - row["lowered"]
    counted = row["reserved"] + row["sold"]
    if live != counted:
        world.fail(f"I3 pool {sale.sale}: orders hold {live} units, the counters {counted}")
    if not 0 <= counted + row["dead"] <= total:
        world.fail(f"I3 pool {sale.sale} oversold: {counted} + {row['dead']} of {total}")
    _check_redis_pool(world, books, row, total - counted - row["dead"])
    bought: Counter[str] = Counter()
    for order in orders:
        bought[order["buyer"]] += order["quantity"] if order["status"] in LIVE else 0
    for buyer, units in bought.items():
        if units > sale.limit:
            world.fail(f"I8 pool {sale.sale}: {buyer} has {units} units, the limit is {sale.limit}")


def _check_redis_pool(world: World, books: Books, row: Row, room: int) -> None:
    model = world.redis.model
    pool_id = row["pool_id"]
    pool = model.data.get(keys.pool(SHOW, pool_id).encode())
    if pool is None:
        world.fail(f"I1 pool {pool_id} is not in Redis")
        return
    available, units = int(pool[b"a"]), int(pool[b"n"])
    if available != room:
        world.fail(f"I1 pool {pool_id}: {available} available, the books leave {room}")
    claims = model.data.get(keys.claims(SHOW).encode(), {})
    by_claim = {
        (field[:-17].decode(), field[-16:]): msgpack.unpackb(packed, raw=False)
        for field, packed in claims.items()
    }
    held = sum(s[2] for s in by_claim.values() if s[1] == pool_id and s[0] in LIVE | {"held"})
    if available < 0 or available + held + row["dead"] != units:
        world.fail(f"I2 pool {pool_id}: {available} + {held} + {row['dead']} is not {units}")
    for order in books.orders:
        state = by_claim.get((order["buyer"], order["claim_id"].bytes))
        if order["pool_id"] == pool_id and (state is None or state[0] != order["status"]):
            world.fail(f"I5 order {order['order_id']} is {order['status']}, Redis has {state}")
    stock = msgpack.unpackb(model.data[keys.state(SHOW).encode()][b"stock:%d" % pool_id])
    if (stock["left"], stock["sold"]) != (available, row["sold"]):
        world.fail(f"I11 pool {pool_id}: viewers see {stock}, {row['sold']} are sold")


# --- Sequences and states ----------------------------------------------------------------------


def _check_sequences(world: World, books: Books) -> None:
    """I6: no take of a pool twice, none missing within an epoch."""
    seqs: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in (*books.orders, *books.lowerings, *books.retakes):
        seqs[row["pool_id"], row["epoch"]].append(row["seq"])
    lowered = {(r["pool_id"], r["epoch"], r["seq"]) for r in books.lowerings}
    for row in books.incidents:
        if (row["pool_id"], row["epoch"], row["seq"]) not in lowered:
            seqs[row["pool_id"], row["epoch"]].append(row["seq"])
    for row in books.dead_letters:
        if row["pool_id"] and row["status"] != "redriven":
            seqs[row["pool_id"], row["epoch"]].append(row["seq"])
    for place, found in seqs.items():
        found.sort()
        if found != list(range(found[0], found[0] + len(found))):
            world.fail(f"I6 (pool, epoch) {place}: seqs {found}")


def _check_moves(world: World, books: Books) -> None:
    """I9: states move along the edges and end where the order is."""
    status = dict.fromkeys((order["order_id"] for order in books.orders), "confirmed")
    for move in books.moves:
        order_id = move["order_id"]
        before: Any = move["status_from"]
        if status[order_id] != before or not may_become(before, move["status_to"]):
            world.fail(f"I9 order {order_id}: {status[order_id]}, then {dict(move)}")
        status[order_id] = move["status_to"]
    for order in books.orders:
        if status[order["order_id"]] != order["status"]:
            world.fail(
                f"I9 order {order['order_id']} is {order['status']}, moves say "
                f"{status[order['order_id']]}"
            )


def _check_payments(world: World, books: Books, bank: Bank) -> None:
    """I9: money that was captured is an order's, or went back; never both, never neither."""
    paid = Counter(row["order_id"] for row in books.payments if row["status"] == "captured")
    for order in books.orders:
        wanted = 1 if order["status"] in ("paid", "fulfilled") else 0
        if paid[order["order_id"]] != wanted:
            world.fail(
                f"I9 order {order['order_id']} is {order['status']} and has"
                f" {paid[order['order_id']]} captured payments"
            )
    rows = {row["payment_id"]: row for row in books.payments}
    for account in bank.accounts.values():
        status = rows[account.payment_id]["status"]
        kept = account.captured - account.refunded
        if kept and status != "captured":
            world.fail(f"I9 the bank keeps {kept} of {account}, the payment is {status}")
        if not kept and status not in ("created", "failed", "refunded"):
            world.fail(f"I9 the bank keeps nothing of {account}, the payment is {status}")


# --- What people heard -------------------------------------------------------------------------


def _check_buyer(world: World, books: Books, buyer: Buyer) -> None:
    """I4, I5: what was confirmed is an order; no claim has two fates."""
    orders = {str(o["claim_id"]): o for o in books.orders if o["buyer"] == buyer.name}
    for purchase in buyer.purchases.values():
        statuses = {state.status for state in purchase.heard}
        order = orders.get(purchase.claim_id)
        what = f"{buyer.name} {purchase.claim_id} heard {sorted(statuses)}"
        if purchase.is_decided(world.redis.losses) and order is not None:
            world.fail(f"I5 {what}, refused {purchase.refused}, and has an order")
        if statuses - {"held", "released_by_incident"} and order is None:
            world.fail(f"I4 {what} and has no order")
        if "released_by_incident" in statuses and order is not None:
            world.fail(f"I5 {what} and has an order")
        _check_heard(world, what, purchase.heard, order)


def _check_heard(world: World, what: str, heard: Iterable[Any], order: Row | None) -> None:
    ids = {state.order_id for state in heard if state.order_id}
    if len(ids) > 1 or (order is not None and ids - {order["order_id"]}):
        world.fail(f"I5 {what}: order ids {ids}")
    if order is not None:
        last = max((RANK[state.status] for state in heard), default=0)
        if last > RANK[order["status"]]:
            world.fail(f"I5 {what}, the order is {order['status']}")


def _check_orders(world: World, books: Books, buyers: Sequence[Buyer]) -> None:
    """I4: every order was asked for, once."""
    asked = {(b.name, claim): p for b in buyers for claim, p in b.purchases.items()}
    seen: Counter[tuple[str, str]] = Counter()
    for order in books.orders:
        key = (order["buyer"], str(order["claim_id"]))
        seen[key] += 1
        purchase = asked.get(key)
        if purchase is None or (purchase.sale, purchase.quantity) != (
            *(order["pool_id"], order["quantity"]),
        ):
            world.fail(f"I4 order {order['order_id']} was not asked for: {purchase}")
    for key, count in seen.items():
        if count > 1:
            world.fail(f"I5 claim {key} has {count} orders")
