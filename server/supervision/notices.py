"""What a process says about itself to whoever started it, as sd_notify(3) has it.

The starter listens on a socket of its own for each child (`Notices`) and names it in the child's
NOTIFY_SOCKET; the child says READY=1 and STOPPING=1. systemd (Type=notify) understands the same.
"""

import contextlib
import socket
from pathlib import Path
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"  # nothing new is accepted any more
DATAGRAM_BYTES_MAX: Final = 4_096


class Notices:
    """A socket at `path` (103 bytes at most) and what was said there. Raises OSError.

    `has` may still be asked after `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said: set[str] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))

    def has(self, what: str) -> bool:
        """Whether `what` was said by now."""
        with contextlib.suppress(OSError):  # nothing more there, or closed
            while True:
                said = self._socket.recv(DATAGRAM_BYTES_MAX)
                self._said.update(said.decode(errors="replace").splitlines())
        return what in self._said

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


def say(what: str, to: str) -> None:
    """Tell the starter who listens at `to`; "": nobody does. One who has gone away is no fault."""
    if not to:
        return
    address = "\0" + to[1:] if to.startswith("@") else to  # "@": Linux' abstract names
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
        out.sendto(what.encode(), address)
