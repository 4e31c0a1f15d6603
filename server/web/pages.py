"""The demo pages: what Vite built of client-demo/, and a front page that lists live shows.

Everything is from our own host; the Content-Security-Policy allows no inline script or style and
no frame around us. Pages are never cached, assets (their names carry a hash) for a year.
"""

from collections.abc import Awaitable, Callable, Sequence
from html import escape
from pathlib import Path
from typing import Final

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import RecordsUnavailable
from server.records.front import LiveShow

log = structlog.get_logger()

DIST: Final = Path(__file__).resolve().parents[2] / "client-demo" / "dist"
LISTED_MAX: Final = 50  # shows on the front page
CSP: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' https: http:",  # hosts name pictures by URL
        "media-src 'self' https: http: blob:",  # a show's playback URL
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
_NO_STORE: Final = {"cache-control": "no-store"}
_ASSET_CACHE: Final = "public, max-age=31536000, immutable"
_PICTURE_CACHE: Final = "public, max-age=3600"

LiveShows = Callable[[], Awaitable[Sequence[LiveShow]]]


class SecurityHeaders:
    """Pure ASGI: SECURITY_HEADERS on every HTTP response, CSP on those that are HTML and
    bring none of their own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("content-security-policy", CSP)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class CachedFiles(StaticFiles):
    """Static files with a Cache-Control of ours."""

    def __init__(self, directory: Path, cache_control: str) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._cache_control = cache_control

    async def check_config(self) -> None:
        """A client that is not built has no files: 404, until it is."""
        try:
            await super().check_config()
        except RuntimeError:
            raise HTTPException(404) from None

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        if response.status_code in (200, 304):
            response.headers["cache-control"] = self._cache_control
        return response


class Pages:
    """Routes of all pages. `live_shows` reads the shows that are on now."""

    def __init__(self, live_shows: LiveShows, dist: Path = DIST) -> None:
        self._live_shows = live_shows
        self._dist = dist

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.front, methods=["GET"]),
            Route("/watch/{show}", self.viewer, methods=["GET"]),
            Route("/host", self.host, methods=["GET"]),
            Route("/host/{show}", self.host, methods=["GET"]),
            Route("/pay.html", self.pay, methods=["GET"]),
            Mount("/assets", CachedFiles(self._dist / "assets", _ASSET_CACHE)),
            Mount("/demo", CachedFiles(self._dist / "demo", _PICTURE_CACHE)),
        ]

    async def front(self, request: Request) -> Response:
        """The live show when there is just one, else a list of them."""
        try:
            shows = await self._live_shows()
        except RecordsUnavailable:
            log.warning("live_shows_not_read")
            return _plain("服务暂不可用 · Temporarily unavailable", [], 503)
        if len(shows) == 1:
            return RedirectResponse(f"/watch/{shows[0].show_id}", 307, _NO_STORE)
        items = [f'<a href="/watch/{escape(s.show_id)}">{escape(s.title)}</a>' for s in shows]
        heading = "正在直播 · Live now" if shows else "暂无直播 · No show is live"
        return _plain(heading, [*items, '<a href="/host">主播后台 · Host console</a>'])

    async def viewer(self, request: Request) -> Response:
        return self._page("viewer.html")

    async def host(self, request: Request) -> Response:
        return self._page("host.html")

    async def pay(self, request: Request) -> Response:
        """The demo provider's pay page."""
        return self._page("pay.html")

    def _page(self, name: str) -> Response:
        path = self._dist / name
        if not path.is_file():
            hint = "<code>make client</code>"
            return _plain("页面尚未构建 · The pages are not built yet", [f"Run {hint}"], 503)
        return FileResponse(path, headers=_NO_STORE)


def _plain(heading: str, items: Sequence[str], status: int = 200) -> HTMLResponse:
    """A page without script or style. `items` are HTML already."""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return HTMLResponse(
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>livesale</title><h1>{escape(heading)}</h1><ul>{listed}</ul></html>",
        status,
        _NO_STORE,
    )
