"""Is this process alive, can it do its work, what does it count.

`/livez` says that the event loop turns, and nothing else: a restart cures nothing that Redis or
PostgreSQL has. `/readyz` asks both and says which parts fail; a load balancer sends viewers
elsewhere meanwhile. `/metrics` is for the metrics token, or for this machine when there is none.
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

    def routes(self) -> list[Route]:
        return [
            Route("/livez", self.livez, methods=["GET"]),
            Route("/readyz", self.readyz, methods=["GET"]),
            Route("/metrics", self.metrics, methods=["GET"]),
        ]

    async def livez(self, request: Request) -> Response:
        return PlainTextResponse("ok\n", headers=_NO_STORE)

    async def readyz(self, request: Request) -> Response:
        """200 or 503 with {"ready": bool, "parts": {name: "ok" | "failed"}}."""
        works = await asyncio.gather(*map(_works, self.probes.values()))
        parts = dict(zip(self.probes, works, strict=True))
        ready = all(parts.values())
        if not ready:
            log.warning("not_ready", failed=[name for name, ok in parts.items() if not ok])
        told = {name: "ok" if ok else "failed" for name, ok in parts.items()}
        return JSONResponse({"ready": ready, "parts": told}, 200 if ready else 503, _NO_STORE)

    async def metrics(self, request: Request) -> Response:
        if not self._may_scrape(request):
            return PlainTextResponse("not found\n", 404)
        return Response(metrics.exposition(), headers={"content-type": metrics.CONTENT_TYPE})

    def _may_scrape(self, request: Request) -> bool:
        if self.metrics_token:
            given = request.headers.get("authorization", "")
            wanted = f"Bearer {self.metrics_token}"
            return hmac.compare_digest(given.encode(), wanted.encode())
        peer = request.client.host if request.client else ""
        return is_address(peer) and ipaddress.ip_address(peer).is_loopback


async def _works(probe: Probe) -> bool:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe()
    except Exception:  # whatever it is, the part does not work
        return False
    return True
