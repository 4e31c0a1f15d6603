"""A merchant's webhook receiver on loopback, for tests of what is sent to it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook


@dataclass
class Receiver:
    """Answers each request by `reply`; keeps what came. `secret` is needed to verify."""

    url: str = ""
    secret: str = ""
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    reply: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((dict(request.headers), await request.read()))
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        async with self._news:
            self._news.notify_all()
        try:
            return await self.reply(request) if self.reply else web.Response(text="ok")
        finally:
            self.under_way -= 1

    def answer(self, *statuses: int) -> None:
        """One answer after the other; the last one from then on."""
        waiting = list(statuses)

        async def reply(_: web.Request) -> web.StreamResponse:
            return web.Response(status=waiting.pop(0) if len(waiting) > 1 else waiting[0])

        self.reply = reply

    async def until(self, count: int, seconds: float = 10) -> None:
        """Wait until so many requests came."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: len(self.requests) >= count)

    def messages(self) -> list[dict[str, Any]]:
        """Every request as a receiver reads it: signature checked, `webhook-id` added as `id`."""
        return [
            {**Webhook(self.secret).verify(body, headers), "id": _lower(headers)["webhook-id"]}
            for headers, body in self.requests
        ]


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A running receiver, stopped after the block."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()
