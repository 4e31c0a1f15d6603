"""Host API: flash sales."""

from server.acts import messages as m
from server.acts import views as v
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW


async def list_sales(call: Call) -> v.SaleList:
    return v.SaleList(await call.acts.sales.list_all(call.identity, call.show))


async def create_sale(call: Call) -> v.SaleView:
    return await call.acts.sales.create(call.identity, call.show, call.body)


async def start_sale(call: Call) -> v.SaleView:
    return await call.acts.sales.start(call.identity, call.show, call.ids["sale"], call.body)


async def restock_sale(call: Call) -> v.UnitsChanged:
    return await call.acts.sales.restock(call.identity, call.show, call.ids["sale"], call.body)


async def lower_sale(call: Call) -> v.UnitsChanged:
    return await call.acts.sales.lower(call.identity, call.show, call.ids["sale"], call.body)


async def change_price(call: Call) -> v.SaleView:
    sale, price = call.ids["sale"], call.body.price
    return await call.acts.sales.change_price(call.identity, call.show, sale, price)


async def stop_sale(call: Call) -> v.SaleView:
    return await call.acts.sales.stop(call.identity, call.show, call.ids["sale"])


async def stats(call: Call) -> v.StatsList:
    return v.StatsList(await call.acts.sales.stats(call.identity, call.show))


SALE = f"{SHOW}/sales/{{sale:int}}"

ENDPOINTS = (
    Endpoint(
        "GET", f"{SHOW}/sales", "list_sales", "Flash sales of the show, newest first",
        list_sales, v.SaleList,
    ),
    Endpoint(
        "POST", f"{SHOW}/sales", "create_sale", "Make a flash sale of units of a sku",
        create_sale, v.SaleView, body=m.CreateSale, status=201,
    ),
    Endpoint(
        "POST", f"{SALE}/start", "start_sale", "Start a sale now or at a time",
        start_sale, v.SaleView, body=m.StartSale,
    ),
    Endpoint(
        "POST", f"{SALE}/restock", "restock_sale", "Add units from the inventory",
        restock_sale, v.UnitsChanged, body=m.ChangeUnits,
    ),
    Endpoint(
        "POST", f"{SALE}/lower", "lower_sale", "Take units back: all of them, or none",
        lower_sale, v.UnitsChanged, body=m.ChangeUnits,
    ),
    Endpoint(
        "POST", f"{SALE}/price", "change_price", "Change the price, under a new price version",
        change_price, v.SaleView, body=m.ChangePrice,
    ),
    Endpoint(
        "POST", f"{SALE}/stop", "stop_sale", "Stop; unsold units go back to the inventory",
        stop_sale, v.SaleView,
    ),
    Endpoint(
        "GET", f"{SHOW}/stats", "stats", "The books of each sale", stats, v.StatsList,
    ),
)  # fmt: skip
