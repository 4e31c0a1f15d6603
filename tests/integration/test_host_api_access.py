"""The host API: who may call what, and what it does with bad input. Nothing changes then."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from server.web.host_api import ENDPOINTS
from server.web.host_numbers import NumbersDesk
from tests.host_stage import Stage, open_stage, request_id, show_id_of, token

# A valid body for every endpoint that needs one: only the token is wrong in these tests.
BODIES: dict[str, dict[str, Any]] = {
    "create_show": {"title": "x"},
    "edit_show": {"title": "x"},
    "create_product": {"title": "x", "skus": [{"title": "x", "price": 1, "inventory": 1}]},
    "edit_product": {"title": "x"},
    "add_sku": {"title": "x", "price": 1, "inventory": 1},
    "edit_sku": {"title": "x"},
    "set_runlist": {"products": []},
    "pin": {"product": 0},
    "say": {"text": "x"},
    "create_sale": {"sku": 1, "price": 1, "units": 1, "limit_per_buyer": 1, "duration_s": 10},
    "start_sale": {},
    "restock_sale": {"units": 1, "request_id": request_id()},
    "lower_sale": {"units": 1, "request_id": request_id()},
    "change_price": {"price": 1},
    "set_chat_policy": {"slow_mode_s": 1, "words": ["x"]},
    "delete_line": {"line": "x"},
    "mute": {"user": "x", "seconds": 1},
    "unmute": {"user": "x"},
    "ban": {"user": "x"},
    "unban": {"user": "x"},
    "kick": {"user": "x"},
    "create_webhook": {"url": "https://shop.example/hook"},
}
ALL = (*ENDPOINTS, *NumbersDesk().endpoints())
OF_A_SHOW = [e for e in ALL if "{show}" in e.path and not e.public]
TABLES = ("shows", "products", "skus", "pools", "sales", "moderations", "host_acts", "gives")


@pytest.fixture
async def stage(redis_url: str, database_url: str) -> AsyncIterator[Stage]:
    async with open_stage(redis_url, database_url) as made:
        yield made


async def books(stage: Stage) -> list[Any]:
    """Every row that a host act could change."""
    return [
        sorted(map(repr, await stage.pool.fetch(f"SELECT t::text FROM {name} t")))
        for name in TABLES
    ]


async def shop(stage: Stage) -> tuple[str, dict[str, int]]:
    """A live show with a product, a sku and a sale, and their ids."""
    show = await stage.live_show()
    sku = await stage.sku(show)
    sale = (await stage.sale(show, sku))["sale"]
    product = (await stage.ok("GET", f"{show}/products"))["products"][0]["product"]
    ids = {"sku": sku, "sale": sale, "product": product}
    return show, {**ids, "order": 1, "webhook": 1, "delivery": 1, "letter": 1}


def path_of(template: str, show: str, ids: dict[str, int]) -> str:
    path = template.replace("/api/shows/{show}", show)
    for name, value in ids.items():
        path = path.replace(f"{{{name}:int}}", str(value))
    return path


async def test_every_endpoint_when_the_token_does_not_fit_then_refused_and_nothing_changes(
    stage: Stage,
) -> None:
    show, ids = await shop(stage)
    show_id = show_id_of(show)
    other = (await stage.ok("POST", "/api/shows", {"title": "2"}))["show"]
    wrong = {
        "": "token_required",
        "not.a.token": "token_invalid",
        token(ttl_s=-10): "token_expired",
        token("eve"): "forbidden",  # another host
        token("eve", show=show_id): "forbidden",  # a host token for it of somebody else
        token("ming", show=other): "forbidden",  # its host, but for another show
        token("ming", "viewer", show_id): "forbidden",
        token("mod", "moderator", other): "forbidden",
    }
    before = await books(stage)
    for endpoint in OF_A_SHOW:
        path, body = path_of(endpoint.path, show, ids), BODIES.get(endpoint.name)
        for bad, name in wrong.items():
            found = await stage.refused(endpoint.method, path, body, token=bad)
            assert found == name, endpoint.name
    assert await books(stage) == before


async def test_every_endpoint_when_the_show_is_unknown_then_not_found(stage: Stage) -> None:
    ids = {"sku": 1, "sale": 1, "product": 1}
    for endpoint in OF_A_SHOW:
        for show in ("/api/shows/nosuchshow", "/api/shows/UPPER", "/api/shows/%2e%2e%2fx1"):
            path, body = path_of(endpoint.path, show, ids), BODIES.get(endpoint.name)
            response = await stage.call(endpoint.method, path, body)
            assert response.status_code == 404, (endpoint.name, show)


async def test_ids_when_they_are_huge_then_not_found(stage: Stage) -> None:
    show, _ = await shop(stage)
    for number in (0, 2**53, 2**63, 10**40):
        body = {"units": 1, "request_id": request_id()}
        name = await stage.refused("POST", f"{show}/sales/{number}/restock", body)
        assert name == "not_found"
    assert await stage.refused("POST", f"{show}/sales/{2**53 - 1}/stop") == "unknown_sale"


SALE = BODIES["create_sale"]
SKU = BODIES["add_sku"]
BAD_BODIES: list[tuple[str, Any, str]] = [
    # endpoint, body, field at fault
    ("edit_show", {"title": ""}, "title"),
    ("edit_show", {"title": "   "}, "title"),
    ("edit_show", {"title": "x" * 81}, "title"),
    ("edit_show", {"title": "a\x00b"}, "title"),
    ("edit_show", {"title": "a\nb"}, "title"),
    ("edit_show", {"title": "a\u202eb"}, "title"),
    ("edit_show", {"title": None}, "title"),
    ("edit_show", {"title": 7}, "title"),
    ("edit_show", {"title": "x", "host": "eve"}, "host"),
    ("edit_show", {"cover_url": "javascript:alert(1)"}, "cover_url"),
    ("edit_show", {"cover_url": "//evil.example/x.svg"}, "cover_url"),
    ("edit_show", {"cover_url": "/\\evil.example"}, "cover_url"),
    ("edit_show", {"cover_url": "data:image/svg+xml,x"}, "cover_url"),
    ("edit_show", {"cover_url": 'https://a.example/"><script>'}, "cover_url"),
    ("edit_show", {"cover_url": "http://"}, "cover_url"),
    ("edit_show", {"playback_url": "ftp://a.example/x"}, "playback_url"),
    ("edit_show", {"playback_url": "https://a.example/" + "x" * 1024}, "playback_url"),
    ("edit_show", {"starts_at": -1}, "starts_at"),
    ("edit_show", {"starts_at": 1.5}, "starts_at"),
    ("edit_show", {"starts_at": 2**60}, "starts_at"),
    ("edit_show", [], ""),
    ("add_sku", {**SKU, "price": -1}, "price"),
    ("add_sku", {**SKU, "price": 9.9}, "price"),
    ("add_sku", {**SKU, "price": "1"}, "price"),
    ("add_sku", {**SKU, "price": True}, "price"),
    ("add_sku", {**SKU, "price": 10**12}, "price"),
    ("add_sku", {**SKU, "currency": "cny"}, "currency"),
    ("add_sku", {**SKU, "currency": "CNY\n\n"[:4] + "x"}, "currency"),
    ("add_sku", {**SKU, "inventory": -1}, "inventory"),
    ("add_sku", {**SKU, "inventory": 2**31}, "inventory"),
    ("create_product", {"title": "x", "skus": []}, "skus"),
    ("create_product", {"title": "x", "skus": [SKU] * 51}, "skus"),
    ("create_product", {"title": "x", "skus": [{**SKU, "price": -1}]}, "skus[0].price"),
    ("create_product", {"title": "x", "skus": [SKU], "cues": ["x"] * 21}, "cues"),
    ("edit_product", {"cues": ["x" * 501]}, "cues[0]"),
    ("edit_product", {"cues": ["x", ""]}, "cues[1]"),
    ("edit_product", {"cues": ["a\nb"]}, "cues[0]"),
    ("edit_product", {"cues": None}, "cues"),
    ("set_runlist", {"products": list(range(1, 102))}, "products"),
    ("set_runlist", {"products": [0]}, "products[0]"),
    ("create_sale", {**SALE, "units": 0}, "units"),
    ("create_sale", {**SALE, "units": -5}, "units"),
    ("create_sale", {**SALE, "units": 1.5}, "units"),
    ("create_sale", {**SALE, "units": 10**9}, "units"),
    ("create_sale", {**SALE, "units": "1e3"}, "units"),
    ("create_sale", {**SALE, "limit_per_buyer": 0}, "limit_per_buyer"),
    ("create_sale", {**SALE, "duration_s": 9}, "duration_s"),
    ("create_sale", {**SALE, "duration_s": 1201}, "duration_s"),
    ("create_sale", {**SALE, "countdown_s": 301}, "countdown_s"),
    ("create_sale", {**SALE, "countdown_s": -1}, "countdown_s"),
    ("create_sale", {**SALE, "start": "soon"}, "start"),
    ("create_sale", {**SALE, "start": "at"}, "starts_at"),
    ("create_sale", {"sku": 1}, "price"),
    ("restock_sale", {"units": 1}, "request_id"),
    ("restock_sale", {"units": 1, "request_id": "x"}, "request_id"),
    ("lower_sale", {"units": -1, "request_id": request_id()}, "units"),
    ("change_price", {"price": 2**64}, "price"),
    ("say", {"text": "x" * 501}, "text"),
    ("say", {"text": "a\u0007b"}, "text"),
    ("mute", {"user": "x", "seconds": 0}, "seconds"),
    ("mute", {"user": "a b", "seconds": 1}, "user"),
    ("ban", {"user": ""}, "user"),
    ("ban", {"user": "a\x00"}, "user"),
    ("set_chat_policy", {"slow_mode_s": 301, "words": []}, "slow_mode_s"),
    ("set_chat_policy", {"slow_mode_s": 0, "words": [""]}, "words[0]"),
    ("set_chat_policy", {"slow_mode_s": 0, "words": ["x" * 41]}, "words[0]"),
]


async def test_body_when_a_field_is_bad_then_it_is_named_and_nothing_changes(
    stage: Stage,
) -> None:
    show, ids = await shop(stage)
    paths = {e.name: (e.method, path_of(e.path, show, ids)) for e in OF_A_SHOW}
    before = await books(stage)
    for name, body, field in BAD_BODIES:
        method, path = paths[name]
        body = {**body, "sku": ids["sku"]} if name == "create_sale" else body
        response = await stage.call(method, path, body)
        assert response.status_code == 422, (name, body)
        error = response.json()["error"]
        assert (error["name"], error["field"]) == ("bad_field", field), (name, body, error)
        assert "evil" not in response.text
        assert "regex" not in response.text
    assert await books(stage) == before


@pytest.mark.parametrize(
    "raw",
    [b"{", b"\xff\xfe", b'{"title": "\xff"}', b"[" * 60_000, b'{"title": NaN}', b'"\\ud800"'],
)
async def test_body_when_it_is_not_json_then_malformed(stage: Stage, raw: bytes) -> None:
    headers = {"Authorization": f"Bearer {stage.host_token}", "Content-Type": "application/json"}
    response = await stage.client.post("/api/shows", content=raw, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["name"] == "malformed"


async def test_body_when_it_is_too_large_or_no_json_type_then_refused(stage: Stage) -> None:
    headers = {"Authorization": f"Bearer {stage.host_token}"}
    large = b'{"title": "' + b"x" * 70_000 + b'"}'
    response = await stage.client.post("/api/shows", content=large, headers=headers)
    assert response.json()["error"]["name"] == "too_large"
    form = await stage.client.post("/api/shows", data={"title": "x"}, headers=headers)
    assert form.json()["error"]["name"] == "malformed"
    assert (await stage.ok("GET", "/api/shows"))["shows"] == []


async def test_text_when_it_is_not_normalised_then_it_is_stored_as_nfc(stage: Stage) -> None:
    view = await stage.ok("POST", "/api/shows", {"title": "  Cafe\u0301 <img src=x>  "})
    assert view["title"] == "Caf\u00e9 <img src=x>"
    quoted = await stage.ok("POST", "/api/shows", {"title": "'; DROP TABLE shows; --"})
    assert quoted["title"] == "'; DROP TABLE shows; --"


async def test_query_when_it_is_bad_then_refused(stage: Stage) -> None:
    show = await stage.live_show()
    for query in ("limit=0", "limit=501", "after=-1", "status=stolen", "x=1", "limit=abc"):
        assert await stage.refused("GET", f"{show}/orders?{query}") == "bad_field"
    assert await stage.refused("GET", f"{show}/acts?before=x") == "bad_field"


async def test_answers_when_given_then_they_are_never_cached(stage: Stage) -> None:
    show = await stage.live_show()
    for response in (await stage.call("GET", show), await stage.call("GET", show, token="x")):
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
