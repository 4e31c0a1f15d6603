"""Host API: try a sale out on synthetic people before (or beside) the real show."""

import asyncio
import zlib
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Final

import structlog
from starlette.responses import Response

from server.acts.rehearsals import (
    Begun,
    Outcome,
    Progress,
    RehearsalActs,
    RehearsalDetail,
    RehearsalList,
    RehearsalView,
    Rehearse,
)
from server.config import Settings
from server.domain.rehearsal import ticket_for
from server.errors import RecordsUnavailable, Refused, StoreUnavailable
from server.web import auth
from server.web.endpoint import Call, Endpoint
from server.web.host_shows import SHOW
from server.web.rehearsing import RehearsalOrder, rehearse

log = structlog.get_logger()

NEEDED: Final = ("hdrh", "psutil")  # modules of the extra `loadtest`
BOT_SOCKETS: Final = 2  # of each bot
SHARE_OF_PLACES: Final = 0.5  # of this process's places that may be taken with a rehearsal
TOKEN_S: Final = 600  # longer than any rehearsal
GZIP_BITS: Final = 16 + zlib.MAX_WBITS
PAGE_BYTES_MAX: Final = 32 * 1024 * 1024
REPORT_CSP: Final = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
_ANYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104  (an address that is listened on)
_OUTAGES: Final = (StoreUnavailable, RecordsUnavailable, OSError)


class RehearsalDesk:
    """Carries rehearsals out in this process's name. `viewers`: how many are connected to it."""

    def __init__(self, settings: Settings, viewers: Callable[[], int]) -> None:
        self._settings = settings
        self._viewers = viewers
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """End what runs; it has failed then."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- Endpoints ------------------------------------------------------------------------------

    async def begin(self, call: Call) -> RehearsalView:
        async with call.acts.desk.reading(call.identity, call.show):
            pass  # raises Refused unless the show is this host's
        url = self._own_url(call)
        acts = call.acts.rehearsals
        view, begun = await acts.begin(call.identity, call.show, call.body, self._require_room)
        if begun is not None:
            task = asyncio.create_task(self._conduct(acts, begun, url))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return view

    async def list_newest(self, call: Call) -> RehearsalList:
        return RehearsalList(await call.acts.rehearsals.list_newest(call.identity, call.show))

    async def get(self, call: Call) -> RehearsalDetail:
        place = (call.show, call.ids["rehearsal"])
        return await call.acts.rehearsals.get(call.identity, *place)

    async def stop(self, call: Call) -> RehearsalView:
        place = (call.show, call.ids["rehearsal"])
        return await call.acts.rehearsals.stop(call.identity, *place)

    async def report(self, call: Call) -> Response:
        number = call.ids["rehearsal"]
        packed = await call.acts.rehearsals.report(call.identity, call.show, number)
        page = zlib.decompressobj(GZIP_BITS).decompress(packed, PAGE_BYTES_MAX)
        name = f"rehearsal-{call.show}-{number}.html"
        headers = {
            "Content-Disposition": f'attachment; filename="{name}"',
            "Content-Security-Policy": REPORT_CSP,
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(page, media_type="text/html", headers=headers)

    # --- Carrying one out -----------------------------------------------------------------------

    def _own_url(self, call: Call) -> str:
        """Where the loader reaches this process. Raises Refused(unavailable)."""
        if not all(map(find_spec, NEEDED)):
            raise Refused("unavailable", "Rehearsals need the extra `loadtest`")
        port = call.here[1]
        if port is None or self._settings.tls_cert:
            raise Refused("unavailable", "Rehearsals need a port without TLS of our own")
        host = "127.0.0.1" if self._settings.host in _ANYWHERE else call.here[0]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _require_room(self, body: Rehearse) -> None:
        """Raises Refused(busy) when viewers could miss the places."""
        people = body.buyers + body.watchers + BOT_SOCKETS * body.bots
        if self._viewers() + people > SHARE_OF_PLACES * self._settings.viewers_max:
            raise Refused("busy", "Too many viewers for a rehearsal of this size now")

    async def _conduct(self, acts: RehearsalActs, begun: Begun, url: str) -> None:
        number = begun.row.rehearsal_id
        try:
            outcome = await self._play(acts, begun, url)
        except asyncio.CancelledError:
            await _finish(acts, number, Outcome("failed", "server_stopped"))
            raise
        except Exception:
            log.exception("rehearsal_failed", rehearsal=number)
            outcome = Outcome("failed", "not_started")
        await _finish(acts, number, outcome)

    async def _play(self, acts: RehearsalActs, begun: Begun, url: str) -> Outcome:
        try:
            sale = await acts.stage(begun)
            order = _order(self._settings, begun, sale, url)
            beat = partial(_beat, acts, begun)
            return await rehearse(self._settings, order, beat)
        except (*_OUTAGES, Refused) as trouble:
            log.warning("rehearsal_not_started", reason=str(trouble))
            return Outcome("failed", "not_started")

    def endpoints(self) -> tuple[Endpoint, ...]:
        all_of_them = f"{SHOW}/rehearsals"
        one = f"{all_of_them}/{{rehearsal:int}}"
        return (
            Endpoint(
                "POST", all_of_them, "rehearse", "Try a sale out on synthetic people",
                self.begin, RehearsalView, body=Rehearse, status=202,
            ),
            Endpoint(
                "GET", all_of_them, "list_rehearsals", "Rehearsals of the show, newest first",
                self.list_newest, RehearsalList,
            ),
            Endpoint(
                "GET", one, "get_rehearsal", "A rehearsal and what it found",
                self.get, RehearsalDetail,
            ),
            Endpoint(
                "POST", f"{one}/stop", "stop_rehearsal", "Stop a rehearsal; it still reports",
                self.stop, RehearsalView,
            ),
            Endpoint(
                "GET", f"{one}/report", "rehearsal_report", "The report, a page by itself",
                self.report, "text/html",
            ),
        )  # fmt: skip


def _order(settings: Settings, begun: Begun, sale: int, url: str) -> RehearsalOrder:
    secret = settings.require_secret()
    row, asked = begun.row, begun.row.asked
    shadow_id = row.shadow_id
    token = auth.issue(secret, user=begun.host.user, role="host", show=shadow_id, ttl_s=TOKEN_S)
    return RehearsalOrder(
        rehearsal=row.rehearsal_id,
        url=url,
        show=shadow_id,
        ticket=ticket_for(secret, shadow_id),
        host_token=token,
        live_show=begun.live_show,
        title=begun.sale.product_title,
        sale=sale,
        price=begun.sale.price,
        units=max(1, begun.units),
        limit=begun.sale.limit_per_buyer,
        buyers=asked["buyers"],
        watchers=asked["watchers"],
        bots=asked["bots"],
        reaction=asked["reaction"],
        seconds=asked["seconds"],
        secret=secret.decode(),
        redis_url=settings.redis_url,
        database_url=settings.database_url,
    )


async def _beat(acts: RehearsalActs, begun: Begun, progress: Progress) -> str | None:
    """An outage of PostgreSQL stops nothing by itself."""
    try:
        return await acts.beat(begun, progress)
    except RecordsUnavailable:
        return ""


async def _finish(acts: RehearsalActs, number: int, outcome: Outcome) -> None:
    """What cannot be written now is found lost by whoever looks next."""
    log.info("rehearsal_over", rehearsal=number, status=outcome.status, reason=outcome.reason)
    try:
        await acts.finish(number, outcome)
    except (*_OUTAGES, Refused) as trouble:
        log.warning("rehearsal_end_not_written", reason=str(trouble))
