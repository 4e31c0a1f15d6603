"""One way for every HTTP endpoint: token, typed body and query, one form of errors.

An Endpoint names its handler and its types; the OpenAPI document (server/web/openapi.py) is made
from the same table. Handlers get a Call and return a Struct, a list of Structs, None (204) or a
ready Response. Needed in `app.state`: `host_acts` (HostActs) and `secret` (bytes).
"""

import re
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from server import limits
from server.acts.host_acts import HostActs
from server.acts.messages import Body
from server.domain.identity import Identity
from server.errors import RecordsUnavailable, Refused, StoreUnavailable
from server.web import auth

log = structlog.get_logger()

ID_MAX: Final = 2**53 - 1
_SHOW: Final = re.compile(limits.SHOW_ID_PATTERN.removesuffix("$") + r"\Z")
_PLACE: Final = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`\Z")
_NAMED: Final = re.compile(r"(unknown|missing required) field `([^`]*)`")


class ErrorDetail(Struct, frozen=True):
    """Why a request was refused: a row of the error table. `field`: the one at fault, or empty."""

    code: int
    name: str
    retryable: bool
    retry_ms: int
    zh: str
    en: str
    detail: str
    field: str


class ErrorBody(Struct, frozen=True):
    """The body of every answer with a status of 400 and above."""

    error: ErrorDetail


@dataclass(frozen=True, slots=True)
class Call:
    """One request, checked: who asks, for which show, path ids, body and query as their types.

    `here`: the address and port at which it reached this process.
    """

    acts: HostActs
    secret: bytes
    identity: Identity
    show: str
    ids: Mapping[str, int]
    body: Any
    query: Any
    here: tuple[str, int | None]


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A row of the API. `answer`: type of the body (a tuple: one of them), None for 204, or a
    media type.

    `public` needs no token; without one the identity is NOBODY.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    answer: Any
    body: type[Body] | None = None
    query: type[Body] | None = None
    status: int = 200
    public: bool = False
    body_bytes_max: int = limits.BODY_BYTES_MAX

    def route(self) -> Route:
        """The route. Starlette's own body limit is lifted: `read_body` has ours and answers in
        the API's form."""
        return Route(
            self.path,
            self._serve,
            methods=[self.method],
            name=self.name,
            max_body_size=sys.maxsize,
        )

    async def _serve(self, request: Request) -> Response:
        try:
            return self._response(await self.handler(await self._call(request)))
        except Refused as refusal:
            return error_response(refusal)
        except (StoreUnavailable, RecordsUnavailable) as outage:
            log.warning("http_unavailable", endpoint=self.name, reason=str(outage))
            return error_response(self._refusal_of_outage())
        except (ClientDisconnect, HTTPException):
            raise
        except Exception:
            log.exception("http_failed", endpoint=self.name)
            return error_response(Refused("internal"))

    def _refusal_of_outage(self) -> Refused:
        if self.method == "GET":
            return Refused("unavailable")
        return Refused("outcome_unknown", "It may have been done: look before repeating it")

    async def _call(self, request: Request) -> Call:
        """Raises Refused for whatever is not right with the request."""
        state = request.app.state
        anonymous = self.public and "authorization" not in request.headers
        identity = NOBODY if anonymous else identity_of(request, state.secret)
        show, ids = _path(request.path_params)
        body = None
        if self.body:
            raw = await read_body(request, self.body_bytes_max)
            body = to_struct(parse_json(raw or b"{}"), self.body)
        query = to_query(request, self.query) if self.query else None
        here = request.scope["server"]
        return Call(state.host_acts, state.secret, identity, show, ids, body, query, here)

    def _response(self, answer: Any) -> Response:
        if isinstance(answer, Response):
            return answer
        if answer is None:
            return Response(status_code=204)
        return json_response(answer, self.status)


NOBODY: Final = Identity("", "", "viewer", "", 0)


# --- Who --------------------------------------------------------------------------------------


def identity_of(request: Request, secret: bytes) -> Identity:
    """From `Authorization: Bearer <token>`. Raises Refused(token_required|invalid|expired)."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refused("token_required")
    return auth.verify(secret, token.strip())


# --- What -------------------------------------------------------------------------------------


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Raises Refused(too_large) without reading on, malformed if not JSON."""
    body = await read_raw(request, bytes_max)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if body and media != "application/json":
        raise Refused("malformed", "Content-Type must be application/json")
    return body


async def read_raw(request: Request, bytes_max: int) -> bytes:
    """The whole body, whatever it is. Raises Refused(too_large) without reading on."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise Refused("too_large", f"A body has at most {bytes_max} bytes")
        parts.append(part)
    return b"".join(parts)


def parse_json(raw: bytes) -> Any:
    """A JSON value whose texts are NFC without spaces around. Raises Refused(malformed)."""
    try:
        return _tidy(msgspec.json.decode(raw))
    except (ValueError, RecursionError):  # DecodeError, UnicodeDecodeError, nesting
        raise Refused("malformed", "The body is not JSON") from None


def _tidy(value: Any) -> Any:
    match value:
        case str():
            return unicodedata.normalize("NFC", value).strip()
        case list():
            return [_tidy(item) for item in value]
        case dict():
            return {key: _tidy(item) for key, item in value.items()}
    return value


def to_struct(value: Any, kind: type[Body], *, strict: bool = True) -> Any:
    """`value` as a `kind`. Raises Refused(bad_field) that names the field."""
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from None


def to_query(request: Request, kind: type[Body]) -> Any:
    """The query string as a `kind`. Raises Refused(bad_field)."""
    pairs = request.query_params.multi_items()
    values = {key: unicodedata.normalize("NFC", value) for key, value in pairs}
    return to_struct(values, kind, strict=False)


def _bad_field(message: str) -> Refused:
    """The library's message without what the client sent."""
    named = _NAMED.search(message)
    if named:
        what = "Unknown field" if named[1] == "unknown" else "This field is needed"
        field = named[2][:64] if named[2].isidentifier() else ""
        return Refused("bad_field", what, field=field)
    place = _PLACE.search(message)
    detail = _PLACE.sub("", message)
    if "matching regex" in detail:
        detail = "Not in the form that this field needs (one line without control characters)"
    elif detail.startswith(("Invalid enum value", "Invalid")):
        detail = "Not one of the values that this field can have"
    return Refused("bad_field", detail, field=place[1] if place else None)


def _path(params: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """Show and numbers of the path. Raises Refused(not_found) for what cannot exist."""
    show = params.get("show", "")
    ids = {name: value for name, value in params.items() if name != "show"}
    if (show and not _SHOW.match(show)) or any(not 0 < n <= ID_MAX for n in ids.values()):
        raise Refused("not_found")
    return show, ids


# --- Answers ----------------------------------------------------------------------------------


def json_response(value: Any, status: int = 200) -> Response:
    """A Struct, or a list of Structs, as JSON; never cached."""
    return Response(
        msgspec.json.encode(value),
        status,
        {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        "application/json",
    )


def error_response(refusal: Refused) -> Response:
    """The refusal as the API tells it, with `Retry-After` (s) where a retry can help."""
    row = refusal.error
    body = ErrorBody(
        ErrorDetail(
            row.code,
            row.name,
            row.retryable,
            refusal.retry_ms,
            row.zh,
            row.en,
            refusal.detail,
            refusal.field or "",
        )
    )
    response = json_response(body, row.http_status)
    if row.http_status in (429, 503):
        response.headers["Retry-After"] = str(-(-refusal.retry_ms // 1000))
    if row.http_status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response
