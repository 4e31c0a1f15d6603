"""What browsers may do with our answers: the security headers, and the Content-Security-Policy.

Everything is from our own host; no inline script or style, and no frame around us. Only a viewer's
page may fetch video from elsewhere: from the origins that are named to it.
"""

import re
from collections.abc import Sequence
from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server import limits

SECURITY_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
# What follows the origin in a URL, if anything does. `user@` before a host is no origin of ours.
_ORIGIN: Final = re.compile(rf"({limits.ORIGIN_PATTERN})(?:[/?#]|\Z)", re.ASCII)


def content_policy(video: Sequence[str] = ()) -> str:
    """The policy of a page that may fetch and play video from the origins `video`, too."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' https: http:",  # hosts name pictures by URL
            " ".join(("media-src 'self' blob:", *video)),  # blob: is Media Source Extensions
            " ".join(("connect-src 'self'", *video)),
            "font-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


CSP: Final = content_policy()


def origin_of(url: str) -> str:
    """The origin of an absolute URL as the policy may name it; '' when it has none that is plain
    (a path of ours, an IPv6 address, a name that is not in ASCII)."""
    found = _ORIGIN.match(url)
    return found[1].lower() if found else ""


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
