"""The door: how a connection comes in, and how a viewer's transport leaves ASGI.

Four parts, in the order a viewer meets them:

1. `DoorHttpProtocol` reads request heads under our bounds (deadline, size, count) and decides at
   the upgrade, before any task is made, whether the process takes one more viewer.
2. The `Usher` (Watch.usher) lets in who comes in the usual way to a room that is open: answer,
   welcome and hand-over happen there and then, in one write.
3. For all others `DoorWebSocketProtocol` runs the Starlette endpoint (server/web/watch.py) for the
   handshake only. Bytes that come before the hand-over are kept unparsed.
4. Its `hand_over`, which the endpoint finds in `scope["extensions"]`, gives transport and early
   bytes to the hub's own protocol (server/hub/viewer.py); uvicorn never sees that viewer again.

This file leans on uvicorn's internals (tests/integration/test_door_contract.py names each one);
the version is pinned. Where the extension is missing, server/web/asgi_viewer.py serves instead.
"""

import asyncio
from asyncio import TimerHandle
from typing import Any, Final, Protocol, cast

import httptools
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.http11 import Request

from server import limits
from server.telemetry import metrics
from server.web.admission import Admission, retry_after_s

log = structlog.get_logger()

HAND_OVER: Final = "livesale.hand_over"  # key in scope["extensions"]
REQUEST_BYTES_MAX: Final = limits.HEADER_BYTES_MAX + 2 * limits.POLICY_BYTES_MAX  # chunks' framing

_REASONS: Final = {
    400: b"Bad Request",
    408: b"Request Timeout",
    413: b"Content Too Large",
    414: b"URI Too Long",
    431: b"Request Header Fields Too Large",
    503: b"Service Unavailable",
}


def raw_response(status: int, *, retry_after: int | None = None) -> bytes:
    """A whole minimal HTTP/1.1 response that ends the connection. `retry_after` in seconds."""
    body = _REASONS[status]
    extra = b"" if retry_after is None else b"retry-after: %d\r\n" % retry_after
    head = b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-type: text/plain\r\n" % (status, body)
    return b"%b%bcontent-length: %d\r\n\r\n%b" % (head, extra, len(body), body)


class HandedOver(Protocol):
    """What takes a transport over: server/hub/viewer.py, an asyncio.Protocol with a `start`."""

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None: ...

    def start(self, early: bytes, response: bytes = b"", /) -> None:
        """The connection is yours; `early` came before that, and `response` is still to be sent."""


class Usher(Protocol):
    """Lets viewers in without ASGI."""

    def __call__(
        self, target: bytes, headers: list[tuple[bytes, bytes]], address: str, /
    ) -> tuple[HandedOver, bytes] | None:
        """A viewer and the answer to its GET over HTTP/1.1; None: ask the endpoint."""


def nobody_in(target: bytes, headers: list[tuple[bytes, bytes]], address: str) -> None:
    """The usher of a door without one: the endpoint sees to everybody."""


class DoorHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with deadlines and caps; see the module docstring.

    A request's head, and then its body, each have HEADER_SECONDS and their bound of bytes.
    """

    admission: Admission  # set on a subclass by `door_protocols`
    usher: Usher

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._peer = ""
        self._deadline: TimerHandle | None = None
        self._stalled: TimerHandle | None = None
        self._refused = False
        self._head_open = True
        self._request_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        if not self.admission.open(self._peer):
            self._refuse(503, retry_after=retry_after_s("address_max"))
        elif self.admission.has_room_for_connection(len(self.connections) - 1):
            self._arm_deadline()
        else:
            self._refuse(503, retry_after=retry_after_s("viewers_max"))

    def connection_lost(self, exc: Exception | None) -> None:
        self.admission.closed(self._peer)
        self._cancel_deadline()
        self._cancel_stalled()
        super().connection_lost(exc)

    # --- Deadlines and refusals --------------------------------------------------------------

    def _arm_deadline(self) -> None:
        self._cancel_deadline()
        self._deadline = self.loop.call_later(limits.HEADER_SECONDS, self._on_deadline)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def pause_writing(self) -> None:
        """The client does not read its answer."""
        super().pause_writing()
        self._cancel_stalled()
        self._stalled = self.loop.call_later(limits.STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel_stalled()

    def _cancel_stalled(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _on_deadline(self) -> None:
        self._deadline = None
        self._refuse(408)

    def _refuse(self, status: int, *, retry_after: int | None = None) -> None:
        """Answer without any task and end the connection; whatever else comes is ignored."""
        if self._refused:
            return
        self._refused = True
        self._cancel_deadline()
        metrics.http_refused.add(str(status))
        if self.transport.is_closing():
            return
        if not self._is_answering() or not self.cycle.response_started:
            self.transport.write(raw_response(status, retry_after=retry_after))
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # --- Bytes in ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._unset_keepalive_if_required()
        self._request_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade() and not self._refused:
                self._upgrade(bytes(data[upgrade.args[0] :]))
        except httptools.HttpParserError:
            self._refuse(400)
        else:
            self._check_unfinished()

    def _check_unfinished(self) -> None:
        """Bounds of what the parser still holds, and a deadline for the rest of it."""
        if self._head_open and self._request_bytes > limits.HEADER_BYTES_MAX:
            self._refuse(431)
        elif self._request_bytes > REQUEST_BYTES_MAX:
            self._refuse(413)
        elif self._deadline is None and not self._refused and not self._is_answering():
            self._arm_deadline()  # a next request on a kept connection has begun

    # --- Parser callbacks --------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > limits.HEADER_COUNT_MAX:  # trailers come here too
            self._refuse(431)

    def on_headers_complete(self) -> None:
        self._head_open = False
        if len(self.url) > limits.URL_BYTES_MAX:
            self._refuse(414)
        elif sum(len(name) + len(value) for name, value in self.headers) > limits.HEADER_BYTES_MAX:
            self._refuse(431)
        if self._refused:
            return
        self.scope["client"] = (self.admission.client_address(self._peer, self.headers), 0)
        self._arm_deadline()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._cancel_deadline()
        self._head_open = True
        self._request_bytes = 0
        if not self._refused:
            super().on_message_complete()

    # --- The upgrade -------------------------------------------------------------------------

    def _upgrade(self, early: bytes) -> None:
        """Make the connection a viewer's, or refuse it. `early`: bytes behind the head."""
        self._cancel_deadline()
        self._cancel_stalled()
        address = self._address()
        reason = self.admission.admit(address)
        if reason:
            metrics.handshakes.add(reason)
            self._refuse(503, retry_after=retry_after_s(reason))
        elif shown_in := self._shown_in(address):
            self._hand_over(*shown_in, early)
        elif handshake := self._handshake():
            self._ask_endpoint(handshake, address, early)
        else:
            self.admission.release(address)
            self._refuse(400)

    def _shown_in(self, address: str) -> tuple[HandedOver, bytes] | None:
        """The usher's answer; it is not asked about requests of another kind."""
        if self._owes_an_answer() or self.scope["method"] != "GET":
            return None
        if self.parser.get_http_version() != "1.1":
            return None
        return self.usher(self.url, self.headers, address)

    def _owes_an_answer(self) -> bool:
        """To an earlier request on this connection. An answer that the client has not taken yet
        counts: the viewer would be given a transport that is full and has said so already. (What
        waits there before any answer are tickets of TLS 1.3, which leave with it.)"""
        if self.cycle is None:
            return False
        return self._is_answering() or self.transport.get_write_buffer_size() > 0

    def _leave(self) -> None:
        """Another protocol has the transport now."""
        self.admission.closed(self._peer)
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # breaks the reference cycle with the parser

    def _hand_over(self, viewer: HandedOver, response: bytes, early: bytes) -> None:
        transport = self.transport
        transport.set_protocol(cast(asyncio.BaseProtocol, viewer))
        self._leave()
        try:
            viewer.connection_made(transport)
            viewer.start(early, response)
        except Exception:
            log.exception("handshake_failed")
            transport.abort()  # the viewer could not begin
        else:
            metrics.handshakes.add("accepted")

    def _ask_endpoint(self, handshake: Request, address: str, early: bytes) -> None:
        protocol = self.ws_protocol_class(  # type: ignore[call-arg, misc]
            config=self.config, server_state=self.server_state, app_state=self.app_state
        )
        assert isinstance(protocol, DoorWebSocketProtocol)
        protocol.connection_made(self.transport)
        self.transport.set_protocol(protocol)
        self._leave()
        protocol.begin(handshake, address, early)

    def _address(self) -> str:
        client = self.scope["client"]
        return client[0] if client else ""

    def _handshake(self) -> Request | None:
        """The request as websockets has it, made from parsed parts: no second parser, no second
        set of bounds (websockets' own would leave a header above 8 KiB without any answer).

        None when it cannot be one: it has a body (RFC 6455 section 4.1), stands behind a request
        whose answer the client does not have yet, or is not text that websockets could have read.
        """
        has_body = any(n in (b"content-length", b"transfer-encoding") for n, _ in self.headers)
        if has_body or self._owes_an_answer():
            return None
        headers = Headers()
        try:
            for name, value in self.headers:
                headers[name.decode("ascii")] = value.decode("latin-1")
            path = self.url.decode("ascii")
        except (UnicodeDecodeError, ValueError):
            return None
        version = self.parser.get_http_version()
        return Request(path, headers, self.scope["method"], f"HTTP/{version}")


class DoorWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol for the time of the handshake; see the module docstring.

    Whoever holds the transport at the end (this object, or the viewer after the hand-over)
    releases the place that Admission gave.
    """

    admission: Admission  # set on a subclass by `door_protocols`

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._early = bytearray()
        self._address = ""
        self._handed_over = False

    def begin(self, handshake: Request, address: str, early: bytes) -> None:
        """Start the endpoint for this handshake, or answer what is wrong with it (4xx)."""
        self._address = address
        self.client = (address, 0)
        self.handle_connect(handshake)
        if early:
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        """Keep what comes before the hand-over; too much of it ends with close code 1009."""
        if len(self._early) > limits.EARLY_BYTES_MAX:
            return
        self._early += data
        if len(self._early) > limits.EARLY_BYTES_MAX and not self.transport.is_closing():
            self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.admission.release(self._address)

    async def run_asgi(self) -> None:
        extensions = cast(dict[str, Any], self.scope["extensions"])
        extensions[HAND_OVER] = self.hand_over
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("handshake_failed")
            self.send_500_response()
            if self._handed_over:
                self.transport.abort()  # the viewer could not begin
        finally:
            if not self._handed_over and self.close_timer is None:
                self.transport.close()
            self.scope.clear()  # type: ignore[attr-defined]
            self.conn.parser.close()  # a reference cycle: its frame holds the connection
            del self.conn

    def hand_over(self, viewer: HandedOver) -> bool:
        """Give the transport to `viewer`, right after accept and without awaiting in between.

        The viewer is started with the early bytes (more than EARLY_BYTES_MAX: too many, some
        may be missing). False when the client is gone; then `viewer` never had the connection.
        """
        if self.disconnected or not self.handshake_complete or self.transport.is_closing():
            return False
        self._handed_over = True
        self.connections.discard(self)
        self.transport.set_protocol(cast(asyncio.BaseProtocol, viewer))
        if len(self._early) > limits.EARLY_BYTES_MAX:
            self.transport.resume_reading()
        viewer.connection_made(self.transport)
        viewer.start(bytes(self._early))
        return True

    def shutdown(self) -> None:
        """The process is stopping: a handshake under way ends without an answer."""
        self.transport.close()


def door_protocols(
    admission: Admission, usher: Usher = nobody_in
) -> tuple[type[DoorHttpProtocol], type[DoorWebSocketProtocol]]:
    """The two protocol classes for uvicorn's `http=` and `ws=`, bound to this process's caps."""
    http = {"admission": admission, "usher": staticmethod(usher)}
    return (
        type("BoundDoorHttpProtocol", (DoorHttpProtocol,), http),
        type("BoundDoorWebSocketProtocol", (DoorWebSocketProtocol,), {"admission": admission}),
    )
