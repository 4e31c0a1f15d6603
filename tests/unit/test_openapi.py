"""The OpenAPI document: valid, complete, and true to the routes and Structs."""

import re
from typing import Any

import pytest
from openapi_spec_validator import validate

from server.acts import messages
from server.errors import ERRORS
from server.web.host_api import ENDPOINTS as LISTED
from server.web.host_numbers import NumbersDesk
from server.web.openapi import openapi

ENDPOINTS = (*LISTED, *NumbersDesk().endpoints())


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi(ENDPOINTS)


def test_document_when_checked_against_the_standard_then_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_document_when_compared_with_the_routes_then_every_one_is_in_it(
    document: dict[str, Any],
) -> None:
    served = set()
    for route in (endpoint.route() for endpoint in ENDPOINTS):
        path = re.sub(r":int}", "}", route.path)
        for method in (route.methods or set()) - {"HEAD"}:
            served.add((method.lower(), path))
    described = {(m, path) for path, item in document["paths"].items() for m in item}
    assert described == served


def test_document_when_operations_are_listed_then_their_names_differ(
    document: dict[str, Any],
) -> None:
    names = [op["operationId"] for item in document["paths"].values() for op in item.values()]
    assert len(names) == len(set(names)) == len(ENDPOINTS)


def test_document_when_a_body_is_described_then_its_bounds_are_the_structs(
    document: dict[str, Any],
) -> None:
    sale = document["components"]["schemas"]["CreateSale"]
    assert sale["additionalProperties"] is False
    assert sale["properties"]["duration_s"]["minimum"] == 10
    assert sale["properties"]["duration_s"]["maximum"] == 1200
    assert set(sale["required"]) == {"sku", "price", "units", "limit_per_buyer", "duration_s"}
    bodies = messages.Body.__subclasses__()
    kinds = {kind.__name__ for kind in bodies if kind.__module__ == messages.__name__}
    assert kinds <= set(document["components"]["schemas"])


def test_document_when_errors_are_described_then_every_name_is_listed(
    document: dict[str, Any],
) -> None:
    names = document["components"]["schemas"]["ErrorDetail"]["properties"]["name"]["enum"]
    assert set(names) == set(ERRORS)


def test_document_when_an_endpoint_is_public_then_only_it_needs_no_token(
    document: dict[str, Any],
) -> None:
    public = [
        op["operationId"]
        for item in document["paths"].values()
        for op in item.values()
        if op.get("security") == []
    ]
    assert public == ["get_show"]
    assert document["security"] == [{"token": []}]
