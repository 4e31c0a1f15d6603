"""Products and skus in PostgreSQL; statements are in sql/products.sql."""

from typing import NamedTuple

from server.records.pool import Connection
from server.records.sql import load

_SQL = load("products")


class ProductRow(NamedTuple):
    """One product; on the run-list when `listed`, in the order of `position`."""

    product_id: int
    title: str
    image_url: str
    position: int
    listed: bool
    cues: list[str]


class SkuRow(NamedTuple):
    """One sku. `price` in minor units; `allotted` of `inventory` units belong to sales."""

    sku_id: int
    product_id: int
    title: str
    price: int
    currency: str
    inventory: int
    allotted: int


async def count_products(conn: Connection, show_id: str) -> int:
    count: int = await conn.fetchval(_SQL["count_products"], show_id)
    return count


async def insert_product(
    conn: Connection, show_id: str, title: str, image_url: str, cues: list[str]
) -> int:
    """Id of a new product at the end of the run-list."""
    made: int = await conn.fetchval(_SQL["insert_product"], show_id, title, image_url, cues)
    return made


async def get_product(conn: Connection, show_id: str, product_id: int) -> ProductRow | None:
    record = await conn.fetchrow(_SQL["get_product"], show_id, product_id)
    return ProductRow(*record) if record else None


async def list_products(conn: Connection, show_id: str) -> list[ProductRow]:
    """The run-list in its order, then products that are not on it."""
    return [ProductRow(*record) for record in await conn.fetch(_SQL["list_products"], show_id)]


async def update_product(conn: Connection, show_id: str, row: ProductRow) -> None:
    """Title, image and cues of the product."""
    terms = (row.product_id, row.title, row.image_url, row.cues)
    await conn.execute(_SQL["update_product"], show_id, *terms)


async def set_run_list(conn: Connection, show_id: str, product_ids: list[int]) -> None:
    await conn.execute(_SQL["set_run_list"], show_id, product_ids)


async def count_skus(conn: Connection, show_id: str, product_id: int) -> tuple[int, int]:
    """How many skus the show has, and how many of them are of this product."""
    (counts,) = await conn.fetch(_SQL["count_skus"], show_id, product_id)
    return counts[0], counts[1]


async def insert_sku(
    conn: Connection,
    show_id: str,
    product_id: int,
    title: str,
    price: int,
    currency: str,
    inventory: int,
) -> int:
    """Id of the new sku."""
    row = (show_id, product_id, title, price, currency, inventory)
    made: int = await conn.fetchval(_SQL["insert_sku"], *row)
    return made


async def get_sku(conn: Connection, show_id: str, sku_id: int) -> SkuRow | None:
    record = await conn.fetchrow(_SQL["get_sku"], show_id, sku_id)
    return SkuRow(*record) if record else None


async def list_skus(conn: Connection, show_id: str) -> list[SkuRow]:
    return [SkuRow(*record) for record in await conn.fetch(_SQL["list_skus"], show_id)]


async def update_sku(
    conn: Connection, show_id: str, sku_id: int, title: str, price: int, inventory: int
) -> bool:
    """False, and nothing changed, when `inventory` would not cover the units allotted."""
    row = (show_id, sku_id, title, price, inventory)
    return await conn.fetchval(_SQL["update_sku"], *row) is not None


async def allot(conn: Connection, show_id: str, sku_id: int, units: int) -> bool:
    """Move `units` of the inventory to a sale (negative: back). False when there are not enough.

    The row lock makes concurrent callers take turns, so two sales never share a unit.
    """
    return await conn.fetchval(_SQL["allot"], show_id, sku_id, units) is not None
