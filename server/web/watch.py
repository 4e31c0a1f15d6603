"""The endpoint of `GET /ws/{show_id}`: checks at the door, the handshake, the hand-over.

What is refused before the handshake gets an HTTP status: 400 (a subprotocol we do not speak, a bad
resume point), 403 (Origin), 404 (no such show), 503 (Redis is away, or has lost the show). Nothing
that needs a token is decided here: the first message brings it (server/web/commands.py).
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.websockets import WebSocket, WebSocketDisconnect

from server import clock
from server.domain.rate_limit import BucketRule, TokenBucket
from server.domain.rehearsal import is_shadow, lets_in
from server.errors import CLOSES, Refused, StoreUnavailable
from server.hub.hub import Hub
from server.hub.room import Room
from server.hub.viewer import Viewer
from server.limits import SHOW_ID_PATTERN
from server.protocol import deflate
from server.protocol.codec import CODECS, DEFLATING, Codec
from server.telemetry import metrics
from server.web.admission import Admission, origin_allowed
from server.web.asgi_viewer import serve_over_asgi
from server.web.door import HAND_OVER
from server.web.endpoint import error_response
from server.web.handshake import read_usual, response
from server.web.known_shows import KnownShows

log = structlog.get_logger()

ENTER_SECONDS: Final = 4.0  # for what Redis must tell before a viewer may enter
ORIGIN_CHARS_LOGGED: Final = 100
_TOLD_RULE: Final = BucketRule(0.2, 5)  # lines about refused origins: a stranger writes them
_SHOW_ID: Final = re.compile(SHOW_ID_PATTERN.removesuffix("$") + r"\Z")
_RESUME: Final = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})\Z")

Resume = tuple[int, int]  # event epoch, seq


@dataclass(frozen=True, slots=True)
class Watch:
    """The endpoint with what it needs. `prepare` makes a room ready for its first viewer.

    `secret` signs what lets viewers into the shadow show of a rehearsal (`?rehearsal=`).
    `deflates`: viewers who offer permessage-deflate get it. `told` bounds how often the log says
    which origin was refused.
    """

    hub: Hub
    admission: Admission
    allowed_origins: tuple[str, ...]
    prepare: Callable[[Room], Awaitable[None]]
    is_prepared: Callable[[Room], bool]
    known: KnownShows
    secret: bytes = field(repr=False)
    deflates: bool = False
    told: TokenBucket = field(default_factory=lambda: TokenBucket(_TOLD_RULE, 0.0))

    def usher(
        self, target: bytes, headers: Iterable[tuple[bytes, bytes]], address: str
    ) -> tuple[Viewer, bytes] | None:
        """The short way in, without ASGI: a viewer and the answer to its handshake.

        None when the handshake is not a usual one, the room not open here, or anything about it
        is to be refused: then `enter` does it all.
        """
        asked = read_usual(target, headers)
        room = self.hub.open_room(asked.show_id) if asked else None
        if asked is None or room is None or not self.is_prepared(room):
            return None
        if is_shadow(asked.show_id):  # not without a ticket, which is not a usual thing to bring
            return None
        if not origin_allowed(asked.origin, asked.host, self.allowed_origins):
            return None
        try:
            codec, resume = choose_codec(asked.subprotocols), parse_resume(asked.resume)
        except Refused:
            return None
        codec = self._with_extensions(codec, asked.extensions)
        viewer = Viewer(room, codec, address=address, resume=resume)
        spoken = codec.subprotocol if asked.subprotocols else None
        return viewer, response(asked, spoken, deflate.ANSWER if codec.deflates else None)

    async def enter(self, websocket: WebSocket) -> None:
        """One handshake from here to the hand-over."""
        try:
            codec, resume = self._read_request(websocket)
            self._require_ticket(websocket)
            room = await self._find_room(websocket.path_params["show_id"])
        except Refused as refused:
            await self._deny(websocket, refused)
            return
        try:
            await websocket.accept(_spoken(websocket, codec), _agreed(codec))
        except WebSocketDisconnect:
            metrics.handshakes.add("client_gone")
            return
        client = websocket.client
        viewer = Viewer(room, codec, address=client.host if client else "", resume=resume)
        await self._admit(websocket, viewer)

    async def nowhere(self, websocket: WebSocket) -> None:
        """A handshake for a path that nothing is at."""
        await self._deny(websocket, Refused("not_found"))

    def _read_request(self, websocket: WebSocket) -> tuple[Codec, Resume | None]:
        self._require_origin(websocket.headers)
        codec = choose_codec(websocket.scope["subprotocols"])
        if HAND_OVER in websocket.scope["extensions"]:  # else the frames are the ASGI server's
            offers = ", ".join(websocket.headers.getlist("sec-websocket-extensions"))
            codec = self._with_extensions(codec, offers)
        return codec, parse_resume(websocket.query_params.get("resume"))

    def _with_extensions(self, codec: Codec, offers: str) -> Codec:
        """`codec`, or its twin that deflates when that is offered (as a header has it)."""
        return DEFLATING[codec] if self.deflates and deflate.is_acceptable(offers) else codec

    def _require_origin(self, headers: Headers) -> None:
        """Raises Refused(origin_refused). Operators who forgot one find it in the log."""
        origins = headers.getlist("origin")
        origin = origins[0] if origins else None
        if len(origins) > 1 or not origin_allowed(
            origin, headers.get("host", ""), self.allowed_origins
        ):
            if not self.told.take(_TOLD_RULE, clock.monotonic_ms()):
                log.warning("origin_refused", origin=ascii(origin)[:ORIGIN_CHARS_LOGGED])
            raise Refused("origin_refused")

    def _require_ticket(self, websocket: WebSocket) -> None:
        """Raises Refused(not_found): to strangers there is no shadow show."""
        ticket = websocket.query_params.get("rehearsal", "")
        if not lets_in(self.secret, websocket.path_params["show_id"], ticket):
            raise Refused("not_found", "No such show")

    async def _find_room(self, show_id: str) -> Room:
        if not _SHOW_ID.match(show_id):
            raise Refused("not_found", "No such show")
        try:
            async with asyncio.timeout(ENTER_SECONDS):
                room = await self.hub.room(show_id)
                if room is not None:
                    await self.prepare(room)
                    return room
                refusal = await self.known.refusal(show_id)
        except (StoreUnavailable, TimeoutError):
            raise Refused("unavailable") from None
        raise refusal

    async def _deny(self, websocket: WebSocket, refused: Refused) -> None:
        metrics.handshakes.add(refused.error.name)
        response = error_response(refused)
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):  # no such extension, or gone
            await websocket.send_denial_response(response)

    async def _admit(self, websocket: WebSocket, viewer: Viewer) -> None:
        """Hand over the transport, or serve through ASGI where that is not possible."""
        hand_over = websocket.scope["extensions"].get(HAND_OVER)
        if hand_over is None:
            await self._serve_over_asgi(websocket, viewer)
        else:
            metrics.handshakes.add("accepted" if hand_over(viewer) else "client_gone")

    async def _serve_over_asgi(self, websocket: WebSocket, viewer: Viewer) -> None:
        """Without our door nobody has counted the viewer in yet."""
        reason = self.admission.admit(viewer.address)
        metrics.handshakes.add(reason or "accepted")
        if reason:
            await websocket.close(CLOSES["overloaded"].code, reason)
        else:
            await serve_over_asgi(websocket, viewer)


def choose_codec(offered: Sequence[str]) -> Codec:
    """The first of the client's subprotocols that we speak; JSON when it offers none.

    Raises Refused(malformed) when it offers only others.
    """
    for name in offered:
        if name in CODECS:
            return CODECS[name]
    if offered:
        raise Refused("malformed", "None of the subprotocols is spoken here")
    return CODECS[None]


def parse_resume(text: str | None) -> Resume | None:
    """`epoch.seq` of the last event a client has. Raises Refused(bad_field)."""
    if text is None:
        return None
    found = _RESUME.match(text)
    if found is None:
        raise Refused("bad_field", "resume is epoch.seq", field="resume")
    return int(found[1]), int(found[2])


def _spoken(websocket: WebSocket, codec: Codec) -> str | None:
    """The subprotocol to name in the answer: only one that was offered."""
    return codec.subprotocol if websocket.scope["subprotocols"] else None


def _agreed(codec: Codec) -> list[tuple[bytes, bytes]]:
    """The headers in the answer that say which extension was agreed to."""
    return [(b"sec-websocket-extensions", deflate.ANSWER.encode())] if codec.deflates else []
