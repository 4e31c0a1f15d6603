"""Each internal of uvicorn that server/web/door.py and serve.py lean on is still what it was.

When one of these fails after an update, read the new source before changing the pin.
"""

import inspect
from importlib.metadata import version

import uvicorn
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import Server, ServerState
from websockets.http11 import Request


def config() -> Config:
    async def app(scope: object, receive: object, send: object) -> None: ...

    loaded = Config(app, log_config=None, lifespan="off", ws="websockets-sansio")
    loaded.load()
    return loaded


def test_uvicorn_when_installed_then_it_is_the_pinned_series() -> None:
    assert version("uvicorn").startswith("0.54.")


async def test_http_protocol_when_made_then_it_has_what_the_door_uses() -> None:
    state = ServerState()
    protocol = HttpToolsProtocol(config(), state, {})
    for name in ("parser", "cycle", "client", "config", "app_state", "ws_protocol_class", "loop"):
        assert hasattr(protocol, name), name
    assert protocol.connections is state.connections
    assert protocol.tasks is state.tasks
    for name in ("_should_upgrade", "_unset_keepalive_if_required", "on_response_complete"):
        assert callable(getattr(protocol, name)), name


def test_http_protocol_when_data_comes_then_the_door_repeats_all_it_does() -> None:
    source = inspect.getsource(HttpToolsProtocol.data_received)
    assert "_unset_keepalive_if_required" in source
    assert "feed_data" in source
    assert len(source.splitlines()) == 15
    upgrade = inspect.getsource(HttpToolsProtocol.handle_websocket_upgrade)
    for step in ("connections.discard", "ws_protocol_class", "connection_made", "set_protocol"):
        assert step in upgrade


async def test_websocket_protocol_when_made_then_it_has_what_the_door_uses() -> None:
    state = ServerState()
    protocol = WebSocketsSansIOProtocol(config(), state, {})
    assert protocol.handshake_complete is False
    assert protocol.disconnected is False
    assert protocol.close_timer is None
    assert protocol.connections is state.connections
    assert list(inspect.signature(protocol.handle_connect).parameters) == ["event"]
    for name in ("run_asgi", "send_500_response", "shutdown", "connection_lost"):
        assert callable(getattr(protocol, name)), name


def test_websocket_protocol_when_the_endpoint_runs_then_the_scope_is_made_before() -> None:
    source = inspect.getsource(WebSocketsSansIOProtocol.handle_connect)
    assert source.index("self.scope") < source.index("run_asgi")
    assert "connections.remove(self)" in inspect.getsource(WebSocketsSansIOProtocol.connection_lost)


def test_server_when_it_is_subclassed_then_the_hooks_exist() -> None:
    for name in ("startup", "shutdown", "capture_signals", "serve", "main_loop", "on_tick"):
        assert callable(getattr(Server, name)), name
    server = uvicorn.Server(config())
    assert server.should_exit is False
    assert server.force_exit is False
    assert isinstance(server.server_state, ServerState)
    made = inspect.signature(HttpToolsProtocol)
    assert list(made.parameters) == ["config", "server_state", "app_state", "_loop"]
    startup = inspect.getsource(Server.startup)  # ours does the same, with a deadline for TLS
    for step in ("create_server", "self.servers", "self.started = True"):
        assert step in startup


def test_websockets_when_a_request_is_made_from_parts_then_these_are_its_fields() -> None:
    names = [name for name in inspect.signature(Request).parameters if not name.startswith("_")]
    assert names == ["path", "headers", "method", "protocol"]
