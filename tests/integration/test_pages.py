"""Pages and files as browsers get them: compressed, cached, and with the policy of their video."""

import asyncio
import http.client
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware

from server.config import load
from server.errors import Misconfigured, StoreUnavailable
from server.records.front import LiveShow
from server.web.content_policy import CSP, SecurityHeaders, content_policy, origin_of
from server.web.files import TWIN_LAG_SECONDS, accepted_codings
from server.web.pages import Pages
from server.web.video import SHOWS_MAX, VideoOrigins
from tests.live import until
from tests.web_stage import web_stage

PUBLIC = Path(__file__).resolve().parents[2] / "client-demo" / "public"
PLAIN = b"plain " * 300
TWINS = {"br": b"as brotli", "gzip": b"as gzip"}
SUFFIXES = {"br": ".br", "gzip": ".gz"}
SCRIPT = "/assets/a-123.js"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def _ask(url: str, path: str, method: str, headers: dict[str, str]) -> Answer:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=20)
    connection.request(method, path, headers=headers)
    reply = connection.getresponse()
    answer = Answer(
        reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
    )
    connection.close()
    return answer


async def ask(url: str, path: str, method: str = "GET", **headers: str) -> Answer:
    """One request that says no more about encodings than `headers` do."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await asyncio.to_thread(_ask, url, path, method, named)


async def _nothing_live() -> list[LiveShow]:
    return []


@asynccontextmanager
async def serving(pages: Pages) -> AsyncIterator[str]:
    app = Starlette(routes=pages.routes(), middleware=[Middleware(SecurityHeaders)])
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    await until(lambda: server.started, "uvicorn started")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = server.force_exit = True
    await task


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A build with twins, but for /assets/lonely.js."""
    names = ("viewer.html", "host.html", "pay.html", SCRIPT[1:], "sdk/livesale.js", "demo/cup.svg")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PLAIN)
        for coding, body in TWINS.items():
            path.with_name(path.name + SUFFIXES[coding]).write_bytes(body)
    (tmp_path / "assets" / "lonely.js").write_bytes(PLAIN)
    return tmp_path


@pytest.fixture
async def url(dist: Path) -> AsyncIterator[str]:
    async with serving(Pages(_nothing_live, dist)) as at:
        yield at


# --- Compression ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip, deflate, br, zstd", ["br", "gzip"]),
        ("gzip", ["gzip"]),
        ("br;q=0, gzip", ["gzip"]),
        ("br; q=0.1, GZIP;q=0.9", ["gzip", "br"]),
        ("br;q=0.000,gzip;q=0", []),
        ("*", ["br", "gzip"]),
        ("*;q=0", []),
        ("br;q=0, *;q=0.5", ["gzip"]),
        ("identity", []),
        ("", []),
        ("br;q=nan, gzip;q=x", []),
        (";;,,=, gzip;q", []),
    ],
)
def test_codings_when_a_browser_names_some_then_only_those_it_takes(
    header: str, accepted: list[str]
) -> None:
    assert accepted_codings(header) == accepted


@pytest.mark.parametrize("path", ["/watch/demo", "/host", "/pay.html", SCRIPT, "/sdk/livesale.js"])
@pytest.mark.parametrize(("accepts", "coding"), [("gzip, br", "br"), ("gzip, br;q=0", "gzip")])
async def test_file_when_a_browser_takes_a_coding_then_it_gets_the_twin(
    url: str, path: str, accepts: str, coding: str
) -> None:
    plain, coded = await ask(url, path), await ask(url, path, accept_encoding=accepts)
    assert (coded.status, coded.body) == (200, TWINS[coding])
    assert coded.headers["content-encoding"] == coding
    assert coded.headers["content-length"] == str(len(TWINS[coding]))
    assert "content-encoding" not in plain.headers
    assert plain.body == PLAIN
    for name in ("content-type", "cache-control", "vary"):
        assert coded.headers[name] == plain.headers[name]
    assert plain.headers["vary"] == "accept-encoding"
    assert plain.headers["etag"] != coded.headers["etag"]


@pytest.mark.parametrize("suffix", [".br", ".gz"])
async def test_twin_when_it_is_asked_for_by_its_own_name_then_there_is_none(
    url: str, suffix: str
) -> None:
    assert (await ask(url, SCRIPT + suffix)).status == 404


