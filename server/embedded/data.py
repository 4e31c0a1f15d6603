"""The data directory: its lock, the secret, the recorded choice of servers, and what runs in it.

DIR/lock         flock of the running supervisor
DIR/secret       signs tokens, mode 600, made once
DIR/servers.json where the servers' data are and which servers wrote them
DIR/running.json addresses while a supervisor runs (`livesale audit` and others read it)
DIR/logs/        one file per part
HOME/valkey, HOME/postgres   the data; HOME is DIR or a directory below /var/lib/livesale
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from server.embedded import place
from server.embedded.binaries import Binary
from server.errors import Misconfigured
from server.supervision.child import Account

SECRET_BYTES = 48


@dataclass(frozen=True, slots=True)
class Running:
    """A supervisor at work: its process, address (empty until ready), servers and sockets."""

    pid: int
    http: str
    redis_url: str
    database_url: str
    sockets: str


class DataDirectory:
    """One data directory, not yet locked. Paths inside are made on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.logs = self.path / "logs"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directory for this process. Raises Misconfigured when another one does."""
        self._make()
        with _exclusive(self.path / "lock") as got:
            if not got:
                raise Misconfigured(f"already running{self._where()}, data in {self.path}")
            self._clear_remains()
            try:
                yield
            finally:
                (self.path / "running.json").unlink(missing_ok=True)

    def _where(self) -> str:
        running = self.running()
        return f" at {running.http} (pid {running.pid})" if running and running.http else ""

    def running(self) -> Running | None:
        """What the supervisor at work here wrote; None when there is none."""
        try:
            facts = Running(**json.loads((self.path / "running.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return facts if _alive(facts.pid) else None

    def write_running(self, running: Running) -> None:
        _write_private(self.path / "running.json", json.dumps(asdict(running)))

    def has_secret(self) -> bool:
        return (self.path / "secret").exists()

    def secret(self) -> str:
        """The signing secret, made at the first call."""
        file = self.path / "secret"
        if not self.has_secret():
            _write_private(file, secrets.token_urlsafe(SECRET_BYTES))
        return file.read_text().strip()

    @contextlib.contextmanager
    def home_locked(self, account: Account | None) -> Iterator[Path]:
        """The home, held for this process: a copied data directory names the same one."""
        home = self.home(account)
        if home == self.path:
            yield home
            return
        with _exclusive(home / "lock") as got:
            if not got:
                raise Misconfigured(f"{home} is in use by another copy of {self.path}")
            yield home

    def home(self, account: Account | None) -> Path:
        """Where the servers' data lie: as recorded, else chosen now and recorded."""
        recorded = self._servers().get("home")
        if recorded is not None:
            home = self.path if recorded == "." else Path(recorded)
            if not home.is_dir():
                raise Misconfigured(
                    f"the servers' data of {self.path} were in {home}, which is gone: "
                    "bring it back, or start with an empty --data directory"
                )
            return home
        home = place.new_home(self.path, account)
        self._record("home", "." if home == self.path else str(home))
        return home

    def recorded(self, name: str, data: Path) -> Binary | None:
        """Which server ("valkey", "postgres") wrote `data`; None while there are no data."""
        row = self._servers().get(name)
        if row is None or not data.is_dir() or not any(data.iterdir()):
            return None
        return Binary(row["source"], row["product"], tuple(row["version"]), Path(row["path"]))

    def record(self, name: str, binary: Binary) -> None:
        self._record(name, {**binary._asdict(), "path": str(binary.path)})

    def _record(self, name: str, value: object) -> None:
        text = json.dumps({**self._servers(), name: value}, indent=2)
        _write_private(self.path / "servers.json", text)

    def _servers(self) -> dict[str, Any]:
        try:
            found = json.loads((self.path / "servers.json").read_text())
        except FileNotFoundError:
            return {}
        return found if isinstance(found, dict) else {}

    def _make(self) -> None:
        """Private; as root others may pass through (the secret and the data are still private)."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            self.logs.mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise Misconfigured(f"cannot use {self.path} for data: {error.strerror}") from None

    def _clear_remains(self) -> None:
        """Remove the socket directory of a supervisor that was killed."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            left = Running(**json.loads((self.path / "running.json").read_text()))
            if Path(left.sockets).name.startswith("livesale-"):
                shutil.rmtree(left.sockets, ignore_errors=True)


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[bool]:
    file: IO[str]
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write_private(path: Path, text: str) -> None:
    """Write a file of mode 600 as a whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
