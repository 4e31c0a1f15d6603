"""Ports and addresses for `livesale up`."""

import contextlib
import errno
import socket

from server.config import Settings
from server.errors import Misconfigured

PORT = 8000
PORTS_TRIED = 100
WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104  (names them, binds nothing)


class Taken(Misconfigured):
    """Somebody listens on the port already."""


class HeldPort:
    """A port kept for our web processes, which bind it themselves with SO_REUSEPORT.

    A bound socket that never listens gets no connections, but `livesale up` in another directory
    sees that the port is taken, also while web is restarted.
    """

    def __init__(self, host: str, port: int) -> None:
        """Raises Taken, or Misconfigured when `host` is not an address of this machine."""
        with _bound(host, port, socket.SO_REUSEADDR) as probe:
            self.port = int(probe.getsockname()[1])
        self._holder: socket.socket | None = None
        with contextlib.suppress(Taken):  # closed connections of another program linger there
            self._holder = _bound(host, self.port, socket.SO_REUSEPORT)

    def close(self) -> None:
        if self._holder is not None:
            self._holder.close()


def hold_port(host: str, wanted: int | None) -> HeldPort:
    """`wanted` or nothing else; 0: any free port; None: 8000 or the next free one.

    Raises Taken when there is none, Misconfigured when `host` cannot be listened on.
    """
    if wanted is not None:
        return HeldPort(host, wanted)
    for port in range(PORT, PORT + PORTS_TRIED):
        with contextlib.suppress(Taken):
            return HeldPort(host, port)
    raise Taken(f"no free port from {PORT} to {PORT + PORTS_TRIED - 1}")


def _bound(host: str, port: int, option: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, option, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Taken(f"port {port} is in use; choose another with --port") from None
        raise Misconfigured(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return bound


def http_url(settings: Settings) -> str:
    """Address for a browser on this machine."""
    host = "127.0.0.1" if settings.host in WILDCARDS else settings.host
    return _url(settings, f"[{host}]" if ":" in host else host)


def lan_url(settings: Settings) -> str:
    """Address for another device; empty when only this machine can connect or there is none."""
    if settings.host not in WILDCARDS:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; picks the outgoing address
        except OSError:
            return ""
        return _url(settings, probe.getsockname()[0])


def _url(settings: Settings, host: str) -> str:
    scheme = "https" if settings.tls_cert else "http"
    return f"{scheme}://{host}:{settings.port}"