async def test_twin_when_its_file_was_written_later_then_the_file_goes(
    url: str, dist: Path
) -> None:
    written = (dist / f"{SCRIPT[1:]}.br").stat().st_mtime
    os.utime(dist / SCRIPT[1:], (0, written + TWIN_LAG_SECONDS + 1))
    answer = await ask(url, SCRIPT, accept_encoding="br, gzip")
    assert (answer.body, answer.headers.get("content-encoding")) == (PLAIN, None)


async def test_file_when_it_has_no_twin_then_it_goes_as_it_is(url: str) -> None:
    answer = await ask(url, "/assets/lonely.js", accept_encoding="br, gzip")
    assert (answer.status, answer.body) == (200, PLAIN)
    assert "content-encoding" not in answer.headers


async def test_file_when_only_its_head_is_asked_for_then_the_headers_of_the_twin(url: str) -> None:
    head = await ask(url, SCRIPT, "HEAD", accept_encoding="br")
    got = await ask(url, SCRIPT, accept_encoding="br")
    assert (head.status, head.body) == (200, b"")
    for name in ("content-encoding", "content-length", "etag"):
        assert head.headers[name] == got.headers[name]


async def test_file_when_a_range_is_asked_for_then_it_is_one_of_the_plain_file(url: str) -> None:
    answer = await ask(url, SCRIPT, accept_encoding="br", range="bytes=0-4")
    assert (answer.status, answer.body) == (206, PLAIN[:5])
    assert "content-encoding" not in answer.headers


async def test_file_when_the_browser_has_it_then_not_again_but_after_a_new_build(
    url: str, dist: Path
) -> None:
    etag = (await ask(url, SCRIPT, accept_encoding="br")).headers["etag"]
    kept = await ask(url, SCRIPT, accept_encoding="br", if_none_match=etag)
    assert (kept.status, kept.body) == (304, b"")
    assert "immutable" in kept.headers["cache-control"]
    assert kept.headers["vary"] == "accept-encoding"
    assert (await ask(url, SCRIPT, accept_encoding="gzip", if_none_match=etag)).status == 200
    twin = dist / f"{SCRIPT[1:]}.br"
    os.utime(twin, (1, twin.stat().st_mtime + 1))
    assert (await ask(url, SCRIPT, accept_encoding="br", if_none_match=etag)).status == 200


async def test_sdk_when_another_site_imports_it_then_it_may(url: str) -> None:
    answer = await ask(url, "/sdk/livesale.js", origin="https://shop.example")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["cache-control"] == "public, max-age=3600"
    assert "javascript" in answer.headers["content-type"]
    assert "access-control-allow-origin" not in (await ask(url, SCRIPT)).headers


# --- The front page ---------------------------------------------------------------------------


async def test_front_when_several_shows_are_live_then_cards_whose_texts_stay_texts(
    dist: Path,
) -> None:
    shows = [LiveShow("show1", "一", '/demo/cup.svg"onerror="alert(1)'), LiveShow("show2", "<b>二")]

    async def live() -> list[LiveShow]:
        return shows

    async with serving(Pages(live, dist)) as at:
        page = (await ask(at, "/")).body.decode()
    assert '<img src="/demo/cup.svg&quot;onerror=&quot;alert(1)" alt="">' in page
    assert page.count("<img") == 1
    assert "&lt;b&gt;二" in page
    for built in re.findall(r'(?:href|src)="/(demo/[a-z.]+)"', page):
        assert (PUBLIC / built).is_file()


# --- Where video may come from ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("playback_url", "origin"),
    [
        ("https://cdn.example/live/a.m3u8?x=1", "https://cdn.example"),
        ("http://cdn.example:8080", "http://cdn.example:8080"),
        ("https://CDN.example#t", "https://cdn.example"),
        ("/demo/live.m3u8", ""),
        ("", ""),
        ("https://cdn.example; script-src *", ""),
        ("https://cdn.example,https://evil.example/", ""),
        ("https://shop.example@evil.example/", ""),
        ("https://shop.example\\@evil.example/", ""),
        ("https://shop.example:pass@evil.example/", ""),
        ("https://cdn.example:443443/", ""),
        ("https://cdn.example\n/a", ""),
        ("https://[::1]/a", ""),
        ("https://*/a", ""),
        ("https://*.example/a", ""),
        ("https://直播.example/a", ""),
        ("https://", ""),
        ("javascript:alert(1)", ""),
        ("data:text/html,x", ""),
        ("'unsafe-inline'", ""),
    ],
)
def test_origin_when_a_url_is_hostile_or_odd_then_none(playback_url: str, origin: str) -> None:
    assert origin_of(playback_url) == origin


