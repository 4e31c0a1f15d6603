"""The demo pages: what Vite built of client-demo/, and a front page that lists live shows.

Pages are never cached, assets (their names carry a hash) for a year, the SDK and pictures for an
hour. files.py compresses, content_policy.py says what a page may do.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route

from server.errors import RecordsUnavailable
from server.records.front import LiveShow
from server.web.content_policy import content_policy
from server.web.files import Files, file_response
from server.web.video import NO_VIDEO, VideoOrigins

log = structlog.get_logger()

DIST: Final = Path(__file__).resolve().parents[2] / "client-demo" / "dist"
LISTED_MAX: Final = 50  # shows on the front page
_NO_STORE: Final = {"cache-control": "no-store"}
_ASSET: Final = {"cache-control": "public, max-age=31536000, immutable"}
_PICTURE: Final = {"cache-control": "public, max-age=3600"}
_SDK: Final = {**_PICTURE, "access-control-allow-origin": "*"}  # pages of other sites may import it

LiveShows = Callable[[], Awaitable[Sequence[LiveShow]]]


class Pages:
    """Routes of all pages. `live_shows` reads the shows that are on now; `video` knows where their
    viewers may fetch video from."""

    def __init__(
        self, live_shows: LiveShows, dist: Path = DIST, video: VideoOrigins = NO_VIDEO
    ) -> None:
        self._live_shows = live_shows
        self._dist = dist
        self._video = video

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.front, methods=["GET"]),
            Route("/watch/{show}", self.viewer, methods=["GET"]),
            Route("/host", self.host, methods=["GET"]),
            Route("/host/{show}", self.host, methods=["GET"]),
            Route("/pay.html", self.pay, methods=["GET"]),
            Mount("/assets", Files(self._dist / "assets", _ASSET)),
            Mount("/demo", Files(self._dist / "demo", _PICTURE)),
            Mount("/sdk", Files(self._dist / "sdk", _SDK)),
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
        heading = "正在直播 · Live now" if shows else "暂无直播 · No show is live"
        return _plain(heading, [_card(show) for show in shows])

    async def viewer(self, request: Request) -> Response:
        policy = content_policy(await self._video.of(request.path_params["show"]))
        return self._page(request, "viewer.html", {"content-security-policy": policy})

    async def host(self, request: Request) -> Response:
        return self._page(request, "host.html")

    async def pay(self, request: Request) -> Response:
        """The demo provider's pay page."""
        return self._page(request, "pay.html")

    def _page(self, request: Request, name: str, headers: Mapping[str, str] = {}) -> Response:
        try:
            return file_response(self._dist / name, request.headers, {**_NO_STORE, **headers})
        except FileNotFoundError:
            hint = "<code>make client</code>"
            return _plain("页面尚未构建 · The pages are not built yet", [f"Run {hint}"], 503)


def _card(show: LiveShow) -> str:
    cover = f'<img src="{escape(show.cover_url)}" alt="">' if show.cover_url else ""
    return f'<a class="show" href="/watch/{escape(show.show_id)}">{cover}{escape(show.title)}</a>'


def _plain(heading: str, items: Sequence[str], status: int = 200) -> HTMLResponse:
    """A page that needs no build. `items` are HTML already."""
    listed = "".join(f"<li>{item}</li>" for item in items)
    return HTMLResponse(
        '<!doctype html><html lang="zh-CN"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="/demo/icon.svg"><link rel="stylesheet" href="/demo/front.css">'
        f"<title>livesale</title><body><h1>{escape(heading)}</h1><ul>{listed}</ul>"
        '<footer><a href="/host">主播后台 · Host console</a></footer></body></html>',
        status,
        _NO_STORE,
    )
