"""Acts on a show's products: their texts, skus, prices and inventory, and the run-list."""

from uuid import UUID

from server import limits
from server.acts.desk import Act, Desk, request_act_id
from server.acts.messages import (
    CreateProduct,
    CreateSku,
    EditProduct,
    EditSku,
    asked_fields,
    changed_fields,
)
from server.acts.views import ProductDetail, SkuDetail, product_details, sku_detail
from server.domain.identity import Identity, require_moderator
from server.domain.show import require_not_ended
from server.errors import Refused
from server.records import products, sales, shows
from server.records.products import SkuRow


class ProductActs:
    """Errors: Refused by rule, RecordsUnavailable (whether it was committed is unknown)."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def list_all(self, identity: Identity, show_id: str) -> list[ProductDetail]:
        """The run-list in its order, then products that are not on it."""
        async with self._desk.reading(identity, show_id, require_moderator) as act:
            return await _details(act)

    async def create(self, identity: Identity, show_id: str, body: CreateProduct) -> ProductDetail:
        """A product with its skus, at the end of the run-list; one, however often the same request
        comes. Raises Refused(conflict|show_ended)."""
        act_id = request_act_id(show_id, 0, body.request_id)
        async with self._desk.act(identity, show_id, ended=True) as act:
            known = await act.repeated(act_id, "add_product", asked_fields(body))
            made = known["product"] if known else await self._create(act, body, act_id)
            found = await _detail(act, made)
        await self._desk.apply(self._desk.projector.project_show(show_id))
        return found

    async def _create(self, act: Act, body: CreateProduct, act_id: UUID) -> int:
        show_id = act.show.show_id
        require_not_ended(act.show.status)
        if await products.count_products(act.conn, show_id) >= limits.PRODUCTS_MAX:
            raise Refused("conflict", f"A show has at most {limits.PRODUCTS_MAX} products")
        terms = (body.title, body.image_url, body.cues)
        made = await products.insert_product(act.conn, show_id, *terms)
        await _require_room(act, made, len(body.skus))
        for sku in body.skus:
            await _insert_sku(act, made, sku)
        await self._changed(act, "add_product", {"product": made, **asked_fields(body)}, act_id)
        return made

    async def edit(
        self, identity: Identity, show_id: str, product_id: int, body: EditProduct
    ) -> ProductDetail:
        """Title, image and cues. Raises Refused(not_found)."""
        changes = changed_fields(body)
        async with self._desk.act(identity, show_id) as act:
            row = await products.get_product(act.conn, show_id, product_id)
            if row is None:
                raise Refused("not_found", "No such product")
            new = row._replace(**changes)
            if new != row:
                await products.update_product(act.conn, show_id, new)
                await self._changed(act, "edit_product", {"product": product_id, **changes})
            found = await _detail(act, product_id)
        await self._desk.apply(self._desk.projector.project_show(show_id))
        return found

    async def add_sku(
        self, identity: Identity, show_id: str, product_id: int, body: CreateSku
    ) -> SkuDetail:
        """A further sku of a product. Raises Refused(not_found|conflict: too many)."""
        async with self._desk.act(identity, show_id) as act:
            if await products.get_product(act.conn, show_id, product_id) is None:
                raise Refused("not_found", "No such product")
            await _require_room(act, product_id, 1)
            row = await _insert_sku(act, product_id, body)
            await self._changed(act, "add_sku", {"sku": row.sku_id, "title": row.title})
        await self._desk.apply(self._desk.projector.project_show(show_id))
        return sku_detail(row)

    async def edit_sku(
        self, identity: Identity, show_id: str, sku_id: int, body: EditSku
    ) -> SkuDetail:
        """Title, price, inventory. A sale keeps its own price.

        Raises Refused(not_found|out_of_stock: sales hold more units than the new inventory).
        """
        changes = changed_fields(body)
        running: list[int] = []
        async with self._desk.act(identity, show_id) as act:
            row = await products.get_sku(act.conn, show_id, sku_id)
            if row is None:
                raise Refused("not_found", "No such sku")
            new = row._replace(**changes)
            if new != row:
                await self._update_sku(act, new)
                await self._changed(act, "edit_sku", {"sku": sku_id, **changes})
            if new.price != row.price:
                running = await sales.touch_sales_of_sku(act.conn, sku_id)
        await self._desk.apply(self._desk.projector.project_show(show_id))
        for sale_id in running:
            await self._desk.apply(self._desk.projector.project_sale(sale_id))
        return sku_detail(new)

    async def set_run_list(
        self, identity: Identity, show_id: str, product_ids: list[int]
    ) -> list[ProductDetail]:
        """The show's products in this order. Raises Refused(bad_field|not_found)."""
        if len(set(product_ids)) != len(product_ids):
            raise Refused("bad_field", "A product is listed twice", field="products")
        async with self._desk.act(identity, show_id) as act:
            known = {row.product_id for row in await products.list_products(act.conn, show_id)}
            if not known.issuperset(product_ids):
                raise Refused("not_found", "No such product", field="products")
            await products.set_run_list(act.conn, show_id, product_ids)
            await self._changed(act, "set_runlist", {"products": product_ids})
            found = await _details(act)
        await self._desk.apply(self._desk.projector.project_show(show_id))
        return found

    async def _update_sku(self, act: Act, new: SkuRow) -> None:
        terms = (new.sku_id, new.title, new.price, new.inventory)
        if not await products.update_sku(act.conn, act.show.show_id, *terms):
            raise Refused("out_of_stock", "Sales hold more units than that", field="inventory")

    async def _changed(
        self, act: Act, action: str, detail: dict[str, object], act_id: UUID | None = None
    ) -> None:
        await shows.raise_revision(act.conn, act.show.show_id)
        await act.note(action, detail, act_id)


async def _require_room(act: Act, product_id: int, more: int) -> None:
    """`more` skus still fit the product and the show. Raises Refused(conflict)."""
    of_show, of_product = await products.count_skus(act.conn, act.show.show_id, product_id)
    if of_product + more > limits.SKUS_PER_PRODUCT_MAX:
        raise Refused("conflict", f"A product has at most {limits.SKUS_PER_PRODUCT_MAX} skus")
    if of_show + more > limits.SKUS_PER_SHOW_MAX:
        raise Refused("conflict", f"A show has at most {limits.SKUS_PER_SHOW_MAX} skus")


async def _insert_sku(act: Act, product_id: int, sku: CreateSku) -> SkuRow:
    terms = (sku.title, sku.price, sku.currency, sku.inventory)
    made = await products.insert_sku(act.conn, act.show.show_id, product_id, *terms)
    return SkuRow(made, product_id, *terms, allotted=0)


async def _details(act: Act) -> list[ProductDetail]:
    rows = await products.list_products(act.conn, act.show.show_id)
    return product_details(rows, await products.list_skus(act.conn, act.show.show_id))


async def _detail(act: Act, product_id: int) -> ProductDetail:
    """One product; the caller knows that it is there."""
    return next(view for view in await _details(act) if view.product == product_id)
