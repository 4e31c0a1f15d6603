"""The OpenAPI 3.1 document, made from the table of endpoints and their Structs."""

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import server
from server import limits
from server.errors import ERRORS
from server.web.endpoint import Endpoint, ErrorBody, json_response

_PARAMETER: Final = re.compile(r"\{(\w+)(:int)?\}")
_REF: Final = "#/components/schemas/{name}"
Json = dict[str, Any]


def openapi_route(endpoints: Sequence[Endpoint]) -> Route:
    """GET /openapi.json. The document is made once, when the route is."""
    document = openapi(endpoints)

    async def serve(request: Request) -> Response:
        return json_response(document)

    return Route("/openapi.json", serve, name="openapi")


def openapi(endpoints: Sequence[Endpoint]) -> Json:
    """The whole document as JSON values."""
    types = [ErrorBody, *(kind for endpoint in endpoints for kind in _types(endpoint))]
    schemas, named = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(map(repr, types), schemas, strict=True))
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        operations = paths.setdefault(_PARAMETER.sub(r"{\1}", endpoint.path), {})
        operations[endpoint.method.lower()] = _operation(endpoint, by_type, named)
    named["ErrorDetail"]["properties"]["name"]["enum"] = sorted(ERRORS)
    return {
        "openapi": "3.1.0",
        "info": {"title": "livesale host API", "version": server.__version__, "license": _LICENSE},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": named, "securitySchemes": {"token": _TOKEN}},
        "security": [{"token": []}],
    }


_LICENSE: Final[Json] = {"name": "MIT", "identifier": "MIT"}
_TOKEN: Final[Json] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def _operation(endpoint: Endpoint, by_type: dict[str, Json], named: Json) -> Json:
    operation: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "parameters": [*_path_parameters(endpoint.path), *_query_parameters(endpoint, named)],
        "responses": {
            str(endpoint.status): _answer(endpoint, by_type),
            "default": {"description": "Refused", "content": _json(by_type[repr(ErrorBody)])},
        },
    }
    if endpoint.body:
        content = _json(by_type[repr(endpoint.body)])
        required = bool(named[endpoint.body.__name__].get("required"))
        operation["requestBody"] = {"required": required, "content": content}
    if endpoint.public:
        operation["security"] = []
    return operation


def _path_parameters(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _ID if number else _SHOW_ID}
        for name, number in _PARAMETER.findall(path)
    ]


_ID: Final[Json] = {"type": "integer", "minimum": 1, "maximum": 2**53 - 1}
_SHOW_ID: Final[Json] = {"type": "string", "pattern": limits.SHOW_ID_PATTERN}


def _query_parameters(endpoint: Endpoint, named: Json) -> list[Json]:
    if not endpoint.query:
        return []
    fields = named[endpoint.query.__name__]["properties"]
    return [{"name": name, "in": "query", "schema": schema} for name, schema in fields.items()]


def _answer(endpoint: Endpoint, by_type: dict[str, Json]) -> Json:
    answer = endpoint.answer
    if answer is None:
        return {"description": "Done"}
    if isinstance(answer, str):
        return {"description": "Done", "content": {answer: {}}}
    if isinstance(answer, tuple):
        return {"description": "Done", "content": _json(_any_of(answer, by_type))}
    return {"description": "Done", "content": _json(by_type[repr(answer)])}


def _any_of(answers: tuple[Any, ...], by_type: dict[str, Json]) -> Json:
    return {"anyOf": [by_type[repr(kind)] for kind in answers]}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _types(endpoint: Endpoint) -> list[Any]:
    """Every type of an endpoint that needs a schema."""
    answer = endpoint.answer
    answers = answer if isinstance(answer, tuple) else (answer,)
    kinds = [endpoint.body, endpoint.query, *answers]
    return [kind for kind in kinds if kind is not None and not isinstance(kind, str)]