def directives(policy: str) -> dict[str, list[str]]:
    return {name: rest for name, *rest in (part.split() for part in policy.split("; "))}


def test_policy_when_video_is_elsewhere_then_only_fetching_and_playing_it_is_allowed() -> None:
    plain, opened = directives(CSP), directives(content_policy(["https://cdn.example"]))
    changed = {name for name, rest in opened.items() if rest != plain[name]}
    assert changed == {"media-src", "connect-src"}
    assert plain["media-src"] == ["'self'", "blob:"]
    assert opened["media-src"] == ["'self'", "blob:", "https://cdn.example"]
    assert opened["connect-src"] == ["'self'", "https://cdn.example"]


async def test_video_when_many_open_a_page_then_it_is_read_once_and_few_shows_are_kept() -> None:
    asked: list[str] = []

    async def playback_url(show_id: str) -> str:
        asked.append(show_id)
        return "https://cdn.example/a"

    video = VideoOrigins(playback_url, ["https://segments.example"])
    both = ("https://cdn.example", "https://segments.example")
    assert set(await asyncio.gather(*(video.of("show1") for _ in range(50)))) == {both}
    assert asked == ["show1"]
    for number in range(SHOWS_MAX):
        await video.of(f"other{number}")
    await video.of(f"other{SHOWS_MAX - 1}")
    assert len(asked) == 1 + SHOWS_MAX
    await video.of("show1")
    assert len(asked) == 2 + SHOWS_MAX


@pytest.mark.parametrize("show_id", ["x", "Show1", "a" * 33, "show1\n", "../show1", "ls:{show1}"])
async def test_video_when_no_show_can_have_the_id_then_nobody_is_asked(show_id: str) -> None:
    async def playback_url(show_id: str) -> str:
        raise AssertionError

    assert await VideoOrigins(playback_url, ["https://a.example"]).of(show_id) == (
        "https://a.example",
    )


async def test_page_when_the_video_cannot_be_told_then_it_comes_without(dist: Path) -> None:
    async def playback_url(show_id: str) -> str:
        raise StoreUnavailable("away")

    video = VideoOrigins(playback_url, ["https://segments.example"])
    async with serving(Pages(_nothing_live, dist, video)) as at:
        answer = await ask(at, "/watch/show1")
        assert (answer.status, answer.body) == (200, PLAIN)
        policy = answer.headers["content-security-policy"]
        assert policy == content_policy(["https://segments.example"])
        assert (await ask(at, "/host/show1")).headers["content-security-policy"] == CSP


def test_media_origins_when_set_then_each_must_be_an_origin() -> None:
    two = load(media_origins="https://a.example, http://b.example:81")
    assert two.media_origins == ("https://a.example", "http://b.example:81")
    for wrong in ("a.example", "https://a.example/", "https://*.example", "https://a; x", "blob:"):
        with pytest.raises(Misconfigured):
            load(media_origins=wrong)


async def test_watch_page_when_the_show_has_video_then_its_policy_names_the_origin(
    redis_url: str, database_url: str
) -> None:
    settings = {"media_origins": "https://segments.example"}
    async with web_stage(redis_url, database_url, **settings) as web:
        show = await web.show(playback_url="https://cdn.example:8443/live/a.m3u8?key=1")
        own = await web.show(playback_url="/demo/live.m3u8")
        policies = {
            path: directives((await ask(web.url, path)).headers["content-security-policy"])
            for path in (f"/watch/{show}", f"/watch/{own}", "/watch/nothing", f"/host/{show}")
        }
    with_video, same_site, unknown, console = policies.values()
    both = ["https://cdn.example:8443", "https://segments.example"]
    assert with_video["connect-src"] == ["'self'", *both]
    assert with_video["media-src"] == ["'self'", "blob:", *both]
    assert same_site == unknown
    assert unknown["connect-src"] == ["'self'", "https://segments.example"]
    assert console["connect-src"] == ["'self'"]
