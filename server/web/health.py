"""Is this process alive, can it do its work, what does it count.

`/livez` says that the event loop turns, and nothing else: a restart cures nothing that Redis or
PostgreSQL has. `/readyz` asks both and says which parts fail; a load balancer sends viewers
elsewhere meanwhile. `/metrics` is for the metrics token, or for this machine when there is none.

An internal listener has the same three for whoever reaches it. Then `/metrics` is only there: on a
port that several processes share, nobody knows whose numbers he gets.
"""

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from server.errors import LivesaleError
from server.telemetry import metrics
from server.web.admission import is_address

log = structlog.get_logger()

PROBE_SECONDS: Final = 2.0
_NO_STORE: Final = {"cache-control": "no-store"}


class NotReady(LivesaleError):
    """A part of this process does not work now."""


Probe = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Health:
    """`probes`: name of a part -> a call that fails when the part does."""

    probes: Mapping[str, Probe]
    metrics_token: str = ""

    def public_routes(self, *, has_internal: bool) -> list[Route]:
        routes = self._routes()
        return routes if has_internal else [*routes, _get("/metrics", self.metrics)]

    def internal_routes(self) -> list[Route]:
        return [*self._routes(), _get("/metrics", self.internal_metrics)]

    def _routes(self) -> list[Route]:
        return [_get("/livez", self.livez), _get("/readyz", self.readyz)]

    async def livez(self, request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_NO_STORE)

    async def readyz(self, request: Request) -> Response:
        """200 or 503 with {"ready": bool, "parts": {name: "ok" | "failed"}}."""
        found = await asyncio.gather(*map(_fault, self.probes.values()))
        faults = dict(zip(self.probes, found, strict=True))
        ready = not any(faults.values())
        if not ready:
            log.warning("not_ready", failed={name: why for name, why in faults.items() if why})
        told = {name: "failed" if why else "ok" for name, why in faults.items()}
        return JSONResponse({"ready": ready, "parts": told}, 200 if ready else 503, _NO_STORE)

    async def metrics(self, request: Request) -> Response:
        has_token = self._has_token(request)
        return _exposition(has_token if self.metrics_token else _is_from_here(request))

    async def internal_metrics(self, request: Request) -> Response:
        return _exposition(not self.metrics_token or self._has_token(request))

    def _has_token(self, request: Request) -> bool:
        given = request.headers.get("authorization", "")
        return hmac.compare_digest(given.encode(), f"Bearer {self.metrics_token}".encode())


def _get(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    return Route(path, endpoint, methods=["GET"])


def _is_from_here(request: Request) -> bool:
    peer = request.client.host if request.client else ""
    return is_address(peer) and ipaddress.ip_address(peer).is_loopback


def _exposition(allowed: bool) -> Response:
    if not allowed:
        return PlainTextResponse("not found\n", 404)
    return Response(metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})


async def _fault(probe: Probe) -> str:
    """Why the part does not work, "" when it does."""
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe()
    except Exception as error:  # whatever it is, the part does not work
        return str(error) or type(error).__name__
    return ""
