"""Row H5: a page of somebody else, in the browser of a viewer who is signed in here."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright

from tests.live import until
from tests.web_stage import WebStage

# Cookies do not tell ports apart: the browser sends those of 127.0.0.1 to both.
COOKIE = {"name": "session", "value": "victim", "domain": "127.0.0.1", "path": "/"}
ARGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

WATCH = """(url) => new Promise((resolve) => {
    const socket = new WebSocket(url);
    socket.onmessage = (event) => { resolve(JSON.parse(event.data).t); socket.close(); };
    socket.onerror = () => resolve("refused");
})"""
READ = """(url) => fetch(url, {credentials: "include"})
    .then((answer) => answer.text()).catch(() => "refused")"""
# What a form can send to anybody without being asked first.
ACT = """([url, body]) => fetch(url, {method: "POST", mode: "no-cors", credentials: "include",
    headers: {"content-type": "text/plain"}, body}).then(() => "sent").catch(() => "refused")"""


class ForeignPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>win a prize</title>")

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def foreign_url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), ForeignPage)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


async def attempts(page: Page, web: WebStage, show: str) -> list[str]:
    socket = f"{web.url.replace('http', 'ws', 1)}/ws/{show}"
    acts = f"{web.url}/api/shows/{show}/commentary"
    seen = await page.evaluate(WATCH, socket)
    read = await page.evaluate(READ, f"{web.url}/livez")
    acted = await page.evaluate(ACT, [acts, '{"text":"stolen"}'])
    return [seen, read, acted]


async def test_h05_page_of_another_origin_then_it_sees_nothing_and_changes_nothing(
    web: WebStage, chromium: str, foreign_url: str
) -> None:
    show = await web.show()
    watching = await web.viewer(show)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=ARGS)
        context = await browser.new_context()
        await context.add_cookies([COOKIE])
        page = await context.new_page()
        await page.goto(f"{web.url}/livez")
        assert (await attempts(page, web, show))[:2] == ["welcome", "ok\n"]  # of our own origin
        await page.goto(foreign_url)
        assert (await attempts(page, web, show))[:2] == ["refused", "refused"]
        await browser.close()
    await web.host.ask("POST", f"/api/shows/{show}/commentary", {"text": "ours"})
    await until(lambda: bool(watching.events), "commentary")
    assert [getattr(event, "text", "") for event in watching.events] == ["ours"]
    await watching.close()
