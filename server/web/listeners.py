"""Where a web process is reached: its listening sockets, and TLS on the public one.

The sockets are our own, or those of whoever started us: a parent of several web processes
(server/web/processes.py) or systemd. Who opened a socket answers for the connections that wait in
its queue: the kernel resets them when the last descriptor of a listening socket is closed.
"""

import contextlib
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from server import config, limits
from server.config import Settings
from server.errors import Misconfigured

BACKLOG: Final = 4_096  # connections the kernel holds for us in a rush (somaxconn cuts it)
PUBLIC: Final = "public"
INTERNAL: Final = "internal"


class Listeners(NamedTuple):
    """`internal`: /livez, /readyz and /metrics in plain HTTP, or None."""

    public: socket.socket
    internal: socket.socket | None
    inherited: bool  # from whoever started us


def open_listeners(settings: Settings) -> Listeners:
    """Those that we were handed (sd_listen_fds(3)), else new ones. Raises Misconfigured."""
    handed = {name: _adopted(number) for name, number in config.handed_sockets().items()}
    internal = handed.pop(INTERNAL, None)
    if internal is None and settings.internal_port:
        if settings.internal_port == settings.port:
            raise Misconfigured("LIVESALE_INTERNAL_PORT: must not be the public port")
        internal = own_socket(settings.internal_host, settings.internal_port)
    if handed:
        return Listeners(next(iter(handed.values())), internal, inherited=True)
    return Listeners(listening_socket(settings.host, settings.port), internal, inherited=False)


def _adopted(number: int) -> socket.socket:
    try:
        adopted = socket.socket(fileno=number)
    except OSError as error:
        raise Misconfigured(f"LISTEN_FDS: descriptor {number}: {error.strerror}") from None
    adopted.set_inheritable(False)
    return adopted


def listening_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket that does not block; several may share a port (SO_REUSEPORT). Raises
    Misconfigured."""
    return _bound(host, port, shared=True)


def own_socket(host: str, port: int) -> socket.socket:
    """The same for a port that is nobody else's, the public one's least of all. Raises
    Misconfigured."""
    return _bound(host, port, shared=False)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setblocking(False)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise Misconfigured(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return bound


def accept_all(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that the kernel has accepted for `listening` by now. Whoever has its last
    descriptor takes them before he closes it: they would be reset."""
    with contextlib.suppress(OSError):  # none left, or no descriptor for it
        while True:
            connection, _ = listening.accept()
            connection.setblocking(False)
            yield connection


def url_of(listening: socket.socket, *, tls: bool = False) -> str:
    """The URL under which `listening` is reached from this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 -- compared, not bound
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """TLS >= 1.2 with the certificate of the settings; None: plain HTTP. Raises Misconfigured."""
    if not settings.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # With a password given nobody is asked for one at the terminal.
        context.load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except OSError as error:  # ssl.SSLError is one
        files = f"{settings.tls_cert} and {settings.tls_key}"
        raise Misconfigured(f"cannot use TLS with {files}: {error.strerror or error}") from None
    return context


def tls_options(context: ssl.SSLContext | None) -> dict[str, Any]:
    """For create_server: TLS, with deadlines for its first and its last word."""
    if context is None:
        return {}
    return {
        "ssl": context,
        "ssl_handshake_timeout": limits.TLS_HANDSHAKE_SECONDS,
        "ssl_shutdown_timeout": limits.CLOSE_SECONDS,
    }
