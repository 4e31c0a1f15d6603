"""Host API: shows and their products."""

from msgspec.structs import asdict

from server.acts import messages as m
from server.acts import views as v
from server.web import auth
from server.web.endpoint import Call, Endpoint


async def create_show(call: Call) -> v.CreatedShow:
    view = await call.acts.shows.create(call.identity, call.body)
    token = auth.issue(
        call.secret,
        user=call.identity.user,
        role="host",
        show=view.show,
        name=call.identity.name,
        ttl_s=auth.HOST_TOKEN_S,
    )
    return v.CreatedShow(**asdict(view), host_token=token)


async def list_shows(call: Call) -> v.ShowList:
    return v.ShowList(await call.acts.shows.list_own(call.identity))


async def get_show(call: Call) -> v.ShowView | v.PublicShow:
    return await call.acts.shows.get(call.identity, call.show)


async def edit_show(call: Call) -> v.ShowView:
    return await call.acts.shows.edit(call.identity, call.show, call.body)


async def start_show(call: Call) -> v.ShowView:
    return await call.acts.shows.move(call.identity, call.show, "start")


async def pause_show(call: Call) -> v.ShowView:
    return await call.acts.shows.move(call.identity, call.show, "pause")


async def resume_show(call: Call) -> v.ShowView:
    return await call.acts.shows.move(call.identity, call.show, "resume")


async def end_show(call: Call) -> v.ShowView:
    return await call.acts.shows.move(call.identity, call.show, "end")


async def list_products(call: Call) -> v.ProductList:
    return v.ProductList(await call.acts.products.list_all(call.identity, call.show))


async def create_product(call: Call) -> v.ProductDetail:
    return await call.acts.products.create(call.identity, call.show, call.body)


async def edit_product(call: Call) -> v.ProductDetail:
    product = call.ids["product"]
    return await call.acts.products.edit(call.identity, call.show, product, call.body)


async def add_sku(call: Call) -> v.SkuDetail:
    product = call.ids["product"]
    return await call.acts.products.add_sku(call.identity, call.show, product, call.body)


async def edit_sku(call: Call) -> v.SkuDetail:
    sku = call.ids["sku"]
    return await call.acts.products.edit_sku(call.identity, call.show, sku, call.body)


async def set_run_list(call: Call) -> v.ProductList:
    return v.ProductList(
        await call.acts.products.set_run_list(call.identity, call.show, call.body.products)
    )


async def pin(call: Call) -> v.ShowView:
    return await call.acts.shows.pin(call.identity, call.show, call.body.product)


async def say(call: Call) -> v.Said:
    return await call.acts.shows.say(call.identity, call.show, call.body)


async def list_acts(call: Call) -> v.ActList:
    return v.ActList(await call.acts.shows.list_acts(call.identity, call.show, call.query))


SHOW = "/api/shows/{show}"

ENDPOINTS = (
    Endpoint(
        "POST", "/api/shows", "create_show", "Make a show; needs a host token for every show",
        create_show, v.CreatedShow, body=m.CreateShow, status=201,
    ),
    Endpoint(
        "GET", "/api/shows", "list_shows", "Shows of this host, newest first",
        list_shows, v.ShowList,
    ),
    Endpoint(
        "GET", SHOW, "get_show", "A show; all of it only for its host and moderators",
        get_show, (v.ShowView, v.PublicShow), public=True,
    ),
    Endpoint(
        "PATCH", SHOW, "edit_show", "Change title, cover, playback URL or schedule",
        edit_show, v.ShowView, body=m.EditShow,
    ),
    Endpoint("POST", f"{SHOW}/start", "start_show", "Go live", start_show, v.ShowView),
    Endpoint(
        "POST", f"{SHOW}/pause", "pause_show", "Pause: no claims; windows do not extend",
        pause_show, v.ShowView,
    ),
    Endpoint("POST", f"{SHOW}/resume", "resume_show", "Go on", resume_show, v.ShowView),
    Endpoint(
        "POST", f"{SHOW}/end", "end_show", "End the show and stop its sales",
        end_show, v.ShowView,
    ),
    Endpoint(
        "GET", f"{SHOW}/products", "list_products", "Run-list first, then the other products",
        list_products, v.ProductList,
    ),
    Endpoint(
        "POST", f"{SHOW}/products", "create_product", "Add a product with its skus",
        create_product, v.ProductDetail, body=m.CreateProduct, status=201,
    ),
    Endpoint(
        "PATCH", f"{SHOW}/products/{{product:int}}", "edit_product", "Change title, image or cues",
        edit_product, v.ProductDetail, body=m.EditProduct,
    ),
    Endpoint(
        "POST", f"{SHOW}/products/{{product:int}}/skus", "add_sku", "Add a sku to a product",
        add_sku, v.SkuDetail, body=m.CreateSku, status=201,
    ),
    Endpoint(
        "PATCH", f"{SHOW}/skus/{{sku:int}}", "edit_sku", "Change title, price or inventory",
        edit_sku, v.SkuDetail, body=m.EditSku,
    ),
    Endpoint(
        "PUT", f"{SHOW}/runlist", "set_runlist", "Set which products are listed, in order",
        set_run_list, v.ProductList, body=m.SetRunList,
    ),
    Endpoint(
        "PUT", f"{SHOW}/pin", "pin", "Say which product is being explained; 0: none",
        pin, v.ShowView, body=m.Pin,
    ),
    Endpoint(
        "POST", f"{SHOW}/commentary", "say", "Say something to the room in writing",
        say, v.Said, body=m.Say, status=201,
    ),
    Endpoint(
        "GET", f"{SHOW}/acts", "list_acts", "The audit log, newest first",
        list_acts, v.ActList, query=m.ActsQuery,
    ),
)  # fmt: skip
